"""Method ``dashboard_scan``: dashboards on the ports in question, on loopback and named hosts only.

No token is ever sent to what answers here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from castray_tui.core.discovery.addresses import host_port, is_loopback, parse_address
from castray_tui.core.discovery.sightings import Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.verification import sighting_of_dashboard
from castray_tui.core.errors import AddressError
from castray_tui.core.models import ForeignService

_LOOPBACK_HOSTS = ("127.0.0.1", "::1")
_MOST_AT_ONCE = 64


async def scan_dashboards(
    hosts: Sequence[str],
    ports: tuple[int, int],
    surroundings: Surroundings,
    found: Callable[[Sighting], None],
    foreign: Callable[[ForeignService], None],
) -> None:
    """Reports every Ray dashboard and everything else that answers.

    Args:
        hosts: To look at besides loopback; one with a port of its own is asked at that port.
        ports: First and last.
        surroundings: Shared answers.
        found: Called with each dashboard's cluster.
        foreign: Called with each place where something else answers.

    Raises:
        AddressError: A host cannot be read; the others have been looked at.
    """
    at_once = asyncio.Semaphore(_MOST_AT_ONCE)

    async def look(host: str, port: int) -> None:
        async with at_once:
            standing = await surroundings.dashboard(host, port)
            place = host_port(host, port)
            if standing.kind == "dashboard":
                sighting = await sighting_of_dashboard(standing, ("dashboard_scan",), surroundings)
                if sighting is not None:
                    found(sighting)
                else:
                    foreign(ForeignService(place, "Ray dashboard whose GCS does not answer"))
            elif standing.kind != "nothing":
                foreign(ForeignService(place, standing.what))

    scanned = range(ports[0], ports[1] + 1)
    targets = [(host, port) for port in scanned for host in _LOOPBACK_HOSTS]
    unreadable: AddressError | None = None
    for text in hosts:
        try:
            address = parse_address(text)
        except AddressError as error:
            unreadable = error
            continue
        if not is_loopback(address.host):
            own_port = scanned if address.port is None else (address.port,)
            targets += [(address.host, port) for port in own_port]
    await asyncio.gather(*(look(host, port) for host, port in dict.fromkeys(targets)))
    if unreadable is not None:
        raise unreadable
