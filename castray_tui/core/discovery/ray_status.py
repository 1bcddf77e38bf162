"""Method ``ray_status``: the cluster that Ray's own command would ask, by Ray's own records.

Ray takes ``RAY_ADDRESS``, else the address in ``ray_current_cluster``, else that of some GCS that
processes on this machine name (``ray._private.services``). A stale record is passed over here,
where Ray would wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from castray_tui.core.discovery.addresses import Address, parse_address
from castray_tui.core.discovery.process_scan import claim_of
from castray_tui.core.discovery.sightings import Claim, Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.temp_dir import current_cluster, default_temp_dirs
from castray_tui.core.discovery.verification import sighting_of_dashboard, verify
from castray_tui.core.errors import AddressError, UnreachableError
from castray_tui.core.models import Source


async def ask_ray_records(
    ray_address: str | None,
    environ: Mapping[str, str],
    surroundings: Surroundings,
    found: Callable[[Sighting], None],
) -> None:
    """Reports the one cluster that ``ray status`` would speak of, if it lives.

    Args:
        ray_address: ``RAY_ADDRESS``, or None.
        environ: Where the names of temp dirs are read from.
        surroundings: Shared answers.
        found: Called with it.

    Raises:
        AddressError: ``RAY_ADDRESS`` cannot be read.
        UnreachableError: ``RAY_ADDRESS`` names something that is no living cluster; Ray would
            look no further either.
    """
    if ray_address and ray_address.strip().lower() not in ("auto", "local"):
        found(await _by_environment(ray_address, surroundings))
        return
    # Ray's first default only: the others are temp_dir's to find.
    recorded = await asyncio.to_thread(current_cluster, default_temp_dirs(environ)[0])
    if recorded is not None:
        claim = Claim(sources=("ray_status",), gcs=(recorded,))
        sighting = await verify(claim, surroundings)
        if sighting is not None:
            found(sighting)
            return
    # Ray takes any of several; the newest here, so that it is the same each time.
    sessions = sorted(await surroundings.sessions(), key=lambda session: session.session_name)
    for session in reversed(sessions):
        if not session.elsewhere:
            sighting = await verify(claim_of(session, ("ray_status",)), surroundings)
            if sighting is not None:
                found(sighting)
                return


async def _by_environment(ray_address: str, surroundings: Surroundings) -> Sighting:
    sources: tuple[Source, ...] = ("ray_status", "env")
    try:
        address = parse_address(ray_address)
    except AddressError as error:
        raise AddressError(f"RAY_ADDRESS: {error.message}", remedy=error.remedy) from None
    sighting: Sighting | None = None
    if address.form == "http" and address.port is not None:
        standing = await surroundings.dashboard(address.host, address.port)
        if standing.kind == "dashboard":
            sighting = await sighting_of_dashboard(standing, sources, surroundings)
    elif address.form == "client":
        sighting = await sighting_behind_client_server(address, sources, surroundings)
    elif address.port is not None:
        claim = Claim(sources=sources, gcs=((address.host, address.port),))
        sighting = await verify(claim, surroundings)
    if sighting is None:
        raise UnreachableError(
            f"RAY_ADDRESS names {address}, where no living Ray cluster answers",
            remedy="Correct or unset RAY_ADDRESS.",
        )
    return sighting


async def sighting_behind_client_server(
    address: Address, sources: tuple[Source, ...], surroundings: Surroundings
) -> Sighting | None:
    """The cluster whose Ray client server stands at an address, by the processes of this machine.

    A client server does not say which cluster it belongs to.
    """
    if address.port is None:
        return None
    wanted = await surroundings.place(address.host, address.port)
    for session in await surroundings.sessions():
        if wanted in {await surroundings.place(*place) for place in session.client_ports}:
            return await verify(claim_of(session, sources), surroundings)
    return None
