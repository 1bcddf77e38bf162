"""The one object that faces talk to: commands go in, snapshots and events come out.

Plain asyncio, one event loop, no terminal. Faces get frozen ``Fleet`` snapshots and ``Event``
records and give orders through the methods of ``Engine``; everything that crosses the border can be
serialised, so that a face may one day sit at the other end of a wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.event_drafts import discovered_event
from castray_tui.core.event_stream import EventStream
from castray_tui.core.fleet import KEPT_TRANSFERS, FleetBoard, FleetParts, newest_first
from castray_tui.core.journal import Journal
from castray_tui.core.ledger import LedgerFilter
from castray_tui.core.models import (
    LOCAL,
    Cluster,
    DiscoveredCluster,
    DiscoveryReport,
    Event,
    EventDraft,
    Fleet,
    LogFile,
    Node,
    Source,
    Transfer,
    TransferPlan,
    TransferRequest,
)
from castray_tui.core.state_folder import state_dir
from castray_tui.core.transfer_news import ENDED, TransferNews

if TYPE_CHECKING:
    from castray_tui.core.connections import Connections
    from castray_tui.core.discovery.run import DiscoveryRequest
    from castray_tui.core.left_transfers import LeftTransfers
    from castray_tui.core.monitor import ClusterView
    from castray_tui.core.own_cluster import OwnCluster
    from castray_tui.core.reunion import Reunion
    from castray_tui.core.transfer.access import ClusterDoor
    from castray_tui.core.transfer.service import TransferService
    from castray_tui.core.transfer.sessions import LocalSession
    from castray_tui.core.transfer_control import TransferControl

_LOG = logging.getLogger(__name__)
_JOURNAL_FILE = "journal.sqlite3"
_WHOLE_JOURNAL = 1_000_000
_WATCH_LATER_SECONDS = 1.0
_LOOK_AT_OTHERS_SECONDS = 1.0


class Engine:
    """Finds clusters, watches those it is connected to, and moves files between their nodes.

    Use as ``async with Engine(settings) as engine``; ``start`` and ``close`` do the same by hand.

    Args:
        settings: The settings of this run.
        lingers: Whether agents are left, at the end, to whoever comes within their idle time; for
            commands, which others may follow.
    """

    def __init__(self, settings: Settings, *, lingers: bool = False) -> None:
        self._settings = settings
        self._state_dir = state_dir(settings)
        self._parts = FleetParts(read_only=settings.read_only)
        self._board = FleetBoard(self._parts)
        self._journal = Journal.open(self._state_dir / _JOURNAL_FILE)
        self._stream = EventStream(self._record)
        self._news = TransferNews(self._parts, self._board, self._stream, self._journal)
        self._connections_made: Connections | None = None
        self._lingers = lingers
        self._reunion: Reunion | None = None
        self._early_agent: LocalSession | None = None
        self._transfers: TransferService | None = None
        self._takes_up = False
        self._control_made: TransferControl | None = None
        self._left: LeftTransfers | None = None
        self._looked_on: set[str] = set()
        self._discovery: asyncio.Task[DiscoveryReport] | None = None
        self._known_keys: set[str] = set()
        # What the user disconnected stays so until the user connects to it again.
        self._left_keys: set[str] = set()
        self._own: OwnCluster | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------

    async def start(self, *, background: bool = True, looks: bool = True) -> None:
        """Opens the journal and, with ``background``, begins what the settings ask for at the
        start: the local node, discovery, connections, periodic discovery.

        Args:
            background: False for a command that gives every order itself; the local node is
                measured all the same.
            looks: False for one that wants neither the local node's figures nor what the journal
                holds.
        """
        self._stream.on_event = self._told
        self._stream.start()
        if not looks:
            return
        for transfer in await self._journal.transfers(limit=KEPT_TRANSFERS):
            self._parts.transfers.setdefault(transfer.id, transfer)
        from castray_tui.core.local_node import LocalNode  # noqa: PLC0415

        local = LocalNode(
            interval_seconds=self._settings.external_cluster.poll_interval, on_node=self._local
        )
        self._local(await asyncio.to_thread(local.measure))
        self._spawn(local.run(), "local node")
        if background:
            self._takes_up = True
            self._spawn(self._settle_left(), "settle left transfers")
            look = self._news.look_at_others(_LOOK_AT_OTHERS_SECONDS, self._runs)
            self._spawn(look, "look at the transfers of others")
        if background and self._settings.external_cluster.enabled:
            self._watch_named()
            if self._settings.ray_cluster.external_discovery:
                self._spawn(self._discover_regularly(), "periodic discovery")

    async def close(self) -> None:
        """Ends polls, agents and own clusters; returns when nothing of this engine runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._discovery is not None:
            self._discovery.cancel()
            await asyncio.gather(self._discovery, return_exceptions=True)
        if self._transfers is not None:
            await self._transfers.close()
        elif self._early_agent is not None:
            await self._early_agent.close()
        if self._connections_made is not None:
            await self._connections_made.close()
        if self._own is not None:
            await self._own.stop()
        await self._news.saved()
        await self._stream.close()
        self._board.close()
        await self._journal.close()

    async def __aenter__(self) -> Engine:
        await self.start(background=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _connections(self) -> Connections:
        """Made, and imported, when it is first needed: it takes longer than a small transfer, which
        need not ask a cluster anything where agents run already."""
        if self._connections_made is None:
            from castray_tui.core.connections import Connections  # noqa: PLC0415

            self._connections_made = Connections(
                self._settings,
                on_view=self._viewed,
                on_gone=self._gone,
                on_event=self._stream.post,
            )
        return self._connections_made

    # --- what is known ------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """The newest snapshot; never blocks."""
        return self._board.fleet

    @property
    def journal_problem(self) -> str | None:
        """Why nothing is kept beyond this run, as a sentence; None where all is well."""
        return self._journal.problem

    def changes(self) -> AsyncIterator[Fleet]:
        """Snapshots as they change, the newest only: a slow reader skips, it does not queue."""
        return self._board.changes()

    def events(self) -> AsyncIterator[Event]:
        """Every event from now on, in order."""
        return self._stream.read()

    async def past_events(self, *, limit: int = 200, before_id: int | None = None) -> list[Event]:
        """Events from the journal, newest first."""
        return await self._journal.events(limit=limit, before_id=before_id)

    async def past_transfers(self, *, limit: int = 200, state: str | None = None) -> list[Transfer]:
        """Transfers from the journal, newest first, those under way included."""
        kept = {t.id: t for t in await self._journal.transfers(limit=limit, state=state)}
        for transfer in self._parts.transfers.values():
            if state is None or transfer.state == state:
                kept[transfer.id] = transfer
            else:
                kept.pop(transfer.id, None)
        return list(newest_first(kept.values())[:limit])

    async def ledger(self, wanted: LedgerFilter, *, limit: int | None = None) -> list[Transfer]:
        """Transfers from the journal that a filter lets pass, newest first; ``limit`` None: all."""
        most = _WHOLE_JOURNAL if limit is None else limit
        kept = await self._journal.transfers(
            limit=most if wanted.is_for_the_journal else _WHOLE_JOURNAL,
            state=wanted.state,
            cluster=wanted.exact_cluster,
            since=wanted.since,
        )
        newest = {each.id: each for each in kept} | self._parts.transfers
        return wanted.select(newest_first(newest.values()), most)

    async def transfer(self, transfer_id: str) -> Transfer:
        """One transfer by its ID or a unique prefix of it; NotFoundError otherwise."""
        if self._runs(transfer_id):
            return self._parts.transfers[transfer_id]
        await self._news.saved()
        kept = await self._journal.transfer(transfer_id)
        if self._runs(kept.id):
            return self._parts.transfers[kept.id]
        # Another castray may run it: the journal knows better than what was seen here before.
        self._news.seen(kept)
        return kept

    def _runs(self, transfer_id: str) -> bool:
        return self._transfers is not None and self._transfers.runs(transfer_id)

    # --- clusters -----------------------------------------------------------------------------

    async def discover(
        self,
        *,
        methods: Sequence[Source] | None = None,
        ports: tuple[int, int] | None = None,
        hosts: Sequence[str] | None = None,
        timeout_seconds: float | None = None,
        connect: bool = False,
    ) -> DiscoveryReport:
        """Looks for clusters.

        Args:
            methods, ports, hosts, timeout_seconds: What to use in place of the settings' values.
            connect: Whether to connect to what is found.

        Returns:
            What was found. A discovery under way is joined, not started twice.
        """
        if self._discovery is None or self._discovery.done():
            self._discovery = asyncio.create_task(
                self._discover(self._request(methods, ports, hosts, timeout_seconds)),
                name="discovery",
            )
        # Shielded: whoever joined may leave without ending it for the others.
        report = await asyncio.shield(self._discovery)
        if connect:
            self._watch_found(report.clusters)
        return report

    async def connect(self, address: str) -> Cluster:
        """Connects to a discovered cluster's name, a configured name, or any address form.

        Returns:
            The cluster with its first answer in it.

        Raises:
            ConnectError: Nothing usable stands there.
            AddressError: The address cannot be read.
        """
        cluster = await self._connections.connect(address, discovered=self._parts.discovered)
        self._left_keys.discard(cluster.key)
        return cluster

    async def disconnect(self, name: str) -> None:
        """Stops watching a cluster; this castray's agents on it leave.

        Raises:
            NotFoundError: No such cluster is connected.
        """
        key = self._connections.key_of(name)
        self._left_keys.add(key)
        if self._transfers is not None:
            # It may be the very reason to disconnect that the cluster does not answer.
            with contextlib.suppress(CastrayError):
                await self._transfers.release_cluster(key)
        await self._connections.disconnect(name)

    async def complete(self, *, timeout_seconds: float = 5.0) -> Fleet:
        """The fleet once every connected cluster has told all that one look can tell.

        For faces that look once: draining is known to the GCS alone, which is asked after the
        first answer. After ``timeout_seconds`` the fleet as it is then.
        """
        await self._connections.complete(timeout_seconds)
        return self.fleet

    def refresh(self, name: str | None = None) -> None:
        """Polls one cluster, or all, at once rather than at the next interval."""
        self._connections.refresh(name)

    def dismiss_dead(self, cluster_key: str, node_id: str) -> None:
        """Takes a dead node off the list."""
        self._connections.monitor(cluster_key).dismiss(node_id)

    async def log_files(self, cluster: str, node_id: str) -> list[LogFile]:
        """The log files that a node offers."""
        return await self._connections.dashboard_of(cluster).log_files(node_id)

    async def read_log(
        self, cluster: str, node_id: str, file_name: str, *, lines: int = 500
    ) -> str:
        """The last lines of a node's log file, made safe to draw."""
        dashboard = self._connections.dashboard_of(cluster)
        return await dashboard.log_tail(node_id, file_name, lines)

    # --- transfers ----------------------------------------------------------------------------

    async def plan_transfer(self, request: TransferRequest) -> TransferPlan:
        """What the transfer would do, target by target, found out without sending a byte."""
        return await self._service().plan(request)

    async def start_transfer(self, request: TransferRequest) -> Transfer:
        """Starts a transfer; its progress is in ``fleet.transfers`` and in events."""
        return await self._service().start(request)

    async def meet_again(self, names: Collection[str]) -> bool:
        """Goes straight to the agents that an earlier castray left on these clusters, which saves
        finding out about the clusters first; that is made up for in the background.

        Returns:
            Whether all of them were met; if not, connect to them as to any other.
        """
        if self._reunion is None:
            from castray_tui.core.reunion import Reunion  # noqa: PLC0415

            self._reunion = Reunion(self._settings, self._state_dir, self._service())
        for met in await self._reunion.meet(names):
            self._parts.views[met.cluster.key] = (met.cluster, met.nodes)
            self._board.touch()
            self._spawn(self._watch_later(met.contact.found), f"watch {met.cluster.name} later")
        return self._reunion.has_met(names)

    async def _watch_later(self, found: DiscoveredCluster) -> None:
        """What a coordinator tells is enough for a transfer that goes well; a longer one may have
        to know of its nodes and jobs."""
        await asyncio.sleep(_WATCH_LATER_SECONDS)
        # In a thread: importing takes longer than a small transfer may be held up.
        await asyncio.to_thread(import_module, "castray_tui.core.connections")
        self._connections.watch(found)

    async def expect_local_files(self) -> None:
        """Starts this machine's agent, which a transfer will need soon. It begins on another core
        while what a transfer needs is imported here."""
        if self._transfers is not None or self._early_agent is not None:
            return
        from castray_tui.core.transfer.sessions import LocalSession  # noqa: PLC0415

        with contextlib.suppress(OSError):  # whoever needs it is told why
            self._early_agent = await LocalSession.start(self._settings.transfer.niceness)

    def door(self, cluster_key: str) -> ClusterDoor:
        """How agents are put on a connected cluster; NotFoundError where it is not connected."""
        made = self._connections_made
        is_watched = made is not None and cluster_key in made.keys()  # noqa: SIM118  no mapping
        if self._reunion is not None and not is_watched:
            ahead = self._reunion.door(cluster_key)
            if ahead is not None:
                return ahead
        return self._connections.door(cluster_key)

    async def find_out_about_left(self) -> None:
        """Finds out what became of transfers whose castray ended before they did.

        Connects to the clusters that their sources are on, if those can be found. Does nothing
        where the journal holds no such transfer.
        """
        if all(transfer.state in ENDED for transfer in self._parts.transfers.values()):
            return
        left = await self._left_transfers()
        await left.settle()
        for cluster in await self._connect_named(await left.sources() - {LOCAL}):
            await left.look_on(cluster)

    async def wait_transfer(self, transfer_id: str) -> Transfer:
        """Returns when the transfer has ended, whichever way and whoever runs it."""
        return await self._control().wait(transfer_id)

    async def cancel_transfer(self, transfer_id: str) -> Transfer:
        """Cancels; targets without a verdict get ``cancelled`` and leave nothing behind."""
        return await self._control().give(transfer_id, "cancel")

    async def pause_transfer(self, transfer_id: str) -> Transfer:
        """Sends nothing more until the transfer is unpaused; what has arrived stays."""
        return await self._control().give(transfer_id, "pause")

    async def unpause_transfer(self, transfer_id: str) -> Transfer:
        """Goes on with a transfer that is paused."""
        return await self._control().give(transfer_id, "unpause")

    async def resume_transfer(self, transfer_id: str) -> Transfer:
        """Goes on, under the same ID, with a transfer that is paused or has ended without reaching
        all its targets."""
        return await self._control().go_on(transfer_id, only_failed=False)

    async def retry_transfer(self, transfer_id: str) -> Transfer:
        """Sends again, under the same ID, to the targets that failed, and to no others."""
        return await self._control().go_on(transfer_id, only_failed=True)

    def is_run_elsewhere(self, transfer_id: str) -> bool:
        """Whether another castray sees a transfer through now."""
        return self._service().is_run_elsewhere(transfer_id)

    def _control(self) -> TransferControl:
        service = self._service()
        if self._control_made is None:
            from castray_tui.core.transfer_control import TransferControl  # noqa: PLC0415

            self._control_made = TransferControl(
                self._journal,
                service,
                newest=self.transfer,
                connect=self._connect_named,
                show=self._news.seen,
            )
        return self._control_made

    async def _connect_named(self, names: Iterable[str]) -> list[Cluster]:
        """Connects to clusters by their names, as far as they can be found; those that answer."""
        wanted = set(names)
        there = {each.name for each in self.fleet.clusters if each.state == "connected"}
        if wanted - there and self._settings.external_cluster.enabled:
            await self.discover()
        for name in sorted(wanted - there):
            with contextlib.suppress(CastrayError):
                await self.connect(name)
        clusters = self.fleet.clusters
        return [each for each in clusters if each.name in wanted and each.state == "connected"]

    async def _settle_left(self) -> None:
        await (await self._left_transfers()).settle()

    async def _look_on(self, cluster: Cluster) -> None:
        await (await self._left_transfers()).look_on(cluster)

    async def _left_transfers(self) -> LeftTransfers:
        if self._left is None:
            try:
                # In a thread: importing takes longer than a frame.
                module = await asyncio.to_thread(import_module, "castray_tui.core.left_transfers")
            except ImportError as error:
                raise _cannot_move_files(error) from error
            unfinished = [t for t in self._parts.transfers.values() if t.state not in ENDED]
            self._left = self._left or module.LeftTransfers(
                unfinished, self._parts.transfers.__getitem__, self._service_soon
            )
        return self._left

    async def _service_soon(self) -> TransferService:
        return self._service()

    def _service(self) -> TransferService:
        if self._transfers is None:
            # Imported here: a castray that only looks never needs it.
            try:
                from castray_tui.core.transfer.service import TransferService  # noqa: PLC0415
            except ImportError as error:
                raise _cannot_move_files(error) from error

            self._transfers = TransferService(
                settings=self._settings,
                state_dir=self._state_dir,
                fleet=lambda: self.fleet,
                access=self,
                publish=self._news.changed,
                take_orders=self._journal.take_orders,
                lingers=self._lingers,
            )
            if self._early_agent is not None:
                self._transfers.use_local_agent(self._early_agent)
        return self._transfers

    # --- discovery ----------------------------------------------------------------------------

    def _request(
        self,
        methods: Sequence[Source] | None,
        ports: tuple[int, int] | None,
        hosts: Sequence[str] | None,
        timeout_seconds: float | None,
    ) -> DiscoveryRequest:
        external = self._settings.external_cluster
        from castray_tui.core.discovery.run import DiscoveryRequest  # noqa: PLC0415

        return DiscoveryRequest(
            methods=external.discovery_methods if methods is None else tuple(methods),
            ports=external.port_scan_range if ports is None else ports,
            hosts=external.hosts if hosts is None else tuple(hosts),
            timeout_seconds=(
                external.discovery_timeout if timeout_seconds is None else timeout_seconds
            ),
            known=self._settings.clusters,
            ray_address=os.environ.get("RAY_ADDRESS"),
        )

    async def _discover(self, request: DiscoveryRequest) -> DiscoveryReport:
        from castray_tui.core.discovery.run import discover  # noqa: PLC0415

        self._parts.discovering = True
        self._board.touch()
        before = {cluster.key: cluster for cluster in self._parts.discovered}

        def on_found(found: tuple[DiscoveredCluster, ...]) -> None:
            # Until all methods are through, what was found before is not taken away.
            so_far = {cluster.key for cluster in found}
            kept = tuple(old for key, old in before.items() if key not in so_far)
            self._parts.discovered = found + kept
            self._board.touch()

        try:
            report = await discover(request, on_found=on_found)
        finally:
            self._parts.discovering = False
            self._board.touch()
        self._parts.discovered = report.clusters
        self._parts.last_report = report
        for cluster in report.clusters:
            if cluster.key not in self._known_keys:
                self._known_keys.add(cluster.key)
                self._stream.post(discovered_event(cluster))
        return report

    async def _discover_regularly(self) -> None:
        external = self._settings.external_cluster
        first = True
        while True:
            try:
                await self.discover(connect=external.auto_discover)
            except CastrayError as error:
                self._stream.post(EventDraft(type="discovery_finished", message=str(error)))
            if first and self._settings.ray_cluster.fallback_to_local:
                await self._fall_back_to_local()
            first = False
            if external.discovery_interval <= 0:
                return
            await asyncio.sleep(external.discovery_interval)

    def _watch_found(self, found: Sequence[DiscoveredCluster]) -> None:
        for cluster in found:
            if cluster.key not in self._left_keys:
                self._connections.watch(cluster)

    def _watch_named(self) -> None:
        address = self._settings.ray_cluster.address
        if address != "auto":
            self._connections.watch_address(address, name=None)
        for known in self._settings.clusters:
            self._connections.watch_address(known.address, name=known.name)

    async def _fall_back_to_local(self) -> None:
        """Starts a small cluster of castray's own where there is no other."""
        if self._parts.discovered or self._connections.keys():
            return
        from castray_tui.core.own_cluster import OwnCluster  # noqa: PLC0415

        try:
            self._own = await OwnCluster.start(node_count=1)
            await self.connect(self._own.dashboard_address)
        except CastrayError as error:
            self._stream.post(EventDraft(type="cluster_lost", message=str(error)))

    # --- what the parts report ----------------------------------------------------------------

    def _viewed(self, view: ClusterView) -> None:
        cluster = view.cluster
        if cluster.state == "connecting" and self._reunion and self._reunion.knows(cluster.key):
            return  # More is known of it already.
        self._parts.views[cluster.key] = (cluster, view.nodes)
        self._board.touch()
        if self._takes_up and cluster.state == "connected" and cluster.key not in self._looked_on:
            self._looked_on.add(cluster.key)
            self._spawn(self._look_on(cluster), f"look on {cluster.name}")

    def _gone(self, key: str) -> None:
        self._parts.views.pop(key, None)
        self._board.touch()

    def _local(self, node: Node) -> None:
        self._parts.local = node
        self._board.touch()

    def _told(self, event: Event) -> None:
        if event.type != "transfer_progressed":
            self._parts.last_event = event
            self._board.touch()

    async def _record(self, draft: EventDraft) -> Event:
        return await self._journal.add_event(draft)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("%s failed", task.get_name(), exc_info=error)


def _cannot_move_files(error: ImportError) -> TransferError:
    return TransferError(
        f"Files cannot be moved from this platform ({error})",
        remedy="Run castray on Linux or macOS to move files",
    )
