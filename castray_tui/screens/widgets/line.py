"""One line of text in pieces, drawn again only when it changed."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from castray_tui.screens.widgets.cells import EMPTY_CELL, Cell, fit
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.roles import role_styles


class Line(Widget):
    """One line. Its text is data, never markup."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"
    ALLOW_SELECT = False

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:  # noqa: A002 - Textual's
        super().__init__(id=id)
        self._glyphs = glyphs
        self._left: Cell = EMPTY_CELL

    @property
    def text(self) -> str:
        """What the line says, whole."""
        return "".join(text for text, _ in self._left)

    def show(self, left: Cell) -> None:
        """Puts new text on the line."""
        if left != self._left:
            self._left = left
            self.refresh()

    def cell(self, width: int) -> Cell:
        """What to draw in ``width`` cells; a line that knows better than to cut overrides this."""
        return fit(self._left, width, ellipsis=self._glyphs.ellipsis)

    def render_line(self, y: int) -> Strip:
        """Draws the line."""
        width = self.size.width
        base = self.rich_style
        if y:
            return Strip.blank(width, base)
        roles = role_styles(self.app)
        return Strip(
            [Segment(text, base + roles[role]) for text, role in self.cell(width) if text], width
        )
