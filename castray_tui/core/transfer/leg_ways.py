"""The ways that a leg's bytes really take, for eyes: as planned, then as its agents tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from castray_tui.core.transfer.progress import rows_of
from castray_tui.core.transfer.route import Route

Json = dict[str, Any]
Way = tuple[tuple[str, ...], str]
"""The names of all that a target's bytes pass, and the line of the last hop."""


class LegWays:
    """Who feeds whom of one leg.

    Args:
        route: As it was planned.
    """

    def __init__(self, route: Route) -> None:
        self._labels = {member.index: member.node_label for member in route.members}
        self._feeders = {edge.child: edge.parent for edge in route.edges}
        self._bridges = {
            (edge.parent, edge.child): edge.bridge
            for edge in route.edges
            if edge.bridge is not None
        }

    def all(self) -> dict[int, Way]:
        """The way of every target."""
        return {index: self._way(index) for index in self._feeders}

    def changed_by(self, status: Mapping[str, Any]) -> dict[int, Way]:
        """The ways that are others now than were known; all of them where one is, as what passes
        over a target changes with it."""
        has_changed = False
        for index, row in rows_of(status).items():
            feeder = row.get("feeder")
            if index not in self._feeders or type(feeder) is not int:
                continue
            if feeder in self._labels and feeder not in (index, self._feeders[index]):
                self._feeders[index] = feeder
                has_changed = True
        return self.all() if has_changed else {}

    def _way(self, index: int) -> Way:
        names: list[str] = []
        line = ""
        at = index
        seen = set()
        # Statuses come from clusters: even a circle must come to an end.
        while at != -1 and at not in seen and at in self._feeders:
            seen.add(at)
            feeder = self._feeders[at]
            bridge = self._bridges.get((feeder, at))
            names.append(self._labels[at])
            if bridge is not None:
                names.append(self._labels[bridge])
            if at == index:
                line = f"{self._labels[feeder]} → {self._labels[at]}"
                line += f" (by {self._labels[bridge]})" if bridge is not None else ""
            at = feeder
        names.append(self._labels[-1])
        return tuple(reversed(names)), line
