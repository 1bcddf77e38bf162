"""A table that costs what is on the screen, however many rows it holds.

Textual's DataTable pays for every row when cells change; this one draws the lines in sight, keeps
the cursor on its row by key, and on new data sends only the cells that look different.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from castray_tui.screens.widgets.cells import Cell, Piece, Role, fit, text_width
from castray_tui.screens.widgets.columns import Column, Paint, PlacedColumn, place_columns
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.roles import role_styles
from castray_tui.screens.widgets.row_list import Order, RowList

RowT = TypeVar("RowT")
KeyT = TypeVar("KeyT", bound=Hashable)

GUTTER = 1
"""Cells before the first column, for the mark."""
HEADER = 1
"""Lines above the first row."""


class VirtualTable(ScrollView, Generic[KeyT, RowT], can_focus=True):
    """Rows by key, a cursor, marks, a filter and a sort order.

    Args:
        columns: All columns; those that fit are shown.
        glyphs: The signs to draw with.
        natural: The order of rows while the user asked for none.
        row_role: The role of a row's plain text, to draw whole rows quiet.
        empty: What to say where there are no rows, a line each.
        markable: Whether rows can be marked.
        clock: Seconds since the epoch.
    """

    DEFAULT_CSS = """
    VirtualTable { overflow-x: hidden; scrollbar-size-vertical: 1; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--cursor",
        "table--cursor-blurred",
    }
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", id="table.down", show=False, tooltip="Next row"),
        Binding("k,up", "move(-1)", "Up", id="table.up", show=False, tooltip="Row before"),
        Binding("g,home", "first", "First", id="table.first", show=False, tooltip="First row"),
        Binding("G,end", "last", "Last", id="table.last", show=False, tooltip="Last row"),
        Binding(
            "pagedown,ctrl+f", "page(1)", "Page down", id="table.page_down", show=False,
            tooltip="One page down",
        ),
        Binding(
            "pageup,ctrl+b", "page(-1)", "Page up", id="table.page_up", show=False,
            tooltip="One page up",
        ),
        Binding(
            "enter", "choose", "Details", key_display="enter", id="table.choose",
            tooltip="Details of the row under the cursor",
        ),
    ]  # fmt: skip

    class CursorMoved(Message):
        """The cursor is on another row."""

    class Chosen(Message):
        """The row under the cursor was chosen with enter or a double click."""

        def __init__(self, table: VirtualTable[Any, Any]) -> None:
            self.table = table
            super().__init__()

        @property
        def control(self) -> VirtualTable[Any, Any]:
            """The table."""
            return self.table

    class OrderChanged(Message):
        """What is shown changed: sorted, filtered or marked."""

    def __init__(
        self,
        columns: Sequence[Column[RowT]],
        glyphs: Glyphs,
        *,
        natural: Callable[[RowT], Order],
        row_role: Callable[[RowT], Role] = lambda _: "",
        empty: Sequence[str] = ("Nothing here yet.",),
        markable: bool = False,
        clock: Callable[[], float] = time.time,
        id: str | None = None,  # noqa: A002 - Textual's word
    ) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._glyphs = glyphs
        self._row_role = row_role
        self._empty = tuple(empty)
        self._clock = clock
        self._list: RowList[KeyT, RowT] = RowList(natural)
        self._cursor_index = 0
        self._cursor_key: KeyT | None = None
        self._marks: set[KeyT] = set()
        self.markable = markable
        self._hidden: frozenset[str] = frozenset()
        self._placed: tuple[PlacedColumn[RowT], ...] = ()
        self._placed_width = -1
        self._content_widths: dict[str, int] = {}
        self._drawn: dict[KeyT, tuple[Cell, ...]] = {}
        self._sort_column: Column[RowT] | None = None
        self._descending = False

    # --- what is shown --------------------------------------------------------------------------

    @property
    def rows(self) -> Mapping[KeyT, RowT]:
        """All rows, shown or not."""
        return self._list.rows

    @property
    def shown_keys(self) -> Sequence[KeyT]:
        """The keys of the rows that pass the filter, in order."""
        return self._list.shown

    @property
    def cursor_key(self) -> KeyT | None:
        """The key of the row under the cursor, None where nothing is shown."""
        return self._cursor_key

    @property
    def cursor_row(self) -> RowT | None:
        """The row under the cursor."""
        return None if self._cursor_key is None else self.rows.get(self._cursor_key)

    @property
    def marked_keys(self) -> Sequence[KeyT]:
        """The keys of marked rows in the order of the table, those the filter hides at the end."""
        shown = [key for key in self._list.shown if key in self._marks]
        return shown + [key for key in self._marks if not self._list.is_shown(key)]

    @property
    def sort_title(self) -> str | None:
        """The column sorted by, None in the natural order."""
        return None if self._sort_column is None else self._sort_column.key

    @property
    def placed_columns(self) -> Sequence[PlacedColumn[RowT]]:
        """The columns that the present width has room for."""
        self._place()
        return self._placed

    # --- data -----------------------------------------------------------------------------------

    def set_rows(self, rows: Mapping[KeyT, RowT], *, without: frozenset[str] = frozenset()) -> None:
        """Takes over new data; only what looks different is drawn again.

        Args:
            rows: All rows by key.
            without: Keys of columns that have nothing to say about these rows.
        """
        top_before = self._cursor_index - self.scroll_offset.y
        membership = self._list.update(rows)
        self._marks &= rows.keys()
        if without != self._hidden:
            self._hidden = without
            membership = True
        if membership:
            self._order_changed(top_before)
        else:
            self.redraw_changes()

    def set_filter(self, passes: Callable[[RowT], bool] | None) -> None:
        """Shows only rows that pass; None shows all."""
        self._list.filter(passes)
        self._order_changed(None)

    def redraw_changes(self) -> None:
        """Draws again the cells in sight that look different from what was drawn, ages included."""
        if not self.is_mounted or not self._drawn:
            return
        now = self._clock()
        top = self.scroll_offset.y
        drawn: dict[KeyT, tuple[Cell, ...]] = {}
        for line in range(self._row_lines):
            index = top + line
            if index >= len(self._list):
                break
            key = self._list.shown[index]
            before = self._drawn.get(key)
            cells = self._cells(key, now)
            drawn[key] = cells
            if before is None or len(before) != len(cells):
                self.refresh(Region(0, HEADER + line, self.size.width, 1))
            elif before != cells:
                if self._row_role_of(key) != "" or before[0] != cells[0]:
                    self.refresh(Region(0, HEADER + line, self.size.width, 1))
                    continue
                for placed, old, new in zip(self._placed, before, cells, strict=True):
                    if old != new:
                        self.refresh(Region(GUTTER + placed.x, HEADER + line, placed.width, 1))
        self._drawn = drawn

    def say_when_empty(self, *lines: str) -> None:
        """What stands there while there are no rows."""
        self._empty = lines
        self.refresh()

    # --- order and marks ------------------------------------------------------------------------

    def sort_by(self, column_key: str | None, *, descending: bool | None = None) -> None:
        """Sorts by a column, None for the natural order; the cursor stays on its row."""
        column = next((one for one in self._columns if one.key == column_key), None)
        self._sort_column = column if column is not None and column.value is not None else None
        if descending is None:
            descending = self._sort_column is not None and self._sort_column.descends
        self._descending = descending
        value = None if self._sort_column is None else self._sort_column.value
        self._list.sort(value, descending=self._descending)
        self._order_changed(None)

    def sort_next(self) -> None:
        """Sorts by the next of the columns shown; after the last, the natural order again."""
        sortable = [
            placed.column.key for placed in self.placed_columns if placed.column.value is not None
        ]
        if self._sort_column is None or self._sort_column.key not in sortable:
            self.sort_by(sortable[0] if sortable else None)
            return
        after = sortable.index(self._sort_column.key) + 1
        self.sort_by(sortable[after] if after < len(sortable) else None)

    def sort_reverse(self) -> None:
        """Turns the order round."""
        column = None if self._sort_column is None else self._sort_column.key
        self.sort_by(column, descending=not self._descending)

    def sort_again(self) -> None:
        """Sorts once more by the same column, with the data as it is now."""
        self._list.sort_again()
        self._order_changed(None)

    @property
    def order_words(self) -> str:
        """How rows are ordered, in words; empty in the natural order."""
        if self._sort_column is None and not self._descending:
            return ""
        title = "cluster" if self._sort_column is None else self._sort_column.key
        return f"{title} {self._glyphs.down if self._descending else self._glyphs.up}"

    def toggle_mark(self) -> None:
        """Marks the row under the cursor, or unmarks it, and moves on to the next."""
        key = self._cursor_key
        if key is None or not self.markable:
            return
        self._marks ^= {key}
        self._refresh_row(self._cursor_index)
        self.move_cursor(self._cursor_index + 1)
        self.post_message(self.OrderChanged())

    def toggle_all_marks(self) -> None:
        """Marks every row shown; where all are marked, unmarks them."""
        if not self.markable:
            return
        shown = set(self._list.shown)
        self._marks = self._marks - shown if shown <= self._marks else self._marks | shown
        self.refresh()
        self.post_message(self.OrderChanged())

    def clear_marks(self) -> None:
        """Unmarks everything."""
        self._marks.clear()
        self.refresh()
        self.post_message(self.OrderChanged())

    # --- cursor ---------------------------------------------------------------------------------

    def move_cursor(self, index: int) -> None:
        """Puts the cursor on the row at ``index``, bounded to the rows there are."""
        if not len(self._list):
            return
        index = min(max(index, 0), len(self._list) - 1)
        before = self._cursor_index
        key = self._list.shown[index]
        moved = key != self._cursor_key
        self._cursor_index, self._cursor_key = index, key
        if moved:
            self._refresh_row(before)
            self._refresh_row(index)
            self.post_message(self.CursorMoved())
        self._show_cursor()

    def move_cursor_to(self, key: KeyT) -> bool:
        """Puts the cursor on a row; False where it is not shown."""
        index = self._list.index(key)
        if index is None:
            return False
        self.move_cursor(index)
        return True

    def action_move(self, rows: int) -> None:
        """Moves the cursor by a number of rows."""
        self.move_cursor(self._cursor_index + rows)

    def action_page(self, pages: int) -> None:
        """Moves the cursor by a page."""
        self.move_cursor(self._cursor_index + pages * max(self._row_lines - 1, 1))

    def action_first(self) -> None:
        """Moves the cursor to the first row."""
        self.move_cursor(0)

    def action_last(self) -> None:
        """Moves the cursor to the last row."""
        self.move_cursor(len(self._list) - 1)

    def action_choose(self) -> None:
        """Asks for the details of the row under the cursor."""
        if self._cursor_key is not None:
            self.post_message(self.Chosen(self))

    # --- drawing --------------------------------------------------------------------------------

    @property
    def _row_lines(self) -> int:
        return max(self.scrollable_content_region.height - HEADER, 0)

    def _cells(self, key: KeyT, now: float) -> tuple[Cell, ...]:
        row = self._list.rows[key]
        return tuple(
            placed.column.cell(row, Paint(now, self._glyphs, placed.width))
            for placed in self._placed
        )

    def _row_role_of(self, key: KeyT) -> Role:
        return self._row_role(self._list.rows[key])

    def _place(self) -> None:
        width = self.scrollable_content_region.width - GUTTER
        if width == self._placed_width:
            return
        self._placed_width = width
        self._placed = place_columns(
            self._columns, width, content_widths=self._content_width, without=self._hidden
        )
        self._drawn = {}

    def _content_width(self, column: Column[RowT]) -> int:
        known = self._content_widths.get(column.key)
        if known is None:
            assert column.content is not None
            known = max(map(column.content, self._list.rows.values()), default=0)
            self._content_widths[column.key] = known
        return known

    def _order_changed(self, cursor_line: int | None) -> None:
        """Finds the cursor's row again and draws everything.

        Args:
            cursor_line: The line of the view that the cursor's row is to stay on; None lets it
                move with its row.
        """
        found = self._list.index(self._cursor_key, self._cursor_index)
        if found is None:
            found = min(self._cursor_index, max(len(self._list) - 1, 0))
            self._cursor_key = self._list.shown[found] if len(self._list) else None
        self._cursor_index = found
        self._content_widths.clear()
        self._placed_width = -1
        self._drawn = {}
        self.virtual_size = Size(self.size.width, HEADER + len(self._list))
        if cursor_line is not None and self.is_mounted:
            self.scroll_to(y=max(found - cursor_line, 0), animate=False)
        self._show_cursor()
        self.refresh()
        self.post_message(self.OrderChanged())

    def _show_cursor(self) -> None:
        lines = self._row_lines
        if lines <= 0:
            return
        top = self.scroll_offset.y
        if self._cursor_index < top:
            self.scroll_to(y=self._cursor_index, animate=False)
        elif self._cursor_index >= top + lines:
            self.scroll_to(y=self._cursor_index - lines + 1, animate=False)

    def _refresh_row(self, index: int) -> None:
        line = index - self.scroll_offset.y
        if 0 <= line < self._row_lines:
            self.refresh(Region(0, HEADER + line, self.size.width, 1))

    def on_resize(self) -> None:
        """Chooses columns for the new width and keeps the cursor in sight."""
        self._placed_width = -1
        self.virtual_size = Size(self.size.width, HEADER + len(self._list))
        self._show_cursor()

    def watch_has_focus(self, _has_focus: bool) -> None:
        """Draws the cursor's row, which says whether keys come here."""
        super().watch_has_focus(_has_focus)
        self._refresh_row(self._cursor_index)

    def render_line(self, y: int) -> Strip:
        """Draws one line of the view."""
        self._place()
        width = self.size.width
        base = self.rich_style
        if not len(self._list):
            return self._empty_strip(y, width, base)
        if y < HEADER:
            return self._header_strip(width)
        index = self.scroll_offset.y + y - HEADER
        if index >= len(self._list):
            return Strip.blank(width, base)
        key = self._list.shown[index]
        cells = self._drawn.get(key)
        if cells is None:
            cells = self._drawn[key] = self._cells(key, self._clock())
        quiet = self._row_role_of(key)
        roles = role_styles(self.app)
        mark: Piece = (self._glyphs.mark, "accent") if key in self._marks else (" ", "")
        style = base
        if index == self._cursor_index:
            style = base + self.get_component_rich_style(
                "table--cursor" if self.has_focus else "table--cursor-blurred"
            )
        segments = [Segment(mark[0], style + roles[mark[1]])]
        for number, (placed, cell) in enumerate(zip(self._placed, cells, strict=True)):
            if number:
                segments.append(Segment(" ", style))
            pieces = fit(
                cell, placed.width, right=placed.column.right, ellipsis=self._glyphs.ellipsis
            )
            dulled = quiet if quiet and not placed.column.loud else None
            segments += [
                Segment(text, style + roles[dulled or role or quiet])
                for text, role in pieces
                if text
            ]
        return Strip(segments).adjust_cell_length(width, style)

    def _header_strip(self, width: int) -> Strip:
        style = self.rich_style + self.get_component_rich_style("table--header")
        segments = [Segment(" " * GUTTER, style)]
        for number, placed in enumerate(self._placed):
            if number:
                segments.append(Segment(" ", style))
            title = placed.column.title
            if placed.column is self._sort_column:
                arrow = self._glyphs.down if self._descending else self._glyphs.up
                title = title[: placed.width - 1] + arrow
            for text, _ in fit(
                ((title, ""),), placed.width, right=placed.column.right,
                ellipsis=self._glyphs.ellipsis,
            ):  # fmt: skip
                bold = Style(bold=True) if placed.column is self._sort_column else Style.null()
                segments.append(Segment(text, style + bold))
        return Strip(segments).adjust_cell_length(width, style)

    def _empty_strip(self, line: int, width: int, base: Style) -> Strip:
        lines = self._empty if not self.rows else ("Nothing passes the filter; esc clears it.",)
        if line >= len(lines):
            return Strip.blank(width, base)
        text = lines[line]
        indent = max((width - text_width(text)) // 2, 1) if width > 60 else 1
        pieces = fit(((" " * indent + text, "dim"),), width, ellipsis=self._glyphs.ellipsis)
        roles = role_styles(self.app)
        return Strip([Segment(text, base + roles[role]) for text, role in pieces], width)

    # --- mouse ----------------------------------------------------------------------------------

    async def _on_click(self, event: events.Click) -> None:
        if event.widget is not self:
            return
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y < HEADER:
            for placed in self._placed:
                if placed.x <= offset.x - GUTTER < placed.x + placed.width:
                    if placed.column is self._sort_column:
                        self.sort_reverse()
                    elif placed.column.value is not None:
                        self.sort_by(placed.column.key)
            return
        index = self.scroll_offset.y + offset.y - HEADER
        if index < len(self._list):
            self.move_cursor(index)
            if event.chain == 2:
                self.action_choose()
