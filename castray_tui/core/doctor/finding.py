"""What a check of the doctor came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        check: What was looked at, in one or two words.
        level: ``warn`` may be why something is missing, ``fail`` certainly is in the way.
        message: What is so, as a sentence without a final full stop.
        remedy: What to do about it, None where nothing needs doing.
    """

    check: str
    level: Level
    message: str
    remedy: str | None = None
