"""Method ``process_scan``: clusters that have processes on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from castray_tui.core.discovery.ray_processes import LocalSession
from castray_tui.core.discovery.sightings import Claim, Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.verification import verify
from castray_tui.core.models import Source


async def scan_processes(surroundings: Surroundings, found: Callable[[Sighting], None]) -> None:
    """Reports every living cluster that a GCS or raylet of runs here.

    Args:
        surroundings: Shared answers.
        found: Called with each as soon as it is verified.
    """

    async def follow(session: LocalSession) -> None:
        sighting = await verify(claim_of(session, ("process_scan",)), surroundings)
        if sighting is not None:
            found(sighting)

    await asyncio.gather(*(follow(session) for session in await surroundings.sessions()))


def claim_of(session: LocalSession, sources: tuple[Source, ...]) -> Claim:
    """What the processes of one session claim."""
    return Claim(
        sources=sources,
        cluster_id=session.cluster_id,
        session_name=session.session_name,
        gcs=session.gcs,
        dashboards=session.dashboards,
        temp_dir=session.temp_dir,
        session_dir=session.session_dir,
        local=session,
    )
