"""The keys that work where the user is, made from the bindings, so that it is never out of date."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from castray_tui.screens.widgets.glyphs import Glyphs

_TOOLTIP_WIDTH = 43
_GROUPS = (
    ("fleet", "Here"),
    ("table", "In tables"),
    ("", "This window"),
    ("app", "Everywhere"),
)
_FILTER_HELP = (
    ("gpu", "some text of the row holds it"),
    ("!gpu", "none does"),
    ("/10\\.0\\.[12]/", "a regular expression finds something"),
    ("state:dead", "also cluster: node: address: host: id: type: reason: label: resource:"),
    ("cluster:ml !state:dead", "every term must hold"),
)


class HelpScreen(ModalScreen[None]):
    """Lists keys.

    Args:
        bindings: What works on the screen that help was asked on.
        glyphs: The signs to draw with.
        typed: Keys that a field takes as text at present.
    """

    CSS_PATH = "dialogs.tcss"
    DEFAULT_CSS = """
    HelpScreen .dialog { height: 100%; max-height: 40; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "dismiss_screen", "Close", id="help.close",
            tooltip="Close help",
        ),
        Binding("j,down", "scroll(1)", "Down", show=False, id="help.down", tooltip="Next line"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="help.up", tooltip="Line before"),
        Binding("g,home", "scroll_home", "Top", show=False, id="help.top", tooltip="To the top"),
        Binding("G,end", "scroll_end", "End", show=False, id="help.end", tooltip="To the end"),
        Binding("space,pagedown", "scroll(10)", "Page down", show=False, id="help.page_down",
            tooltip="One page down",
        ),
        Binding("pageup", "scroll(-10)", "Page up", show=False, id="help.page_up",
            tooltip="One page up",
        ),
    ]  # fmt: skip

    def __init__(
        self, bindings: Sequence[ActiveBinding], glyphs: Glyphs, *, typed: Collection[str] = ()
    ) -> None:
        super().__init__()
        self._typed = frozenset(typed)
        self._active = bindings
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        """Lays out the list."""
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = "Keys"
            dialog.border_subtitle = "esc closes"
            yield Static(self.content(), markup=False)

    def entries(self) -> dict[str, list[tuple[str, str, str]]]:
        """Group, and in it keys, name and what it does, of every binding that works."""
        groups: dict[str, dict[str, tuple[list[str], str, str]]] = {}
        for active in self._active:
            binding = active.binding
            if binding.id is None or binding.system or binding.key in self._typed:
                continue
            prefix = binding.id.partition(".")[0]
            title = next((title for known, title in _GROUPS if known == prefix), "This window")
            entry = groups.setdefault(title, {}).setdefault(
                binding.id, ([], binding.description, binding.tooltip)
            )
            key = self.app.get_key_display(binding)
            if key not in entry[0]:
                entry[0].append(key)
        return {
            title: [(" ".join(keys), name, tooltip) for keys, name, tooltip in entries.values()]
            for title, entries in sorted(
                groups.items(), key=lambda item: [title for _, title in _GROUPS].index(item[0])
            )
        }

    def content(self) -> Content:
        """The list as text."""
        lines: list[Content] = []
        for title, entries in self.entries().items():
            lines.append(Content.assemble((f"{title}", "bold $primary")))
            for keys, name, tooltip in entries:
                first, *more = textwrap.wrap(tooltip, _TOOLTIP_WIDTH) or [""]
                lines.append(
                    Content.assemble(
                        (f"  {keys:<12} ", "$secondary"), (f"{name:<12} ", "bold"), first
                    )
                )
                lines += [Content(" " * 28 + line) for line in more]
            lines.append(Content(""))
        lines.append(Content.assemble(("Filters", "bold $primary")))
        for text, meaning in _FILTER_HELP:
            first, *more = textwrap.wrap(meaning, _TOOLTIP_WIDTH)
            lines.append(Content.assemble((f"  {text:<25} ", "$secondary"), first))
            lines += [Content(" " * 28 + line) for line in more]
        return Content("\n").join(lines)

    def action_dismiss_screen(self) -> None:
        """Closes help."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Scrolls by lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_scroll_home(self) -> None:
        """Scrolls to the top."""
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def action_scroll_end(self) -> None:
        """Scrolls to the end."""
        self.query_one(VerticalScroll).scroll_end(animate=False)
