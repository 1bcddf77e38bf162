"""What is done with every new state of a transfer: it is shown, told as an event, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from castray_tui.core.event_drafts import transfer_event
from castray_tui.core.event_stream import EventStream
from castray_tui.core.fleet import KEPT_TRANSFERS, FleetBoard, FleetParts
from castray_tui.core.journal import Journal
from castray_tui.core.models import Transfer

ENDED = frozenset({"done", "partial", "failed", "cancelled"})
_PROGRESS_STEPS = 10
"""A transfer tells of its progress as an event at most this often; snapshots show every step."""


class TransferNews:
    """Passes on how transfers stand.

    Args:
        parts: Where the newest state of each is kept for snapshots.
        board: Makes the snapshots.
        stream: Where events are posted.
        journal: Where they are kept.
    """

    def __init__(
        self, parts: FleetParts, board: FleetBoard, stream: EventStream, journal: Journal
    ) -> None:
        self._parts = parts
        self._board = board
        self._stream = stream
        self._journal = journal
        self._told_steps: dict[str, int] = {}
        self._unsaved: dict[str, Transfer] = {}
        self._saving: asyncio.Task[None] | None = None

    def changed(self, transfer: Transfer) -> None:
        """A transfer that this castray runs stands so now."""
        before = self._parts.transfers.get(transfer.id)
        self._parts.transfers[transfer.id] = transfer
        self._board.touch()
        if before is None or (before.state in ENDED and transfer.state not in ENDED):
            self._told_steps.pop(transfer.id, None)
            self._stream.post(transfer_event("transfer_started", transfer))
        elif transfer.state in ENDED and before.state not in ENDED:
            self._told_steps.pop(transfer.id, None)
            self._stream.post(transfer_event("transfer_finished", transfer))
        elif self._is_a_step_further(transfer):
            self._stream.post(transfer_event("transfer_progressed", transfer))
            self._save(transfer)
        if before is None or _worth_keeping(before) != _worth_keeping(transfer):
            self._save(transfer)

    def seen(self, transfer: Transfer) -> None:
        """A transfer that another castray runs stands so now; that one tells and keeps it."""
        if self._parts.transfers.get(transfer.id) != transfer:
            self._parts.transfers[transfer.id] = transfer
            self._board.touch()

    async def look_at_others(self, seconds: float, runs: Callable[[str], bool]) -> None:
        """Shows what other castrays do, for as long as this one looks.

        Args:
            seconds: Between two looks.
            runs: Whether this castray runs a transfer itself.
        """
        while True:
            if await self._journal.was_changed_by_others():
                for transfer in await self._journal.transfers(limit=KEPT_TRANSFERS):
                    if not runs(transfer.id) and transfer.id not in self._unsaved:
                        self.seen(transfer)
            await asyncio.sleep(seconds)

    async def saved(self) -> None:
        """Returns when everything is in the journal."""
        while self._saving is not None:
            await asyncio.shield(self._saving)

    def _save(self, transfer: Transfer) -> None:
        """Writes the newest state, and none that was overtaken while another was written."""
        self._unsaved[transfer.id] = transfer
        if self._saving is None:
            self._saving = asyncio.create_task(self._save_all())

    async def _save_all(self) -> None:
        try:
            while self._unsaved:
                transfer = self._unsaved.pop(next(iter(self._unsaved)))
                await self._journal.save_transfer(transfer)
        finally:
            self._saving = None

    def _is_a_step_further(self, transfer: Transfer) -> bool:
        total = transfer.bytes_wanted
        step = _PROGRESS_STEPS * transfer.bytes_done // total if total else 0
        further = step > self._told_steps.get(transfer.id, 0)
        self._told_steps[transfer.id] = max(step, self._told_steps.get(transfer.id, 0))
        return further


def _worth_keeping(transfer: Transfer) -> tuple[object, ...]:
    """What of a transfer is written to the journal as soon as it changes."""
    return (
        transfer.state,
        transfer.digest,
        transfer.route,
        tuple((target.verdict, target.attempts, target.reason) for target in transfer.targets),
    )
