"""Tells living clusters from what dead ones left behind, and gathers what the living tell.

A claim is confirmed by the GCS saying that it is this very session. Where the GCS cannot be asked
(it wants a token, it hangs, it is out of reach), its process on this machine, or its dashboard, has
to vouch for it. A claim that nobody vouches for is dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from castray_tui.core.discovery.addresses import (
    host_port,
    is_any_address,
    is_loopback,
    split_host_port,
)
from castray_tui.core.discovery.gcs_wire import GcsAnswer
from castray_tui.core.discovery.probing import Standing
from castray_tui.core.discovery.ray_processes import LocalSession, installed_version
from castray_tui.core.discovery.sightings import Claim, Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.models import Source


@dataclass(slots=True)
class _Evidence:
    """What was found out about one claim."""

    gcs: GcsAnswer | None = None
    gcs_place: tuple[str, int] | None = None
    silent_gcs: tuple[str, int] | None = None
    dashboard: Standing | None = None
    silent_dashboard: Standing | None = None
    notes: list[str] = field(default_factory=list)


async def verify(claim: Claim, surroundings: Surroundings) -> Sighting | None:
    """Asks a claimed cluster's servers.

    Args:
        claim: What a method read.
        surroundings: Shared answers.

    Returns:
        The living cluster, or None where it is dead or another one stands there.
    """
    evidence = _Evidence(notes=list(claim.notes))
    if not await _ask_gcs(claim, evidence, surroundings):
        return None
    claim = _with_identity(claim, evidence.gcs)
    # A session that only the GCS could name may have processes here all the same.
    if claim.local is None:
        claim = await _with_local_session(claim, surroundings)
    await _ask_dashboards(claim, evidence, surroundings)
    if evidence.gcs is None and not _is_vouched_for(claim, evidence):
        return None
    return await _sighting(claim, evidence, surroundings)


async def _ask_gcs(claim: Claim, evidence: _Evidence, surroundings: Surroundings) -> bool:
    """Returns whether the claim is still worth following."""
    local = claim.local
    states = set[str]()
    for host, port in claim.gcs:
        answer = await surroundings.gcs(host, port)
        state = answer.state
        if state == "answers" and _is_another(claim, answer.cluster_id, answer.session_name):
            state = "not_gcs"
        if state == "wants_token" and await _belongs_to_another_process(
            claim, host, port, surroundings
        ):
            state = "not_gcs"
        if state in ("answers", "wants_token"):
            evidence.gcs, evidence.gcs_place = answer, (host, port)
            return True
        if state == "silent" and evidence.silent_gcs is None:
            evidence.silent_gcs = (host, port)
        states.add(state)
    if not claim.gcs:
        return True
    if evidence.silent_gcs is not None:
        evidence.notes.append(
            f"Its GCS at {host_port(*evidence.silent_gcs)} accepts connections and does not answer."
        )
        return True
    if "unreachable" in states:
        evidence.notes.append("Its GCS cannot be reached from here.")
        return True
    # Refused, or somebody else stands there: dead, unless it lives in a namespace of its own and
    # the address only happens to mean something here as well.
    if local is not None and local.has_gcs and (local.elsewhere or local.maybe_elsewhere):
        evidence.notes.append("Its GCS cannot be reached from here.")
        return True
    return False


def _is_another(claim: Claim, cluster_id: str | None, session_name: str | None) -> bool:
    """Whether an answer comes from another cluster than the claimed one."""
    if claim.cluster_id is not None and cluster_id is not None:
        return claim.cluster_id != cluster_id
    if claim.session_name is not None and session_name is not None:
        return claim.session_name != session_name
    return False


async def _belongs_to_another_process(
    claim: Claim, host: str, port: int, surroundings: Surroundings
) -> bool:
    """Whether a GCS process of another session on this machine owns the address."""
    if claim.session_name is None or not await surroundings.is_here(host):
        return False
    try:
        sessions = await surroundings.sessions()
    # Without the process list there is nobody to contradict the claim.
    except Exception:
        return False
    owners = {
        session.session_name
        for session in sessions
        if session.has_gcs and not session.elsewhere and any(p == port for _, p in session.gcs)
    }
    return bool(owners) and claim.session_name not in owners


def _with_identity(claim: Claim, gcs: GcsAnswer | None) -> Claim:
    if gcs is None or gcs.state != "answers":
        return claim
    return replace(
        claim,
        cluster_id=gcs.cluster_id or claim.cluster_id,
        session_name=gcs.session_name or claim.session_name,
    )


async def _with_local_session(claim: Claim, surroundings: Surroundings) -> Claim:
    try:
        sessions = await surroundings.sessions()
    # The method that lists processes reports its failure itself.
    except Exception:
        return claim
    local = await local_session_of(claim, sessions, surroundings)
    if local is None:
        return claim
    return replace(
        claim,
        local=local,
        cluster_id=claim.cluster_id or local.cluster_id,
        session_name=claim.session_name or local.session_name,
        gcs=claim.gcs or local.gcs,
        dashboards=claim.dashboards + local.dashboards,
    )


async def local_session_of(
    claim: Claim, sessions: tuple[LocalSession, ...], surroundings: Surroundings
) -> LocalSession | None:
    """The processes on this machine that a claim means, by identity, else by its GCS address."""
    for session in sessions:
        if claim.session_name is not None:
            if session.session_name == claim.session_name:
                return session
        elif claim.cluster_id is not None and session.cluster_id is not None:
            if session.cluster_id == claim.cluster_id:
                return session
        elif session.has_gcs:
            places = {await surroundings.place(*place) for place in session.gcs}
            if places & {await surroundings.place(*place) for place in claim.gcs}:
                return session
    return None


async def _ask_dashboards(claim: Claim, evidence: _Evidence, surroundings: Surroundings) -> None:
    candidates = list(claim.dashboards)
    stored = split_host_port(evidence.gcs.dashboard or "") if evidence.gcs else None
    if stored is not None and evidence.gcs_place is not None:
        gcs_host = evidence.gcs_place[0]
        if is_any_address(stored[0]):
            candidates.append((gcs_host, stored[1]))
        elif not is_loopback(stored[0]) or (
            await surroundings.is_here(gcs_host)
            and not (claim.local is not None and claim.local.elsewhere)
        ):
            candidates.append(stored)
    candidates = list(dict.fromkeys(candidates))
    standings = await asyncio.gather(*(surroundings.dashboard(*place) for place in candidates))
    for standing in standings:
        if await _is_dashboard_of(claim, standing, surroundings):
            evidence.dashboard = standing
            return
    for standing in standings:
        if standing.kind == "silent" and await _may_own(claim, standing, surroundings):
            evidence.silent_dashboard = standing
            evidence.notes.append(
                f"Its dashboard at {host_port(standing.host, standing.port)} accepts connections "
                "and does not answer."
            )
            return


async def _is_dashboard_of(claim: Claim, standing: Standing, surroundings: Surroundings) -> bool:
    if standing.kind != "dashboard":
        return False
    if standing.cluster_id is None and standing.session_name is None:
        return await _may_own(claim, standing, surroundings)
    return not _is_another(claim, standing.cluster_id, standing.session_name)


async def _may_own(claim: Claim, standing: Standing, surroundings: Surroundings) -> bool:
    """Whether a server that does not say who it is may be the claimed cluster's dashboard."""
    local = claim.local
    if local is None or local.elsewhere:
        return True
    if not local.dashboard_pids:
        # The head runs here, and no dashboard with it: the address is only what Ray would take.
        return not local.has_gcs
    if not await surroundings.is_here(standing.host):
        return True
    return await surroundings.listens(local.dashboard_pids, standing.port) is not False


def _is_vouched_for(claim: Claim, evidence: _Evidence) -> bool:
    """Whether something other than the GCS's own word shows that the cluster lives."""
    if claim.local is not None and (claim.local.has_gcs or evidence.gcs_place is not None):
        return True
    if evidence.dashboard is not None:
        return evidence.dashboard.gcs_healthy is not False
    # Only raylets of it run here and its GCS is out of reach or hangs: a raylet ends by itself
    # within a minute when its GCS is gone, so these belong to something that lives.
    return claim.local is not None and claim.local.raylet_count > 0


async def _sighting(claim: Claim, evidence: _Evidence, surroundings: Surroundings) -> Sighting:
    local, gcs, dashboard = claim.local, evidence.gcs, evidence.dashboard
    gcs_place = evidence.gcs_place or evidence.silent_gcs
    named_by = dashboard or evidence.silent_dashboard
    places = set[str]()
    if gcs_place is not None:
        places.add(f"gcs|{await surroundings.place(*gcs_place)}")
    if named_by is not None:
        places.add(f"dashboard|{await surroundings.place(named_by.host, named_by.port)}")
    ray_version = (gcs.ray_version if gcs else None) or (
        dashboard.ray_version if dashboard else None
    )
    if ray_version is None and local is not None and local.executable and local.same_files:
        ray_version = await asyncio.to_thread(installed_version, local.executable)
    needs_token = dashboard.needs_token if dashboard is not None else None
    if gcs is not None and gcs.state == "wants_token":
        needs_token = True
    host = await _name_host(claim, named_by, gcs_place, surroundings)
    if named_by is not None:
        name_port: int | None = named_by.port
    else:
        name_port = gcs_place[1] if gcs_place else None
    if name_port is None and local is not None:
        name_port = local.stated_port
    return Sighting(
        sources=claim.sources,
        cluster_id=claim.cluster_id or (dashboard.cluster_id if dashboard else None),
        session_name=claim.session_name or (dashboard.session_name if dashboard else None),
        gcs_address=host_port(*gcs_place) if gcs_place else None,
        dashboard_url=dashboard.url if dashboard else None,
        ray_version=ray_version,
        needs_token=needs_token,
        on_this_host=local is not None,
        owner=local.owner if local else None,
        owned_by_me=local.owned_by_me if local else None,
        temp_dir=(local.temp_dir if local else None) or claim.temp_dir,
        session_dir=(local.session_dir if local else None) or claim.session_dir,
        python=local.python if local else None,
        node_count=gcs.node_count if gcs else None,
        resources=gcs.resources if gcs else None,
        notes=tuple(dict.fromkeys((*(local.notes if local else ()), *evidence.notes))),
        places=frozenset(places),
        client_places=frozenset(
            [await surroundings.place(*place) for place in local.client_ports] if local else []
        ),
        name_host=host,
        name_port=name_port,
    )


async def _name_host(
    claim: Claim,
    named_by: Standing | None,
    gcs_place: tuple[str, int] | None,
    surroundings: Surroundings,
) -> str:
    hosts = [named_by.host] if named_by else []
    hosts += [gcs_place[0]] if gcs_place else []
    for host in hosts:
        if not await surroundings.is_here(host):
            return host
    return "localhost" if hosts or claim.local is not None else "unknown"


async def sighting_of_dashboard(
    standing: Standing, sources: tuple[Source, ...], surroundings: Surroundings
) -> Sighting | None:
    """A cluster known by its dashboard; None where that says, or its silence shows, that the GCS
    behind it is gone.

    A dashboard goes on answering for a minute after its GCS died.
    """
    local: LocalSession | None = None
    claim = Claim(
        sources=sources, cluster_id=standing.cluster_id, session_name=standing.session_name
    )
    if standing.cluster_id is not None or standing.session_name is not None:
        claim = await _with_local_session(claim, surroundings)
        local = claim.local
    if standing.gcs_healthy is False and not (local is not None and local.has_gcs):
        return None
    gcs: GcsAnswer | None = None
    gcs_place = local.gcs[0] if local is not None and local.gcs else None
    if gcs_place is not None:
        gcs = await surroundings.gcs(*gcs_place)
        usable = gcs.state in ("answers", "wants_token")
        if not usable or _is_another(claim, gcs.cluster_id, gcs.session_name):
            gcs = None
    evidence = _Evidence(gcs=gcs, gcs_place=gcs_place if gcs else None, dashboard=standing)
    sighting = await _sighting(claim, evidence, surroundings)
    if (
        sighting.node_count is None
        and not standing.needs_token
        and standing.gcs_healthy is not False
    ):
        # Not on this machine (or at the end of a tunnel): the dashboard has to tell it all.
        standing = await surroundings.dashboard(standing.host, standing.port, with_nodes=True)
    return _filled_from_dashboard(sighting, standing)


def _filled_from_dashboard(sighting: Sighting, standing: Standing) -> Sighting:
    return replace(
        sighting,
        node_count=standing.node_count if sighting.node_count is None else sighting.node_count,
        resources=standing.resources if sighting.resources is None else sighting.resources,
        gcs_address=sighting.gcs_address or standing.gcs_address,
        temp_dir=sighting.temp_dir or standing.temp_dir,
        python=sighting.python or standing.python,
    )
