"""Puts together what is known into one frozen ``Fleet``, and tells readers when it changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from castray_tui.core.models import (
    EMPTY_FLEET,
    Cluster,
    DiscoveredCluster,
    DiscoveryReport,
    Event,
    Fleet,
    Node,
    Transfer,
)

# Several clusters that answer at the same moment make one snapshot, not several.
_COALESCE_SECONDS = 0.05
KEPT_TRANSFERS = 200


@dataclass(slots=True)
class FleetParts:
    """What snapshots are made of; changed by the engine only, on its event loop."""

    read_only: bool = False
    local: Node | None = None
    views: dict[str, tuple[Cluster, tuple[Node, ...]]] = field(default_factory=dict)
    discovered: tuple[DiscoveredCluster, ...] = ()
    transfers: dict[str, Transfer] = field(default_factory=dict)
    last_event: Event | None = None
    last_report: DiscoveryReport | None = None
    discovering: bool = False


class FleetBoard:
    """Holds the newest snapshot and wakes whoever waits for the next one."""

    def __init__(self, parts: FleetParts) -> None:
        self.parts = parts
        self._fleet = EMPTY_FLEET
        self._changed = False
        self._pending: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Event] = set()
        self._closed = False

    @property
    def fleet(self) -> Fleet:
        """The newest snapshot, made now if something changed since the last."""
        if self._changed:
            self._changed = False
            self._fleet = _snapshot(self.parts, self._fleet.version + 1)
        return self._fleet

    def touch(self) -> None:
        """Says that a part has changed; readers hear of it within 50 ms."""
        self._changed = True
        if self._pending is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._pending = loop.call_later(_COALESCE_SECONDS, self._wake)

    def close(self) -> None:
        """Ends every reader's iteration."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
        self._wake()

    async def changes(self) -> AsyncIterator[Fleet]:
        """The snapshot of now, then every newer one; a slow reader skips to the newest."""
        wake = asyncio.Event()
        wake.set()
        self._waiting.add(wake)
        seen = -1
        try:
            while not self._closed:
                await wake.wait()
                wake.clear()
                fleet = self.fleet
                if fleet.version != seen:
                    seen = fleet.version
                    yield fleet
        finally:
            self._waiting.discard(wake)

    def _wake(self) -> None:
        self._pending = None
        for wake in self._waiting:
            wake.set()


def _snapshot(parts: FleetParts, version: int) -> Fleet:
    ordered = sorted(parts.views.values(), key=lambda view: view[0].name)
    nodes: list[Node] = [] if parts.local is None else [parts.local]
    for _cluster, cluster_nodes in ordered:
        nodes.extend(cluster_nodes)
    return Fleet(
        version=version,
        time=time.time(),
        clusters=tuple(cluster for cluster, _nodes in ordered),
        discovered=parts.discovered,
        nodes=tuple(nodes),
        transfers=newest_first(parts.transfers.values()),
        last_event=parts.last_event,
        last_report=parts.last_report,
        discovering=parts.discovering,
        read_only=parts.read_only,
    )


def newest_first(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Transfers by the time they started, the newest first; not yet started ones on top."""
    return tuple(
        sorted(transfers, key=lambda transfer: transfer.started or float("inf"), reverse=True)
    )
