"""Printing: data on standard output, messages on standard error, tables aligned by cell width."""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from castray_tui.core.text_safety import safe_text
from castray_tui.core.wire_format import JsonObject, JsonValue

_ASCII_FOR = str.maketrans(
    {"…": "...", "→": "->", "—": "-", "·": "-", "✓": "ok", "✗": "x", "≥": ">=", "█": "#", "░": "."}
)
_COLUMN_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people."""

    title: str
    right: bool = False


def print_json(document: JsonObject, *, one_line: bool = False) -> None:
    """Prints one JSON document on standard output, over several lines unless ``one_line``."""
    unicode_works = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(
        document,
        indent=None if one_line else 2,
        ensure_ascii=not unicode_works,
        allow_nan=False,
    )
    # Lone surrogates come from file names that are no UTF-8; they cannot be printed as they are.
    sys.stdout.write(text.encode("utf-8", "replace").decode() if unicode_works else text)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_line(text: str = "", *, ascii_only: bool = False) -> None:
    """Prints one line of data for people on standard output."""
    sys.stdout.write(printable(text, sys.stdout.encoding, ascii_only) + "\n")


def print_message(text: str, *, ascii_only: bool = False) -> None:
    """Prints one message on standard error. Control characters in it are made harmless."""
    line = safe_text(text, limit=4_000, keep_newlines=True)
    sys.stderr.write(printable(line, sys.stderr.encoding, ascii_only) + "\n")
    sys.stderr.flush()


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, ascii_only: bool = False
) -> None:
    """Prints a table on standard output, every column as wide as its widest cell.

    Args:
        columns: Titles and directions.
        rows: The cells; text from clusters may stand in them, but not markup or colours.
        ascii_only: Whether castray's own signs are spelled in ASCII.
    """
    encoding = sys.stdout.encoding
    table = [[column.title for column in columns]]
    table += [[printable(safe_text(cell), encoding, ascii_only) for cell in row] for row in rows]
    widths = [max(cell_width(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        cells = [
            _padded(cell, width, column.right)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        sys.stdout.write(_COLUMN_GAP.join(cells).rstrip() + "\n")
    sys.stdout.flush()


def cell_width(text: str) -> int:
    """How many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def printable(text: str, encoding: str | None, ascii_only: bool) -> str:
    """The text as a stream of that encoding can show it."""
    if ascii_only:
        return text.translate(_ASCII_FOR).encode("ascii", "replace").decode()
    # What the terminal's encoding does not have becomes a question mark rather than an error.
    codec = encoding or "utf-8"
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return text.translate(_ASCII_FOR).encode(codec, "replace").decode(codec)
    return text


# --- figures for people -----------------------------------------------------------------------


def bytes_text(count: float | None) -> str:
    """``1.5 GB``; ``-`` where nothing is known."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            digits = 0 if unit == "B" or abs(amount) >= 99.95 else 1
            return f"{amount:.{digits}f} {unit}"
        amount /= 1000.0
    raise AssertionError("unreachable")


def seconds_text(seconds: float | None) -> str:
    """``0.8 s``, ``75 s``, ``12 min``, ``3 h``, ``4 d``; ``-`` where nothing is known."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    for limit, divisor, unit in ((100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            amount = seconds / divisor
            return f"{amount:.1f} {unit}" if amount < 10 and unit == "s" else f"{amount:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def amount_text(amount: float | None) -> str:
    """A logical resource without needless digits: ``4``, ``0.5``."""
    return "-" if amount is None else f"{amount:g}"


def percent_text(percent: float | None) -> str:
    """``42 %``; ``-`` where nothing is known."""
    return "-" if percent is None else f"{percent:.0f} %"


def texts(value: JsonValue) -> str:
    """A JSON value as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(texts(entry) for entry in value)
    return str(value)
