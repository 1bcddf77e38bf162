"""What is told of targets, row by row: checked before it is believed, and only from who may say it.

Rows come up the tree from agents that hold the leg's secret, which may be in other hands than the
source. Nobody can speak for a target that is not below it.
"""

from __future__ import annotations

from typing import Any, Dict

Json = Dict[str, Any]

_VERDICTS = (None, "verified", "identical", "failed", "cancelled")
_TEXT_LIMITS = {"code": 50, "reason": 1000, "digest": 100}
_COUNTS = ("bytes", "sent")


def checked(row: Any) -> Json:
    """A row as it may be kept: what belongs into one, of the right types, texts cut off.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(row, dict) or not _is_int(row.get("index")):
        raise ValueError("a row without an index")
    kept: Json = {"index": row["index"]}
    for name in _COUNTS:
        if name in row:
            if not _is_int(row[name]) or row[name] < 0:
                raise ValueError("a row with a count that is none")
            kept[name] = row[name]
    if "verdict" in row:
        if row["verdict"] not in _VERDICTS:
            raise ValueError("a row with a verdict that is none")
        kept["verdict"] = row["verdict"]
    for name, limit in _TEXT_LIMITS.items():
        if name in row:
            kept[name] = None if row[name] is None else str(row[name])[:limit]
    if "seconds" in row:
        kept["seconds"] = None if row["seconds"] is None else float(row["seconds"])
    if "feeder" in row and _is_int(row["feeder"]):
        kept["feeder"] = row["feeder"]
    return kept


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
