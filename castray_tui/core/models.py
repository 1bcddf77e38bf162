"""The frozen state that the engine hands to every face.

Times are seconds since the epoch (UTC), as ``time.time`` gives them; faces turn them into ISO 8601.
Units stand in the names. What is not known is None, never 0. All text that came from a cluster has
passed ``castray_tui.core.text_safety`` before it gets here: it is bounded in length and free of
control characters, but it is still data and never markup.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Source = Literal[
    "ray_status", "dashboard_scan", "temp_dir", "process_scan", "env", "config", "manual"
]
"""How a cluster came to be known."""

DISCOVERY_METHODS: tuple[Source, ...] = (
    "ray_status",
    "process_scan",
    "dashboard_scan",
    "temp_dir",
)

NodeStatus = Literal["alive", "dead", "draining", "stale", "unreachable"]

ClusterState = Literal["connecting", "connected", "stale", "unreachable", "refused", "lost"]
"""``refused``: it answers and wants a token, or answers nothing readable.
``lost``: another cluster answers at its address now, or it has been gone for long."""

Access = Literal["dashboard", "gcs"]
"""Which of Ray's doors a cluster is read through."""

TransferKind = Literal["unicast", "multicast", "broadcast"]
TransferState = Literal["planning", "running", "paused", "done", "partial", "failed", "cancelled"]
Verdict = Literal["verified", "identical", "failed", "cancelled"]
Overwrite = Literal["never", "if-different", "always"]

LinkPolicy = Literal["keep", "follow", "refuse"]
"""What becomes of symbolic links inside a folder: sent as links, sent as what they lead to, or
the transfer refused."""

OrderKind = Literal["cancel", "pause", "unpause"]
"""What one castray may ask of another that runs a transfer."""

EventType = Literal[
    "cluster_discovered",
    "cluster_connected",
    "cluster_disconnected",
    "cluster_lost",
    "cluster_recovered",
    "cluster_restarted",
    "node_joined",
    "node_died",
    "node_draining",
    "transfer_started",
    "transfer_progressed",
    "transfer_finished",
    "discovery_finished",
]

LOCAL = "local"
"""The reserved name of the machine that castray runs on, as a cluster and as a node."""


@dataclass(frozen=True, slots=True)
class MethodOutcome:
    """What one discovery method came to.

    ``error`` is a sentence when the method failed or ran out of time; what it found still counts.
    """

    method: Source
    seconds: float
    found: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignService:
    """Something that answers at a scanned or named address and is no Ray dashboard."""

    address: str
    what: str


@dataclass(frozen=True, slots=True)
class DiscoveredCluster:
    """One Ray cluster that was found, whatever number of methods found it.

    Attributes:
        key: Its identity: Ray's cluster ID, else its session name, else, where neither can be
            read, ``address:`` and the address it answered at.
        name: Alias from the configuration, else ``<host>-<port>``; unique in a report.
        dashboard_url: ``http://host:port`` where a dashboard answers, else None.
        dashboard_vouched: Whether something better than its own word says that this dashboard is
            the cluster's: its processes, its GCS, or the user who named the address. One that only
            answered on a scanned port may lie about whose it is, and is never shown a token.
        gcs_address: ``host:port``.
        needs_token: Whether its dashboard asked for a token; None where nobody asked.
        on_this_host: Whether processes of it run on this machine.
        owner: The operating system's user whose processes these are, None if not on this host.
        owned_by_me: None where ``owner`` is not known.
        python: The interpreter that the cluster's workers run under, as its raylet names it.
        node_count: Alive nodes.
        resources: Total logical resources, by Ray's true names.
        notes: Sentences about oddities found on the way (dashboard silent, files stale …).
    """

    key: str
    name: str
    cluster_id: str | None = None
    session_name: str | None = None
    gcs_address: str | None = None
    dashboard_url: str | None = None
    dashboard_vouched: bool = False
    ray_version: str | None = None
    sources: tuple[Source, ...] = ()
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

    @property
    def address(self) -> str:
        """Where it is to be asked."""
        return self.dashboard_url or self.gcs_address or self.name

    def as_cluster(self, state: ClusterState) -> Cluster:
        """What is known of it before it was asked for its nodes."""
        return Cluster(
            key=self.key,
            name=self.name,
            address=self.address,
            state=state,
            sources=self.sources,
            dashboard_url=self.dashboard_url,
            gcs_address=self.gcs_address,
            ray_version=self.ray_version,
            session_name=self.session_name,
            cluster_id=self.cluster_id,
            discovered=self,
        )


@dataclass(frozen=True, slots=True)
class DiscoveryReport:
    """One whole discovery: what was found, how, and what else was in the way."""

    clusters: tuple[DiscoveredCluster, ...] = ()
    methods: tuple[MethodOutcome, ...] = ()
    foreign: tuple[ForeignService, ...] = ()
    started: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted file system of a node."""

    mount: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node. Ray reports memory in MB (``gpus[]`` of the dashboard's node summary)."""

    index: int | None = None
    name: str | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    process_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeHardware:
    """What a node's machine was doing at ``measured_at``, by its own clock."""

    measured_at: float | None = None
    cpu_percent: float | None = None
    cpu_logical_count: int | None = None
    cpu_physical_count: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    load_average_1m: float | None = None
    disks: tuple[Disk, ...] = ()
    disk_read_bytes_per_second: float | None = None
    disk_write_bytes_per_second: float | None = None
    network_sent_bytes_per_second: float | None = None
    network_received_bytes_per_second: float | None = None
    object_store_used_bytes: int | None = None
    object_store_total_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    boot_time: float | None = None

    @property
    def memory_percent(self) -> float | None:
        """Used memory as a share of all, 0 to 100."""
        if self.memory_total_bytes and self.memory_used_bytes is not None:
            return 100.0 * self.memory_used_bytes / self.memory_total_bytes
        return None

    @property
    def main_disk(self) -> Disk | None:
        """The disk that is shown where there is room for one: ``/``, else the largest."""
        for disk in self.disks:
            if disk.mount == "/":
                return disk
        return max(self.disks, key=lambda disk: disk.total_bytes or 0, default=None)


@dataclass(frozen=True, slots=True)
class Node:
    """One raylet, or the machine that castray runs on.

    Attributes:
        cluster_key: Identity of its cluster; ``local`` for the local node.
        cluster: Name of its cluster; ``local`` for the local node.
        node_id: Ray's node ID in hex; ``local`` for the local node.
        name: Short and unique in its cluster: ``head``, the IP or host name if no other node of
            the cluster has it, else a unique prefix of the node ID.
        reason: Ray's words for why it is dead or draining.
        resources_total: Logical resources by Ray's true names; memory in bytes.
        resources_used: The same keys, or None where Ray did not tell.
        last_seen: When castray last heard of it from its cluster, as alive.
        started_at, ended_at: As Ray tells.
    """

    cluster_key: str
    cluster: str
    node_id: str
    name: str
    status: NodeStatus
    address: str | None = None
    hostname: str | None = None
    is_head: bool = False
    reason: str | None = None
    resources_total: Mapping[str, float] = field(default_factory=dict)
    resources_used: Mapping[str, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    hardware: NodeHardware | None = None
    last_seen: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    worker_count: int | None = None
    python: str | None = None
    raylet_pid: int | None = None
    agent_port: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether this is the machine that castray runs on, rather than a node of a cluster."""
        return self.cluster_key == LOCAL

    @property
    def key(self) -> tuple[str, str]:
        """What tables are keyed by: (cluster_key, node_id)."""
        return (self.cluster_key, self.node_id)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster that castray is connected to, or tries to be.

    Attributes:
        key: As in DiscoveredCluster; ``address:…`` until it first answered.
        address: What castray was told to connect to, or worked out.
        error: Why it is not healthy, as a sentence, with the remedy if there is one.
        latency_seconds: How long the last answered poll took.
        answered_at: When it last answered.
        next_poll_at: When it will be asked again.
        jobs_running: None where Ray was not asked or did not tell.
    """

    key: str
    name: str
    address: str
    state: ClusterState
    access: Access | None = None
    sources: tuple[Source, ...] = ()
    dashboard_url: str | None = None
    gcs_address: str | None = None
    ray_version: str | None = None
    session_name: str | None = None
    cluster_id: str | None = None
    read_only: bool = False
    read_only_reason: str | None = None
    error: str | None = None
    connected_at: float | None = None
    answered_at: float | None = None
    next_poll_at: float | None = None
    latency_seconds: float | None = None
    node_count: int | None = None
    alive_count: int | None = None
    jobs_running: int | None = None
    resources_total: Mapping[str, float] = field(default_factory=dict)
    resources_used: Mapping[str, float] | None = None
    discovered: DiscoveredCluster | None = None


@dataclass(frozen=True, slots=True)
class TransferTarget:
    """One node and path of a transfer, with a verdict of its own.

    Attributes:
        path: As its agent worked it out, once it was asked; for eyes.
        bytes: Content bytes that it has so far; 0 where nothing had to be sent.
        seconds: From the first byte to the verdict.
        reason: Why the verdict is what it is, for failed and cancelled; while there is no verdict,
            what is waited for.
        attempts: How often sending to it was begun.
        via: The names of the nodes that its bytes pass, source first, itself last.
        leg: Which of ``Transfer.legs`` sends to it.
        source: Its own source address, where the transfer has several source nodes.
        asked_path: The path as it was asked for: a folder to put the source into ends in ``/``.
        address: The node's, by which it is known again when it comes back as a new node.
        bytes_total: Size of what it is to have; None until that is known.
        sent_bytes: What went over the network to it, what was sent twice included.
        started, ended: When the first attempt began; when it got its verdict.
    """

    cluster: str
    node: str
    path: str
    verdict: Verdict | None = None
    reason: str | None = None
    digest: str | None = None
    bytes: int = 0
    seconds: float | None = None
    attempts: int = 0
    node_id: str | None = None
    via: tuple[str, ...] = ()
    leg: int = 0
    source: str | None = None
    asked_path: str | None = None
    address: str | None = None
    bytes_total: int | None = None
    sent_bytes: int | None = None
    started: float | None = None
    ended: float | None = None

    @property
    def bytes_per_second(self) -> float | None:
        """How fast its content came; None where nothing was sent."""
        return self.bytes / self.seconds if self.bytes and self.seconds else None


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """What somebody asks to be sent where; addresses as in ``castray cp``.

    Attributes:
        include, exclude: Patterns over the paths inside the source folders; what is excluded
            stays behind unless it is included.
        link_rate_limit_bytes_per_second: For each stream from one agent to another.
        patience_seconds: How long a target that was lost is waited for; None for what the
            settings say.
        streams: How many streams one agent sends at once at most; None for the settings' number.
        delete: Whether what is in a target's folders and not in the source's is removed, except
            what the patterns leave out.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    overwrite: Overwrite = "if-different"
    rate_limit_bytes_per_second: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    links: LinkPolicy = "keep"
    link_rate_limit_bytes_per_second: int | None = None
    patience_seconds: float | None = None
    streams: int | None = None
    delete: bool = False


@dataclass(frozen=True, slots=True)
class TransferLeg:
    """One source node of a transfer, and what goes out from it.

    Attributes:
        paths: Real paths on that node, as they were asked for.
        bytes_total: Size of the content; None until the node was asked.
        files: Number of files; None until the node was asked.
        digest: ``sha256:…`` of the content, when known.
        token: The same as long as nothing in the source changes; None until the node was asked.
    """

    cluster: str
    node: str
    paths: tuple[str, ...]
    node_id: str | None = None
    address: str | None = None
    bytes_total: int | None = None
    files: int | None = None
    digest: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One source, or several, on the way to one or more targets.

    Attributes:
        source: As it was asked for: an address, ``CLUSTER/NODE:PATH`` or ``local:PATH``; several
            with commas between them.
        bytes_total: Size of all sources together; None until they were asked.
        bytes_done: Sum of what all targets have, up to ``bytes_wanted``.
        digest: ``sha256:…`` of the source, when known; None where there are several source nodes,
            each of which has its own.
        route: One line per hop, ``A/head → B/10.0.0.2``.
        request: What was asked for, paths of this machine absolute; None in the journals of
            older castrays.
        legs: The source nodes; empty in the journals of older castrays.
        files: Number of files in all sources; None until they were asked.
        user: Who asked for it, ``user@host``.
    """

    id: str
    kind: TransferKind
    state: TransferState
    source: str
    targets: tuple[TransferTarget, ...]
    bytes_total: int | None = None
    bytes_done: int = 0
    started: float | None = None
    ended: float | None = None
    digest: str | None = None
    error: str | None = None
    route: tuple[str, ...] = ()
    overwrite: Overwrite = "if-different"
    rate_limit_bytes_per_second: int | None = None
    request: TransferRequest | None = None
    legs: tuple[TransferLeg, ...] = ()
    files: int | None = None
    user: str | None = None

    @property
    def bytes_wanted(self) -> int | None:
        """What all targets together will have when all is well; None until it is known."""
        sizes = [
            self.bytes_total if target.bytes_total is None and not self.legs else target.bytes_total
            for target in self.targets
        ]
        known = [size for size in sizes if size is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """What another castray asks of the one that runs a transfer."""

    id: int
    transfer_id: str
    kind: OrderKind


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """What would happen to one target, found out before the first byte.

    Attributes:
        action: ``send``, ``skip`` (identical already there) or ``refuse``.
        reason: Why it is refused or skipped.
        free_bytes: What is free on the target's disk.
        existing_bytes: Size of the file that is there now; None where there is none.
        source: Its own source address, where there are several source nodes.
        send_bytes: What would be sent to it; less than the source where it has part of that.
        held_bytes: What its agent still holds of an earlier attempt at this transfer.
    """

    cluster: str
    node: str
    path: str
    action: Literal["send", "skip", "refuse"]
    reason: str | None = None
    free_bytes: int | None = None
    existing_bytes: int | None = None
    node_id: str | None = None
    source: str | None = None
    send_bytes: int | None = None
    held_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """A transfer as it would be made, target by target.

    Attributes:
        route: One line per hop, as in ``Transfer``.
        predicted_seconds: From the rates that were measured between the nodes; None where they
            could not be.
        files: Number of files in all sources.
    """

    source: str
    kind: TransferKind
    bytes_total: int | None
    digest: str | None
    targets: tuple[PlannedTarget, ...]
    route: tuple[str, ...] = ()
    predicted_seconds: float | None = None
    files: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``data`` holds only what JSON can hold."""

    id: int
    type: EventType
    time: float
    message: str
    cluster: str | None = None
    node: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """Something that happened, before it has its number and its place in the journal."""

    type: EventType
    message: str
    cluster: str | None = None
    node: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file that a node offers."""

    name: str
    group: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything castray knows at one moment. ``EMPTY_FLEET`` is the state before the first answer.

    Attributes:
        version: Grows by one with every change; equal versions are equal fleets.
        nodes: The local node first, then clusters in the order of their names.
        discovering: Whether a discovery is under way.
    """

    version: int = 0
    time: float = 0.0
    clusters: tuple[Cluster, ...] = ()
    discovered: tuple[DiscoveredCluster, ...] = ()
    nodes: tuple[Node, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    last_event: Event | None = None
    last_report: DiscoveryReport | None = None
    discovering: bool = False
    read_only: bool = False

    def cluster_named(self, name: str) -> Cluster | None:
        """The connected cluster of that name, or None."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


EMPTY_FLEET = Fleet()
