"""Orders about transfers, whoever runs them: this castray, another one of the same user, or nobody
but the coordinator that an earlier castray left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.journal import Journal
from castray_tui.core.models import LOCAL, Cluster, OrderKind, Transfer
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.transfer.progress import ENDED
from castray_tui.core.transfer.service import TransferService

_LOOK_SECONDS = 0.2
_OBEY_SECONDS = 20.0


def source_clusters(transfer: Transfer) -> frozenset[str]:
    """The names of the clusters, ``local`` included, that the sources are on."""
    if transfer.legs:
        return frozenset(leg.cluster for leg in transfer.legs)
    return frozenset({parse_address(transfer.source).cluster_pattern})


def clusters_of(transfer: Transfer) -> frozenset[str]:
    """The names of all clusters that take part; this machine is none."""
    targets = frozenset(target.cluster for target in transfer.targets)
    return (source_clusters(transfer) | targets) - {LOCAL}


class TransferControl:
    """Cancels, pauses and goes on with transfers, wherever they run.

    Args:
        journal: Where castrays leave orders for each other, and see what became of them.
        service: What runs transfers here.
        newest: Gives a transfer as it is known now, by its ID or a prefix of it.
        connect: Connects to clusters by their names, as far as they can be found; gives those that
            answered.
        show: Told how a transfer stands that another castray runs.
    """

    def __init__(
        self,
        journal: Journal,
        service: TransferService,
        *,
        newest: Callable[[str], Awaitable[Transfer]],
        connect: Callable[[Iterable[str]], Awaitable[list[Cluster]]],
        show: Callable[[Transfer], None],
    ) -> None:
        self._journal = journal
        self._service = service
        self._newest = newest
        self._connect = connect
        self._show = show

    async def give(self, transfer_id: str, kind: OrderKind) -> Transfer:
        """Cancels, pauses or unpauses; one that has ended stays as it is.

        Raises:
            NotFoundError: No such transfer is known.
            TransferError: Whoever runs it does not answer.
        """
        transfer = await self._newest(transfer_id)
        if not self._service.runs(transfer.id):
            if self._service.is_run_elsewhere(transfer.id):
                transfer = await self._ask(transfer.id, kind)
            if not self._service.is_run_elsewhere(transfer.id) and transfer.state not in ENDED:
                transfer = await self._take_up(transfer)
        if not self._service.runs(transfer.id):
            return transfer
        if kind == "cancel":
            return await self._service.cancel(transfer.id)
        if kind == "pause":
            return await self._service.pause(transfer.id)
        return await self._service.unpause(transfer.id)

    async def go_on(self, transfer_id: str, *, only_failed: bool) -> Transfer:
        """Goes on with a transfer that has ended or was given up, under the same ID; one that is
        paused goes on where it is.

        Args:
            only_failed: Whether targets that were cancelled stay so.

        Raises:
            NotFoundError: No such transfer is known.
            UsageError: Nothing is left to be sent.
            TransferError: It runs, or whoever runs it does not answer.
        """
        transfer = await self._newest(transfer_id)
        is_run = self._service.runs(transfer.id) or self._service.is_run_elsewhere(transfer.id)
        if transfer.state not in ENDED and not is_run:
            transfer = await self._take_up(transfer)
            if self._service.runs(transfer.id) and transfer.state != "paused":
                return transfer  # It has gone on without castray, and is followed from now on.
        if transfer.state not in ENDED:
            if transfer.state == "paused":
                return await self.give(transfer.id, "unpause")
            raise TransferError(f"Transfer {transfer.id} still runs")
        await self._connect(clusters_of(transfer))
        return await self._service.resume(transfer, only_failed=only_failed)

    async def wait(self, transfer_id: str) -> Transfer:
        """Returns when the transfer has ended, whoever runs it.

        Raises:
            NotFoundError: No such transfer is known.
            TransferError: Nobody runs it, and where it may run does not answer.
        """
        while not self._service.runs(transfer_id):
            transfer = await self._newest(transfer_id)
            if transfer.state in ENDED:
                return transfer
            if self._service.is_run_elsewhere(transfer.id):
                self._show(transfer)
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            # Its end may have been written just before its castray let go of it.
            transfer = await self._newest(transfer_id)
            if transfer.state in ENDED:
                return transfer
            transfer_id = (await self._take_up(transfer)).id
        return await self._service.wait(transfer_id)

    async def _ask(self, transfer_id: str, kind: OrderKind) -> Transfer:
        """Leaves an order for the castray that runs it, and waits until it is carried out."""
        number = await self._journal.add_order(transfer_id, kind)
        deadline = time.monotonic() + _OBEY_SECONDS
        while time.monotonic() < deadline and self._service.is_run_elsewhere(transfer_id):
            transfer = await self._newest(transfer_id)
            if transfer.state in ENDED or _is_done(kind, transfer):
                await self._journal.withdraw_order(number)
                return transfer
            await asyncio.sleep(_LOOK_SECONDS)
        if await self._journal.withdraw_order(number) and self._service.is_run_elsewhere(
            transfer_id
        ):
            raise TransferError(
                f"The castray that runs transfer {transfer_id} does not answer",
                remedy="See whether it hangs; when it is gone, give the order again",
            )
        return await self._newest(transfer_id)

    async def _take_up(self, transfer: Transfer) -> Transfer:
        """Nobody runs it: it is followed from here where it still runs in a cluster, and has failed
        where it does not."""
        names = source_clusters(transfer) - {LOCAL}
        adopted = []
        failures = []
        for cluster in await self._connect(names):
            if cluster.name in names:
                try:
                    await self._service.adopt(cluster.key, {transfer.id: transfer})
                    adopted.append(cluster.name)
                except CastrayError as error:
                    failures.append(str(error))
        self._service.settle([transfer], adopted=adopted)
        now = await self._newest(transfer.id)
        if now.state not in ENDED and not self._service.runs(transfer.id):
            missing = ", ".join(sorted(names - set(adopted)))
            raise TransferError(
                f"Transfer {transfer.id} may still run on {missing}, which does not answer"
                + (f": {'; '.join(failures)}" if failures else ""),
                remedy="Connect to that cluster, and try again",
            )
        return now


def _is_done(kind: OrderKind, transfer: Transfer) -> bool:
    if kind == "pause":
        return transfer.state == "paused"
    return kind == "unpause" and transfer.state != "paused"
