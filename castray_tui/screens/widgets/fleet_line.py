"""The line at the top: what the whole fleet has, is and does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from castray_tui.core.models import Fleet, Node, NodeStatus
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Piece, Role, cell_width, fit
from castray_tui.screens.widgets.glyphs import Glyphs, load_role
from castray_tui.screens.widgets.line import Line
from castray_tui.screens.widgets.node_columns import gpu_percent
from castray_tui.screens.widgets.transfer_rates import ENDED

_UNWELL: tuple[tuple[NodeStatus, Role], ...] = (
    ("dead", "bad"),
    ("unreachable", "bad"),
    ("stale", "warn"),
    ("draining", "warn"),
)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def fleet_parts(fleet: Fleet, glyphs: Glyphs) -> list[Cell]:
    """What can stand on the line, the most important first."""
    connected = sum(cluster.state == "connected" for cluster in fleet.clusters)
    external = [node for node in fleet.nodes if not node.is_local]
    counts = Counter(node.status for node in fleet.nodes)
    parts: list[Cell] = []
    clusters: list[Piece] = [("clusters ", "dim"), (str(connected), "strong")]
    if connected < len(fleet.clusters):
        clusters.append((f"/{len(fleet.clusters)}", "warn"))
    parts.append(tuple(clusters))
    nodes: list[Piece] = [("nodes ", "dim"), (f"{counts['alive']} alive", "strong")]
    nodes += [(f" {counts[status]} {status}", role) for status, role in _UNWELL if counts[status]]
    parts.append(tuple(nodes))
    load = _load_parts(fleet.nodes, external)
    parts += load[:2]
    running = sum(transfer.state not in ENDED for transfer in fleet.transfers)
    parts.append(
        (("transfers ", "dim"), (str(running), "accent" if running else "dim")),
    )
    parts += load[2:]
    if fleet.discovering:
        parts.append(((f"{glyphs.waiting} discovering", "accent"),))
    return parts


def _load_parts(nodes: Iterable[Node], external: list[Node]) -> list[Cell]:
    living = [node for node in nodes if node.status in {"alive", "draining"}]
    parts: list[Cell] = []
    cpu = _mean(node.hardware.cpu_percent if node.hardware else None for node in living)
    parts.append((("CPU ", "dim"), (figures.percent(cpu), load_role(cpu))))
    memory = _mean(node.hardware.memory_percent if node.hardware else None for node in living)
    parts.append((("MEM ", "dim"), (figures.percent(memory), load_role(memory))))
    gpus = sum(node.resources_total.get("GPU", 0.0) for node in external)
    gpu_count = max(gpus, float(sum(len(n.hardware.gpus) for n in living if n.hardware)))
    if gpu_count:
        use = _mean(gpu_percent(node.hardware) for node in living)
        parts.append(
            (("GPU ", "dim"), (f"{figures.amount(gpu_count)}x {figures.percent(use)}", "")),
        )
    providers = [node for node in living if not node.is_local]
    cpus = sum(node.resources_total.get("CPU", 0.0) for node in providers)
    if cpus:
        used = sum((node.resources_used or {}).get("CPU", 0.0) for node in providers)
        parts.append((("CPUs ", "dim"), (figures.used_of(used, cpus), "")))
    return parts


class FleetLine(Line):
    """The line at the top of the screen."""

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:  # noqa: A002 - Textual's
        super().__init__(glyphs, id=id)
        self._parts: list[Cell] = []
        self._right: Cell = ()

    def show_fleet(self, fleet: Fleet, *, read_only: bool) -> None:
        """Shows another state of the fleet."""
        parts = fleet_parts(fleet, self._glyphs)
        right: Cell = ((" READ-ONLY ", "warn"),) if read_only or fleet.read_only else ()
        if parts != self._parts or right != self._right:
            self._parts, self._right = parts, right
            self.refresh()

    @property
    def text(self) -> str:
        """What the line says, whole."""
        return "  ".join("".join(text for text, _ in part) for part in (*self._parts, self._right))

    def cell(self, width: int) -> Cell:
        """The name, as many parts as fit, the badge at the right end."""
        left: list[Piece] = [(" castray ", "title")]
        room = width - cell_width(left) - cell_width(self._right)
        for part in self._parts:
            wanted = cell_width(part) + 2
            if wanted > room:
                continue
            left += [("  ", ""), *part]
            room -= wanted
        fitted = fit(
            tuple(left), max(width - cell_width(self._right), 0), ellipsis=self._glyphs.ellipsis
        )
        return (*fitted, *self._right)
