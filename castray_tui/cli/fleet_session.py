"""What commands over the fleet share: an engine that is connected to what the user named."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from castray_tui.core.config import Settings
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import CastrayError, ConfigError
from castray_tui.core.models import Cluster, DiscoveryReport

# On top of what a single request may take; a cluster still silent then is shown as it is.
_GRACE_SECONDS = 2.0
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Failure:
    """An address that could not be connected to, and why."""

    address: str
    error: CastrayError


@contextlib.asynccontextmanager
async def engine_of(settings: Settings, *, for_transfer: bool = False) -> AsyncIterator[Engine]:
    """An engine that does only what it is told, closed at the end.

    Args:
        settings: The settings of this run.
        for_transfer: Whether a transfer is all that is wanted: nothing else is looked at, and the
            agents are left to whatever command comes next, for their idle time.
    """
    engine = Engine(settings, lingers=for_transfer)
    try:
        await engine.start(background=False, looks=not for_transfer)
        yield engine
    finally:
        # Shielded: an interrupted command still ends its polls, agents and child processes.
        await asyncio.shield(asyncio.ensure_future(engine.close()))


async def connect_to(
    engine: Engine, loaded: LoadedSettings, addresses: Sequence[str]
) -> list[Failure]:
    """Connects to what was named, or to everything in reach where nothing was.

    Args:
        engine: The engine to connect.
        loaded: The settings of this run.
        addresses: Addresses or names of clusters; none for what is discovered and configured.

    Returns:
        The addresses that could not be connected to, in the order they were named.

    Raises:
        ConfigError: External clusters are switched off, and yet one was named.
    """
    settings = loaded.settings
    if addresses:
        refuse_unless_enabled(loaded)
        if any(_CLUSTER_NAME.fullmatch(address) for address in addresses):
            await engine.discover()
        return await connect_each(engine, addresses)
    if not settings.external_cluster.enabled:
        return []
    named = [cluster.name for cluster in settings.clusters]
    if settings.ray_cluster.address != "auto":
        named.append(settings.ray_cluster.address)
    await engine.discover(connect=True)
    failures = await connect_each(engine, named)
    await first_answers(engine, settings)
    return failures


def refuse_unless_enabled(loaded: LoadedSettings) -> None:
    """Raises ConfigError where external clusters are switched off."""
    if not loaded.settings.external_cluster.enabled:
        raise ConfigError(
            "external_cluster.enabled is false "
            f"({loaded.origins['external_cluster.enabled']}), so nothing is connected to",
            remedy="Set it to true",
        )


async def connect_each(engine: Engine, addresses: Sequence[str]) -> list[Failure]:
    """Connects to addresses, and to names of clusters that are configured or were discovered, side
    by side; those that could not be connected to."""

    async def connect(address: str) -> Failure | None:
        try:
            await engine.connect(address)
        except CastrayError as error:
            return Failure(address, error)
        return None

    results = await asyncio.gather(*(connect(address) for address in dict.fromkeys(addresses)))
    return [failure for failure in results if failure is not None]


async def first_answers(engine: Engine, settings: Settings) -> None:
    """Returns when no connected cluster is still waiting for its first answer."""
    patience = settings.external_cluster.connection_timeout + _GRACE_SECONDS
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_no_cluster_connecting(engine), patience)


async def _no_cluster_connecting(engine: Engine) -> None:
    async for fleet in engine.changes():
        if all(cluster.state != "connecting" for cluster in fleet.clusters):
            return


def troubles(clusters: Sequence[Cluster]) -> list[str]:
    """A sentence for every cluster that is not well."""
    return [
        f"{cluster.name}: {cluster.error or cluster.state}"
        for cluster in clusters
        if cluster.state != "connected"
    ]


def found_nothing(report: DiscoveryReport | None) -> bool:
    """Whether a discovery ran and found no cluster."""
    return report is not None and not report.clusters
