"""One whole discovery: the methods side by side, what they found merged as it comes in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.discovery.addresses import (
    DEFAULT_DASHBOARD_PORT,
    DEFAULT_GCS_PORT,
    Address,
    parse_address,
    split_host_port,
)
from castray_tui.core.discovery.dashboard_scan import scan_dashboards
from castray_tui.core.discovery.merging import merge
from castray_tui.core.discovery.process_scan import scan_processes
from castray_tui.core.discovery.ray_status import ask_ray_records
from castray_tui.core.discovery.sightings import Sighting
from castray_tui.core.discovery.surroundings import PROBE_SECONDS, Surroundings
from castray_tui.core.discovery.temp_dir import scan_temp_dirs
from castray_tui.core.errors import AddressError, CastrayError
from castray_tui.core.models import (
    DISCOVERY_METHODS,
    DiscoveredCluster,
    DiscoveryReport,
    ForeignService,
    MethodOutcome,
    Source,
)
from castray_tui.core.text_safety import safe_text

OnFound = Callable[[tuple[DiscoveredCluster, ...]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryRequest:
    """What to look for and where.

    Attributes:
        methods: Which of the four run.
        ports: First and last port of ``dashboard_scan``.
        hosts: Hosts that it looks at besides loopback.
        timeout_seconds: For each method; they run side by side.
        known: Clusters with a name in the configuration.
        ray_address: ``RAY_ADDRESS``, None where it is not set.
        environ: Where the names of Ray's temp dirs are read from.
    """

    methods: tuple[Source, ...] = DISCOVERY_METHODS
    ports: tuple[int, int] = (8265, 8275)
    hosts: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    known: tuple[KnownClusterSettings, ...] = ()
    ray_address: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


async def discover(
    request: DiscoveryRequest, *, on_found: OnFound | None = None
) -> DiscoveryReport:
    """Looks for clusters with every method asked for; never raises for what a method meets.

    Args:
        request: What to look for and where.
        on_found: Called with all that is known so far each time something was found.

    Returns:
        Each living cluster once, what came of each method, and what else answered.
    """
    return await _Discovery(request, on_found).run()


class _Discovery:
    def __init__(self, request: DiscoveryRequest, on_found: OnFound | None) -> None:
        self._request = request
        self._on_found = on_found
        probe_seconds = min(PROBE_SECONDS, request.timeout_seconds / 2)
        self._surroundings = Surroundings(probe_seconds=probe_seconds)
        self._sightings: dict[Source, list[Sighting]] = {}
        self._foreign: list[ForeignService] = []
        self._aliases: Mapping[str, str] = {}

    async def run(self) -> DiscoveryReport:
        started, clock = time.time(), time.monotonic()
        try:
            self._aliases = await alias_places(self._request.known, self._surroundings)
            methods = list(dict.fromkeys(self._request.methods))
            outcomes = await asyncio.gather(*(self._outcome(method) for method in methods))
            clusters = self._merged()
            foreign = await self._unclaimed_foreign()
        finally:
            await self._surroundings.close()
        return DiscoveryReport(
            clusters=clusters,
            methods=tuple(outcomes),
            foreign=foreign,
            started=started,
            seconds=time.monotonic() - clock,
        )

    async def _outcome(self, method: Source) -> MethodOutcome:
        clock = time.monotonic()
        error: str | None = None
        try:
            await asyncio.wait_for(self._start(method), self._request.timeout_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            error = f"{method} ran out of time after {self._request.timeout_seconds:g} s"
        except CastrayError as failure:
            error = str(failure)
        # The border of a method: whatever goes wrong in one must not hide what the others find.
        except Exception as failure:
            error = safe_text(f"{method} failed: {type(failure).__name__}: {failure}", limit=300)
        found = merge(self._sightings.get(method, ()))
        return MethodOutcome(method, time.monotonic() - clock, len(found), error)

    def _start(self, method: Source) -> Awaitable[None]:
        request, surroundings = self._request, self._surroundings

        def found(sighting: Sighting) -> None:
            self._sightings.setdefault(method, []).append(sighting)
            if self._on_found is not None:
                self._on_found(self._merged())

        if method == "process_scan":
            return scan_processes(surroundings, found)
        if method == "dashboard_scan":
            return scan_dashboards(
                request.hosts, request.ports, surroundings, found, self._foreign.append
            )
        if method == "temp_dir":
            return scan_temp_dirs(request.environ, surroundings, found)
        if method == "ray_status":
            return ask_ray_records(request.ray_address, request.environ, surroundings, found)
        raise ValueError(f"{method!r} is no discovery method")

    def _merged(self) -> tuple[DiscoveredCluster, ...]:
        everything = [sighting for found in self._sightings.values() for sighting in found]
        return merge(everything, self._aliases)

    async def _unclaimed_foreign(self) -> tuple[ForeignService, ...]:
        """What answers and belongs to no cluster that was found, each place once."""
        claimed = {
            place.partition("|")[2]
            for found in self._sightings.values()
            for sighting in found
            for place in (*sighting.places, *sighting.client_places)
        }
        kept: dict[tuple[str, str], ForeignService] = {}
        for service in self._foreign:
            where = split_host_port(service.address)
            place = await self._surroundings.place(*where) if where else service.address
            if place not in claimed:
                kept.setdefault((place, service.what), service)
        return tuple(kept.values())


async def alias_places(
    known: tuple[KnownClusterSettings, ...], surroundings: Surroundings
) -> dict[str, str]:
    """Where the clusters of the configuration stand: place → name. An address that cannot be read
    names nothing; connecting to it says so."""
    aliases: dict[str, str] = {}
    for cluster in known:
        try:
            address = parse_address(cluster.address)
        except AddressError:
            continue
        for place in await places_of(address, surroundings):
            aliases.setdefault(place, cluster.name)
    return aliases


async def places_of(address: Address, surroundings: Surroundings) -> list[str]:
    """Every place that an address may mean."""
    if address.form == "auto":
        return []
    if address.form == "client":
        port = address.port or 0
        return [f"client|{await surroundings.place(address.host, port)}"]
    if address.port is None:
        dashboard = await surroundings.place(address.host, DEFAULT_DASHBOARD_PORT)
        return [
            f"dashboard|{dashboard}",
            f"gcs|{await surroundings.place(address.host, DEFAULT_GCS_PORT)}",
        ]
    place = await surroundings.place(address.host, address.port)
    return (
        [f"dashboard|{place}"] if address.form == "http" else [f"dashboard|{place}", f"gcs|{place}"]
    )
