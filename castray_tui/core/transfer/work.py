"""One transfer that this castray has in hand: how it stands now, and who is told."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from castray_tui.core.models import Transfer, TransferState, TransferTarget
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.owner_lock import OwnerLock

Json = dict[str, Any]

_PUBLISH_SECONDS = 0.2
_ERROR_LIMIT = 500


def wire_name(transfer_id: str, leg: int) -> str:
    """What a leg is called between agents: the first by the transfer's ID, the others by names of
    their own made from it."""
    if leg == 0:
        return transfer_id
    return hashlib.sha256(f"{transfer_id}/{leg}".encode()).hexdigest()[:32]


class LegInHand(Protocol):
    """What a transfer in hand knows of the legs that somebody sees through."""

    @property
    def number(self) -> int:
        """Its number in the transfer."""
        ...

    @property
    def state(self) -> TransferState:
        """``planning``, ``running`` or ``paused``."""
        ...


class Work:
    """How one transfer stands. Legs change its targets; it adds up, and tells.

    Args:
        transfer: As it stands now.
        publish: Told every new state, at most five times a second and on every verdict.
        lock: What says to other castrays that this one runs it; None where that cannot be said.
    """

    def __init__(
        self,
        transfer: Transfer,
        publish: Callable[[Transfer], None],
        lock: OwnerLock | None = None,
    ) -> None:
        self.transfer = transfer
        self.legs: dict[int, LegInHand] = {}
        self.done = asyncio.Event()
        self._publish = publish
        self._lock = lock
        self._told_at = 0.0
        self._told_verdicts: list[str | None] = []
        self._lines: dict[int, str] = _lines_that_stand(transfer)

    # --- what legs report ---------------------------------------------------------------------

    def target(self, index: int) -> TransferTarget:
        """One target as it stands."""
        return self.transfer.targets[index]

    def change_targets(self, changed: Mapping[int, TransferTarget]) -> None:
        """Takes in how some targets stand now. Verdicts that stand are not taken back."""
        targets = list(self.transfer.targets)
        for index, target in changed.items():
            if targets[index].verdict is None:
                targets[index] = target
        self.transfer = progress.with_targets(self.transfer, tuple(targets))

    def change_leg(self, number: int, **known: Any) -> None:
        """Takes in what is known of a leg: fields of ``TransferLeg``."""
        legs = tuple(
            replace(leg, **known) if place == number else leg
            for place, leg in enumerate(self.transfer.legs)
        )
        self.transfer = replace(
            self.transfer,
            legs=legs,
            bytes_total=_sum(leg.bytes_total for leg in legs),
            files=_sum(leg.files for leg in legs),
            digest=legs[0].digest if len(legs) == 1 else None,
        )

    def set_ways(self, ways: Mapping[int, tuple[tuple[str, ...], str]]) -> None:
        """Takes in over whom targets get their bytes.

        Args:
            ways: By target: the names of all that its bytes pass, and the line of its last hop.
        """
        targets = list(self.transfer.targets)
        for index, (via, line) in ways.items():
            targets[index] = replace(targets[index], via=via)
            self._lines[index] = line
        order = sorted(self._lines, key=lambda at: (targets[at].leg, len(targets[at].via), at))
        self.transfer = replace(
            self.transfer,
            targets=tuple(targets),
            route=tuple(dict.fromkeys(self._lines[at] for at in order)),
        )

    def note_error(self, error: str) -> None:
        """Takes in what went wrong with more than one target."""
        self.transfer = replace(self.transfer, error=error[:_ERROR_LIMIT])

    def open_targets(self, indexes: Iterable[int]) -> list[int]:
        """Those of some targets that have no verdict yet."""
        return [index for index in indexes if self.transfer.targets[index].verdict is None]

    # --- telling ------------------------------------------------------------------------------

    def tell(self, *, at_once: bool = True) -> None:
        """Publishes how it stands.

        Args:
            at_once: False where it is only some bytes more, which can wait for the next time.
        """
        if self.done.is_set():
            return
        verdicts: list[str | None] = [target.verdict for target in self.transfer.targets]
        is_due = time.monotonic() - self._told_at >= _PUBLISH_SECONDS
        state = self._state()
        if not (at_once or is_due or verdicts != self._told_verdicts):
            return
        self.transfer = replace(self.transfer, state=state)
        self._told_at = time.monotonic()
        self._told_verdicts = verdicts
        self._publish(self.transfer)

    def finish_if_all_ended(self) -> None:
        """Ends the transfer once every target has its verdict."""
        if not self.done.is_set() and all(one.verdict for one in self.transfer.targets):
            self.finish(progress.ended(self.transfer))

    def finish(self, transfer: Transfer) -> None:
        """Ends the transfer as it is said to have ended."""
        if self.done.is_set():
            return
        if transfer.state in ("done", "cancelled"):
            transfer = replace(transfer, error=None)
        self.transfer = transfer
        self._publish(transfer)
        self.release()
        self.done.set()

    def release(self) -> None:
        """Says to other castrays that this one no longer runs it."""
        if self._lock is not None:
            self._lock.release()

    def _state(self) -> TransferState:
        states = {leg.state for leg in self.legs.values()}
        for state in ("running", "paused", "planning"):
            if state in states:
                return state
        return self.transfer.state


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _lines_that_stand(transfer: Transfer) -> dict[int, str]:
    """The lines of the route that lead to targets which are through already."""
    lines: dict[int, str] = {}
    by_end = {line.rpartition(" → ")[2].partition(" (by ")[0]: line for line in transfer.route}
    for index, target in enumerate(transfer.targets):
        if target.verdict is not None and target.via and target.via[-1] in by_end:
            lines[index] = by_end[target.via[-1]]
    return lines
