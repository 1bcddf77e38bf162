"""The targets of one leg while it runs: what becomes of each, and how long it is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from castray_tui.core.models import Fleet, TransferTarget, Verdict
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.leg_ways import LegWays
from castray_tui.core.transfer.participants import PreparedTarget
from castray_tui.core.transfer.selection import Place, node_again_or_lost
from castray_tui.core.transfer.work import Work

Json = dict[str, Any]

_LAST_CHANCE_SECONDS = 5.0


class LegRows:
    """The targets of one leg.

    Args:
        number: The leg's.
        places: Its targets by number, those with a verdict already included.
        patience_seconds: How long what is lost is waited for.
    """

    def __init__(
        self, work: Work, number: int, places: Mapping[int, Place], *, patience_seconds: float
    ) -> None:
        self.places = dict(places)
        self.ways: LegWays | None = None
        self._work = work
        self._number = number
        self._patience_seconds = patience_seconds
        self._deadlines: dict[int, float] = {}
        # As they were when the attempt that runs began.
        self._before: dict[int, TransferTarget] = {}
        self._error: str | None = None

    def open(self) -> list[int]:
        """The numbers of those without a verdict."""
        return self._work.open_targets(self.places)

    def target(self, index: int) -> TransferTarget:
        """One of them as it stands."""
        return self._work.target(index)

    # --- attempts -----------------------------------------------------------------------------

    def note_plans(self, prepared: Iterable[PreparedTarget], size: int, digest: str | None) -> None:
        """What was found out about some before they are sent to; all may be there already."""
        changed = {}
        for one in prepared:
            plan = one.plan
            target = replace(self.target(one.index), path=plan.path, bytes_total=size)
            if one.published is not None:
                verified = _with_verdict(target, "verified", None)
                target = replace(verified, digest=one.published, bytes=size)
            elif plan.action == "refuse":
                target = _with_verdict(target, "failed", plan.reason)
            elif plan.action == "skip":
                target = replace(_with_verdict(target, "identical", None), digest=digest)
            changed[one.index] = target
        self._work.change_targets(changed)

    def note_ways(self, ways: LegWays) -> None:
        """Over whom they are to get their bytes."""
        self.ways = ways
        self._work.set_ways(ways.all())

    def begin(self, indexes: Iterable[int], *, is_new: bool = True) -> None:
        """An attempt to send to some of them begins.

        Args:
            is_new: False for one that ran already when this castray came.
        """
        now = time.time()
        self._before = {index: self.target(index) for index in indexes}
        if is_new:
            self._work.change_targets(
                {
                    index: replace(
                        target,
                        attempts=target.attempts + 1,
                        started=target.started or now,
                        reason=None,
                    )
                    for index, target in self._before.items()
                }
            )

    def take_in(self, status: Mapping[str, Any]) -> None:
        """What the attempt's owner says of them, on top of what earlier attempts did."""
        changed: dict[int, TransferTarget] = {}
        for index, row in progress.rows_of(status).items():
            if index not in self._before or self.target(index).verdict is not None:
                continue
            known = self.target(index)
            seen = self._seen(index, row)
            if seen.bytes > known.bytes:
                self._deadlines.pop(index, None)
            if progress.is_retriable(row) and self._patience_seconds > 0:
                seen = replace(seen, verdict=None, ended=None)
                self._start_clock(index)
            changed[index] = seen
        self._work.change_targets(changed)
        digest = progress.digest_in(status)
        if digest is not None:
            self._work.change_leg(self._number, digest=digest)
        error = status.get("error")
        self._error = safe_text(error) if error else None
        if self.ways is not None and (ways := self.ways.changed_by(status)):
            self._work.set_ways(ways)

    def _seen(self, index: int, row: Mapping[str, Any]) -> TransferTarget:
        known, before = self.target(index), self._before[index]
        told = replace(known, sent_bytes=None, seconds=None)
        seen = progress.target_with(told, row, known.bytes_total)
        sent, seconds = seen.sent_bytes, seen.seconds
        if seconds is None:
            seconds = known.seconds
        elif before.seconds is not None:
            # An agent that lived on counts the attempts before as well; one that is new does not.
            most = seconds if known.started is None else max(seconds, time.time() - known.started)
            seconds = min(before.seconds + seconds, most)
        return replace(
            seen,
            sent_bytes=known.sent_bytes if sent is None else (before.sent_bytes or 0) + sent,
            seconds=seconds,
        )

    def end(self) -> None:
        """The attempt has ended. Those without a verdict are tried again: however long the others
        took, they have the chance to come back."""
        lost = self._work.open_targets(self._before)
        self.wait_for([index for index in lost if index not in self._deadlines], None)
        last = time.monotonic() + min(self._patience_seconds, _LAST_CHANCE_SECONDS)
        for index in lost:
            self._deadlines[index] = max(self._deadlines[index], last)

    def look_for_nodes(self, fleet: Fleet) -> None:
        """Looks where the nodes of those without a verdict are now."""
        taken = {place.node.node_id for place in self.places.values()}
        changed = {}
        for index in self.open():
            node = self.places[index].node
            again = node_again_or_lost(node, fleet, taken)
            self.places[index] = replace(self.places[index], node=again)
            if again.node_id != node.node_id:
                taken.add(again.node_id)
                changed[index] = replace(self.target(index), node=again.name, node_id=again.node_id)
        self._work.change_targets(changed)

    # --- the lost -----------------------------------------------------------------------------

    def wait_for(
        self, indexes: Sequence[int], reason: str | None, seconds: float | None = None
    ) -> None:
        """Some are lost for now.

        Args:
            reason: None keeps what stands.
            seconds: How long they are waited for at most; None for the transfer's patience.
        """
        for index in indexes:
            self._start_clock(index, seconds)
        self._work.change_targets(
            {
                index: replace(
                    self.target(index), reason=reason or self.target(index).reason or "it was lost"
                )
                for index in indexes
            }
        )

    def lengthen(self, seconds: float) -> None:
        """Gives the lost that much more time."""
        for index in self._deadlines:
            self._deadlines[index] += seconds

    def give_up_late(self) -> None:
        """Those that did not come back in time have failed."""
        now = time.monotonic()
        for index in self.open():
            if index in self._deadlines and now >= self._deadlines[index]:
                reason = self.target(index).reason or "it was lost"
                self.fail([index], f"{reason} (waited {self._patience_seconds:g} s for it)")

    def _start_clock(self, index: int, seconds: float | None = None) -> None:
        patience = self._patience_seconds if seconds is None else seconds
        last = time.monotonic() + min(patience, self._patience_seconds)
        self._deadlines.setdefault(index, last)

    # --- verdicts -----------------------------------------------------------------------------

    def fail(self, indexes: Iterable[int], reason: str) -> None:
        """Some have failed."""
        self._work.change_targets(
            {index: _with_verdict(self.target(index), "failed", reason) for index in indexes}
        )

    def fail_rest(self, reason: str) -> None:
        """Those without a verdict have failed, all for the same reason."""
        if self.open():
            self._error = reason
            self.fail(self.open(), reason)

    def cancel_rest(self) -> None:
        """Those without a verdict are cancelled."""
        self._work.change_targets(
            {
                index: _with_verdict(self.target(index), "cancelled", "cancelled")
                for index in self.open()
            }
        )

    def cancelled(self) -> list[int]:
        """The numbers of those that are cancelled."""
        return [index for index in self.places if self.target(index).verdict == "cancelled"]

    def tell_error(self) -> None:
        """Says of the whole transfer what went wrong with more than one of them."""
        failed = any(self.target(index).verdict == "failed" for index in self.places)
        if self._error is not None and failed:
            self._work.note_error(self._error)


def _with_verdict(target: TransferTarget, verdict: Verdict, reason: str | None) -> TransferTarget:
    return replace(target, verdict=verdict, reason=reason, ended=time.time())
