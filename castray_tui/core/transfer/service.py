"""Transfers from the request to the last verdict: the one object that the engine uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from castray_tui.core.config import Settings
from castray_tui.core.errors import ReadOnlyError, TransferError
from castray_tui.core.models import (
    LOCAL,
    Fleet,
    Node,
    Transfer,
    TransferPlan,
    TransferRequest,
)
from castray_tui.core.transfer.access import ClusterAccess
from castray_tui.core.transfer.bridging import bridge_nodes
from castray_tui.core.transfer.contacts import Contact
from castray_tui.core.transfer.in_hand import TakeOrders, TransfersInHand
from castray_tui.core.transfer.leg_run import LegRun
from castray_tui.core.transfer.opening import new_transfer, transfer_again
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.owner_lock import is_owner_alive
from castray_tui.core.transfer.planning import plan_transfer
from castray_tui.core.transfer.selection import Selection, select, select_again
from castray_tui.core.transfer.session_keeper import SessionKeeper
from castray_tui.core.transfer.sessions import LocalSession
from castray_tui.core.transfer.surroundings import Surroundings
from castray_tui.core.transfer.taking_up import TakingUp

Json = dict[str, Any]


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
        self._looking_after: set[asyncio.Task[None]] = set()
        self._in_hand = TransfersInHand(state_dir, publish, take_orders)
        self._keeper = SessionKeeper(
            settings=settings.transfer,
            state_dir=state_dir,
            access=access,
            on_event=self._in_hand.heard,
            on_closed=self._on_session_closed,
            lingers=lingers,
        )
        self._around = Surroundings(
            fleet=fleet,
            session_for=self._keeper.session,
            bridges=lambda leg: bridge_nodes(leg, fleet(), access),
        )
        self._taking_up = TakingUp(
            settings=settings.transfer,
            state_dir=state_dir,
            access=access,
            keeper=self._keeper,
            around=self._around,
            in_hand=self._in_hand,
            publish=publish,
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
        work = self._in_hand.find(transfer.id)
        if work is not None and not work.done.is_set():
            if work.legs:
                raise TransferError(f"Transfer {transfer.id} still runs")
            work.release()  # Taken up, and nothing of it was left to follow.
        again = transfer_again(transfer, only_failed=only_failed)
        selection = select_again(again, self._fleet())
        self._refuse_read_only(selection)
        return self._begin(again, selection)

    def _begin(self, transfer: Transfer, selection: Selection) -> Transfer:
        assert transfer.request is not None  # selected by it
        work = self._in_hand.take(transfer)
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
            self._in_hand.see_through(run, run.start())
        return work.transfer

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
        return self._in_hand.is_running(transfer_id)

    def is_run_elsewhere(self, transfer_id: str) -> bool:
        """Whether another castray sees the transfer through."""
        return not self.runs(transfer_id) and is_owner_alive(self._state_dir, transfer_id)

    async def wait(self, transfer_id: str) -> Transfer:
        """Returns when the transfer has ended, whichever way.

        Raises:
            NotFoundError: This castray does not run it.
        """
        work = self._in_hand.work(transfer_id)
        await work.done.wait()
        return work.transfer

    async def cancel(self, transfer_id: str) -> Transfer:
        """Cancels; targets without a verdict get ``cancelled`` and keep nothing of it.

        Raises:
            NotFoundError: This castray does not run it.
        """
        return await self._in_hand.cancel(transfer_id)

    async def pause(self, transfer_id: str) -> Transfer:
        """Sends nothing until ``unpause``; what is connected stays so.

        Raises:
            NotFoundError: This castray does not run it.
        """
        return await self._in_hand.pause(transfer_id)

    async def unpause(self, transfer_id: str) -> Transfer:
        """Goes on with what was paused.

        Raises:
            NotFoundError: This castray does not run it.
        """
        return await self._in_hand.unpause(transfer_id)

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

        Raises:
            CastrayError: The cluster, or a coordinator that runs there, does not answer.
        """
        await self._taking_up.adopt(cluster_key, unfinished)

    def settle(self, unfinished: Iterable[Transfer], *, adopted: Collection[str] = ()) -> None:
        """Says of what the journal has as unfinished, and nobody can finish any more, that it has
        failed: its castray is gone, and its source was on this machine, or on a cluster where
        ``adopt`` has found nothing of it.

        Args:
            adopted: Names of clusters that ``adopt`` has been through.
        """
        self._taking_up.settle(unfinished, adopted)

    def _on_session_closed(self, cluster_key: str) -> bool:
        """Whether the legs that it owned are looked after."""
        owned = self._in_hand.owned_by(cluster_key)
        if cluster_key == LOCAL:
            for run in owned:
                run.lose_owner("castray's own agent process has ended")
        elif owned:
            task = asyncio.create_task(self._taking_up.look_after(cluster_key, owned))
            self._looking_after.add(task)
            task.add_done_callback(self._looking_after.discard)
        return bool(owned)

    # --- leaving ------------------------------------------------------------------------------

    async def release_cluster(self, cluster_key: str) -> None:
        """Leaves a cluster: its coordinator and agents end, unless a transfer still runs there."""
        await self._keeper.release(cluster_key)

    async def close(self) -> None:
        """Leaves all clusters. Legs between nodes go on, those of this machine end."""
        await self._in_hand.end_those_of_this_machine()
        for task in list(self._looking_after):
            task.cancel()
        await self._keeper.close()
        self._in_hand.let_go()
