"""Transfers that an earlier castray left unfinished: taken up where they run, settled elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Cluster, Transfer
from castray_tui.core.transfer.progress import ENDED
from castray_tui.core.transfer.service import TransferService
from castray_tui.core.transfer_control import source_clusters

_PAUSES_SECONDS = (1.0, 3.0)


class LeftTransfers:
    """Finds out how transfers ended, or goes on following them, cluster by cluster.

    Args:
        unfinished: What the journal had as not ended when this castray started.
        newest: Gives a transfer as it is known now.
        service: Gives the transfer service of this run.
    """

    def __init__(
        self,
        unfinished: Sequence[Transfer],
        newest: Callable[[str], Transfer],
        service: Callable[[], Awaitable[TransferService]],
    ) -> None:
        self._unfinished = tuple(unfinished)
        self._newest = newest
        self._service = service
        self._looked_on: set[str] = set()

    async def sources(self) -> frozenset[str]:
        """The names of the clusters, ``local`` included, that the sources are on of those that
        nobody runs."""
        service = await self._service()
        left = [
            each
            for each in self._open()
            if not service.runs(each.id) and not service.is_run_elsewhere(each.id)
        ]
        return frozenset().union(*(source_clusters(each) for each in left))

    async def settle(self) -> None:
        """Publishes as failed what can no longer end: its castray is gone and nothing of it is left
        where it would have to be."""
        if open_still := self._open():
            (await self._service()).settle(open_still, adopted=self._looked_on)

    async def look_on(self, cluster: Cluster) -> None:
        """Takes up what still runs on a cluster, and tells how the rest ended there.

        Also removes the records of coordinators that an earlier castray left. A cluster that may
        only be looked at is left as it is.
        """
        if cluster.read_only:
            return
        service = await self._service()
        for pause_seconds in (*_PAUSES_SECONDS, None):
            try:
                await service.adopt(cluster.key, {each.id: each for each in self._open()})
                break
            except CastrayError:
                # Its own state says why it does not answer; the next connection tries again.
                if pause_seconds is None:
                    return
                await asyncio.sleep(pause_seconds)
        self._looked_on.add(cluster.name)
        await self.settle()

    def _open(self) -> list[Transfer]:
        """Others may have told meanwhile how one ended, and that stands."""
        newest = [self._newest(each.id) for each in self._unfinished]
        return [each for each in newest if each.state not in ENDED]
