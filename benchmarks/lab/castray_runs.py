"""Transfers by castray's engine, as its faces start them, timed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castray_tui.core.config import (
    ExternalClusterSettings,
    KnownClusterSettings,
    Settings,
    TransferSettings,
)
from castray_tui.core.engine import Engine
from castray_tui.core.models import Node, Transfer, TransferRequest


@dataclass(frozen=True)
class Timed:
    """A transfer that ended, and the time from the order to its last verdict."""

    seconds: float
    transfer: Transfer

    @property
    def row_seconds(self) -> list[float]:
        """What the rows of the targets say: from the first byte to the verdict."""
        return [target.seconds or 0.0 for target in self.transfer.targets]


@contextlib.asynccontextmanager
async def connected_engine(
    clusters: Mapping[str, str], state_dir: Path, **transfer: Any
) -> AsyncIterator[Engine]:
    """An engine that is connected to some clusters and to no others.

    Args:
        clusters: Addresses of dashboards or GCSs by the names that the clusters get.
        state_dir: Where castray keeps its state.
        transfer: Settings of transfers other than the usual.
    """
    settings = Settings(
        clusters=tuple(KnownClusterSettings(name, url) for name, url in clusters.items()),
        external_cluster=ExternalClusterSettings(discovery_methods=(), port_scan_range=(1, 1)),
        transfer=TransferSettings(**transfer),
        state_dir=state_dir,
    )
    async with Engine(settings) as engine:
        for name in clusters:
            await engine.connect(name)
        await engine.complete()
        yield engine


def nodes_of(engine: Engine, cluster: str) -> list[Node]:
    """The living nodes of a cluster, its head first."""
    nodes = [n for n in engine.fleet.nodes if n.cluster == cluster and n.status == "alive"]
    return sorted(nodes, key=lambda node: (not node.is_head, node.name))


def place(node: Node, path: Path | str) -> str:
    """A path on a node as an address; nodes of one host are told apart by their IDs."""
    return f"{node.cluster}/{node.node_id}:{path}"


async def timed(engine: Engine, source: str, *targets: str, **options: Any) -> Timed:
    """Sends something and waits for its end.

    Raises:
        RuntimeError: Not every target was verified.
    """
    request = TransferRequest((source,), targets, **options)
    clock = time.monotonic()
    transfer = await engine.start_transfer(request)
    transfer = await engine.wait_transfer(transfer.id)
    seconds = time.monotonic() - clock
    if transfer.state != "done" or any(t.verdict != "verified" for t in transfer.targets):
        reasons = [f"{t.node}: {t.verdict} {t.reason or ''}" for t in transfer.targets]
        raise RuntimeError(f"{transfer.state} {transfer.error or ''} {'; '.join(reasons)}")
    return Timed(seconds, transfer)
