"""Watches one cluster: asks, waits, asks again, and says what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError, UnreachableError
from castray_tui.core.models import ClusterState, DiscoveredCluster, EventDraft
from castray_tui.core.monitor.doors import Doors
from castray_tui.core.monitor.health import Asking, health_of, pause_seconds, state_of
from castray_tui.core.monitor.reading import (
    GcsExtra,
    Identity,
    Listing,
    Summary,
    read_summary,
)
from castray_tui.core.monitor.standstill import Standstill
from castray_tui.core.monitor.view import ClusterView, NodeBook, totals
from castray_tui.core.monitor.view_events import restarted, view_events
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.jobs import JobClient
from castray_tui.core.ray_api.tokens import Token

_TICK_SECONDS = 0.5
"""How often the age of what is known is looked at, whatever is being asked meanwhile."""
_SUMMARY_SHARE = 20.0
"""The summary is asked so seldom that it takes at most a twentieth of the dashboard's time."""
_LONGEST_SUMMARY_PAUSE_SECONDS = 60.0
_EXTRA_INTERVAL_SECONDS = 5.0
_EXTRA_FAILED_PAUSE_SECONDS = 30.0
_SUMMARY_PATIENCE_SECONDS = 0.25
"""How long a listing waits for the figures that were asked for with it, so that most polls make
one view and not two; a hung summary never holds back who is dead."""


class ClusterMonitor:
    """One poll loop over one cluster.

    Args:
        found: What discovery knows of the cluster.
        name: Its name in the fleet.
        address: What castray was told to connect to, or worked out.
        settings: Intervals and time-outs.
        token: Its token, if it may have one (``tokens.token_for``).
        read_only, read_only_reason: Passed on into the view.
        on_view: Called with each new view, on the event loop.
        on_event: Called with what happened, before the view that shows it.
        gcs: The processes that ask GCS servers; shared, and not closed here.
        clock: Seconds since the epoch.
        on_restart: Called once if another cluster answers at the address: with what is known of
            that one. The monitor then ends, its last view being ``lost``.
    """

    def __init__(
        self,
        found: DiscoveredCluster,
        *,
        name: str,
        address: str,
        settings: Settings,
        token: Token | None,
        read_only: bool,
        read_only_reason: str | None,
        on_view: Callable[[ClusterView], None],
        on_event: Callable[[EventDraft], None],
        gcs: GcsProcesses,
        clock: Callable[[], float] = time.time,
        on_restart: Callable[[DiscoveredCluster], None] | None = None,
    ) -> None:
        self._found = found
        self._interval_seconds = settings.external_cluster.poll_interval
        self._timeout_seconds = settings.external_cluster.connection_timeout
        self._on_view = on_view
        self._on_event = on_event
        self._on_restart = on_restart
        self._clock = clock
        self._doors = Doors(found, token=token, gcs=gcs, timeout_seconds=self._timeout_seconds)
        self._book = NodeBook()
        self._identity = Identity(found.cluster_id, found.session_name)
        self._gcs_port: int | None = None

        self._answered_monotonic: float | None = None
        self._failures = 0
        self._error: CastrayError | None = None
        self._lost = False
        self._polling = False

        self._summary_task: asyncio.Task[None] | None = None
        self._summary_due = 0.0
        self._standstill = Standstill()
        self._extra_task: asyncio.Task[None] | None = None
        self._extra_due = 0.0
        self._extra_told = asyncio.Event()
        self._used_exactly_until = 0.0

        self._wake = asyncio.Event()
        self._first: asyncio.Future[ClusterView] | None = None
        self._view = ClusterView(
            cluster=replace(
                found.as_cluster("connecting"),
                name=name,
                address=address,
                read_only=read_only,
                read_only_reason=read_only_reason,
            ),
            nodes=(),
        )
        self._published = self._view

    # --- what others use ----------------------------------------------------------------------

    @property
    def view(self) -> ClusterView:
        """The newest view."""
        return self._view

    @property
    def dashboard(self) -> DashboardClient | None:
        """The cluster's dashboard; None while it is read through its GCS."""
        return None if self._doors.access == "gcs" else self._doors.dashboard

    @property
    def jobs(self) -> JobClient | None:
        """Ray's job API through whichever door is open: the dashboard's, else a node agent's."""
        agents = {
            node.node_id: f"{node.address}:{node.agent_port}"
            for node in self._view.nodes
            if node.status != "dead" and node.agent_port and node.address
        }
        return self._doors.jobs(agents)

    def poll_now(self) -> None:
        """Ends the pause before the next poll, and asks for everything."""
        self._summary_due = 0.0
        self._extra_due = 0.0
        self._wake.set()

    def dismiss(self, node_id: str) -> None:
        """Takes a dead node off the list."""
        self._book.dismiss(node_id)
        self._publish()

    async def first_view(self) -> ClusterView:
        """The view that the first poll makes; needs ``run`` to run.

        Raises:
            CastrayError: What the first poll failed with.
        """
        if self._view.cluster.connected_at is not None:
            return self._view
        if self._error is not None:
            raise self._error
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._first)

    async def complete_view(self, timeout_seconds: float) -> ClusterView:
        """The first view that also holds what only the GCS tells, draining above all; for faces
        that look once. After ``timeout_seconds`` the view as it is then.

        Raises:
            CastrayError: What the first poll failed with.
        """
        await self.first_view()
        if self._extra_task is None:
            self._start_extra()
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._extra_told.wait(), timeout_seconds)
        return self._view

    async def run(self) -> None:
        """Polls until cancelled, or until another cluster answers at the address."""
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            while True:
                started = time.monotonic()
                self._polling = True
                try:
                    await self._poll()
                finally:
                    self._polling = False
                if self._lost:
                    break
                pause = pause_seconds(
                    self._asking(), self._interval_seconds, time.monotonic() - started
                )
                if self._failures:
                    pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, no secret
                self._set(next_poll_at=self._clock() + pause)
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
                self._wake.clear()
        finally:
            tasks = [
                task for task in (ticking, self._summary_task, self._extra_task) if task is not None
            ]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._first is not None and not self._first.done():
                # Not cancelled: that would look as if whoever waits had been cancelled itself.
                self._first.set_exception(
                    UnreachableError(f"{self._view.cluster.name} was let go before it answered")
                )
                self._first.exception()
            await self._doors.close()

    # --- asking -------------------------------------------------------------------------------

    async def _poll(self) -> None:
        started = time.monotonic()
        first = self._answered_monotonic is None
        summary_asked = False
        if self._doors.dashboard is not None and self._doors.access != "gcs" and not first:
            summary_asked = self._start_summary()
        try:
            listing = await self._doors.listing(self._identity)
        except CastrayError as error:
            self._failed(error)
            return
        seconds = time.monotonic() - started
        if self._identity.contradicts(listing.identity):
            self._was_restarted(listing.identity)
            return
        if self._doors.access == "dashboard":
            if not summary_asked:
                summary_asked = self._start_summary()
            if self._summary_task is not None and summary_asked:
                # The first view waits for the figures: whoever looks only once wants them.
                patience = self._timeout_seconds if first else _SUMMARY_PATIENCE_SECONDS
                await asyncio.wait({self._summary_task}, timeout=patience)
                if self._lost:
                    return
        self._take(listing, seconds)
        if not first and self._doors.access == "dashboard":
            self._start_extra_if_due()

    def _take(self, listing: Listing, seconds: float) -> None:
        now = self._clock()
        self._identity = self._identity.completed_by(listing.identity)
        self._book.listed(listing.rows, now)
        if listing.extra is not None:
            self._take_extra(listing.extra)
        self._answered_monotonic = time.monotonic()
        self._failures = 0
        self._error = None
        cluster = self._view.cluster
        self._set(
            access=listing.access,
            ray_version=listing.ray_version or cluster.ray_version,
            connected_at=cluster.connected_at or now,
            answered_at=now,
            latency_seconds=seconds,
        )
        self._publish()
        if self._first is not None and not self._first.done():
            self._first.set_result(self._view)

    def _failed(self, error: CastrayError) -> None:
        self._failures += 1
        self._error = error
        self._publish()
        if self._first is not None and not self._first.done():
            self._first.set_exception(error)
            # Whoever waits gets it; if nobody does any more, that is no news either.
            self._first.exception()

    def _was_restarted(self, identity: Identity) -> None:
        """Another cluster is there now: this one is lost for good, and its rows with it."""
        old = self._view.cluster
        self._lost = True
        key = identity.cluster_id or identity.session_name or old.key
        self._error = UnreachableError(
            f"Another cluster answers at {old.address} now: this one was stopped or restarted"
        )
        self._on_event(restarted(old, key=key, session_name=identity.session_name))
        self._publish()
        if self._first is not None and not self._first.done():
            self._first.set_exception(self._error)
            self._first.exception()
        if self._on_restart is not None:
            self._on_restart(
                replace(
                    self._found,
                    key=key,
                    cluster_id=identity.cluster_id,
                    session_name=identity.session_name,
                    gcs_address=self._doors.gcs_address,
                    dashboard_url=self._doors.dashboard.url if self._doors.dashboard else None,
                    session_dir=None,
                    node_count=None,
                    resources=None,
                    notes=(),
                )
            )

    # --- the figures --------------------------------------------------------------------------

    def _start_summary(self) -> bool:
        """Asks for the machines' figures if it is time; returns whether they are being asked."""
        running = self._summary_task is not None and not self._summary_task.done()
        if running or time.monotonic() < self._summary_due:
            return running
        dashboard = self._doors.dashboard
        if dashboard is None:
            return False
        self._summary_task = asyncio.get_running_loop().create_task(self._ask_summary(dashboard))
        return True

    async def _ask_summary(self, dashboard: DashboardClient) -> None:
        started = time.monotonic()
        try:
            summary = await read_summary(dashboard)
        except CastrayError:
            # The listing, asked beside it, says what is wrong; the figures just grow old.
            summary = None
        spent = time.monotonic() - started
        self._summary_due = time.monotonic() + min(
            spent * _SUMMARY_SHARE, _LONGEST_SUMMARY_PAUSE_SECONDS
        )
        if summary is None or self._lost:
            return
        if self._identity.contradicts(summary.identity):
            self._was_restarted(summary.identity)
            self._wake.set()
            return
        self._take_summary(summary)

    def _take_summary(self, summary: Summary) -> None:
        self._identity = self._identity.completed_by(summary.identity)
        self._gcs_port = summary.gcs_port
        self._book.records.update(summary.records)
        if time.monotonic() > self._used_exactly_until:
            self._book.used.update(summary.used)
        self._book.frozen = self._standstill.frozen(summary.records, time.monotonic())
        if not self._polling:
            self._publish()

    # --- what only the GCS tells --------------------------------------------------------------

    def _start_extra_if_due(self) -> None:
        running = self._extra_task is not None and not self._extra_task.done()
        if not running and time.monotonic() >= self._extra_due:
            self._start_extra()

    def _start_extra(self) -> None:
        if self._doors.access != "dashboard":
            self._extra_told.set()
            return
        self._extra_task = asyncio.get_running_loop().create_task(self._ask_extra())

    async def _ask_extra(self) -> None:
        told = await self._doors.gcs_extra(self._gcs_port, self._identity)
        self._extra_due = time.monotonic() + (
            _EXTRA_FAILED_PAUSE_SECONDS if told is None else _EXTRA_INTERVAL_SECONDS
        )
        if told is not None and not self._lost:
            self._take_extra(told)
            self._publish()
        self._extra_told.set()

    def _take_extra(self, extra: GcsExtra) -> None:
        self._identity = self._identity.completed_by(extra.identity)
        self._book.used.update(extra.used)
        # Until the GCS is late, its figures beat the summary's rounded ones.
        self._used_exactly_until = time.monotonic() + 3 * _EXTRA_INTERVAL_SECONDS
        self._book.draining = dict(extra.draining)

    # --- saying what was seen -----------------------------------------------------------------

    async def _tick(self) -> None:
        """Lets rows grow old while a request hangs."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if self._state() != self._view.cluster.state:
                self._publish()

    def _asking(self) -> Asking:
        answered = self._answered_monotonic
        return Asking(
            answer_age_seconds=None if answered is None else time.monotonic() - answered,
            failures=self._failures,
            error=self._error,
        )

    def _state(self) -> ClusterState:
        return "lost" if self._lost else state_of(self._asking(), self._interval_seconds)

    def _words(self, state: ClusterState) -> str | None:
        """What to say beside the state."""
        if self._error is not None:
            return str(self._error)
        if state == "connected" or self._answered_monotonic is None:
            return None
        seconds = time.monotonic() - self._answered_monotonic
        return f"No answer for {seconds:.0f} s; the last question is still open"

    def _set(self, **changes: object) -> None:
        """Changes the cluster's record without telling anybody yet."""
        cluster = replace(self._view.cluster, **changes)  # type: ignore[arg-type]  # names are ours
        self._view = ClusterView(cluster=cluster, nodes=self._view.nodes)

    def _publish(self) -> None:
        """Makes a new view out of what is known, and tells it with the events that lead there."""
        before = self._published
        state = self._state()
        dashboard = self._doors.dashboard
        cluster = replace(
            self._view.cluster,
            state=state,
            error=self._words(state),
            dashboard_url=dashboard.url if dashboard else None,
            gcs_address=self._doors.gcs_address,
            session_name=self._identity.session_name,
            cluster_id=self._identity.cluster_id,
        )
        nodes = self._book.nodes(cluster, health_of(state))
        total, used = totals(nodes)
        cluster = replace(
            cluster,
            node_count=len(nodes) if cluster.connected_at else None,
            alive_count=sum(node.status in {"alive", "draining"} for node in nodes)
            if cluster.connected_at
            else None,
            resources_total=total,
            resources_used=used,
        )
        self._view = ClusterView(cluster=cluster, nodes=nodes)
        if self._view == before:
            return
        self._published = self._view
        for event in view_events(before, self._view):
            # A restart was told as such already.
            if not (self._lost and event.type == "cluster_lost"):
                self._on_event(event)
        self._on_view(self._view)
