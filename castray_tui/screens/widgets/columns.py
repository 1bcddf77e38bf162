"""Columns of a table, and which of them a given width has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from castray_tui.screens.widgets.cells import Cell
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.row_list import SortValue

RowT = TypeVar("RowT")

GAP = 1
"""Cells between two columns."""
_NICE_TO_HAVE = 5


@dataclass(frozen=True, slots=True)
class Paint:
    """What a cell may know besides its row.

    Attributes:
        now: Seconds since the epoch, for ages.
        glyphs: The signs to draw with.
        width: Cells of the column, for meters.
    """

    now: float
    glyphs: Glyphs
    width: int


@dataclass(frozen=True, slots=True)
class Column(Generic[RowT]):
    """One column.

    Attributes:
        key: Its name in the configuration and in commands.
        title: What stands over it.
        cell: What to draw for a row.
        width: The least cells it needs.
        most: The most cells it takes where there is room.
        priority: 0 stays always; the highest number is dropped first where room is short.
        right: Whether text is put at the right end.
        value: What rows are sorted by; None where the column cannot be sorted by.
        descends: Whether the first sort by it puts the highest first.
        content: How wide its content is, where the column grows to its longest content before
            others grow.
        wish: Cells that it should have before columns of priority 5 and more get a place.
        loud: Whether it keeps its colours in a row that is drawn quiet.
    """

    key: str
    title: str
    cell: Callable[[RowT, Paint], Cell]
    width: int
    most: int = 0
    priority: int = 0
    right: bool = False
    value: Callable[[RowT], SortValue] | None = None
    descends: bool = False
    content: Callable[[RowT], int] | None = None
    wish: int = 0
    loud: bool = False


@dataclass(frozen=True, slots=True)
class PlacedColumn(Generic[RowT]):
    """A column that is shown, where it starts and how wide it is, in cells."""

    column: Column[RowT]
    x: int
    width: int


def place_columns(
    columns: Sequence[Column[RowT]],
    width: int,
    *,
    content_widths: Callable[[Column[RowT]], int],
    without: Iterable[str] = (),
) -> tuple[PlacedColumn[RowT], ...]:
    """Chooses the columns that fit and shares out the room.

    Args:
        columns: All columns in their order.
        width: Cells there are.
        content_widths: How wide the longest content of a column with ``content`` is.
        without: Keys of columns to leave out, whatever the room.

    Returns:
        The columns to show, from left to right; together never wider than ``width``, unless those
        of priority 0 alone are.
    """
    hidden = set(without)
    chosen = [column for column in columns if column.key not in hidden]

    def wished(column: Column[RowT]) -> int:
        if column.content is None:
            return max(column.width, column.wish)
        return max(column.width, min(content_widths(column), column.wish))

    def needed(width_of: Callable[[Column[RowT]], int]) -> int:
        return sum(map(width_of, chosen)) + GAP * max(len(chosen) - 1, 0)

    def drop_below(least_priority: int, width_of: Callable[[Column[RowT]], int]) -> None:
        while needed(width_of) > width:
            droppable = [column for column in chosen if column.priority >= least_priority]
            if not droppable:
                return
            # The rightmost of the least important goes first.
            chosen.remove(max(reversed(droppable), key=lambda column: column.priority))

    drop_below(_NICE_TO_HAVE, wished)
    drop_below(1, lambda column: column.width)

    widths = {column.key: column.width for column in chosen}
    room = max(width - needed(lambda column: column.width), 0)
    # What each column wishes for comes before what the first of them could fill.
    for limits in ([column.wish for column in chosen], [column.most for column in chosen]):
        for column, limit in zip(chosen, limits, strict=True):
            if column.content is not None and room:
                wanted = min(content_widths(column), limit) - widths[column.key]
                grown = min(max(wanted, 0), room)
                widths[column.key] += grown
                room -= grown
    growing = [column for column in chosen if column.content is None and column.most > column.width]
    while room and growing:
        for column in list(growing):
            if not room:
                break
            if widths[column.key] >= column.most:
                growing.remove(column)
                continue
            widths[column.key] += 1
            room -= 1

    placed: list[PlacedColumn[RowT]] = []
    x = 0
    for column in chosen:
        placed.append(PlacedColumn(column, x, widths[column.key]))
        x += widths[column.key] + GAP
    return tuple(placed)
