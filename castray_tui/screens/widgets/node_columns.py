"""The columns of the node table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from castray_tui.core.models import Node, NodeHardware, NodeStatus
from castray_tui.core.node_filter import SORT_COLUMNS
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Role, text_width
from castray_tui.screens.widgets.columns import Column, Paint
from castray_tui.screens.widgets.glyphs import Glyphs, meter
from castray_tui.screens.widgets.row_list import Order

NodeKey: TypeAlias = tuple[str, str]

_STATUS_ROLES: Mapping[NodeStatus, Role] = {
    "alive": "ok",
    "dead": "bad",
    "draining": "warn",
    "stale": "warn",
    "unreachable": "bad",
}
_QUIET: frozenset[NodeStatus] = frozenset({"dead", "stale", "unreachable"})


def status_cell(status: NodeStatus, glyphs: Glyphs) -> Cell:
    """A sign and the word: the colour repeats what the word says."""
    sign: str = getattr(glyphs, status)
    role = _STATUS_ROLES[status]
    return ((f"{sign} ", role), (status, "" if status == "alive" else role))


def node_row_role(node: Node) -> Role:
    """Rows whose figures are old are drawn quiet."""
    return "dim" if node.status in _QUIET else ""


def natural_node_order(node: Node) -> Order:
    """The local node, then clusters by name, the head before the others, then by name."""
    cluster = SORT_COLUMNS["cluster"](node) or ()
    name = SORT_COLUMNS["node"](node) or ()
    return (cluster, not node.is_head, name, node.node_id)


def gpu_percent(hardware: NodeHardware | None) -> float | None:
    """The mean use of a node's GPUs."""
    known = [
        gpu.utilization_percent
        for gpu in (hardware.gpus if hardware else ())
        if gpu.utilization_percent is not None
    ]
    return sum(known) / len(known) if known else None


def disk_percent(hardware: NodeHardware | None) -> float | None:
    """How full the disk is that stands for the node."""
    disk = hardware.main_disk if hardware else None
    return figures.share(disk.used_bytes, disk.total_bytes) if disk else None


def store_percent(hardware: NodeHardware | None) -> float | None:
    """How full the object store is."""
    if hardware is None:
        return None
    return figures.share(hardware.object_store_used_bytes, hardware.object_store_total_bytes)


def _kind(node: Node, paint: Paint) -> Cell:
    if node.is_local:
        return ((paint.glyphs.local, "accent"),)
    return ((paint.glyphs.external, "dim"),)


def _metered(value: Callable[[Node], float | None]) -> Callable[[Node, Paint], Cell]:
    return lambda node, paint: meter(value(node), paint.width, paint.glyphs)


def _cpus(node: Node, _: Paint) -> Cell:
    used = None if node.resources_used is None else node.resources_used.get("CPU", 0.0)
    total = node.resources_total.get("CPU")
    if total is None:
        return ((figures.UNKNOWN, "dim"),)
    return ((figures.used_of(used, total), ""),)


def _gpus(node: Node, paint: Paint) -> Cell:
    total = node.resources_total.get("GPU")
    count = len(node.hardware.gpus) if node.hardware else 0
    if not total and not count:
        return ((figures.UNKNOWN, "dim"),)
    value = gpu_percent(node.hardware)
    if value is None:
        used = None if node.resources_used is None else node.resources_used.get("GPU", 0.0)
        return ((figures.used_of(used, total or float(count)), ""),)
    return meter(value, paint.width, paint.glyphs)


def _network(node: Node, paint: Paint) -> Cell:
    hardware = node.hardware
    sent = hardware.network_sent_bytes_per_second if hardware else None
    received = hardware.network_received_bytes_per_second if hardware else None
    if sent is None and received is None:
        return ((figures.UNKNOWN, "dim"),)
    return (
        (paint.glyphs.received, "dim"),
        (f"{figures.size(received):<5} ", ""),
        (paint.glyphs.sent, "dim"),
        (f"{figures.size(sent):<5}", ""),
    )


def _age(node: Node, paint: Paint) -> Cell:
    seconds = figures.since(node.last_seen, paint.now)
    role: Role = "" if node.status in {"alive", "draining"} else "warn"
    return ((figures.freshness(seconds), role if seconds is not None else "dim"),)


def _reason(node: Node, _: Paint) -> Cell:
    if not node.reason:
        return ()
    return ((node.reason, "bad" if node.status == "dead" else "warn"),)


NODE_COLUMNS: tuple[Column[Node], ...] = (
    Column("type", "", _kind, 1),
    Column(
        "cluster",
        "CLUSTER",
        lambda node, _: ((node.cluster, ""),),
        8,
        24,
        value=SORT_COLUMNS["cluster"],
        content=lambda node: text_width(node.cluster),
        wish=14,
    ),
    Column(
        "node",
        "NODE",
        lambda node, _: ((node.name, "strong"),),
        8,
        32,
        value=SORT_COLUMNS["node"],
        content=lambda node: text_width(node.name),
        wish=13,
    ),
    Column(
        "state",
        "STATE",
        lambda node, paint: status_cell(node.status, paint.glyphs),
        7,
        13,
        value=SORT_COLUMNS["state"],
        content=lambda node: 2 + len(node.status),
        wish=13,
        loud=True,
    ),
    Column(
        "cpu",
        "CPU",
        _metered(lambda node: node.hardware.cpu_percent if node.hardware else None),
        4,
        15,
        wish=10,
        priority=1,
        right=True,
        value=SORT_COLUMNS["cpu"],
        descends=True,
    ),
    Column(
        "memory",
        "MEM",
        _metered(lambda node: node.hardware.memory_percent if node.hardware else None),
        4,
        15,
        wish=10,
        priority=1,
        right=True,
        value=SORT_COLUMNS["memory"],
        descends=True,
    ),
    Column(
        "gpu",
        "GPU",
        _gpus,
        4,
        15,
        wish=10,
        priority=2,
        right=True,
        value=SORT_COLUMNS["gpu"],
        descends=True,
    ),
    Column(
        "disk",
        "DISK",
        _metered(lambda node: disk_percent(node.hardware)),
        4,
        15,
        wish=10,
        priority=3,
        right=True,
        value=SORT_COLUMNS["disk"],
        descends=True,
    ),
    Column(
        "store",
        "STORE",
        _metered(lambda node: store_percent(node.hardware)),
        5,
        15,
        wish=10,
        priority=6,
        right=True,
        value=SORT_COLUMNS["store"],
        descends=True,
    ),
    Column(
        "cpus",
        "CPUS",
        _cpus,
        7,
        9,
        priority=2,
        right=True,
        value=SORT_COLUMNS["cpus"],
        descends=True,
    ),
    Column(
        "net",
        "NET",
        _network,
        13,
        priority=5,
        value=SORT_COLUMNS["net"],
        descends=True,
    ),
    Column("age", "AGE", _age, 4, priority=1, right=True, value=SORT_COLUMNS["seen"], loud=True),
    Column(
        "address",
        "ADDRESS",
        lambda node, _: ((node.address or figures.UNKNOWN, "dim"),),
        9,
        22,
        priority=7,
        value=SORT_COLUMNS["address"],
        content=lambda node: text_width(node.address or ""),
        wish=13,
    ),
    Column(
        "host",
        "HOST",
        lambda node, _: ((node.hostname or figures.UNKNOWN, "dim"),),
        9,
        32,
        priority=8,
        value=SORT_COLUMNS["host"],
        content=lambda node: text_width(node.hostname or ""),
        wish=13,
    ),
    Column("reason", "REASON", _reason, 12, 200, priority=4, wish=14, loud=True),
)


def idle_columns(nodes: Iterable[Node]) -> frozenset[str]:
    """Columns that have nothing to say about these nodes: GPUs where there are none, reasons where
    all is well."""
    idle = {"gpu", "reason"}
    for node in nodes:
        if node.reason:
            idle.discard("reason")
        if node.resources_total.get("GPU") or (node.hardware is not None and node.hardware.gpus):
            idle.discard("gpu")
        if not idle:
            break
    return frozenset(idle)
