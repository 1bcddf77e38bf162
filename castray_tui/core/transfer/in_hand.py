"""The transfers that this castray has in hand, and the orders about them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from castray_tui.core.errors import CastrayError, NotFoundError, TransferError
from castray_tui.core.models import Transfer, TransferOrder
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.leg_run import LegRun
from castray_tui.core.transfer.owner_lock import OwnerLock
from castray_tui.core.transfer.work import Work

Json = dict[str, Any]
TakeOrders = Callable[[Collection[str]], Awaitable[list[TransferOrder]]]

_CANCEL_SECONDS = 12.0
_ORDERS_SECONDS = 0.5


class TransfersInHand:
    """Keeps the works and the legs that are seen through here.

    Args:
        state_dir: Where the marks lie by which other castrays know what runs here.
        publish: Told every new state of a transfer.
        take_orders: Gives what other castrays ask; None where nobody can ask.
    """

    def __init__(
        self,
        state_dir: Path,
        publish: Callable[[Transfer], None],
        take_orders: TakeOrders | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._publish = publish
        self._take_orders = take_orders
        self._works: dict[str, Work] = {}
        self._runs: dict[str, LegRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._obeying: asyncio.Task[None] | None = None

    # --- what is in hand ----------------------------------------------------------------------

    def take(self, transfer: Transfer) -> Work:
        """Takes a transfer in hand.

        Raises:
            TransferError: Another castray runs it.
        """
        try:
            lock = OwnerLock.take(self._state_dir, transfer.id)
        except BlockingIOError:
            raise TransferError(f"Another castray runs transfer {transfer.id}") from None
        work = self._works[transfer.id] = Work(transfer, self._publish, lock)
        if self._take_orders is not None and self._obeying is None:
            self._obeying = asyncio.create_task(self._obey(self._take_orders))
        return work

    def see_through(self, run: LegRun, task: asyncio.Task[None]) -> None:
        """Sees to a leg that was started, until it ends."""
        self._runs[run.wire_name] = run
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if self._runs.get(run.wire_name) is run:
                del self._runs[run.wire_name]

        task.add_done_callback(ended)

    def find(self, transfer_id: str) -> Work | None:
        """A transfer that was taken in hand, also after its end."""
        return self._works.get(transfer_id)

    def work(self, transfer_id: str) -> Work:
        """The same; raises NotFoundError where it was not."""
        work = self._works.get(transfer_id)
        if work is None:
            raise NotFoundError(f"No transfer {transfer_id} runs in this castray")
        return work

    def run_named(self, wire_name: str) -> LegRun | None:
        """The leg of that name on the wire, while it is seen through here."""
        return self._runs.get(wire_name)

    def owned_by(self, cluster_key: str) -> list[LegRun]:
        """The legs whose attempt a cluster's coordinator, or this machine's agent, owns."""
        return [run for run in self._runs.values() if run.owner_key == cluster_key]

    def is_running(self, transfer_id: str) -> bool:
        """Whether a transfer is in hand and has not ended."""
        work = self._works.get(transfer_id)
        return work is not None and not work.done.is_set()

    def heard(self, event: Json) -> None:
        """A session tells how a leg stands, or how its attempt ended."""
        run = self._runs.get(str(event.get("transfer")))
        if run is None:
            return
        if event.get("event") == "progress" and isinstance(event.get("status"), dict):
            run.heard(event["status"])
        elif event.get("event") == "finished":
            result = event.get("result")
            status = result.get("status") if isinstance(result, dict) else None
            run.heard_end(status if isinstance(status, dict) else {})

    # --- orders -------------------------------------------------------------------------------

    async def cancel(self, transfer_id: str) -> Transfer:
        """Cancels; NotFoundError where it is not in hand."""
        work = self.work(transfer_id)
        runs = _runs_of(work)
        await asyncio.gather(*(run.cancel() for run in runs))
        if runs:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(work.done.wait(), _CANCEL_SECONDS)
        reason = "cancelled, unconfirmed" if runs else "cancelled"
        work.finish(progress.cancelled(work.transfer, reason))
        return work.transfer

    async def pause(self, transfer_id: str) -> Transfer:
        """Sends nothing until ``unpause``; NotFoundError where it is not in hand."""
        work = self.work(transfer_id)
        await asyncio.gather(*(run.pause() for run in _runs_of(work)))
        work.tell()
        return work.transfer

    async def unpause(self, transfer_id: str) -> Transfer:
        """Goes on with what was paused; NotFoundError where it is not in hand."""
        work = self.work(transfer_id)
        await asyncio.gather(*(run.unpause() for run in _runs_of(work)))
        work.tell()
        return work.transfer

    async def end_those_of_this_machine(self) -> None:
        """Cancels the legs that cannot go on without this castray; leaves the others alone."""
        for work in list(self._works.values()):
            ending = [run for run in _runs_of(work) if run.needs_castray]
            await asyncio.gather(*(run.cancel() for run in ending))
            tasks = [run.task for run in ending if run.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        for task in [*self._tasks, *([self._obeying] if self._obeying else [])]:
            task.cancel()

    def let_go(self) -> None:
        """Says to other castrays that nothing runs here any more."""
        for work in self._works.values():
            work.release()

    async def _obey(self, take_orders: TakeOrders) -> None:
        """Carries out what other castrays ask, while anything runs here."""
        try:
            while ids := {name for name in self._works if self.is_running(name)}:
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


def _runs_of(work: Work) -> list[LegRun]:
    return [run for run in work.legs.values() if isinstance(run, LegRun)]
