"""Transfers from the request to the last verdict: the one object that the engine uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError, NotFoundError, ReadOnlyError, TransferError
from castray_tui.core.models import (
    LOCAL,
    Fleet,
    Node,
    Transfer,
    TransferOrder,
    TransferPlan,
    TransferRequest,
)
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.access import ClusterAccess
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.transfer.bridging import bridge_nodes
from castray_tui.core.transfer.contacts import Contact
from castray_tui.core.transfer.left_legs import LeftLeg, left_legs
from castray_tui.core.transfer.leg_run import LegRun, Surroundings
from castray_tui.core.transfer.opening import new_transfer, transfer_again
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.owner_lock import OwnerLock, is_owner_alive
from castray_tui.core.transfer.planning import plan_transfer
from castray_tui.core.transfer.selection import Selection, select, select_again
from castray_tui.core.transfer.session_keeper import SessionKeeper
from castray_tui.core.transfer.sessions import LocalSession, Session
from castray_tui.core.transfer.work import Work

Json = dict[str, Any]
TakeOrders = Callable[[Collection[str]], Awaitable[list[TransferOrder]]]

_KNOWN_SECONDS = 60.0
_CANCEL_SECONDS = 12.0
_ORDERS_SECONDS = 0.5
_RECONNECT_SECONDS = (0.5, 2.0, 5.0)
_GONE = "castray ended before the transfer did"


class TransferService:
    """Plans, starts, watches and ends transfers.

    Args:
        settings: The run's settings.
        state_dir: Where castray's key and the logs of coordinators beside it lie.
        fleet: Gives the newest snapshot.
        access: Gives the way in to each cluster.
        publish: Called with every new state of a transfer, at most five times a second and on
            every verdict.
        take_orders: Gives what other castrays ask of the transfers that run here; asked twice a
            second while one does. None where nobody can ask.
        lingers: Whether agents are left, at the end, to whoever comes within their idle time.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        state_dir: Path,
        fleet: Callable[[], Fleet],
        access: ClusterAccess,
        publish: Callable[[Transfer], None],
        take_orders: TakeOrders | None = None,
        lingers: bool = False,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._fleet = fleet
        self._access = access
        self._publish = publish
        self._take_orders = take_orders
        self._works: dict[str, Work] = {}
        self._runs: dict[str, LegRun] = {}
        self._left_ids: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._obeying: asyncio.Task[None] | None = None
        self._keeper = SessionKeeper(
            settings=settings.transfer,
            state_dir=state_dir,
            access=access,
            on_event=self._on_event,
            on_closed=self._on_session_closed,
            lingers=lingers,
        )
        self._around = Surroundings(
            fleet=fleet,
            session_for=self._keeper.session,
            bridges=lambda leg: bridge_nodes(leg, fleet(), access),
        )

    # --- being early --------------------------------------------------------------------------

    async def meet(self, contact: Contact) -> list[Json]:
        """Goes to the coordinator that was noted for a cluster; what it lists as its nodes.

        Raises:
            TransferError: It does not run any more, or cannot be reached.
        """
        return await self._keeper.meet(contact)

    def use_local_agent(self, session: LocalSession) -> None:
        """Takes the agent process of this machine that was started already, and will end it."""
        self._keeper.use_local(session)

    # --- beginning ----------------------------------------------------------------------------

    async def plan(self, request: TransferRequest) -> TransferPlan:
        """What a transfer would do, target by target, found out without sending a byte.

        Raises:
            CastrayError: The request makes no sense, or the source cannot be sent.
        """
        selection = select(request, self._fleet())
        self._refuse_read_only(selection)
        return await plan_transfer(request, selection, self._options(request), self._around)

    async def start(self, request: TransferRequest) -> Transfer:
        """Starts a transfer and returns at once; what it comes to is published.

        Raises:
            UsageError, NotFoundError, TransferError: The request cannot be understood or met.
        """
        selection = select(request, self._fleet())
        self._refuse_read_only(selection)
        return self._begin(new_transfer(request, selection), selection)

    async def resume(self, transfer: Transfer, *, only_failed: bool = False) -> Transfer:
        """Goes on with a transfer that has ended, or whose castray is gone, under the same ID.
        Targets that have what they should have are left alone, and nothing is sent that an agent
        still holds of it.

        Args:
            transfer: As the journal has it.
            only_failed: Whether targets that were cancelled stay so.

        Raises:
            UsageError: Nothing is left to be sent, or too little is known of it.
            TransferError: It runs.
        """
        work = self._works.get(transfer.id)
        if work is not None and not work.done.is_set() and work.legs:
            raise TransferError(f"Transfer {transfer.id} still runs")
        again = transfer_again(transfer, only_failed=only_failed)
        selection = select_again(again, self._fleet())
        self._refuse_read_only(selection)
        return self._begin(again, selection)

    def _begin(self, transfer: Transfer, selection: Selection) -> Transfer:
        assert transfer.request is not None  # selected by it
        work = self._new_work(transfer)
        options = self._options(transfer.request)
        runs = []
        for number, leg in enumerate(selection.legs):
            places = {
                index: each.place
                for index, each in enumerate(selection.targets)
                if each.leg == number and transfer.targets[index].verdict is None
            }
            if places:
                run = LegRun(
                    work, number, leg=leg, places=places, options=options, around=self._around
                )
                work.legs[number] = run
                runs.append(run)
        work.tell()
        for run in runs:
            self._see_through(run, run.start())
        return work.transfer

    def _new_work(self, transfer: Transfer) -> Work:
        try:
            lock = OwnerLock.take(self._state_dir, transfer.id)
        except BlockingIOError:
            raise TransferError(f"Another castray runs transfer {transfer.id}") from None
        work = self._works[transfer.id] = Work(transfer, self._publish, lock)
        if self._take_orders is not None and self._obeying is None:
            self._obeying = asyncio.create_task(self._obey(self._take_orders))
        return work

    def _see_through(self, run: LegRun, task: asyncio.Task[None]) -> None:
        self._runs[run.wire_name] = run
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if self._runs.get(run.wire_name) is run:
                del self._runs[run.wire_name]

        task.add_done_callback(ended)

    def _options(self, request: TransferRequest) -> SendOptions:
        return SendOptions.of(request, self._settings.transfer)

    def _refuse_read_only(self, selection: Selection) -> None:
        if self._settings.read_only:
            raise ReadOnlyError(
                "castray runs read-only and sends nothing",
                remedy="Start it without --read-only, or with read_only = false in its settings",
            )
        # One that may not be written to is refused by itself, unless there are no others.
        sources = [self._read_only_error(leg.node) for leg in selection.legs]
        targets = [self._read_only_error(target.place.node) for target in selection.targets]
        for refusals in (sources, targets):
            if refusals and refusals[0] is not None and all(refusals):
                raise refusals[0]

    def _read_only_error(self, node: Node) -> ReadOnlyError | None:
        if node.is_local or not node.cluster_key:
            return None
        door = self._access.door(node.cluster_key)
        if door.read_only_reason is None:
            return None
        return ReadOnlyError(
            f"{door.name} is only looked at: {door.read_only_reason}",
            remedy="Set read_only = false in its [[clusters]] entry to transfer",
        )

    # --- orders -------------------------------------------------------------------------------

    def runs(self, transfer_id: str) -> bool:
        """Whether this castray sees the transfer through."""
        work = self._works.get(transfer_id)
        return work is not None and not work.done.is_set()

    def is_run_elsewhere(self, transfer_id: str) -> bool:
        """Whether another castray sees the transfer through."""
        return not self.runs(transfer_id) and is_owner_alive(self._state_dir, transfer_id)

    async def wait(self, transfer_id: str) -> Transfer:
        """Returns when the transfer has ended, whichever way.

        Raises:
            NotFoundError: This castray does not run it.
        """
        work = self._work(transfer_id)
        await work.done.wait()
        return work.transfer

    async def cancel(self, transfer_id: str) -> Transfer:
        """Cancels; targets without a verdict get ``cancelled`` and keep nothing of it.

        Raises:
            NotFoundError: This castray does not run it.
        """
        work = self._work(transfer_id)
        runs = self._runs_of(work)
        await asyncio.gather(*(run.cancel() for run in runs))
        if runs:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(work.done.wait(), _CANCEL_SECONDS)
        reason = "cancelled, unconfirmed" if runs else "cancelled"
        work.finish(progress.cancelled(work.transfer, reason))
        return work.transfer

    async def pause(self, transfer_id: str) -> Transfer:
        """Sends nothing until ``unpause``; what is connected stays so.

        Raises:
            NotFoundError: This castray does not run it.
        """
        work = self._work(transfer_id)
        await asyncio.gather(*(run.pause() for run in self._runs_of(work)))
        work.tell()
        return work.transfer

    async def unpause(self, transfer_id: str) -> Transfer:
        """Goes on with what was paused.

        Raises:
            NotFoundError: This castray does not run it.
        """
        work = self._work(transfer_id)
        await asyncio.gather(*(run.unpause() for run in self._runs_of(work)))
        work.tell()
        return work.transfer

    async def _obey(self, take_orders: TakeOrders) -> None:
        """Carries out what other castrays ask, while anything runs here."""
        try:
            while ids := {name for name in self._works if self.runs(name)}:
                for order in await take_orders(ids):
                    with contextlib.suppress(CastrayError):
                        if order.kind == "cancel":
                            await self.cancel(order.transfer_id)
                        elif order.kind == "pause":
                            await self.pause(order.transfer_id)
                        else:
                            await self.unpause(order.transfer_id)
                await asyncio.sleep(_ORDERS_SECONDS)
        finally:
            self._obeying = None

    def _work(self, transfer_id: str) -> Work:
        work = self._works.get(transfer_id)
        if work is None:
            raise NotFoundError(f"No transfer {transfer_id} runs in this castray")
        return work

    def _runs_of(self, work: Work) -> list[LegRun]:
        return [run for run in work.legs.values() if isinstance(run, LegRun)]

    # --- what earlier castrays left -----------------------------------------------------------

    async def adopt(
        self,
        cluster_key: str,
        unfinished: Collection[str] | Mapping[str, Transfer] | None = None,
    ) -> None:
        """Takes up what an earlier castray left on a cluster: follows legs that still run, tells
        how others ended, and removes the records of coordinators that have ended.

        Args:
            unfinished: Only these transfers are told of, by their IDs, if possible as the journal
                has them; None for all.
        """
        door = self._access.door(cluster_key)
        if door.read_only_reason is not None:
            return
        results = await self._keeper.collect_ended(door)
        records: list[Json] = []
        session = await self._keeper.take_up(door)
        if session is not None:
            (known,) = await session.request({"known": 1}, _KNOWN_SECONDS)
            results += known["results"]
            records += known["records"]
        for leg in left_legs(results, records, unfinished):
            self._take_up(leg, cluster_key, session)

    def _take_up(self, leg: LeftLeg, cluster_key: str, session: Session | None) -> None:
        run = self._runs.get(leg.name)
        if run is not None:
            if leg.result is not None:
                run.heard_end(leg.result.get("status") or {})
            elif session is not None:
                run.change_owner(session)
            return
        work = self._works.get(leg.transfer.id)
        if work is None:
            if is_owner_alive(self._state_dir, leg.transfer.id):
                return
            with contextlib.suppress(TransferError):  # somebody else was quicker
                work = self._new_work(leg.transfer)
                self._left_ids.add(leg.transfer.id)
        if work is None or work.done.is_set():
            return
        if leg.result is not None:
            self._note_result(work, leg)
        elif session is not None:
            self._follow(work, leg, session, cluster_key)

    def _note_result(self, work: Work, leg: LeftLeg) -> None:
        assert leg.result is not None  # asked by who calls
        seen = progress.with_result(work.transfer, leg.number, leg.result)
        if seen.state in progress.ENDED:
            work.finish(seen)
        else:
            work.transfer = seen
            work.tell()

    def _follow(self, work: Work, leg: LeftLeg, session: Session, cluster_key: str) -> None:
        try:
            selection = select_again(work.transfer, self._fleet())
        except CastrayError:  # a record that another version wrote
            return
        assert work.transfer.request is not None  # selected by it
        run = LegRun(
            work,
            leg.number,
            leg=selection.legs[leg.number],
            places={index: selection.targets[index].place for index in leg.indexes},
            options=self._options(work.transfer.request),
            around=self._around,
        )
        work.legs[leg.number] = run
        self._see_through(run, run.follow(session, cluster_key))
        work.tell()

    def settle(self, unfinished: Iterable[Transfer], *, adopted: Collection[str] = ()) -> None:
        """Says of what the journal has as unfinished, and nobody can finish any more, that it has
        failed: its castray is gone, and its source was on this machine, or on a cluster where
        ``adopt`` has found nothing of it.

        Args:
            adopted: Names of clusters that ``adopt`` has been through.
        """
        searched = {LOCAL, *adopted}
        for transfer in unfinished:
            work = self._works.get(transfer.id)
            if work is not None and transfer.id not in self._left_ids:
                continue
            if work is None and is_owner_alive(self._state_dir, transfer.id):
                continue
            now = work.transfer if work is not None else transfer
            followed = set(work.legs) if work is not None else set()
            lost = {
                number
                for number, cluster in enumerate(_source_clusters(now))
                if cluster in searched and number not in followed
            }
            targets = tuple(
                replace(target, verdict="failed", reason=_GONE)
                if target.verdict is None and target.leg in lost
                else target
                for target in now.targets
            )
            if targets == now.targets:
                continue
            seen = progress.with_targets(replace(now, error=_GONE), targets)
            if all(target.verdict is not None for target in targets):
                seen = progress.ended(seen)
            if work is None:
                self._publish(seen)
            elif seen.state in progress.ENDED:
                work.finish(seen)
            else:
                work.transfer = seen
                work.tell()

    # --- what is heard ------------------------------------------------------------------------

    def _on_event(self, event: Json) -> None:
        run = self._runs.get(str(event.get("transfer")))
        if run is None:
            return
        if event.get("event") == "progress" and isinstance(event.get("status"), dict):
            run.heard(event["status"])
        elif event.get("event") == "finished":
            result = event.get("result")
            status = result.get("status") if isinstance(result, dict) else None
            run.heard_end(status if isinstance(status, dict) else {})

    def _on_session_closed(self, cluster_key: str) -> bool:
        """Whether the legs that it owned are looked after."""
        owned = [run for run in self._runs.values() if run.owner_key == cluster_key]
        if cluster_key == LOCAL:
            for run in owned:
                run.lose_owner("castray's own agent process has ended")
        elif owned:
            task = asyncio.create_task(self._look_after(cluster_key, owned))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bool(owned)

    async def _look_after(self, cluster_key: str, owned: list[LegRun]) -> None:
        """The connection to a coordinator broke while it owned legs: they are followed over a new
        connection, or their end is read from its log."""
        wanted = {run.transfer_id: self._works[run.transfer_id].transfer for run in owned}
        for pause_seconds in _RECONNECT_SECONDS:
            await asyncio.sleep(pause_seconds)
            with contextlib.suppress(CastrayError):
                self._keeper.forget(cluster_key)
                await self.adopt(cluster_key, wanted)
                if all(run.owner_key is None or run.has_open_owner for run in owned):
                    return
                if self._keeper.holds(cluster_key):
                    break  # There is one, and it knows nothing of them.
        for run in owned:
            if run.owner_key is not None and not run.has_open_owner:
                run.lose_owner("the coordinator of the source's cluster is gone")

    # --- leaving ------------------------------------------------------------------------------

    async def release_cluster(self, cluster_key: str) -> None:
        """Leaves a cluster: its coordinator and agents end, unless a transfer still runs there."""
        await self._keeper.release(cluster_key)

    async def close(self) -> None:
        """Leaves all clusters. Legs between nodes go on, those of this machine end."""
        for work in list(self._works.values()):
            ending = [run for run in self._runs_of(work) if run.needs_castray]
            await asyncio.gather(*(run.cancel() for run in ending))
            tasks = [run.task for run in ending if run.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        for task in [*self._tasks, *([self._obeying] if self._obeying else [])]:
            task.cancel()
        await self._keeper.close()
        for work in self._works.values():
            work.release()


def _source_clusters(transfer: Transfer) -> list[str]:
    """The names of the clusters that the legs' sources are on."""
    if transfer.legs:
        return [leg.cluster for leg in transfer.legs]
    return [parse_address(transfer.source).cluster_pattern]
