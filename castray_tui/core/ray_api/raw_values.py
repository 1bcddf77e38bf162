"""Takes single values out of what a cluster sent: whatever is not as it should be is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from castray_tui.core.text_safety import safe_text

LARGEST_BYTES = 10**18
_LARGEST_MILLISECONDS = 10**14
_NAME_CHARACTERS = 200
_MOST_ENTRIES = 1_000


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[object]:
    """The value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def at(values: Sequence[object], index: int) -> object:
    """One entry of a list that may be too short for it."""
    return values[index] if index < len(values) else None


def number(value: object, *, lowest: float = 0.0, highest: float = 1e18) -> float | None:
    """A finite number within bounds, also where it came as text; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 32:
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and lowest <= found <= highest else None


def whole(value: object, *, lowest: int = 0, highest: int = LARGEST_BYTES) -> int | None:
    """A number within bounds as a whole one, else None."""
    found = number(value, lowest=lowest, highest=highest)
    return None if found is None else int(found)


def seconds_of_milliseconds(value: object) -> float | None:
    """A time in milliseconds since the epoch as seconds; Ray's 0 means not yet."""
    found = number(value, highest=_LARGEST_MILLISECONDS)
    return found / 1000.0 if found else None


def text(value: object, *, limit: int = _NAME_CHARACTERS) -> str | None:
    """Text made safe, None for what is no text or empty."""
    return safe_text(value, limit=limit) if isinstance(value, str) and value else None


def numbers(value: object) -> dict[str, float]:
    """A JSON object's entries that are names with sensible numbers."""
    found: dict[str, float] = {}
    for name, raw in list(mapping(value).items())[:_MOST_ENTRIES]:
        amount = number(raw)
        if amount is not None:
            found[safe_text(name, limit=_NAME_CHARACTERS)] = amount
    return found


def texts(value: object) -> dict[str, str]:
    """A JSON object's entries that are names with texts."""
    return {
        safe_text(name, limit=_NAME_CHARACTERS): safe_text(raw, limit=_NAME_CHARACTERS)
        for name, raw in list(mapping(value).items())[:_MOST_ENTRIES]
        if isinstance(raw, str)
    }
