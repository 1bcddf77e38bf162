"""One leg of a transfer from the first look to the last verdict, over as many attempts as it takes.

An attempt asks everybody, finds ways, and has the source's agent send. What is lost on the way
(a connection, an agent, a node, the coordinator) is tried again until it is back or the transfer's
patience is over; what was refused for good (a full disk, a permission, a changed source) is not.
What agents still hold of an earlier attempt they go on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import Transfer, TransferState
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.dialing import have_dialed
from castray_tui.core.transfer.leg_rows import LegRows
from castray_tui.core.transfer.leg_ways import LegWays
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.participants import Preparation, SourceLostError
from castray_tui.core.transfer.preparation import (
    AGENT_START_SECONDS,
    BROKEN,
    is_broken,
    prepare,
)
from castray_tui.core.transfer.selection import Leg, Place, node_again_or_lost
from castray_tui.core.transfer.sessions import Session, call_all
from castray_tui.core.transfer.surroundings import Surroundings
from castray_tui.core.transfer.ways import WayFinder, Ways
from castray_tui.core.transfer.work import Work, wire_name

Json = dict[str, Any]

_RUN_SECONDS = 60.0
_ORDER_SECONDS = 10.0
_DROP_SECONDS = 5.0
_FORGET_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 3.0
_UNREACHED_SECONDS = 3.0
# Whoever hangs must not use up the patience with those who are back.
_ANSWER_AGAIN_SECONDS = 15.0

_Stage = Literal["looking", "starting", "sending"]


class LegRun:
    """Sees one leg through.

    Args:
        number: The leg's in the transfer.
        places: The targets by number; those with a verdict already are left alone.
    """

    def __init__(
        self,
        work: Work,
        number: int,
        *,
        leg: Leg,
        places: Mapping[int, Place],
        options: SendOptions,
        around: Surroundings,
    ) -> None:
        self.number = number
        self.wire_name = wire_name(work.transfer.id, number)
        self.owner_key: str | None = None
        self.state: TransferState = "planning"
        self._work = work
        self._leg = leg
        self._rows = LegRows(work, number, places, patience_seconds=options.patience_seconds)
        self._options = options
        self._around = around
        # The same for all attempts: agents that are still there know it.
        self._secret = secrets.token_bytes(32)
        self._stage: _Stage = "looking"
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False
        self._paused_at: float | None = None
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._looks = 0
        self._token: str | None = None
        self._ended: asyncio.Future[Json] | None = None
        self._owner: Session | None = None
        self._agents: dict[tuple[int, str], tuple[Session, str]] = {}

    @property
    def transfer_id(self) -> str:
        """The ID of its transfer."""
        return self._work.transfer.id

    @property
    def transfer(self) -> Transfer:
        """Its transfer as it stands."""
        return self._work.transfer

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What sees it through; None before the start."""
        return self._task

    @property
    def has_open_owner(self) -> bool:
        """Whether who owns the attempt can be talked to."""
        return self._owner is not None and self._owner.is_open

    @property
    def needs_castray(self) -> bool:
        """Whether it cannot go on without this castray: it waits for something, or this machine
        takes part."""
        places = self._rows.places
        is_here = any(places[index].node.is_local for index in self._rows.open())
        return is_here or self._stage != "sending" or self._leg.node.is_local

    # --- orders -------------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Begins; the task ends when every target of the leg has a verdict."""
        self._task = asyncio.create_task(self._run())
        return self._task

    def follow(self, session: Session, owner_key: str) -> asyncio.Task[None]:
        """Takes up an attempt that runs already, begun by a castray that is gone."""
        self._looks = 1
        self._await_end(session, owner_key)
        self._stage = "sending"
        self.state = "running"
        self._rows.begin(self._rows.open(), is_new=False)
        self._task = asyncio.create_task(self._run())
        return self._task

    async def cancel(self) -> None:
        """Cancels; targets without a verdict get ``cancelled`` and keep nothing of it."""
        self._is_cancelled = True
        self._may_go.set()
        if self._stage == "looking":
            if self._task is not None:
                self._task.cancel()
        elif self._stage == "sending":
            await self._order({"cancel": self.wire_name})

    async def pause(self) -> None:
        """Nothing is sent until ``unpause``; what is connected stays so."""
        if self._paused_at is not None or self._is_cancelled:
            return
        self._paused_at = time.monotonic()
        self._may_go.clear()
        self.state = "paused"
        if self._stage == "sending":
            await self._order({"pause": self.wire_name, "paused": True})

    async def unpause(self) -> None:
        """Goes on. What was lost meanwhile has as much time as it had when all was paused."""
        if self._paused_at is not None:
            self._rows.lengthen(time.monotonic() - self._paused_at)
        self._paused_at = None
        self._may_go.set()
        self.state = "running" if self._stage == "sending" else "planning"
        if self._stage == "sending":
            await self._order({"pause": self.wire_name, "paused": False})

    async def _order(self, message: Json) -> None:
        """An order to who owns the attempt. If nobody answers, the attempt is over anyway."""
        if self._owner is not None:
            with contextlib.suppress(TransferError):
                await self._owner.request(message, _ORDER_SECONDS)

    # --- what is heard ------------------------------------------------------------------------

    def heard(self, status: Json) -> None:
        """The attempt's owner tells how it stands."""
        if self._ended is None or self._ended.done():
            return
        self._rows.take_in(status)
        is_paused = status.get("paused") is True
        if self._stage == "sending":
            self.state = "paused" if is_paused else "running"
        self._work.tell(at_once=False)

    def heard_end(self, status: Json) -> None:
        """The attempt's owner tells how it ended."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(status)

    def change_owner(self, session: Session) -> None:
        """Who owns the attempt is talked to over another connection now."""
        self._owner = session

    def lose_owner(self, reason: str) -> None:
        """Who owned the attempt is gone, and nobody knows how it ended."""
        row = {"verdict": "failed", "code": "coordinator", "reason": reason}
        self.heard_end({"targets": [{**row, "index": index} for index in self._rows.open()]})

    # --- attempts -----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            try:
                await self._until_all_have_verdicts()
            except asyncio.CancelledError:
                if not self._is_cancelled:
                    raise
            except CastrayError as error:
                self._rows.fail_rest(str(error))
            if self._is_cancelled:
                self._rows.cancel_rest()
                await self._drop_held()
            await self._release()
        except Exception as error:  # the border: a transfer always ends with verdicts
            self._rows.fail_rest(f"castray itself failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._rows.tell_error()
            self._work.legs.pop(self.number, None)
            self._work.tell()
            self._work.finish_if_all_ended()

    async def _until_all_have_verdicts(self) -> None:
        if self._stage == "sending":
            await self._until_ended()
        pause_seconds = _FIRST_PAUSE_SECONDS
        while self._rows.open() and not self._is_cancelled:
            if self._looks:
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 1.5, _LONGEST_PAUSE_SECONDS)
            await self._may_go.wait()
            async with self._around.places:
                if await self._attempt():
                    pause_seconds = _FIRST_PAUSE_SECONDS
            self._rows.give_up_late()

    async def _attempt(self) -> bool:
        """Asks everybody and sends to whom it can; whether something was sent."""
        if self._is_cancelled:  # while it was paused
            return False
        is_first = self._looks == 0
        self._looks += 1
        if not is_first:
            # Nodes may have come back, as the same or as new ones at the same address.
            fleet = self._around.fleet()
            self._leg = replace(self._leg, node=node_again_or_lost(self._leg.node, fleet))
            self._rows.look_for_nodes(fleet)
        indexes = self._rows.open()
        is_prepared = False
        try:
            preparation = await prepare(
                self._leg,
                [(index, self._rows.places[index]) for index in indexes],
                self.wire_name,
                self._options,
                self._around.session_for,
                answer_seconds=AGENT_START_SECONDS if is_first else _ANSWER_AGAIN_SECONDS,
            )
            self._check_source(preparation)
            self._note_plan(preparation, is_first=is_first)
            is_prepared = True
            if not any(one.plan.action == "send" for one in preparation.targets):
                return False
            finder = WayFinder(
                preparation,
                secret=self._secret,
                options=self._options,
                session_for=self._around.session_for,
                bridges=self._around.bridges(self._leg),
            )
            ways = await finder.find()
            self._note_ways(ways, is_first=is_first)
            if not ways.tree:
                return False
            await self._send(preparation, ways)
        except SourceLostError as error:
            if is_first and not is_prepared and not is_broken(error):
                raise
            self._rows.wait_for(self._rows.open(), error.message)
            self._work.tell()
            return False
        await self._until_ended()
        return True

    def _check_source(self, preparation: Preparation) -> None:
        """What was sent to some must be what is sent to others."""
        source = preparation.source
        known = self._token or self._work.transfer.legs[self.number].token
        if known is not None and known != source.token and self._has_sent():
            raise TransferError(
                f"{self._leg} has changed since it was first sent",
                remedy="Send it again with `castray cp`, to all targets",
            )
        self._token = source.token
        self._work.change_leg(
            self.number,
            bytes_total=source.size,
            files=source.files,
            token=source.token,
            **({"digest": source.digest} if source.digest is not None else {}),
        )

    def _has_sent(self) -> bool:
        """Whether a target of this leg has the content already, from this castray or another."""
        return self._token is not None or any(
            target.leg == self.number and target.verdict in progress.GOOD
            for target in self._work.transfer.targets
        )

    def _note_plan(self, preparation: Preparation, *, is_first: bool) -> None:
        source = preparation.source
        for prepared in preparation.targets:
            if prepared.session is not None:
                node_id = prepared.place.node.node_id
                self._agents[id(prepared.session), node_id] = (prepared.session, node_id)
        known = []
        for one in preparation.targets:
            # What does not answer at first may never have; what broke did.
            is_waited_for = not is_first or one.code == BROKEN
            if one.is_lost and one.published is None and is_waited_for:
                self._rows.wait_for([one.index], one.plan.reason)
            else:
                known.append(one)
        self._rows.note_plans(known, source.size, source.digest)
        self._work.tell()

    def _note_ways(self, ways: Ways, *, is_first: bool) -> None:
        self._rows.note_ways(LegWays(ways.route))
        for index, lost in ways.none.items():
            if not lost.is_lost:
                self._rows.fail([index], lost.reason)
            elif is_first and lost.is_unreached:
                # It may be about to come up; most probably a firewall is between.
                self._rows.wait_for([index], lost.reason, _UNREACHED_SECONDS)
            else:
                self._rows.wait_for([index], lost.reason)
        self._work.tell()

    async def _send(self, preparation: Preparation, ways: Ways) -> None:
        source = preparation.source
        indexes = [edge.child for edge in ways.route.edges]
        self._rows.begin(indexes)
        order = {
            "transfer": self.wire_name,
            "token": source.token,
            "chunk_bytes": self._options.chunk_bytes,
            "skip": preparation.skipped_by_all(indexes),
            "rate_limit": self._options.rate_limit_bytes_per_second,
            "link_rate_limit": self._options.link_rate_limit_bytes_per_second,
            "patience_seconds": self._options.patience_seconds,
            "tree": ways.tree,
        }
        record = progress.to_record(self._work.transfer, self.number, indexes)
        self._await_end(source.session, source.leg.node.cluster_key)
        self._stage = "starting"
        try:
            # From here on the source's side owns it, and cancelling is an order to that side.
            await source.session.request(
                {"run": order, "node_id": source.leg.node.node_id, "record": record}, _RUN_SECONDS
            )
        except TransferError as error:
            self._stage = "looking"
            self._forget_owner()
            raise SourceLostError(f"{self._leg.label} does not send: {error.message}") from error
        self._stage = "sending"
        self.state = "running"
        self._work.tell()
        if self._is_cancelled:
            await self._order({"cancel": self.wire_name})
        elif self._paused_at is not None:
            self.state = "paused"
            await self._order({"pause": self.wire_name, "paused": True})
        dialing = asyncio.ensure_future(have_dialed(self.wire_name, ways.dials))
        assert self._ended is not None  # made above
        self._ended.add_done_callback(lambda _: dialing.cancel())

    def _await_end(self, session: Session, owner_key: str) -> None:
        self._owner = session
        self.owner_key = owner_key
        self._ended = asyncio.get_running_loop().create_future()

    def _forget_owner(self) -> None:
        self._owner = self.owner_key = self._ended = None

    async def _until_ended(self) -> None:
        assert self._ended is not None  # something is being sent
        try:
            status = await self._ended
        finally:
            self._stage = "looking"
            if self.state == "running":
                self.state = "planning"
        self._rows.take_in(status)
        self._rows.end()
        if not self._rows.open() and self.state == "planning":
            self.state = "running"  # until all have let go: nothing is left to be planned
        self._forget_owner()
        self._work.tell()

    async def _drop_held(self) -> None:
        """What agents still hold of a cancelled leg is thrown away, wherever they answer."""
        await self._tell_targets("drop", _DROP_SECONDS, indexes=self._rows.cancelled())

    async def _release(self) -> None:
        """Targets let go of the files and folders they have open.

        Agents outlive the transfer, and so would what is removed or unmounted meanwhile.
        """
        await self._tell_targets("forget", _FORGET_SECONDS)

    async def _tell_targets(self, order: str, timeout_seconds: float, **arguments: Any) -> None:
        arguments["transfer"] = self.wire_name
        await asyncio.gather(
            *(
                call_all(session, [(node_id, order, arguments)], timeout_seconds)
                for session, node_id in self._agents.values()
                if session.is_open
            )
        )
