"""Numbers as people read them in a narrow column. Unknown is a dash, never a zero."""

from __future__ import annotations

from datetime import datetime

UNKNOWN = "-"
_BINARY_UNITS = ("B", "K", "M", "G", "T", "P", "E")
_FRESH = 5
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def size(amount_bytes: float | None) -> str:
    """Bytes in at most five characters: ``512B``, ``1.5K``, ``934M``. Powers of 1,024."""
    if amount_bytes is None:
        return UNKNOWN
    amount = float(amount_bytes)
    for unit in _BINARY_UNITS:
        if abs(amount) < 999.5 or unit == _BINARY_UNITS[-1]:
            if unit != "B" and abs(amount) < 9.95:
                return f"{amount:.1f}{unit}"
            return f"{amount:.0f}{unit}"
        amount /= 1024
    raise AssertionError("unreachable: the last unit always returns")


def rate(bytes_per_second: float | None) -> str:
    """Bytes a second: ``47M/s``."""
    return UNKNOWN if bytes_per_second is None else f"{size(bytes_per_second)}/s"


def percent(value: float | None) -> str:
    """A share in whole percent: ``43%``."""
    return UNKNOWN if value is None else f"{value:.0f}%"


def share(part: float | None, whole: float | None) -> float | None:
    """``part`` of ``whole`` in percent, None where either is unknown or there is no whole."""
    if part is None or not whole:
        return None
    return 100.0 * part / whole


def amount(value: float | None) -> str:
    """A logical quantity without needless digits: ``8``, ``0.5``, ``1234``."""
    if value is None:
        return UNKNOWN
    if value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 0.1 else f"{value:.2f}"


def used_of(used: float | None, total: float | None) -> str:
    """``2/8``; what is unknown is a dash."""
    if used is None and total is None:
        return UNKNOWN
    return f"{amount(used)}/{amount(total)}"


def age(seconds: float | None) -> str:
    """A length of time in at most four characters: ``3s``, ``12m``, ``5h``, ``9d``."""
    if seconds is None:
        return UNKNOWN
    seconds = max(seconds, 0.0)
    if seconds < 100:
        return f"{int(seconds)}s"
    if seconds < 100 * _MINUTE:
        return f"{int(seconds / _MINUTE)}m"
    if seconds < 100 * _HOUR:
        return f"{int(seconds / _HOUR)}h"
    return f"{int(seconds / _DAY)}d"


def freshness(seconds: float | None) -> str:
    """The age of figures that are asked for every few seconds: below five it says no more than
    that, so that healthy rows need not be drawn again every second."""
    return f"<{_FRESH}s" if seconds is not None and seconds < _FRESH else age(seconds)


def since(moment: float | None, now: float) -> float | None:
    """Seconds from ``moment`` to ``now``, never below zero; None where ``moment`` is unknown."""
    return None if moment is None else max(now - moment, 0.0)


def latency(seconds: float | None) -> str:
    """An answer time: ``12ms``, ``1.4s``."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds * 1000:.0f}ms" if seconds < 0.9995 else f"{seconds:.1f}s"


def duration(seconds: float | None) -> str:
    """A time left or taken: ``0:42``, ``12:05``, ``1:02:05``."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, _HOUR)
    minutes, left = divmod(rest, _MINUTE)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def clock(moment: float | None) -> str:
    """The time of day here: ``14:03:22``."""
    return UNKNOWN if moment is None else datetime.fromtimestamp(moment).strftime("%H:%M:%S")


def date_and_clock(moment: float | None) -> str:
    """Date and time of day here."""
    if moment is None:
        return UNKNOWN
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")
