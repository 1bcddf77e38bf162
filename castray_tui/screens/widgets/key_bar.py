"""The line at the bottom: the keys that work now, made from the bindings themselves."""

from __future__ import annotations

from textual.screen import Screen

from castray_tui.screens.widgets.cells import Cell, Piece, cell_width
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.line import Line

_CHARACTERS = {"slash": "/", "asterisk": "*", "colon": ":", "question_mark": "?", "space": " "}


def types_into_focus(screen: Screen[object], key: str) -> bool:
    """Whether the key is a character that the focused field takes as text."""
    focused = screen.focused
    if focused is None:
        return False
    character = key if len(key) == 1 else _CHARACTERS.get(key)
    return character is not None and focused.check_consume_key(key, character)


class KeyBar(Line):
    """Keys and what they do, as many as fit; help, the way out, and what stops a transfer always
    stay."""

    _ALWAYS = ("app.help", "fleet.quit", "screen.back", "fleet.cancel_transfer")

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:  # noqa: A002 - Textual's
        super().__init__(glyphs, id=id)
        self._keys: list[tuple[str | None, Cell]] = []

    def on_mount(self) -> None:
        """Follows the bindings of the screen."""
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)
        self._bindings_changed(self.screen)

    def _bindings_changed(self, screen: Screen[object]) -> None:
        if not screen.is_attached:
            return
        keys: list[tuple[str | None, Cell]] = []
        seen: set[str] = set()
        for _, binding, enabled, _ in screen.active_bindings.values():
            if not binding.show or binding.action in seen or not binding.description:
                continue
            if types_into_focus(screen, binding.key):
                continue
            seen.add(binding.action)
            display = self.app.get_key_display(binding)
            piece: Cell = (
                (display, "accent" if enabled else "dim"),
                (f" {binding.description}", "" if enabled else "dim"),
            )
            keys.append((binding.id, piece))
        if keys != self._keys:
            self._keys = keys
            self.refresh()

    @property
    def text(self) -> str:
        """All keys there are, whether they fit or not."""
        return "  ".join("".join(text for text, _ in piece) for _, piece in self._keys)

    def cell(self, width: int) -> Cell:
        """As many keys as fit."""
        always = [piece for key_id, piece in self._keys if key_id in self._ALWAYS]
        room = width - 1 - sum(cell_width(piece) + 2 for piece in always)
        pieces: list[Piece] = [(" ", "")]
        for key_id, piece in self._keys:
            if key_id in self._ALWAYS:
                continue
            wanted = cell_width(piece) + 2
            if wanted > room:
                continue
            pieces += [*piece, ("  ", "")]
            room -= wanted
        for piece in always:
            pieces += [*piece, ("  ", "")]
        left = width - cell_width(pieces)
        return (*pieces, (" " * left, "")) if left > 0 else tuple(pieces)
