"""Everything that is found out, and got ready, before the first byte of a transfer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from castray_tui.agent.files import FileRefusedError, probe_source
from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import Overwrite, PlannedTarget
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.selection import Place, Selection
from castray_tui.core.transfer.sessions import AgentRefusedError, Session, call, call_all

Json = dict[str, Any]

AGENT_START_SECONDS = 45.0
_ORDER_SECONDS = 60.0
_DIGEST_SECONDS = 3600.0
_SIGNATURE = ("size", "mtime_ns", "inode", "device", "machine")

SessionFor = Callable[[str], Awaitable[Session]]
"""Gives the session of a cluster by its key, ``local`` included; raises CastrayError."""


@dataclass(frozen=True, slots=True)
class PreparedTarget:
    """One target after it was looked at.

    Attributes:
        plan: What would happen to it.
        session: Of its cluster; None where there is none, and the plan refuses.
        endpoints: Where its agent listens.
        path: The real one on its node, as its agent worked it out; ``plan.path`` is for eyes.
        code: The agent's short word for why it is refused.
    """

    plan: PlannedTarget
    place: Place
    session: Session | None = None
    endpoints: tuple[tuple[str, int], ...] = ()
    path: str = ""
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """A transfer after everybody was asked.

    Attributes:
        source: What the source's agent said: ``path``, ``name``, ``size``, ``mode`` and so on.
        digest: ``sha256:…`` where a comparison needed it.
    """

    source: Json
    session: Session
    endpoints: tuple[tuple[str, int], ...]
    targets: tuple[PreparedTarget, ...]
    digest: str | None = None
    signature: Json = field(default_factory=dict)


async def prepare(
    selection: Selection,
    overwrite: Overwrite,
    settings: TransferSettings,
    session_for: SessionFor,
) -> Preparation:
    """Asks the source and every target, starting agents where none run. Changes no file.

    Raises:
        CastrayError: The source cannot be sent. What is wrong with a target is in its plan.
    """
    roots = [str(root) for root in settings.allowed_roots]
    source_place = selection.source
    _refuse_dead_source(source_place)
    if source_place.node.is_local:
        # Here nobody needs an agent to see what is wrong.
        try:
            await asyncio.to_thread(probe_source, source_place.path, roots)
        except FileRefusedError as refused:
            raise _source_error(
                source_place, AgentRefusedError(refused.code, refused.reason)
            ) from refused
    sessions = await _open_sessions(selection, session_for)
    source_session = sessions[source_place.node.cluster_key]
    if isinstance(source_session, CastrayError):
        raise source_session
    reached = await asyncio.gather(
        _hello(source_session, source_place),
        call(
            source_session,
            source_place.node.node_id,
            "probe",
            {"path": source_place.path, "roots": roots},
            _ORDER_SECONDS,
        ),
        _greet(selection.targets, sessions),
        return_exceptions=True,
    )
    hello, source, greeted = reached
    if isinstance(source, AgentRefusedError):
        raise _source_error(source_place, source)
    for result in (source, hello, greeted):
        if isinstance(result, BaseException):
            raise result
    assert not isinstance(source, BaseException)  # for the type checker
    assert not isinstance(hello, BaseException) and not isinstance(greeted, BaseException)
    orders = {
        "source": source,
        "overwrite": overwrite,
        "roots": roots,
        "reserve_bytes": settings.disk_reserve_bytes,
    }
    targets = await _plan_targets(greeted, orders)
    preparation = Preparation(
        source=source,
        session=source_session,
        endpoints=_endpoints(hello),
        targets=targets,
        signature={name: source[name] for name in _SIGNATURE},
    )
    return await _compare(preparation, source_place)


def _refuse_dead_source(place: Place) -> None:
    if place.node.status == "dead":
        raise TransferError(f"{place.label} is dead: {place.node.reason or 'Ray does not say why'}")


def _source_error(place: Place, refused: AgentRefusedError) -> TransferError:
    if refused.refusal == "folder":
        return TransferError(
            f"{place} is a folder, and castray sends single files so far",
            remedy="Send its files one after the other, or an archive of it",
        )
    return TransferError(f"The source {place} cannot be sent: {refused.message}")


async def _open_sessions(
    selection: Selection, session_for: SessionFor
) -> Mapping[str, Session | CastrayError]:
    """A session for every cluster that takes part, all at once; an error where there is none."""
    keys = list(
        dict.fromkeys(
            place.node.cluster_key
            for place in (selection.source, *selection.targets)
            if place.node.status != "dead"
        )
    )
    results = await asyncio.gather(*(session_for(key) for key in keys), return_exceptions=True)
    opened: dict[str, Session | CastrayError] = {}
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, BaseException) and not isinstance(result, CastrayError):
            raise result
        opened[key] = result
    return opened


async def _hello(session: Session, place: Place) -> Json:
    return await call(session, place.node.node_id, "hello", {}, AGENT_START_SECONDS)


async def _greet(
    places: Sequence[Place], sessions: Mapping[str, Session | CastrayError]
) -> list[PreparedTarget]:
    """Has every target's agent started, or says why it cannot be."""
    return list(await asyncio.gather(*(_greet_one(place, sessions) for place in places)))


async def _greet_one(
    place: Place, sessions: Mapping[str, Session | CastrayError]
) -> PreparedTarget:
    node = place.node
    plan = PlannedTarget(
        cluster=node.cluster,
        node=node.name,
        path=place.path,
        action="refuse",
        node_id=None if node.is_local else node.node_id,
    )
    if node.status == "dead":
        reason = f"node is dead: {node.reason or 'Ray does not say why'}"
        return PreparedTarget(replace(plan, reason=reason), place, code="dead")
    session = sessions[node.cluster_key]
    if isinstance(session, CastrayError):
        return PreparedTarget(replace(plan, reason=str(session)), place, code=session.code)
    try:
        hello = await _hello(session, place)
    except TransferError as error:
        return PreparedTarget(replace(plan, reason=error.message), place, code="agent")
    return PreparedTarget(plan, place, session, _endpoints(hello))


def _endpoints(hello: Json) -> tuple[tuple[str, int], ...]:
    return tuple((str(host), int(port)) for host, port in hello["endpoints"])


async def _plan_targets(
    targets: Sequence[PreparedTarget], orders: Json
) -> tuple[PreparedTarget, ...]:
    return tuple(await asyncio.gather(*(_plan_one(target, orders) for target in targets)))


async def _plan_one(target: PreparedTarget, orders: Json) -> PreparedTarget:
    if target.session is None:
        return target
    try:
        answer = await call(
            target.session,
            target.place.node.node_id,
            "plan",
            {**orders, "path": target.place.path},
            _ORDER_SECONDS,
        )
    except TransferError as error:
        return replace(target, plan=replace(target.plan, reason=error.message), session=None)
    plan = replace(
        target.plan,
        path=safe_text(answer["path"]),
        action="refuse" if answer["action"] == "refuse" else "send",
        reason=safe_text(answer["reason"]) if answer["reason"] else None,
        free_bytes=answer["free_bytes"],
        existing_bytes=answer["existing_bytes"],
    )
    # ``compare`` is settled by digests; until then it is told from ``send`` by its code.
    code = "compare" if answer["action"] == "compare" else answer["code"]
    return replace(target, plan=plan, path=str(answer["path"]), code=code)


async def _compare(preparation: Preparation, source_place: Place) -> Preparation:
    """Turns every target that may hold the same content into one to skip or one to send."""
    unsettled = [target for target in preparation.targets if target.code == "compare"]
    if not unsettled:
        return preparation
    by_source, by_target = await asyncio.gather(
        call(
            preparation.session,
            source_place.node.node_id,
            "digest",
            {"path": preparation.source["path"]},
            _DIGEST_SECONDS,
        ),
        asyncio.gather(*(_digest_at(target) for target in unsettled)),
    )
    if by_source["signature"] != preparation.signature:
        raise TransferError(f"{source_place} changed while it was looked at")
    settled = {}
    for target, digest in zip(unsettled, by_target, strict=True):
        is_identical = digest == by_source["digest"]
        plan = (
            replace(target.plan, action="skip", reason="identical") if is_identical else target.plan
        )
        settled[id(target)] = replace(target, plan=plan, code=None)
    return replace(
        preparation,
        digest=by_source["digest"],
        targets=tuple(settled.get(id(target), target) for target in preparation.targets),
    )


async def _digest_at(target: PreparedTarget) -> str | None:
    """The digest of what a target holds now; None where it cannot be read, and is replaced."""
    assert target.session is not None  # it has answered a plan
    try:
        answer = await call(
            target.session,
            target.place.node.node_id,
            "digest",
            {"path": target.path},
            _DIGEST_SECONDS,
        )
    except TransferError:
        return None
    return str(answer["digest"])


@dataclass(frozen=True, slots=True)
class Way:
    """How one target's stream comes about: who dials whom."""

    index: int
    mode: str
    endpoints: tuple[tuple[str, int], ...]
    failure: str | None = None


async def open_ways(
    *,
    transfer_id: str,
    secret: bytes,
    selection: Selection,
    preparation: Preparation,
    overwrite: Overwrite,
    reserve_bytes: int,
) -> list[Way]:
    """Gives every agent that takes part the transfer's secret and finds out who can dial whom.

    Castray's own machine always dials, as nobody may reach it through its NAT; between nodes the
    source's agent dials, or else the target's. Targets without a way are told why; a bridge over a
    third node has its place here later.
    """
    sending = [
        (index, target)
        for index, target in enumerate(preparation.targets)
        if target.plan.action == "send"
    ]
    await _allow(transfer_id, secret, selection, preparation, sending, overwrite, reserve_bytes)
    source_node = selection.source.node
    if source_node.is_local:
        return [Way(index, "dial", target.endpoints) for index, target in sending]
    ways = []
    probed = [(index, target) for index, target in sending if not target.place.node.is_local]
    refusals = await _reach(
        preparation.session,
        source_node.node_id,
        transfer_id,
        [target.endpoints for _, target in probed],
    )
    by_index = dict(zip((index for index, _ in probed), refusals, strict=True))
    for index, target in sending:
        refusal = by_index.get(index)
        if target.place.node.is_local:
            ways.append(Way(index, "await", preparation.endpoints))
        elif refusal is None:
            ways.append(Way(index, "dial", target.endpoints))
        else:
            ways.append(
                await _reverse_way(transfer_id, index, target, selection, preparation, refusal)
            )
    return ways


async def _allow(  # noqa: PLR0917  one call, all of it needed
    transfer_id: str,
    secret: bytes,
    selection: Selection,
    preparation: Preparation,
    sending: Sequence[tuple[int, PreparedTarget]],
    overwrite: Overwrite,
    reserve_bytes: int,
) -> None:
    by_agent: dict[tuple[int, str], tuple[Session, str, list[Json]]] = {
        (id(preparation.session), selection.source.node.node_id): (
            preparation.session,
            selection.source.node.node_id,
            [],
        )
    }
    for index, target in sending:
        assert target.session is not None  # refused otherwise
        node_id = target.place.node.node_id
        mark = (id(target.session), node_id)
        _, _, orders = by_agent.setdefault(mark, (target.session, node_id, []))
        orders.append(
            {
                "index": index,
                "path": target.path,
                "size": preparation.source["size"],
                "overwrite": overwrite,
                "reserve_bytes": reserve_bytes,
                "part_id": f"{transfer_id[:12]}-{index}",
            }
        )
    results = await asyncio.gather(
        *(
            call_all(
                session,
                [
                    (
                        node_id,
                        "allow",
                        {"transfer": transfer_id, "targets": orders, **session.sealed(secret)},
                    )
                ],
                _ORDER_SECONDS,
            )
            for session, node_id, orders in by_agent.values()
        )
    )
    # A target's agent that went away meanwhile is told by its stream; the source's must be there.
    first = results[0][0]
    if isinstance(first, TransferError):
        raise first


async def _reach(
    session: Session, node_id: str, transfer_id: str, agents: Sequence[Sequence[tuple[str, int]]]
) -> list[str | None]:
    if not agents:
        return []
    answer = await call(
        session,
        node_id,
        "reach",
        {
            "transfer": transfer_id,
            "agents": [[list(endpoint) for endpoint in endpoints] for endpoints in agents],
            "timeout_seconds": 3.0,
        },
        _ORDER_SECONDS,
    )
    return [None if reason is None else safe_text(reason) for reason in answer["results"]]


async def _reverse_way(  # noqa: PLR0917  one call, all of it needed
    transfer_id: str,
    index: int,
    target: PreparedTarget,
    selection: Selection,
    preparation: Preparation,
    refusal: str,
) -> Way:
    assert target.session is not None  # refused otherwise
    back: str | None
    try:
        (back,) = await _reach(
            target.session, target.place.node.node_id, transfer_id, [preparation.endpoints]
        )
    except TransferError as error:
        back = error.message
    failure = None
    if back is not None:
        failure = (
            f"no route from {selection.source.label} to {target.place.label}: "
            f"{refusal}; and back: {back}"
        )
    return Way(index, "await", preparation.endpoints, failure)
