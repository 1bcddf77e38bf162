"""Makes one cluster of everything that several methods saw of it, and gives it a name.

Identity is Ray's cluster ID, else the session name. A place (an address) only joins what cannot say
who it is to what stands at the same place; it never joins two that name different identities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from castray_tui.core.discovery.sightings import Sighting
from castray_tui.core.models import DISCOVERY_METHODS, LOCAL, DiscoveredCluster, Source

_SOURCE_ORDER: tuple[Source, ...] = (*DISCOVERY_METHODS, "env", "config", "manual")
# Whose word counts first: processes know owner and paths, a dashboard knows least.
_TRUST_ORDER: tuple[Source, ...] = ("process_scan", "manual", "ray_status", "temp_dir")
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME_CHARACTERS = 80


def merge(
    sightings: Iterable[Sighting], aliases: Mapping[str, str] | None = None
) -> tuple[DiscoveredCluster, ...]:
    """Merges sightings of the same cluster.

    Args:
        sightings: Living clusters as methods saw them, in any order.
        aliases: Place (``gcs|…``, ``dashboard|…``, ``client|…``) → name from the configuration.

    Returns:
        Each cluster once, with all its sources and a unique name, in the order of names.
    """
    named = frozenset(aliases or {})
    groups = [
        sorted(group, key=lambda sighting: (_trust(sighting), not sighting.places & named))
        for group in _groups(sorted(sightings, key=_stable_order))
    ]
    names = _names(groups, aliases or {})
    clusters = [_cluster(group, *name, named) for group, name in zip(groups, names, strict=True)]
    return tuple(sorted(clusters, key=lambda cluster: cluster.name))


def _stable_order(sighting: Sighting) -> tuple[str, ...]:
    return (
        sighting.cluster_id or "",
        sighting.session_name or "",
        sighting.gcs_address or "",
        sighting.dashboard_url or "",
        *sighting.sources,
    )


def _trust(sighting: Sighting) -> int:
    ranks = [_TRUST_ORDER.index(source) for source in sighting.sources if source in _TRUST_ORDER]
    return min(ranks, default=len(_TRUST_ORDER))


def _groups(sightings: Sequence[Sighting]) -> list[list[Sighting]]:
    groups = [[sighting] for sighting in sightings]
    for same in (_same_cluster_id, _same_session, _same_place):
        merged: list[list[Sighting]] = []
        for group in groups:
            for other in merged:
                if same(group, other):
                    other.extend(group)
                    break
            else:
                merged.append(group)
        groups = merged
    return groups


def _values(group: Iterable[Sighting], name: str) -> set[str]:
    return {value for sighting in group if (value := getattr(sighting, name)) is not None}


def _same_cluster_id(one: Sequence[Sighting], other: Sequence[Sighting]) -> bool:
    return bool(_values(one, "cluster_id") & _values(other, "cluster_id"))


def _same_session(one: Sequence[Sighting], other: Sequence[Sighting]) -> bool:
    if _differ(one, other, "cluster_id"):
        return False
    return bool(_values(one, "session_name") & _values(other, "session_name"))


def _same_place(one: Sequence[Sighting], other: Sequence[Sighting]) -> bool:
    if _differ(one, other, "cluster_id") or _differ(one, other, "session_name"):
        return False
    places = frozenset[str]().union(*(sighting.places for sighting in one))
    return any(sighting.places & places for sighting in other)


def _differ(one: Iterable[Sighting], other: Iterable[Sighting], name: str) -> bool:
    mine, theirs = _values(one, name), _values(other, name)
    return bool(mine and theirs) and not mine & theirs


def _names(
    groups: Sequence[Sequence[Sighting]], aliases: Mapping[str, str]
) -> list[tuple[str, bool]]:
    """A name for each, and whether it is an alias."""
    wanted: list[tuple[str, bool]] = []
    for group in groups:
        places = set[str]().union(*(sighting.places for sighting in group))
        places |= {f"client|{place}" for sighting in group for place in sighting.client_places}
        alias = next((aliases[place] for place in sorted(places) if place in aliases), None)
        wanted.append((alias, True) if alias else (_own_name(group), False))
    taken = {name for name, is_alias in wanted if is_alias} | {LOCAL}
    counts: dict[str, int] = {}
    for name, _ in wanted:
        counts[name] = counts.get(name, 0) + 1
    names: list[tuple[str, bool]] = []
    used = set[str]()
    for (name, is_alias), group in zip(wanted, groups, strict=True):
        unique = name
        if (counts[name] > 1 or name in taken) and not (is_alias and name not in used):
            unique = f"{name}-{_mark(group[0])}"
        number = 2
        while unique in used:
            unique, number = f"{name}-{_mark(group[0])}-{number}", number + 1
        used.add(unique)
        names.append((unique, is_alias))
    return names


def _own_name(group: Sequence[Sighting]) -> str:
    # A dashboard's port goes before that of a GCS; methods that saw no dashboard do not decide.
    ranked = sorted(group, key=lambda sighting: (not _names_dashboard(sighting), _trust(sighting)))
    best = next((sighting for sighting in ranked if sighting.name_port), ranked[0])
    port = f"-{best.name_port}" if best.name_port else ""
    return legal_name(f"{best.name_host or 'unknown'}{port}")


def _names_dashboard(sighting: Sighting) -> bool:
    return any(place.startswith("dashboard|") for place in sighting.places)


def _mark(sighting: Sighting) -> str:
    """Four characters that tell namesakes apart, the same in every discovery."""
    if sighting.cluster_id:
        return sighting.cluster_id[:4]
    return legal_name((sighting.session_name or sighting.gcs_address or "x")[-4:])


def legal_name(text: str) -> str:
    """The text with only the characters that a cluster's name may have."""
    name = _ILLEGAL.sub("-", text).strip("-.")[:_MAX_NAME_CHARACTERS]
    return name or "unknown"


def _cluster(
    group: Sequence[Sighting], name: str, is_alias: bool, named: frozenset[str]
) -> DiscoveredCluster:
    def first(attribute: str) -> str | None:
        return next((value for s in group if (value := getattr(s, attribute)) is not None), None)

    sources = {source for sighting in group for source in sighting.sources}
    if is_alias:
        sources.add("config")
    tokens = {sighting.needs_token for sighting in group}
    cluster_id, session_name = first("cluster_id"), first("session_name")
    gcs_address = first("gcs_address")
    with_dashboard = next((sighting for sighting in group if sighting.dashboard_url), None)
    dashboard_url = with_dashboard.dashboard_url if with_dashboard else None
    address = dashboard_url.partition("://")[2] if dashboard_url else gcs_address
    counted = next((sighting for sighting in group if sighting.node_count is not None), None)
    return DiscoveredCluster(
        key=cluster_id or session_name or f"address:{address or name}",
        name=name,
        cluster_id=cluster_id,
        session_name=session_name,
        gcs_address=gcs_address,
        dashboard_url=dashboard_url,
        dashboard_vouched=with_dashboard is not None and _is_vouched(with_dashboard, named),
        ray_version=first("ray_version"),
        sources=tuple(source for source in _SOURCE_ORDER if source in sources),
        needs_token=True if True in tokens else (False if False in tokens else None),
        on_this_host=any(sighting.on_this_host for sighting in group),
        owner=first("owner"),
        owned_by_me=next((s.owned_by_me for s in group if s.owned_by_me is not None), None),
        temp_dir=first("temp_dir"),
        session_dir=first("session_dir"),
        python=first("python"),
        node_count=counted.node_count if counted else None,
        resources=counted.resources if counted else None,
        notes=tuple(dict.fromkeys(note for sighting in group for note in sighting.notes)),
    )


def _is_vouched(sighting: Sighting, named: frozenset[str]) -> bool:
    """Whether more than the dashboard's own word says whose it is: see ``DiscoveredCluster``."""
    dashboards = {place for place in sighting.places if place.startswith("dashboard|")}
    return _trust(sighting) < len(_TRUST_ORDER) or bool(dashboards & named)
