"""The filter of tables that hold no nodes: text, ``!`` inverse, ``/re/``, ``state:…``.

Nodes have a grammar of their own, ``castray_tui.core.node_filter``, which the command line shares;
this one reads the same way with fewer fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from castray_tui.core.node_filter import expression_finder

RowT = TypeVar("RowT")
_TERM = re.compile(r'(!?)(?:(state|cluster):)?(?:/((?:\\/|[^/])*)(?:/|$)|"([^"]*)(?:"|$)|(\S+))')


def parse_text_filter(
    text: str, texts: Callable[[RowT], Sequence[str | None]]
) -> Callable[[RowT], bool]:
    """Reads a filter.

    Args:
        text: As typed; terms apart by spaces must all hold. ``state:`` and ``cluster:`` are read
            as the text that follows them.
        texts: The texts of a row that are looked at.

    Returns:
        Whether a row passes.

    Raises:
        UsageError: A regular expression cannot be read.
    """
    terms: list[tuple[bool, Callable[[str], bool]]] = []
    for inverse, _, expression, quoted, word in _TERM.findall(text):
        if expression:
            terms.append((bool(inverse), expression_finder(expression)))
        elif quoted or word:
            terms.append((bool(inverse), _holder((quoted or word).casefold())))

    def passes(row: RowT) -> bool:
        known = [value for value in texts(row) if value]
        return all(any(map(found, known)) != inverse for inverse, found in terms)

    return passes


def _holder(wanted: str) -> Callable[[str], bool]:
    return lambda value: wanted in value.casefold()
