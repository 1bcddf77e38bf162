"""What passes between the methods, the verification and the merging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from castray_tui.core.discovery.ray_processes import LocalSession
from castray_tui.core.models import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a method read somewhere: a cluster that may or may not live.

    Attributes:
        gcs: ``(host, port)`` to ask, best guess first.
        dashboards: The same for its dashboard.
        local: Its processes on this machine, if there are any.
    """

    sources: tuple[Source, ...]
    cluster_id: str | None = None
    session_name: str | None = None
    gcs: tuple[tuple[str, int], ...] = ()
    dashboards: tuple[tuple[str, int], ...] = ()
    temp_dir: str | None = None
    session_dir: str | None = None
    local: LocalSession | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A living cluster as one method saw it.

    Attributes:
        places: Everything it can be recognised by besides its identity, as ``gcs|PLACE`` and
            ``dashboard|PLACE`` (see ``Surroundings.place``), those that answered or were silent.
        name_host: What its name begins with.
        name_port: What its name ends with.
        client_places: Places of its Ray client servers.
    """

    sources: tuple[Source, ...]
    cluster_id: str | None = None
    session_name: str | None = None
    gcs_address: str | None = None
    dashboard_url: str | None = None
    ray_version: str | None = None
    needs_token: bool | None = None
    on_this_host: bool = False
    owner: str | None = None
    owned_by_me: bool | None = None
    temp_dir: str | None = None
    session_dir: str | None = None
    python: str | None = None
    node_count: int | None = None
    resources: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()
    places: frozenset[str] = frozenset()
    client_places: frozenset[str] = frozenset()
    name_host: str = ""
    name_port: int | None = None
