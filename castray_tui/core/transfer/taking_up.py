"""What earlier castrays left: legs that still run are followed, ends are told, and what nobody can
finish any more has failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import LOCAL, Transfer
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.access import ClusterAccess
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.transfer.in_hand import TransfersInHand
from castray_tui.core.transfer.left_legs import LeftLeg, left_legs
from castray_tui.core.transfer.leg_run import LegRun
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.owner_lock import is_owner_alive
from castray_tui.core.transfer.selection import select_again
from castray_tui.core.transfer.session_keeper import SessionKeeper
from castray_tui.core.transfer.sessions import Session
from castray_tui.core.transfer.surroundings import Surroundings
from castray_tui.core.transfer.work import Work

Json = dict[str, Any]

_KNOWN_SECONDS = 60.0
_RECONNECT_SECONDS = (0.5, 2.0, 5.0)
_GONE = "castray ended before the transfer did"


class TakingUp:
    """Takes up what others left on clusters, and what this castray lost the connection to.

    Args:
        in_hand: Where what still runs is seen through.
        publish: Told of transfers that nobody sees through.
    """

    def __init__(
        self,
        *,
        settings: TransferSettings,
        state_dir: Path,
        access: ClusterAccess,
        keeper: SessionKeeper,
        around: Surroundings,
        in_hand: TransfersInHand,
        publish: Callable[[Transfer], None],
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._access = access
        self._keeper = keeper
        self._around = around
        self._in_hand = in_hand
        self._publish = publish
        self._left_ids: set[str] = set()

    async def adopt(
        self, cluster_key: str, wanted: Collection[str] | Mapping[str, Transfer] | None
    ) -> None:
        """Takes up what is left on one cluster.

        Args:
            wanted: Only these transfers are told of, by their IDs, if possible as the journal has
                them; None for all.

        Raises:
            CastrayError: The cluster, or a coordinator that runs there, does not answer.
        """
        door = self._access.door(cluster_key)
        if door.read_only_reason is not None:
            return
        results = await self._keeper.collect_ended(door)
        told: list[tuple[Json, Session | None]] = []
        for session in await self._keeper.take_up(door):
            (known,) = await session.request({"known": 1}, _KNOWN_SECONDS)
            results += known["results"]
            told += [(record, session) for record in known["records"]]
        sessions = {id(record): session for record, session in told}
        for leg in left_legs(results, [record for record, _ in told], wanted):
            self._take_up(leg, cluster_key, sessions.get(id(leg.record)))

    def _take_up(self, leg: LeftLeg, cluster_key: str, session: Session | None) -> None:
        run = self._in_hand.run_named(leg.name)
        if run is not None:
            if run.has_open_owner:  # which tells by itself
                return
            if leg.result is not None:
                run.heard_end(leg.result.get("status") or {})
            elif session is not None:
                run.change_owner(session)
            return
        work = self._in_hand.find(leg.transfer.id)
        if work is None:
            if is_owner_alive(self._state_dir, leg.transfer.id):
                return
            with contextlib.suppress(TransferError):  # somebody else was quicker
                work = self._in_hand.take(leg.transfer)
                self._left_ids.add(leg.transfer.id)
        if work is None or work.done.is_set():
            return
        if leg.result is not None:
            _tell(work, progress.with_result(work.transfer, leg.number, leg.result))
        elif session is not None:
            self._follow(work, leg, session, cluster_key)

    def _follow(self, work: Work, leg: LeftLeg, session: Session, cluster_key: str) -> None:
        try:
            selection = select_again(work.transfer, self._around.fleet())
        except CastrayError:  # a record that another version wrote
            return
        assert work.transfer.request is not None  # selected by it
        run = LegRun(
            work,
            leg.number,
            leg=selection.legs[leg.number],
            places={index: selection.targets[index].place for index in leg.indexes},
            options=SendOptions.of(work.transfer.request, self._settings),
            around=self._around,
        )
        work.legs[leg.number] = run
        self._in_hand.see_through(run, run.follow(session, cluster_key))
        work.tell()

    async def look_after(self, cluster_key: str, owned: list[LegRun]) -> None:
        """The connection to a coordinator broke while it owned legs: they are followed over a new
        connection, or their end is read from its log; else they are lost."""
        wanted = {run.transfer_id: run.transfer for run in owned}
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

    def settle(self, unfinished: Iterable[Transfer], adopted: Collection[str]) -> None:
        """Says of what nobody can finish any more that it has failed.

        Args:
            adopted: Names of clusters that ``adopt`` has been through.
        """
        searched = {LOCAL, *adopted}
        for transfer in unfinished:
            work = self._in_hand.find(transfer.id)
            if work is not None and transfer.id not in self._left_ids:
                continue
            if work is None and is_owner_alive(self._state_dir, transfer.id):
                continue
            seen = _settled(
                work.transfer if work is not None else transfer,
                searched,
                followed=work.legs if work is not None else (),
            )
            if seen is None:
                continue
            if work is None:
                self._publish(seen)
            else:
                _tell(work, seen)


def _tell(work: Work, seen: Transfer) -> None:
    if seen.state in progress.ENDED:
        work.finish(seen)
    else:
        work.transfer = seen
        work.tell()


def _settled(
    transfer: Transfer, searched: Collection[str], followed: Collection[int]
) -> Transfer | None:
    """The transfer with the rows failed whose legs can run nowhere; None where that is none."""
    lost = {
        number
        for number, cluster in enumerate(_source_clusters(transfer))
        if cluster in searched and number not in followed
    }
    targets = tuple(
        replace(target, verdict="failed", reason=_GONE)
        if target.verdict is None and target.leg in lost
        else target
        for target in transfer.targets
    )
    if targets == transfer.targets:
        return None
    seen = progress.with_targets(replace(transfer, error=_GONE), targets)
    return progress.ended(seen) if all(target.verdict for target in targets) else seen


def _source_clusters(transfer: Transfer) -> list[str]:
    """The names of the clusters that the legs' sources are on."""
    if transfer.legs:
        return [leg.cluster for leg in transfer.legs]
    return [parse_address(transfer.source).cluster_pattern]
