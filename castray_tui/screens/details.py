"""Everything castray knows of one cluster, node or event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from castray_tui.core.models import Event, Fleet, Node
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import drawable
from castray_tui.screens.widgets.cluster_columns import ClusterRow, cluster_rows
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.key_bar import KeyBar
from castray_tui.screens.widgets.node_columns import NodeKey

Fact = tuple[str, str]
Section = tuple[str, Sequence[Fact]]


def facts_content(sections: Sequence[Section]) -> Content:
    """Sections of names and values as text; values are data, never markup."""
    lines: list[Content] = []
    for title, facts in sections:
        if not facts:
            continue
        if lines:
            lines.append(Content(""))
        if title:
            lines.append(Content.assemble((title, "bold $primary")))
        for name, value in facts:
            shown = drawable(value)
            lines.append(Content.assemble((f"  {name:<18} ", "$secondary"), shown))
    return Content("\n").join(lines)


def known(*facts: tuple[str, str | None]) -> list[Fact]:
    """Those of the facts that say something."""
    return [(name, value) for name, value in facts if value not in {None, "", figures.UNKNOWN}]


def _resources(total: Mapping[str, float], used: Mapping[str, float] | None) -> list[Fact]:
    facts: list[Fact] = []
    for name in sorted(total):
        in_bytes = name in {"memory", "object_store_memory"}
        whole = figures.size(total[name]) if in_bytes else figures.amount(total[name])
        if used is None:
            facts.append((name, whole))
        else:
            part = used.get(name, 0.0)
            busy = figures.size(part) if in_bytes else figures.amount(part)
            facts.append((name, f"{busy} of {whole} in use"))
    return facts


def cluster_sections(row: ClusterRow, now: float) -> list[Section]:
    """What is known of a cluster, connected or only found."""
    cluster, found = row.cluster, row.found
    sections: list[Section] = []
    if cluster is not None:
        state = cluster.state + (" (read-only)" if cluster.read_only else "")
        sections.append(
            (
                "Cluster",
                known(
                    ("state", state),
                    ("error", cluster.error),
                    ("read-only because", cluster.read_only_reason),
                    ("Ray version", cluster.ray_version),
                    ("nodes", figures.used_of(cluster.alive_count, cluster.node_count) + " alive"),
                    ("jobs running", figures.amount(cluster.jobs_running)),
                    ("answered", _ago(cluster.answered_at, now)),
                    ("answer took", figures.latency(cluster.latency_seconds)),
                    ("connected", figures.date_and_clock(cluster.connected_at)),
                ),
            )
        )
        sections.append(("Resources", _resources(cluster.resources_total, cluster.resources_used)))
    elif found is not None:
        sections.append(
            (
                "Cluster",
                known(
                    ("state", "found, not connected: c connects"),
                    ("Ray version", found.ray_version),
                    ("nodes", figures.amount(found.node_count)),
                ),
            )
        )
        sections.append(("Resources", _resources(found.resources or {}, None)))
    either = cluster or found
    if either is not None:
        sections.append(
            (
                "Where it is",
                known(
                    ("read through", cluster.access if cluster is not None else None),
                    ("address", cluster.address if cluster is not None else None),
                    ("dashboard", either.dashboard_url),
                    ("GCS", either.gcs_address),
                    ("session", either.session_name),
                    ("cluster ID", either.cluster_id),
                ),
            )
        )
    if found is not None:
        sections.append(
            (
                "How it was found",
                known(
                    ("by", ", ".join(found.sources)),
                    ("on this host", "yes" if found.on_this_host else "no"),
                    ("processes of", found.owner),
                    ("needs a token", {True: "yes", False: "no", None: None}[found.needs_token]),
                    ("session folder", found.session_dir),
                    ("Python", found.python),
                    *((f"note {number}", note) for number, note in enumerate(found.notes, 1)),
                ),
            )
        )
    return sections


def _ago(moment: float | None, now: float) -> str | None:
    seconds = figures.since(moment, now)
    return None if seconds is None else f"{figures.age(seconds)} ago"


def node_sections(node: Node, now: float) -> list[Section]:
    """What is known of a node."""
    hardware = node.hardware
    sections: list[Section] = [
        (
            "Node",
            known(
                ("status", node.status),
                ("reason", node.reason),
                ("cluster", node.cluster),
                ("kind", "this machine" if node.is_local else "external"),
                ("role", "head" if node.is_head else None),
                ("address", node.address),
                ("host", node.hostname),
                ("node ID", node.node_id),
                ("last heard of", _ago(node.last_seen, now)),
                ("started", figures.date_and_clock(node.started_at)),
                ("ended", figures.date_and_clock(node.ended_at)),
                ("workers", figures.amount(node.worker_count)),
                ("raylet's pid", figures.amount(node.raylet_pid)),
                ("Python", node.python),
            ),
        ),
        ("Resources", _resources(node.resources_total, node.resources_used)),
    ]
    if hardware is not None:
        memory = (
            f"{figures.size(hardware.memory_used_bytes)} of "
            f"{figures.size(hardware.memory_total_bytes)} "
            f"({figures.percent(hardware.memory_percent)})"
        )
        store = (
            f"{figures.size(hardware.object_store_used_bytes)} of "
            f"{figures.size(hardware.object_store_total_bytes)}"
        )
        network = (
            f"{figures.rate(hardware.network_received_bytes_per_second)} in, "
            f"{figures.rate(hardware.network_sent_bytes_per_second)} out"
        )
        disk_io = (
            f"{figures.rate(hardware.disk_read_bytes_per_second)} read, "
            f"{figures.rate(hardware.disk_write_bytes_per_second)} written"
        )
        sections.append(
            (
                "Hardware",
                known(
                    ("CPU", figures.percent(hardware.cpu_percent)),
                    ("cores", figures.amount(hardware.cpu_logical_count)),
                    ("load (1 min)", figures.amount(hardware.load_average_1m)),
                    ("memory", memory),
                    ("object store", store),
                    ("network", network),
                    ("disk", disk_io),
                    ("booted", figures.date_and_clock(hardware.boot_time)),
                    ("measured", _ago(hardware.measured_at, now)),
                ),
            )
        )
        sections.append(
            (
                "Disks",
                [
                    (
                        disk.mount,
                        f"{figures.size(disk.used_bytes)} of {figures.size(disk.total_bytes)}, "
                        f"{figures.size(disk.free_bytes)} free",
                    )
                    for disk in hardware.disks
                ],
            )
        )
        sections.append(
            (
                "GPUs",
                [
                    (
                        f"{gpu.index if gpu.index is not None else '?'} {gpu.name or ''}",
                        f"{figures.percent(gpu.utilization_percent)}, "
                        f"{figures.size(gpu.memory_used_bytes)} of "
                        f"{figures.size(gpu.memory_total_bytes)}",
                    )
                    for gpu in hardware.gpus
                ],
            )
        )
    sections.append(("Labels", sorted(node.labels.items())))
    return sections


class DetailsScreen(Screen[None]):
    """Facts in sections that follow the fleet."""

    DEFAULT_CSS = """
    DetailsScreen VerticalScroll {
        border: round $primary; padding: 0 1; background: $background;
        border-title-color: $primary; border-title-style: bold;
    }
    .-ascii DetailsScreen VerticalScroll { border: ascii $primary; }
    DetailsScreen #facts { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back", id="screen.back", tooltip="Back"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="details.down", tooltip="Next line"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="details.up", tooltip="Line before"),
        Binding("g,home", "top", "Top", show=False, id="details.top", tooltip="To the top"),
        Binding("G,end", "bottom", "End", show=False, id="details.end", tooltip="To the end"),
    ]

    def __init__(self, glyphs: Glyphs, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._clock = clock
        self._shown: Sequence[Section] | None = None

    def compose(self) -> ComposeResult:
        """Lays out the facts."""
        with VerticalScroll():
            yield Static("", id="facts", markup=False)
        yield KeyBar(self._glyphs)

    def on_mount(self) -> None:
        """Follows the fleet and the clock."""
        self.watch(self.app, "fleet", self._fleet_changed)
        self.set_interval(1.0, self._tick, name="ages")

    def _tick(self) -> None:
        if self.is_current:
            self._fleet_changed(self.app.fleet)  # type: ignore[attr-defined]  # the app's reactive

    def _fleet_changed(self, fleet: Fleet) -> None:
        found = self.sections(fleet)
        if found is None or found[1] == self._shown:
            return
        title, self._shown = found
        box = self.query_one(VerticalScroll)
        box.border_title = Content(drawable(title))
        self.query_one("#facts", Static).update(facts_content(self._shown))

    def sections(self, fleet: Fleet) -> tuple[str, Sequence[Section]] | None:
        """A title and the facts; None keeps what was shown last."""
        raise NotImplementedError

    def action_scroll(self, lines: int) -> None:
        """Scrolls by lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_top(self) -> None:
        """Scrolls to the top."""
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def action_bottom(self) -> None:
        """Scrolls to the end."""
        self.query_one(VerticalScroll).scroll_end(animate=False)


class ClusterDetails(DetailsScreen):
    """Everything known of one cluster."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "connect", "Connect", id="details.connect",
            tooltip="Connect to this cluster, which was only found",
        ),
    ]  # fmt: skip

    def __init__(self, key: str, glyphs: Glyphs, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(glyphs, clock=clock)
        self._key = key
        self._only_found = False

    def sections(self, fleet: Fleet) -> tuple[str, Sequence[Section]] | None:
        """The cluster's facts."""
        row = cluster_rows(fleet).get(self._key)
        if row is not None and (row.cluster is None) != self._only_found:
            self._only_found = row.cluster is None
            self.refresh_bindings()
        return None if row is None else (row.name, cluster_sections(row, self._clock()))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Connecting makes sense where castray is not connected."""
        return self._only_found if action == "connect" else True

    def action_connect(self) -> None:
        """Back to the fleet, and to the question whether to connect to its cluster."""
        self.app.pop_screen()
        self.app.call_later(self.app.run_action, "screen.connect")


class NodeDetails(DetailsScreen):
    """Everything known of one node."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "logs", "Logs", id="details.logs", tooltip="Log files of the node"),
    ]

    def __init__(
        self, key: NodeKey, glyphs: Glyphs, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(glyphs, clock=clock)
        self._key = key

    def sections(self, fleet: Fleet) -> tuple[str, Sequence[Section]] | None:
        """The node's facts."""
        node = next((node for node in fleet.nodes if node.key == self._key), None)
        if node is None:
            return None
        return f"{node.cluster}/{node.name}", node_sections(node, self._clock())

    def action_logs(self) -> None:
        """Back to the fleet, and to the logs of its node."""
        self.app.pop_screen()
        self.app.call_later(self.app.run_action, "screen.logs")


class EventDetails(DetailsScreen):
    """Everything known of one event."""

    def __init__(self, event: Event, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self._event = event

    def sections(self, fleet: Fleet) -> tuple[str, Sequence[Section]] | None:
        """The event's facts; the fleet plays no part."""
        event = self._event
        facts = known(
            ("time", figures.date_and_clock(event.time)),
            ("event", event.type.replace("_", " ")),
            ("cluster", event.cluster),
            ("node", event.node),
            ("message", event.message),
        )
        data = known(*((str(name), _plain(value)) for name, value in event.data.items()))
        return f"Event {event.id}", [("Event", facts), ("Data", data)]


def _plain(value: object) -> str | None:
    """What JSON can hold, as words; lists with commas."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return None if value is None else str(value)
