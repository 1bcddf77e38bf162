"""Times as users write them on the command line."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def past_time(text: str) -> float:
    """``2h`` ago, or a time such as ``2026-01-31`` or ``2026-01-31T18:00Z``.

    A time without a zone is one of this machine.

    Returns:
        Seconds since the epoch.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        # Python before 3.11 knows no Z.
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip())).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time such as 2h, 3d or 2026-01-31T18:00"
        ) from None
