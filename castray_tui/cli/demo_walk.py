"""The walk of ``castray demo --headless``: discover, connect, list, transfer, verify."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.output import bytes_text, print_line, print_message, seconds_text
from castray_tui.core.config import Settings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import DiscoveryReport, Node, Transfer, TransferRequest
from castray_tui.core.own_cluster import OwnCluster
from castray_tui.core.transfer.addresses import format_address

_FILE_BYTES = 16 * 1024 * 1024
_FILE_NAME = "generated.bin"
_LISTING_PATIENCE_SECONDS = 60.0


class Narrator:
    """Tells what happens, each line with the seconds since the start.

    Args:
        to_standard_error: Whether the lines are messages beside a screen rather than data.
        ascii_only: Whether to keep to ASCII.
    """

    def __init__(self, *, to_standard_error: bool, ascii_only: bool) -> None:
        self._started = time.monotonic()
        self._to_standard_error = to_standard_error
        self._ascii_only = ascii_only

    def say(self, text: str) -> None:
        """Prints one line."""
        line = f"{time.monotonic() - self._started:6.1f} s  {text}"
        if self._to_standard_error:
            print_message(line, ascii_only=self._ascii_only)
        else:
            print_line(line, ascii_only=self._ascii_only)


async def walk(
    settings: Settings, clusters: Sequence[OwnCluster], folder: Path, narrator: Narrator
) -> None:
    """Takes castray over the clusters of its own, step by step.

    Args:
        settings: With the clusters in them, by name.
        clusters: The same clusters.
        folder: A folder of the demo's own, where the file is made and sent to.
        narrator: Tells of each step.

    Raises:
        CastrayError: A step did not work.
    """
    async with engine_of(settings) as engine:
        _find_own(await engine.discover(), clusters, settings, narrator)
        for known in settings.clusters:
            began = time.monotonic()
            cluster = await engine.connect(known.name)
            narrator.say(
                f"Connected to {cluster.name} at {cluster.address} in "
                f"{seconds_text(time.monotonic() - began)} (Ray {cluster.ray_version})"
            )
        nodes = await _listed(engine, sum(cluster.node_count for cluster in clusters), narrator)
        source = folder / _FILE_NAME
        digest = await asyncio.to_thread(_generate, source)
        narrator.say(f"Made {source}, {bytes_text(_FILE_BYTES)}, sha256:{digest}")
        copies = [folder / f"{node.cluster}-{node.name}" / _FILE_NAME for node in nodes]
        await _send(
            engine,
            f"local:{source}",
            [_address(node, copy) for node, copy in zip(nodes, copies, strict=True)],
            narrator,
        )
        start, end = nodes[0], next(node for node in nodes if node.cluster != nodes[0].cluster)
        across = folder / "across" / _FILE_NAME
        await _send(engine, _address(start, copies[0]), [_address(end, across)], narrator)
    await asyncio.to_thread(_verify, [*copies, across], digest)
    narrator.say(f"Read all {len(copies) + 1} copies again: every SHA-256 is the source's")


def _find_own(
    report: DiscoveryReport,
    clusters: Sequence[OwnCluster],
    settings: Settings,
    narrator: Narrator,
) -> None:
    names = {cluster.name for cluster in report.clusters}
    for known, own in zip(settings.clusters, clusters, strict=True):
        found = next((each for each in report.clusters if each.name == known.name), None)
        if found is None:
            raise CastrayError(f"Discovery did not find {known.name} at {own.dashboard_address}")
        narrator.say(
            f"Found {found.name} by {', '.join(found.sources)} "
            f"(whole discovery {report.seconds * 1000:.0f} ms)"
        )
    others = sorted(names - {known.name for known in settings.clusters})
    if others:
        narrator.say(f"Found and left alone: {', '.join(others)}")


async def _listed(engine: Engine, expected: int, narrator: Narrator) -> list[Node]:
    """The clusters' nodes, once all of them are alive; a node joins a moment after its start."""

    async def all_alive() -> list[Node]:
        async for fleet in engine.changes():
            alive = [node for node in fleet.nodes if not node.is_local and node.status == "alive"]
            if len(alive) >= expected:
                return alive
        raise CastrayError("The engine ended before all nodes were listed")

    try:
        nodes = await asyncio.wait_for(all_alive(), _LISTING_PATIENCE_SECONDS)
    except asyncio.TimeoutError:
        raise CastrayError(
            f"Not all {expected} nodes were listed as alive within {_LISTING_PATIENCE_SECONDS:g} s"
        ) from None
    for node in nodes:
        hardware = node.hardware
        memory = hardware.memory_total_bytes if hardware is not None else None
        narrator.say(
            f"  {node.cluster}/{node.name}  {node.status}  {node.address or '-'}  "
            f"{bytes_text(memory)} memory"
        )
    return nodes


async def _send(engine: Engine, source: str, targets: Sequence[str], narrator: Narrator) -> None:
    count = len(targets)
    narrator.say(f"Sending {source} to {'1 node' if count == 1 else f'{count} nodes'} …")
    transfer = await engine.start_transfer(
        TransferRequest(sources=(source,), targets=tuple(targets))
    )
    ended = await engine.wait_transfer(transfer.id)
    for target in ended.targets:
        address = format_address(target.cluster, target.node, target.path)
        narrator.say(
            f"  {target.verdict}  {address}  {bytes_text(target.bytes)} in "
            f"{seconds_text(target.seconds)}" + (f"  {target.reason}" if target.reason else "")
        )
    _refuse_unless_verified(ended)


def _refuse_unless_verified(transfer: Transfer) -> None:
    bad = [target for target in transfer.targets if target.verdict != "verified"]
    if transfer.state != "done" or bad:
        why = next((target.reason for target in bad if target.reason), transfer.error)
        raise TransferError(
            f"The transfer ended {transfer.state}, {len(bad)} of {len(transfer.targets)} targets "
            f"not verified: {why or 'no reason is known'}"
        )


def _address(node: Node, path: Path) -> str:
    return format_address(node.cluster, node.name, str(path))


def _generate(path: Path) -> str:
    """Makes the file of random content, and returns its SHA-256 in hex."""
    content = os.urandom(_FILE_BYTES)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _verify(paths: Sequence[Path], digest: str) -> None:
    """Reads every copy from the disk; they are all on this host. Raises where one differs."""
    for path in paths:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise TransferError(f"{path} holds sha256:{found}, not sha256:{digest}")
