"""Finds nodes whose figures stand still although Ray goes on listing them as alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from castray_tui.core.ray_api.node_records import NodeRecord

_STANDSTILL_SECONDS = 30.0
"""Ray measures every 5 s."""
_LEAST_SUMMARIES = 4


@dataclass(frozen=True, slots=True)
class _Seen:
    measured_at: float | None
    since: float
    summaries: int


class Standstill:
    """Remembers since when each node's figures are the same, by castray's own clock, because the
    nodes' clocks may differ from it."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def frozen(self, records: Mapping[str, NodeRecord], now: float) -> frozenset[str]:
        """Takes in one summary; returns the IDs of the nodes whose figures stand still.

        Args:
            records: The whole summary.
            now: Seconds of a monotonic clock.
        """
        seen: dict[str, _Seen] = {}
        for node_id, record in records.items():
            before = self._seen.get(node_id)
            measured_at = record.hardware.measured_at
            if before is None or before.measured_at != measured_at:
                seen[node_id] = _Seen(measured_at, now, 1)
            else:
                seen[node_id] = _Seen(measured_at, before.since, before.summaries + 1)
        self._seen = seen
        return frozenset(
            node_id
            for node_id, one in seen.items()
            if now - one.since > _STANDSTILL_SECONDS and one.summaries >= _LEAST_SUMMARIES
        )
