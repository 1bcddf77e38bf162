"""The one screen that tells all: clusters, the fleet's nodes, transfers, what happened last."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content

from castray_tui.core.models import Event, Fleet, Node, Overwrite, Transfer
from castray_tui.core.node_filter import parse_filter
from castray_tui.messages import (
    DisconnectCluster,
    DiscoverClusters,
    DismissDeadNode,
    RefreshClusters,
)
from castray_tui.screens.transfer_orders import TransferOrders
from castray_tui.screens.widgets.cells import drawable
from castray_tui.screens.widgets.cluster_columns import (
    CLUSTER_COLUMNS,
    ClusterRow,
    cluster_rows,
    natural_cluster_order,
)
from castray_tui.screens.widgets.event_text import event_cell
from castray_tui.screens.widgets.fleet_line import FleetLine
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.key_bar import KeyBar
from castray_tui.screens.widgets.line import Line
from castray_tui.screens.widgets.node_columns import (
    NODE_COLUMNS,
    NodeKey,
    idle_columns,
    natural_node_order,
    node_row_role,
)
from castray_tui.screens.widgets.text_filter import parse_text_filter
from castray_tui.screens.widgets.transfer_columns import (
    natural_transfer_order,
    transfer_columns,
    transfer_texts,
)
from castray_tui.screens.widgets.transfer_rates import ENDED, TransferRates
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    # Neither is needed before the first frame.

    from castray_tui.core.engine import Engine


class FleetScreen(TransferOrders):
    """Clusters, nodes and transfers, each a table that keeps its rows in place.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        read_only: Whether castray changes nothing anywhere.
        discovers: Whether clusters are looked for at the start.
        refresh_seconds: How often ages are drawn again.
        overwrite: What transfers do where a file is already, unless something else is chosen.
        clock: Seconds since the epoch.
    """

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as Textual declares it
        (0, "-narrow"),
        (100, "-standard"),
        (170, "-wide"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        # First, as only the first keys have room on the bottom line.
        Binding("p", "pause_transfer", "Pause", id="fleet.pause_transfer",
            tooltip="Pause the transfer under the cursor; a paused one goes on",
        ),
        Binding("R", "retry_transfer", "Retry", id="fleet.retry_transfer",
            tooltip="Send again to those targets of the transfer under the cursor that failed",
        ),
        Binding("u", "resume_transfer", "Resume", id="fleet.resume_transfer",
            tooltip="Go on with the transfer under the cursor, which was interrupted or cancelled",
        ),
        Binding("d", "discover", "Discover", id="fleet.discover", tooltip="Look for clusters now"),
        Binding(
            "c", "connect", "Connect", id="fleet.connect",
            tooltip="Connect to an address or to a cluster that was found",
        ),
        Binding(
            "t", "transfer", "Transfer", id="fleet.transfer",
            tooltip="Send files or folders to the marked nodes, or to the one under the cursor",
        ),
        Binding("slash", "filter", "Filter", key_display="/", id="fleet.filter",
            tooltip="Show only rows that match: text, !text, /re/, state:dead, cluster:ml",
        ),
        Binding("s", "sort", "Sort", id="fleet.sort", tooltip="Sort by the next column"),
        Binding("S", "reverse", "Reverse", show=False, id="fleet.reverse",
            tooltip="Turn the sort order round",
        ),
        Binding("space", "mark", "Mark", id="fleet.mark", tooltip="Mark or unmark the node"),
        Binding("asterisk", "mark_all", "Mark all", key_display="*", show=False,
            id="fleet.mark_all", tooltip="Mark all nodes shown; again: unmark them",
        ),
        Binding("l", "logs", "Logs", id="fleet.logs", tooltip="Log files of the node"),
        Binding("e", "events", "Events", id="fleet.events", tooltip="What happened, newest first"),
        Binding("x", "disconnect", "Disconnect", id="fleet.disconnect",
            tooltip="Stop watching the cluster under the cursor",
        ),
        Binding("x", "cancel_transfer", "Cancel", id="fleet.cancel_transfer",
            tooltip="Cancel the transfer under the cursor",
        ),
        Binding("delete", "dismiss_node", "Dismiss", show=False, id="fleet.dismiss",
            tooltip="Take the dead node under the cursor off the list",
        ),
        Binding("r", "refresh_now", "Refresh", id="fleet.refresh",
            tooltip="Ask all clusters now, and sort again by the same column",
        ),
        Binding("1", "pane('clusters')", "Clusters", show=False, id="fleet.clusters",
            tooltip="Go to the clusters",
        ),
        Binding("2", "pane('nodes')", "Nodes", show=False, id="fleet.nodes",
            tooltip="Go to the nodes",
        ),
        Binding("3", "pane('transfers')", "Transfers", show=False, id="fleet.transfers",
            tooltip="Go to the transfers",
        ),
        Binding("tab", "app.focus_next", "Next pane", show=False, id="fleet.next_pane",
            tooltip="Go to the next pane",
        ),
        Binding("shift+tab", "app.focus_previous", "Pane before", show=False,
            id="fleet.previous_pane", tooltip="Go to the pane before",
        ),
        Binding("escape", "back", "Back", show=False, id="fleet.back",
            tooltip="Clear the filter, then the marks",
        ),
        Binding("q", "app.leave", "Quit", id="fleet.quit", tooltip="Leave castray"),
    ]  # fmt: skip

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        glyphs: Glyphs,
        *,
        read_only: bool,
        discovers: bool,
        refresh_seconds: float,
        overwrite: Overwrite = "if-different",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._read_only = read_only
        self._refresh_seconds = refresh_seconds
        self._overwrite: Overwrite = overwrite
        self._clock = clock
        self._rates = TransferRates()
        self._filters: dict[str, str] = {}
        self._last_event: Event | None = None
        self.fleet = Fleet()
        self._fleet_line = FleetLine(glyphs, id="fleet")
        self._event_line = Line(glyphs, id="event")
        self.clusters: VirtualTable[str, ClusterRow] = VirtualTable(
            CLUSTER_COLUMNS,
            glyphs,
            natural=natural_cluster_order,
            empty=(
                "Looking for clusters ... c connects to an address."
                if discovers
                else "No cluster yet: d discovers, c connects to an address.",
            ),
            clock=clock,
            id="clusters",
        )
        self.nodes: VirtualTable[NodeKey, Node] = VirtualTable(
            NODE_COLUMNS,
            glyphs,
            natural=natural_node_order,
            row_role=node_row_role,
            empty=("Waiting for the first figures ...",),
            markable=True,
            clock=clock,
            id="nodes",
        )
        self.transfers: VirtualTable[str, Transfer] = VirtualTable(
            transfer_columns(self._rates),
            glyphs,
            natural=natural_transfer_order,
            empty=("No transfers yet: mark nodes with space, send with t.",),
            clock=clock,
            id="transfers",
        )
        self._panes: tuple[VirtualTable[Any, Any], ...] = (
            self.clusters,
            self.nodes,
            self.transfers,
        )
        self._names = {"clusters": "Clusters", "nodes": "Nodes", "transfers": "Transfers"}

    def compose(self) -> ComposeResult:
        """Lays out the lines and panes."""
        yield self._fleet_line
        with Container(id="panes"):
            yield self.clusters
            yield self.nodes
            yield self.transfers
        yield self._event_line
        yield KeyBar(self._glyphs, id="keys")

    def on_mount(self) -> None:
        """Follows the app's fleet and the clock."""
        self.nodes.focus()
        self._event_line.show((("Starting ...", "dim"),))
        self.watch(self.app, "fleet", self._fleet_changed)
        self.set_interval(max(self._refresh_seconds, 1.0), self._tick, name="ages")

    # --- data in --------------------------------------------------------------------------------

    def _fleet_changed(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._rates.take(fleet.transfers, fleet.time)
        with self.app.batch_update():
            self._fleet_line.show_fleet(fleet, read_only=self._read_only)
            self.clusters.set_rows(cluster_rows(fleet))
            self.nodes.set_rows(
                {node.key: node for node in fleet.nodes}, without=idle_columns(fleet.nodes)
            )
            self.transfers.set_rows({transfer.id: transfer for transfer in fleet.transfers})
            self._show_event(fleet.last_event)
            self._fit_panes()
            self._show_titles()

    def _tick(self) -> None:
        if not self.is_current:
            return
        for pane in self._panes:
            pane.redraw_changes()

    def _show_event(self, event: Event | None) -> None:
        if event is None:
            if self.fleet.version:
                self._event_line.show((("Nothing has happened yet.", "dim"),))
            return
        if event == self._last_event:
            return
        self._last_event = event
        self._event_line.show(event_cell(event, self._glyphs))

    def on_resize(self) -> None:
        """Shares the height out anew."""
        self._fit_panes()

    def _fit_panes(self) -> None:
        """Gives clusters and transfers the lines their rows need, nodes the rest."""
        if self.has_class("-wide"):
            self.clusters.styles.height = "1fr"
            self.transfers.styles.height = "1fr"
            return
        most = max(self.size.height * 3 // 10, 4)
        for pane in (self.clusters, self.transfers):
            rows = len(pane.rows)
            pane.styles.height = 3 if not rows else min(rows + 3, most)

    # --- titles ---------------------------------------------------------------------------------

    @on(VirtualTable.OrderChanged)
    def _order_changed(self) -> None:
        self._show_titles()

    def _show_titles(self) -> None:
        for number, pane in enumerate(self._panes, 1):
            title = self._title(number, pane)
            if pane.border_title != title.markup:
                pane.border_title = title

    def _title(self, number: int, pane: VirtualTable[Any, Any]) -> Content:
        name = pane.id or ""
        shown, total = len(pane.shown_keys), len(pane.rows)
        words = [f"{number} {self._names[name]}"]
        filter_text = self._filters.get(name)
        words.append(f"{shown} of {total}" if filter_text else str(total))
        if filter_text:
            words.append(f"filter: {drawable(filter_text)}")
        if pane.order_words:
            words.append(pane.order_words)
        marked = len(pane.marked_keys)
        if marked:
            words.append(f"{marked} marked")
        dot = f" {self._glyphs.dot} "
        return Content(f" {words[0]} {dot.join(words[1:])} ")

    # --- keys -----------------------------------------------------------------------------------

    @property
    def pane(self) -> VirtualTable[Any, Any]:
        """The pane that keys go to."""
        # Not has_focus: a pane learns of its focus later than the next key may come.
        return next((pane for pane in self._panes if pane is self.focused), self.nodes)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys make sense in the pane that has the focus."""
        pane = self.pane
        if action in {"mark", "mark_all", "dismiss_node", "logs"}:
            return pane is self.nodes
        if action == "disconnect":
            return pane is not self.transfers
        if action.endswith("_transfer"):
            return pane is self.transfers
        return True

    def action_pane(self, name: str) -> None:
        """Goes to a pane."""
        # At once: the next key may be on its way already, and is meant for that pane.
        self.set_focus(next(pane for pane in self._panes if pane.id == name))

    def action_discover(self) -> None:
        """Looks for clusters now."""
        self.post_message(DiscoverClusters())

    def action_refresh_now(self) -> None:
        """Asks all clusters now and sorts again."""
        self.pane.sort_again()
        self.post_message(RefreshClusters())

    def action_sort(self) -> None:
        """Sorts by the next column."""
        self.pane.sort_next()

    def action_reverse(self) -> None:
        """Turns the order round."""
        self.pane.sort_reverse()

    def action_mark(self) -> None:
        """Marks the node under the cursor."""
        self.nodes.toggle_mark()

    def action_mark_all(self) -> None:
        """Marks all nodes shown."""
        self.nodes.toggle_all_marks()

    def action_back(self) -> None:
        """Clears the filter of the pane, then the marks."""
        pane = self.pane
        if self._filters.get(pane.id or ""):
            self.apply_filter(pane, "")
        elif pane.marked_keys:
            pane.clear_marks()
        else:
            self.notify("Nothing to go back to; q quits.", timeout=2, markup=False)

    # --- filter ---------------------------------------------------------------------------------

    def apply_filter(self, pane: VirtualTable[Any, Any], text: str) -> None:
        """Filters a pane.

        Raises:
            UsageError: The filter cannot be read; the pane stays as it was.
        """
        passes: Callable[[Any], bool] | None = None
        if text.strip():
            if pane is self.nodes:
                passes = parse_filter(text).matches
            elif pane is self.clusters:
                passes = parse_text_filter(text, lambda row: row.texts)
            else:
                passes = parse_text_filter(text, transfer_texts)
        self._filters[pane.id or ""] = text.strip()
        pane.set_filter(passes)

    def action_filter(self) -> None:
        """Opens the filter line for the pane."""
        from castray_tui.screens.filter_line import FilterLine  # noqa: PLC0415 - after first frame

        if self.query(FilterLine):
            return
        pane = self.pane
        line = FilterLine(self._filters.get(pane.id or "", ""), pane=pane)
        self.mount(line, before=self._event_line)
        # At once: letters typed meanwhile would be taken for keys of the pane.
        self.set_focus(line)

    # --- dialogs and other screens --------------------------------------------------------------

    @on(VirtualTable.Chosen)
    def _chosen(self, message: VirtualTable.Chosen) -> None:
        message.stop()
        from castray_tui.screens.details import (  # noqa: PLC0415 - after the first frame
            ClusterDetails,
            NodeDetails,
        )
        from castray_tui.screens.transfer_details import TransferDetails  # noqa: PLC0415

        key = message.table.cursor_key
        if key is None:
            return
        if message.table is self.clusters:
            self.app.push_screen(ClusterDetails(str(key), self._glyphs, clock=self._clock))
        elif message.table is self.nodes:
            self.app.push_screen(NodeDetails(key, self._glyphs, clock=self._clock))
        else:
            self.app.push_screen(TransferDetails(str(key), self._glyphs, clock=self._clock))

    def action_connect(self) -> None:
        """Asks for an address, or which of the found clusters."""
        from castray_tui.screens.connect import ConnectDialog  # noqa: PLC0415 - after first frame

        row = self.clusters.cursor_row if self.pane is self.clusters else None
        chosen = row.key if row is not None and row.cluster is None else None
        self.app.push_screen(ConnectDialog(self._engine, self._glyphs, chosen=chosen))

    def action_transfer(self) -> None:
        """Asks what to send to the marked nodes, or to the one under the cursor."""
        if self._read_only or self.fleet.read_only:
            self.notify(
                "castray is read-only now: start it without --read-only to send files.",
                severity="warning",
                markup=False,
            )
            return
        from castray_tui.screens.transfer import TransferDialog  # noqa: PLC0415 - see above

        keys = self.nodes.marked_keys
        if not keys and self.nodes.cursor_key is not None:
            keys = [self.nodes.cursor_key]
        chosen = [self.nodes.rows[key] for key in keys]
        self.app.push_screen(
            TransferDialog(
                self._engine, self._glyphs, self.fleet, chosen, overwrite=self._overwrite
            )
        )

    def action_events(self) -> None:
        """Shows what happened."""
        from castray_tui.screens.events import EventsScreen  # noqa: PLC0415 - after first frame

        self.app.push_screen(EventsScreen(self._engine, self._glyphs, clock=self._clock))

    def action_logs(self) -> None:
        """Shows the log files of the node under the cursor."""
        node = self.nodes.cursor_row
        if node is None or node.is_local:
            self.notify(
                "Logs are those of a cluster's node: put the cursor on one.",
                severity="warning",
                markup=False,
            )
            return
        from castray_tui.screens.logs import LogsScreen  # noqa: PLC0415 - after the first frame

        self.app.push_screen(LogsScreen(self._engine, self._glyphs, node))

    @work(name="disconnect", group="question", exclusive=True)
    async def action_disconnect(self) -> None:
        """Disconnects the cluster under the cursor, after a question."""
        name = self._cluster_under_cursor()
        if name is None:
            self.notify(
                "Put the cursor on a connected cluster, or on a node of one.",
                severity="warning",
                markup=False,
            )
            return
        running = [
            transfer
            for transfer in self.fleet.transfers
            if transfer.state not in ENDED
            and name in {end.cluster for ends in (transfer.targets, transfer.legs) for end in ends}
        ]
        question = f"Disconnect from {name}?"
        consequence = "Its nodes leave the table. Nothing changes on the cluster."
        if running:
            consequence = (
                f"{len(running)} transfer(s) from or to it are under way: "
                "castray will not see how they end."
            )
        if await self._ask(question, consequence, "Disconnect"):
            self.post_message(DisconnectCluster(name))

    def _cluster_under_cursor(self) -> str | None:
        if self.pane is self.clusters:
            row = self.clusters.cursor_row
            return row.cluster.name if row is not None and row.cluster is not None else None
        node = self.nodes.cursor_row
        return None if node is None or node.is_local else node.cluster

    def chosen_transfer(self) -> Transfer | None:
        """The transfer under the cursor."""
        return self.transfers.cursor_row

    def action_dismiss_node(self) -> None:
        """Takes the dead node under the cursor off the list."""
        node = self.nodes.cursor_row
        if node is None or node.status != "dead":
            self.notify("Only dead nodes can be dismissed.", severity="warning", markup=False)
            return
        self.post_message(DismissDeadNode(node.cluster_key, node.node_id, node.name))

    async def _ask(self, question: str, consequence: str, yes: str) -> bool:
        from castray_tui.screens.confirm import ConfirmDialog  # noqa: PLC0415 - see above

        answer: bool = await self.app.push_screen_wait(ConfirmDialog(question, consequence, yes))
        return answer
