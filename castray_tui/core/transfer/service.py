"""Transfers from the request to the last verdict: the one object that the engine uses."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError, NotFoundError, ReadOnlyError, TransferError
from castray_tui.core.models import (
    LOCAL,
    Fleet,
    Transfer,
    TransferPlan,
    TransferRequest,
    TransferTarget,
)
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.access import ClusterAccess
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.transfer.contacts import Contact
from castray_tui.core.transfer.owner_lock import OwnerLock, is_owner_alive
from castray_tui.core.transfer.preparation import Preparation, Way, open_ways, prepare
from castray_tui.core.transfer.selection import Place, Selection, select
from castray_tui.core.transfer.session_keeper import SessionKeeper
from castray_tui.core.transfer.sessions import call

Json = dict[str, Any]

_PUBLISH_SECONDS = 0.2
_RUN_SECONDS = 60.0
_CANCEL_SECONDS = 10.0
_RECONNECT_SECONDS = (0.5, 2.0, 5.0)
_MIN_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class _Work:
    """One transfer in hand."""

    transfer: Transfer
    selection: Selection | None = None
    task: asyncio.Task[None] | None = None
    owner_key: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    published_at: float = 0.0
    is_cancelled: bool = False
    lock: OwnerLock | None = None


class TransferService:
    """Plans, starts, watches and ends transfers.

    Args:
        settings: The run's settings.
        state_dir: Where castray's key and the logs of coordinators beside it lie.
        fleet: Gives the newest snapshot.
        access: Gives the way in to each cluster.
        publish: Called with every new state of a transfer, at most five times a second and on
            every verdict.
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
        lingers: bool = False,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._fleet = fleet
        self._access = access
        self._publish = publish
        self._works: dict[str, _Work] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._keeper = SessionKeeper(
            settings=settings.transfer,
            state_dir=state_dir,
            access=access,
            on_event=self._on_event,
            on_closed=self._on_session_closed,
            lingers=lingers,
        )

    # --- being early --------------------------------------------------------------------------

    async def meet(self, contact: Contact) -> list[Json]:
        """Goes to the coordinator that was noted for a cluster; what it lists as its nodes.

        Raises:
            TransferError: It does not run any more, or cannot be reached.
        """
        return await self._keeper.meet(contact)

    async def start_local_agent(self) -> None:
        """Starts the agent process of this machine, which a transfer will need soon."""
        with contextlib.suppress(CastrayError, OSError):  # whoever needs it is told why
            await self._keeper.session(LOCAL)

    # --- orders -------------------------------------------------------------------------------

    async def plan(self, request: TransferRequest) -> TransferPlan:
        """What a transfer would do, target by target, found out without sending a byte.

        Raises:
            CastrayError: The request makes no sense, or the source cannot be sent.
        """
        selection = self._select(request)
        preparation = await self._prepare(selection, request)
        return TransferPlan(
            source=str(selection.source),
            kind=selection.kind,
            bytes_total=preparation.source["size"],
            digest=preparation.digest,
            targets=tuple(target.plan for target in preparation.targets),
            route=_planned_route(selection, preparation),
        )

    async def start(self, request: TransferRequest) -> Transfer:
        """Starts a transfer and returns at once; what it comes to is published.

        Raises:
            UsageError, NotFoundError, TransferError: The request cannot be understood or met.
        """
        selection = self._select(request)
        transfer = Transfer(
            id=secrets.token_hex(16),
            kind=selection.kind,
            state="planning",
            source=str(selection.source),
            targets=tuple(
                TransferTarget(
                    cluster=place.node.cluster,
                    node=place.node.name,
                    path=place.path,
                    node_id=None if place.node.is_local else place.node.node_id,
                    via=(selection.source.label, place.label),
                )
                for place in selection.targets
            ),
            started=time.time(),
            route=tuple(f"{selection.source.label} → {t.label}" for t in selection.targets),
            overwrite=request.overwrite,
            rate_limit_bytes_per_second=request.rate_limit_bytes_per_second,
        )
        work = _Work(transfer, selection)
        work.lock = OwnerLock.take(self._state_dir, transfer.id)
        self._works[transfer.id] = work
        self._tell(work, transfer)
        work.task = asyncio.create_task(self._carry_out(work, request))
        return transfer

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
        if work.done.is_set():
            return work.transfer
        work.is_cancelled = True
        if work.owner_key is None:
            if work.task is not None:
                work.task.cancel()
        else:
            with contextlib.suppress(CastrayError):
                session = await self._keeper.session(work.owner_key)
                await session.request({"cancel": transfer_id}, _CANCEL_SECONDS)
        try:
            await asyncio.wait_for(work.done.wait(), _CANCEL_SECONDS)
        except asyncio.TimeoutError:
            self._finish(work, progress.cancelled(work.transfer, "cancelled, unconfirmed"))
        return work.transfer

    async def adopt(self, cluster_key: str, unfinished_ids: Collection[str] | None = None) -> None:
        """Takes up what an earlier castray left on a cluster: follows transfers that still run,
        publishes how others ended, and removes the records of coordinators that have ended.

        Args:
            unfinished_ids: Only these transfers are published; None for all.
        """
        door = self._access.door(cluster_key)
        if door.read_only_reason is not None:
            return
        for result in await self._keeper.collect_ended(door):
            self._note_ended(result, unfinished_ids)
        session = await self._keeper.take_up(door)
        if session is None:
            return
        (known,) = await session.request({"known": 1}, _RUN_SECONDS)
        for result in known["results"]:
            self._note_ended(result, unfinished_ids)
        for record in known["records"]:
            self._follow_left(cluster_key, record, unfinished_ids)

    def settle(self, unfinished: Iterable[Transfer], *, adopted: Collection[str] = ()) -> None:
        """Publishes as failed what the journal has as unfinished and nobody can finish any more:
        its castray is gone, and its source was on this machine, or on a cluster where ``adopt`` has
        found nothing of it.

        Args:
            adopted: Names of clusters that ``adopt`` has been through.
        """
        for transfer in unfinished:
            known = self._works.get(transfer.id)
            if known is not None or is_owner_alive(self._state_dir, transfer.id):
                continue
            source_cluster = parse_address(transfer.source).cluster_pattern
            if source_cluster == LOCAL or source_cluster in adopted:
                error = "castray ended before the transfer did"
                self._publish(progress.ended(transfer, error=error))

    async def release_cluster(self, cluster_key: str) -> None:
        """Leaves a cluster: its coordinator and agents end, unless a transfer still runs there."""
        await self._keeper.release(cluster_key)

    async def close(self) -> None:
        """Leaves all clusters. Transfers between nodes go on, those of this machine end."""
        for work in list(self._works.values()):
            if not work.done.is_set() and self._needs_castray(work):
                await self.cancel(work.transfer.id)
        for task in list(self._following):
            task.cancel()
        await self._keeper.close()
        for work in self._works.values():
            if work.task is not None:
                work.task.cancel()
            if work.lock is not None:
                work.lock.release()

    def _needs_castray(self, work: _Work) -> bool:
        if work.owner_key in (None, LOCAL):
            return True
        return any(target.cluster == LOCAL for target in work.transfer.targets)

    # --- carrying out -------------------------------------------------------------------------

    def _select(self, request: TransferRequest) -> Selection:
        selection = select(request, self._fleet())
        if self._settings.read_only:
            raise ReadOnlyError(
                "castray runs read-only and sends nothing",
                remedy="Start it without --read-only, or with read_only = false in its settings",
            )
        # A target that may not be written to is refused by itself, unless there are no others.
        refusals = [self._read_only_error(place) for place in selection.targets]
        refusal = self._read_only_error(selection.source)
        if refusal is None and all(refusals):
            refusal = refusals[0]
        if refusal is not None:
            raise refusal
        return selection

    def _read_only_error(self, place: Place) -> ReadOnlyError | None:
        if place.node.is_local:
            return None
        door = self._access.door(place.node.cluster_key)
        if door.read_only_reason is None:
            return None
        return ReadOnlyError(
            f"{door.name} is only looked at: {door.read_only_reason}",
            remedy="Set read_only = false in its [[clusters]] entry to transfer",
        )

    async def _prepare(self, selection: Selection, request: TransferRequest) -> Preparation:
        return await prepare(
            selection, request.overwrite, self._settings.transfer, self._keeper.session
        )

    async def _carry_out(self, work: _Work, request: TransferRequest) -> None:
        try:
            await self._run(work, request)
        except asyncio.CancelledError:
            if not work.is_cancelled:
                raise
            self._finish(work, progress.cancelled(work.transfer, "cancelled"))
        except CastrayError as error:
            self._finish(work, progress.ended(work.transfer, error=str(error)))
        except Exception as error:  # the border: a transfer always ends with verdicts
            reason = f"castray itself failed: {type(error).__name__}: {error}"
            self._finish(work, progress.ended(work.transfer, error=reason))
            raise

    async def _run(self, work: _Work, request: TransferRequest) -> None:
        selection = work.selection
        assert selection is not None  # set for all that start here
        preparation = await self._prepare(selection, request)
        transfer = replace(
            work.transfer, bytes_total=preparation.source["size"], digest=preparation.digest
        )
        transfer = progress.with_targets(transfer, _after_plan(transfer, preparation))
        self._tell(work, transfer)
        if all(target.verdict is not None for target in transfer.targets):
            self._finish(work, progress.ended(transfer))
            return
        ways = await open_ways(
            transfer_id=transfer.id,
            secret=secrets.token_bytes(32),
            selection=selection,
            preparation=preparation,
            overwrite=request.overwrite,
            reserve_bytes=self._settings.transfer.disk_reserve_bytes,
        )
        transfer = progress.with_targets(transfer, _after_ways(transfer, ways))
        open_now = [way for way in ways if way.failure is None]
        if not open_now:
            self._finish(work, progress.ended(transfer))
            return
        transfer = replace(transfer, state="running")
        self._tell(work, transfer)
        source_node = selection.source.node
        # From here on the source's side owns it, and cancelling is an order to that side.
        await preparation.session.request(
            {
                "run": self._send_order(transfer, request, preparation, open_now),
                "node_id": source_node.node_id,
                "record": progress.to_record(transfer),
            },
            _RUN_SECONDS,
        )
        work.owner_key = source_node.cluster_key
        for way in open_now:
            target = preparation.targets[way.index]
            if way.mode == "await" and target.session is not None:
                # A target that cannot dial is told of by the source's side, which waits for it.
                with contextlib.suppress(TransferError):
                    await call(
                        target.session,
                        target.place.node.node_id,
                        "dial",
                        {
                            "transfer": transfer.id,
                            "index": way.index,
                            "endpoints": [list(endpoint) for endpoint in way.endpoints],
                        },
                        _RUN_SECONDS,
                    )
        if work.is_cancelled:
            await preparation.session.request({"cancel": transfer.id}, _CANCEL_SECONDS)
        await work.done.wait()

    def _send_order(
        self,
        transfer: Transfer,
        request: TransferRequest,
        preparation: Preparation,
        ways: list[Way],
    ) -> Json:
        settings = self._settings.transfer
        rate = request.rate_limit_bytes_per_second or settings.rate_limit_bytes_per_second
        chunk_bytes = settings.chunk_size_bytes
        if rate:
            # Several chunks a second, so that a slow transfer flows instead of jumping.
            chunk_bytes = max(min(chunk_bytes, rate // 8), _MIN_CHUNK_BYTES)
        return {
            "transfer": transfer.id,
            "path": preparation.source["path"],
            "signature": preparation.signature,
            "mode": preparation.source["mode"],
            "chunk_bytes": chunk_bytes,
            "rate_limit": rate,
            "targets": [
                {
                    "index": way.index,
                    "hops": [{"mode": way.mode, "endpoints": [list(end) for end in way.endpoints]}],
                }
                for way in ways
            ],
        }

    # --- what is heard ------------------------------------------------------------------------

    def _on_event(self, event: Json) -> None:
        work = self._works.get(str(event.get("transfer")))
        if work is None or work.done.is_set():
            return
        if event.get("event") == "progress" and isinstance(event.get("status"), dict):
            transfer = progress.with_status(work.transfer, event["status"])
            has_verdict = _verdicts(transfer) != _verdicts(work.transfer)
            if has_verdict or time.monotonic() - work.published_at >= _PUBLISH_SECONDS:
                self._tell(work, transfer)
            else:
                work.transfer = transfer
        elif event.get("event") == "finished":
            status = event.get("result", {}).get("status")
            transfer = progress.with_status(work.transfer, status if status else {})
            error = status.get("error") if isinstance(status, dict) else None
            is_bad = progress.final_state(transfer.targets) in ("failed", "partial")
            self._finish(
                work,
                progress.ended(
                    replace(transfer, error=str(error)[:500] if error and is_bad else None)
                ),
            )

    def _tell(self, work: _Work, transfer: Transfer) -> None:
        work.transfer = transfer
        work.published_at = time.monotonic()
        self._publish(transfer)

    def _finish(self, work: _Work, transfer: Transfer) -> None:
        if work.done.is_set():
            return
        self._tell(work, transfer)
        if work.lock is not None:
            work.lock.release()
        work.done.set()

    def _work(self, transfer_id: str) -> _Work:
        work = self._works.get(transfer_id)
        if work is None:
            raise NotFoundError(f"No transfer {transfer_id} runs in this castray")
        return work

    # --- when a session ends ------------------------------------------------------------------

    def _on_session_closed(self, cluster_key: str) -> bool:
        """Whether the transfers that it owned are looked after."""
        owned = [
            work
            for work in self._works.values()
            if work.owner_key == cluster_key and not work.done.is_set()
        ]
        if cluster_key == LOCAL:
            error = "castray's own agent process has ended"
            for work in owned:
                self._finish(work, progress.ended(work.transfer, error=error))
        elif owned:
            task = asyncio.create_task(self._look_after(cluster_key, owned))
            self._following.add(task)
            task.add_done_callback(self._following.discard)
        return bool(owned)

    async def _look_after(self, cluster_key: str, owned: list[_Work]) -> None:
        """The connection to a coordinator broke while it owned transfers: they are followed over a
        new connection, or their end is read from its log."""
        for pause_seconds in _RECONNECT_SECONDS:
            await asyncio.sleep(pause_seconds)
            with contextlib.suppress(CastrayError):
                self._keeper.forget(cluster_key)
                await self.adopt(cluster_key, {work.transfer.id for work in owned})
                if all(work.done.is_set() for work in owned):
                    return
                if self._keeper.holds(cluster_key):
                    return
        for work in owned:
            self._finish(
                work,
                progress.ended(
                    work.transfer, error="the coordinator of the source's cluster is gone"
                ),
            )

    def _note_ended(self, result: Json, unfinished_ids: Collection[str] | None) -> None:
        transfer = progress.from_result(result)
        if transfer is None or (unfinished_ids is not None and transfer.id not in unfinished_ids):
            return
        work = self._works.get(transfer.id)
        if work is None:
            self._publish(transfer)
        else:
            self._finish(work, transfer)

    def _follow_left(
        self, cluster_key: str, record: Json, unfinished_ids: Collection[str] | None
    ) -> None:
        transfer = progress.from_record(record)
        if transfer is None or (unfinished_ids is not None and transfer.id not in unfinished_ids):
            return
        work = self._works.setdefault(transfer.id, _Work(transfer))
        work.owner_key = cluster_key
        self._tell(work, work.transfer)


def _verdicts(transfer: Transfer) -> list[str | None]:
    return [target.verdict for target in transfer.targets]


def _after_plan(transfer: Transfer, preparation: Preparation) -> tuple[TransferTarget, ...]:
    """The targets with the verdicts that the plan already gives."""
    targets = []
    for target, prepared in zip(transfer.targets, preparation.targets, strict=True):
        plan = prepared.plan
        known = replace(target, path=plan.path)
        if plan.action == "refuse":
            known = replace(known, verdict="failed", reason=plan.reason)
        elif plan.action == "skip":
            known = replace(known, verdict="identical", digest=preparation.digest)
        targets.append(known)
    return tuple(targets)


def _after_ways(transfer: Transfer, ways: list[Way]) -> tuple[TransferTarget, ...]:
    """The targets, those without a way marked as failed."""
    targets = list(transfer.targets)
    for way in ways:
        if way.failure is not None:
            targets[way.index] = replace(
                targets[way.index], verdict="failed", reason=way.failure, attempts=1
            )
    return tuple(targets)


def _planned_route(selection: Selection, preparation: Preparation) -> tuple[str, ...]:
    return tuple(
        f"{selection.source.label} → {target.place.label}"
        for target in preparation.targets
        if target.plan.action == "send"
    )
