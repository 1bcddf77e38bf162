"""The columns of the clusters pane, which lists connected clusters and those only found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from castray_tui.core.models import Cluster, ClusterState, DiscoveredCluster, Fleet
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Role, text_width
from castray_tui.screens.widgets.columns import Column, Paint
from castray_tui.screens.widgets.row_list import Order


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster that castray is connected to, or one that it only found."""

    cluster: Cluster | None = None
    found: DiscoveredCluster | None = None

    @property
    def name(self) -> str:
        """Its name."""
        if self.cluster is not None:
            return self.cluster.name
        return self.found.name if self.found is not None else figures.UNKNOWN

    @property
    def key(self) -> str:
        """Its identity."""
        if self.cluster is not None:
            return self.cluster.key
        return self.found.key if self.found is not None else ""

    @property
    def state_word(self) -> str:
        """The state of the connection, or ``found``."""
        return "found" if self.cluster is None else self.cluster.state

    @property
    def texts(self) -> tuple[str | None, ...]:
        """What a filter looks at."""
        either = self.cluster or self.found
        if either is None:
            return ()
        return (
            either.name,
            either.ray_version,
            either.gcs_address,
            either.dashboard_url,
            self.state_word,
            self.cluster.error if self.cluster is not None else None,
        )


def cluster_rows(fleet: Fleet) -> dict[str, ClusterRow]:
    """Connected clusters, then those found and not connected, each once."""
    rows = {cluster.key: ClusterRow(cluster, cluster.discovered) for cluster in fleet.clusters}
    names = {cluster.name for cluster in fleet.clusters}
    for found in fleet.discovered:
        if found.key not in rows and found.name not in names:
            rows[found.key] = ClusterRow(None, found)
    return rows


_STATE_SIGNS: Mapping[ClusterState, tuple[str, Role]] = {
    "connecting": ("waiting", "accent"),
    "connected": ("alive", "ok"),
    "stale": ("stale", "warn"),
    "unreachable": ("unreachable", "bad"),
    "refused": ("unreachable", "bad"),
    "lost": ("dead", "bad"),
}


def _state(row: ClusterRow, paint: Paint) -> Cell:
    if row.cluster is None:
        return ((f"{paint.glyphs.found} ", "accent"), ("found", "dim"))
    attribute, role = _STATE_SIGNS[row.cluster.state]
    word_role: Role = "" if row.cluster.state == "connected" else role
    return ((f"{getattr(paint.glyphs, attribute)} ", role), (row.cluster.state, word_role))


def _name(row: ClusterRow, paint: Paint) -> Cell:
    if row.cluster is not None and row.cluster.read_only:
        return ((row.name, "strong"), (f" {paint.glyphs.locked}ro", "warn"))
    return ((row.name, "strong" if row.cluster is not None else ""),)


def _version(row: ClusterRow) -> str | None:
    if row.cluster is not None and row.cluster.ray_version is not None:
        return row.cluster.ray_version
    return row.found.ray_version if row.found is not None else None


def _nodes(row: ClusterRow, _: Paint) -> Cell:
    if row.cluster is None:
        count = row.found.node_count if row.found is not None else None
        return ((figures.amount(count), "dim"),)
    alive, total = row.cluster.alive_count, row.cluster.node_count
    if alive is None and total is None:
        return ((figures.UNKNOWN, "dim"),)
    role: Role = "warn" if alive is not None and total is not None and alive < total else ""
    return ((figures.used_of(alive, total), role),)


def _resource(row: ClusterRow, name: str) -> tuple[float | None, float | None]:
    if row.cluster is None:
        resources = row.found.resources if row.found is not None else None
        return None, None if resources is None else resources.get(name)
    used = row.cluster.resources_used
    total = row.cluster.resources_total.get(name)
    return None if used is None or total is None else used.get(name, 0.0), total


def _cpus(row: ClusterRow, _: Paint) -> Cell:
    used, total = _resource(row, "CPU")
    if total is None:
        return ((figures.UNKNOWN, "dim"),)
    return ((figures.used_of(used, total) if used is not None else figures.amount(total), ""),)


def _memory(row: ClusterRow, _: Paint) -> Cell:
    used, total = _resource(row, "memory")
    if total is None:
        return ((figures.UNKNOWN, "dim"),)
    return ((f"{figures.size(used)}/{figures.size(total)}", ""),)


def _jobs(row: ClusterRow, _: Paint) -> Cell:
    count = row.cluster.jobs_running if row.cluster is not None else None
    return ((figures.amount(count), "dim" if not count else ""),)


def _latency(row: ClusterRow, _: Paint) -> Cell:
    seconds = row.cluster.latency_seconds if row.cluster is not None else None
    role: Role = "dim" if seconds is None else "warn" if seconds >= 1 else ""
    return ((figures.latency(seconds), role),)


def _age(row: ClusterRow, paint: Paint) -> Cell:
    moment = row.cluster.answered_at if row.cluster is not None else None
    seconds = figures.since(moment, paint.now)
    healthy = row.cluster is not None and row.cluster.state == "connected"
    return ((figures.freshness(seconds), "dim" if seconds is None else "" if healthy else "warn"),)


def _door(row: ClusterRow, _: Paint) -> Cell:
    if row.cluster is not None:
        return ((row.cluster.access or figures.UNKNOWN, "dim"),)
    if row.found is not None and row.found.dashboard_url is not None:
        return (("dashboard", "dim"),)
    return (("gcs", "dim"),)


def _note(row: ClusterRow, _: Paint) -> Cell:
    if row.cluster is not None:
        if row.cluster.error:
            return ((row.cluster.error, "bad" if row.cluster.state != "stale" else "warn"),)
        if row.cluster.read_only and row.cluster.read_only_reason:
            return ((row.cluster.read_only_reason, "dim"),)
        address = row.cluster.dashboard_url or row.cluster.gcs_address or row.cluster.address
        return ((address, "dim"),)
    if row.found is None:
        return ()
    if row.found.needs_token:
        return (("needs a token: c connects", "warn"),)
    return (("c connects", "dim"),)


def natural_cluster_order(row: ClusterRow) -> Order:
    """Connected ones first, each part by name."""
    return (0.0 if row.cluster is not None else 1.0, row.name.casefold())


def _number(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (float(value),)


CLUSTER_COLUMNS: tuple[Column[ClusterRow], ...] = (
    Column(
        "state",
        "STATE",
        _state,
        11,
        13,
        value=lambda row: (row.state_word,),
        content=lambda row: 2 + len(row.state_word),
    ),
    Column(
        "cluster",
        "CLUSTER",
        _name,
        10,
        32,
        value=lambda row: (row.name.casefold(),),
        content=lambda row: (
            text_width(row.name) + (4 if row.cluster is not None and row.cluster.read_only else 0)
        ),
        wish=18,
    ),
    Column(
        "version",
        "RAY",
        lambda row, _: ((_version(row) or figures.UNKNOWN, ""),),
        7,
        priority=2,
        value=lambda row: None if (version := _version(row)) is None else (version,),
    ),
    Column(
        "nodes",
        "NODES",
        _nodes,
        6,
        priority=1,
        right=True,
        value=lambda row: _number(row.cluster.node_count if row.cluster is not None else None),
        descends=True,
    ),
    Column(
        "cpus",
        "CPUS",
        _cpus,
        7,
        9,
        priority=3,
        right=True,
        value=lambda row: _number(_resource(row, "CPU")[1]),
        descends=True,
    ),
    Column(
        "memory",
        "MEMORY",
        _memory,
        9,
        11,
        priority=6,
        right=True,
        value=lambda row: _number(_resource(row, "memory")[1]),
        descends=True,
    ),
    Column(
        "jobs",
        "JOBS",
        _jobs,
        4,
        priority=5,
        right=True,
        value=lambda row: _number(row.cluster.jobs_running if row.cluster is not None else None),
        descends=True,
    ),
    Column(
        "latency",
        "ANSWER",
        _latency,
        6,
        priority=3,
        right=True,
        value=lambda row: _number(row.cluster.latency_seconds if row.cluster is not None else None),
        descends=True,
    ),
    Column("age", "AGE", _age, 4, priority=1, right=True),
    Column("door", "VIA", _door, 9, priority=7),
    Column("note", "WHERE OR WHY", _note, 12, 200, priority=2),
)
