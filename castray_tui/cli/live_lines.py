"""Lines on a terminal that are drawn again in place, whatever becomes of its size."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from castray_tui.cli.output import cell_width, printable
from castray_tui.cli.transfer_progress import Mood, ProgressText
from castray_tui.core.text_safety import safe_text

_DEFAULT_SIZE = (80, 24)
_COLORS: dict[Mood, str] = {"good": "32", "bad": "31"}


def can_redraw(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}


class LiveLines:
    """Some lines at the bottom of a terminal.

    Args:
        color: Whether good and bad news are coloured.
        ascii_only: Whether castray's own signs are spelled in ASCII.
        stream: The terminal; standard error unless told otherwise.
    """

    def __init__(
        self, *, color: bool, ascii_only: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._color = color
        self._ascii_only = ascii_only
        self._drawn: list[int] = []
        """The cells that each line on the screen takes."""

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal now."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return _DEFAULT_SIZE
        return columns or _DEFAULT_SIZE[0], lines or _DEFAULT_SIZE[1]

    def draw(self, lines: Sequence[ProgressText]) -> None:
        """Shows these lines in place of those that were shown before."""
        texts = [
            printable(safe_text(line.text), self._stream.encoding, self._ascii_only)
            for line in lines
        ]
        shown = [
            f"\x1b[{_COLORS[line.mood]}m{text}\x1b[0m"
            if self._color and line.mood in _COLORS
            else text
            for line, text in zip(lines, texts, strict=True)
        ]
        self._stream.write(self._back() + "\r\n".join(shown))
        self._stream.flush()
        self._drawn = [cell_width(text) for text in texts]

    def clear(self) -> None:
        """Takes all lines away; the cursor is where the first one began."""
        if self._drawn:
            self._stream.write(self._back())
            self._stream.flush()
            self._drawn = []

    def _back(self) -> str:
        """Moves to the first cell of the first line and clears from there on. A terminal that has
        become narrower has folded the lines that are too wide for it now."""
        columns, _ = self.size()
        rows = sum(max(1, -(-cells // columns)) for cells in self._drawn)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}\x1b[J"
