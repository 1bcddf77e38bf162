"""What stands in one cell or on one line: pieces of text, each with a role that the theme colours.

Text here is data. It is never parsed as markup, and it is cut by the width it takes on the
terminal, not by its length in characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from rich.cells import cell_len, set_cell_size

from castray_tui.core.text_safety import safe_text

Role: TypeAlias = Literal["", "dim", "strong", "ok", "warn", "bad", "accent", "title"]
"""What a piece of text says; the theme turns it into a colour."""

Piece: TypeAlias = tuple[str, Role]
Cell: TypeAlias = tuple[Piece, ...]

EMPTY_CELL: Cell = ()


def drawable(text: str) -> str:
    """The text without anything that would move the cursor or steer the terminal."""
    if text.isascii() and text.isprintable():
        return text
    return safe_text(text)


def text_width(text: str) -> int:
    """How many terminal cells the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def cell_width(cell: Iterable[Piece]) -> int:
    """How many terminal cells all pieces take together."""
    return sum(text_width(text) for text, _ in cell)


def cut(text: str, width: int, *, ellipsis: str = "…") -> str:
    """The text in at most ``width`` terminal cells, with ``ellipsis`` where something was cut."""
    if text_width(text) <= width:
        return text
    keep = width - len(ellipsis)
    if keep <= 0:
        return set_cell_size(text, max(width, 0))
    # set_cell_size pads with a space where a wide character would have been cut in two.
    return set_cell_size(text, keep) + ellipsis


def fit(cell: Cell, width: int, *, right: bool = False, ellipsis: str = "…") -> tuple[Piece, ...]:
    """The pieces of a cell in exactly ``width`` terminal cells.

    Args:
        cell: The pieces.
        width: Terminal cells to fill.
        right: Put the text at the right end.
        ellipsis: What marks that something was cut off.

    Returns:
        Pieces that together take exactly ``width`` terminal cells.
    """
    fitted: list[Piece] = []
    left = width
    for index, (raw_text, role) in enumerate(cell):
        text = drawable(raw_text)
        wanted = text_width(text)
        is_last = index == len(cell) - 1
        if wanted > left or (wanted == left and not is_last and cell_width(cell[index + 1 :])):
            fitted.append((cut(text, left, ellipsis=ellipsis), role))
            left = 0
            break
        fitted.append((text, role))
        left -= wanted
    if left:
        padding: Piece = (" " * left, "")
        fitted = [padding, *fitted] if right else [*fitted, padding]
    return tuple(fitted)
