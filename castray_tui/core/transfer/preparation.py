"""Everything that is found out about one leg of a transfer before its first byte: what the source
holds, and what would become of every target. Changes no file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from castray_tui.agent.files import absolute, refusal_of
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import PlannedTarget
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.answers import ConnectionBrokenError
from castray_tui.core.transfer.comparing import compare
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.participants import (
    ORDER_SECONDS,
    Preparation,
    PreparedTarget,
    Source,
    SourceLostError,
    ask_each,
    endpoints_of,
)
from castray_tui.core.transfer.selection import Leg, Place
from castray_tui.core.transfer.sessions import AgentRefusedError, Session, call

Json = dict[str, Any]

AGENT_START_SECONDS = 45.0
BROKEN = "broken"
"""Code of a target whose side went in the middle of looking at it."""
_SCAN_SECONDS = 1800.0
_REASON_LIMIT = 1000

SessionFor = Callable[[str], Awaitable[Session]]
"""Gives the session of a cluster by its key, ``local`` included; raises CastrayError."""


async def prepare(
    leg: Leg,
    targets: Sequence[tuple[int, Place]],
    transfer: str,
    options: SendOptions,
    session_for: SessionFor,
    *,
    answer_seconds: float = AGENT_START_SECONDS,
) -> Preparation:
    """Asks the source and every target, starting agents where none run.

    Args:
        targets: Number in the transfer and place of each.
        transfer: The leg's name on the wire.
        answer_seconds: How long a node may take to say that it is there; all wait for the slowest.

    Raises:
        SourceLostError: The source's node, cluster or agent does not answer.
        CastrayError: The source cannot be sent. What is wrong with a target is in its plan.
    """
    _refuse_impossible_source(leg)
    clusters = [leg.node.cluster_key]
    clusters += [place.node.cluster_key for _, place in targets if place.node.status != "dead"]
    sessions = await _open_sessions(clusters, session_for, answer_seconds)
    scanning = asyncio.ensure_future(_scan(leg, transfer, options, sessions, answer_seconds))
    greeting = asyncio.ensure_future(_greet(leg, targets, sessions, answer_seconds))
    try:
        source = await scanning
        greeted = await greeting
    finally:
        scanning.cancel()
        greeting.cancel()
        await asyncio.gather(scanning, greeting, return_exceptions=True)
    planned = await _plan_targets(source, greeted, options)
    return await compare(source, planned, deletes=options.delete)


# --- the source -------------------------------------------------------------------------------


def _refuse_impossible_source(leg: Leg) -> None:
    if leg.node.status == "dead":
        raise SourceLostError(
            f"{leg.label} is dead: {leg.node.reason or 'Ray does not say why'}",
            remedy="Name a source on a node that is alive",
        )
    if not leg.node.is_local:
        return
    for path in leg.paths:
        # Here nobody needs an agent, or a job on a cluster, to see what is wrong.
        try:
            os.stat(absolute(path))  # noqa: PTH116  as the agent will
        except OSError as error:
            place = Place(leg.node, path)
            raise TransferError(
                f"The source {safe_text(str(place))} cannot be sent: "
                f"{safe_text(refusal_of(error, path).reason)}"
            ) from error


async def _scan(
    leg: Leg,
    transfer: str,
    options: SendOptions,
    sessions: Mapping[str, Session | CastrayError],
    answer_seconds: float,
) -> Source:
    session = sessions[leg.node.cluster_key]
    if isinstance(session, CastrayError):
        raise session
    try:
        hello, found = await asyncio.gather(
            _hello(session, leg.node.node_id, answer_seconds),
            call(
                session,
                leg.node.node_id,
                "scan",
                {
                    "transfer": transfer,
                    "paths": list(leg.paths),
                    "roots": list(options.roots),
                    "links": options.links,
                    "include": list(options.include),
                    "exclude": list(options.exclude),
                },
                _SCAN_SECONDS,
            ),
        )
    except AgentRefusedError as refused:
        error = SourceLostError if refused.refusal == "agent" else TransferError
        raise error(
            f"The source {safe_text(str(leg))} cannot be sent: {refused.message}"
        ) from refused
    except TransferError as error:
        raise SourceLostError(f"{leg.label} does not answer: {error.message}") from error
    return Source(
        leg=leg,
        transfer=transfer,
        session=session,
        endpoints=endpoints_of(hello),
        packed=str(found["manifest"]),
        token=str(found["token"]),
        size=int(found["size"]),
        files=int(found["files"]),
        path=str(found["path"]),
        identity={name: found.get(name) for name in ("machine", "device", "inode")},
    )


async def _open_sessions(
    cluster_keys: Sequence[str], session_for: SessionFor, answer_seconds: float
) -> Mapping[str, Session | CastrayError]:
    """A session for every cluster that takes part, all at once; an error where there is none."""
    keys = list(dict.fromkeys(cluster_keys))
    results = await asyncio.gather(
        *(_session(key, session_for, answer_seconds) for key in keys), return_exceptions=True
    )
    opened: dict[str, Session | CastrayError] = {}
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, BaseException) and not isinstance(result, CastrayError):
            raise result
        opened[key] = result
    return opened


async def _session(key: str, session_for: SessionFor, answer_seconds: float) -> Session:
    if answer_seconds >= AGENT_START_SECONDS:
        return await session_for(key)
    try:
        return await asyncio.wait_for(session_for(key), answer_seconds)
    except asyncio.TimeoutError:
        raise TransferError(f"The coordinator did not answer within {answer_seconds:g} s") from None


async def _hello(session: Session, node_id: str, answer_seconds: float) -> Json:
    return await call(session, node_id, "hello", {}, answer_seconds)


# --- the targets ------------------------------------------------------------------------------


async def _greet(
    leg: Leg,
    targets: Sequence[tuple[int, Place]],
    sessions: Mapping[str, Session | CastrayError],
    answer_seconds: float,
) -> list[PreparedTarget]:
    """Has every target's agent started, or says why it cannot be. Nodes are greeted once."""
    nodes = {place.node.key: place.node for _, place in targets if place.node.status != "dead"}
    hellos: dict[tuple[str, str], Json | TransferError] = {}

    async def greet_one(key: tuple[str, str], session: Session) -> None:
        try:
            hellos[key] = await _hello(session, key[1], answer_seconds)
        except TransferError as error:
            hellos[key] = error

    opened = [(key, sessions[node.cluster_key]) for key, node in nodes.items()]
    await asyncio.gather(
        *(
            greet_one(key, session)
            for key, session in opened
            if not isinstance(session, CastrayError)
        )
    )
    return [_greeted(index, place, str(leg), sessions, hellos) for index, place in targets]


def _greeted(
    index: int,
    place: Place,
    source: str,
    sessions: Mapping[str, Session | CastrayError],
    hellos: Mapping[tuple[str, str], Json | TransferError],
) -> PreparedTarget:
    node = place.node
    plan = PlannedTarget(
        cluster=node.cluster,
        node=node.name,
        path=safe_text(place.path),
        action="refuse",
        node_id=None if node.is_local else node.node_id,
        source=safe_text(source),
    )
    target = PreparedTarget(index, place, plan)
    if node.status == "dead":
        reason = f"node is dead: {node.reason or 'Ray does not say why'}"
        return _refused(target, reason, "dead", is_lost=True)
    session = sessions[node.cluster_key]
    if isinstance(session, CastrayError):
        return _refused(target, str(session), session.code, is_lost=is_passing(session))
    hello = hellos[node.key]
    if isinstance(hello, TransferError):
        return _refused(target, hello.message, _code_of(hello), is_lost=True)
    return replace(target, session=session, endpoints=endpoints_of(hello))


def _code_of(error: TransferError) -> str:
    return BROKEN if isinstance(error, ConnectionBrokenError) else "agent"


def _refused(
    target: PreparedTarget, reason: str, code: str | None, *, is_lost: bool
) -> PreparedTarget:
    plan = replace(target.plan, action="refuse", reason=reason)
    return replace(target, plan=plan, code=code, is_lost=is_lost, session=None)


def is_broken(error: SourceLostError) -> bool:
    """Whether the source's side was there, and went in the middle of looking at it."""
    return isinstance(error.__cause__, ConnectionBrokenError)


def is_passing(error: CastrayError) -> bool:
    """Whether what went wrong with a cluster may be well again in a moment."""
    return error.code in ("connect", "unreachable", "transfer", "ray_answer", "not_found")


async def _plan_targets(
    source: Source, targets: Sequence[PreparedTarget], options: SendOptions
) -> list[PreparedTarget]:
    shared: Json = {
        "transfer": source.transfer,
        "manifest": source.packed,
        "overwrite": options.overwrite,
        "roots": list(options.roots),
        "reserve_bytes": options.reserve_bytes,
        **source.identity,
    }
    asked = [target for target in targets if target.session is not None]
    answers = await ask_each(
        asked,
        "plan",
        lambda target: {"index": target.index, "path": target.place.path},
        ORDER_SECONDS,
        shared,
    )
    planned = {
        target.index: _planned(target, answer, source)
        for target, answer in zip(asked, answers, strict=True)
    }
    return [planned.get(target.index, target) for target in targets]


def _planned(
    target: PreparedTarget, answer: Json | TransferError, source: Source
) -> PreparedTarget:
    if isinstance(answer, AgentRefusedError):
        is_lost = answer.refusal == "agent"
        return _refused(target, answer.message, answer.refusal, is_lost=is_lost)
    if isinstance(answer, TransferError):
        return _refused(target, answer.message, _code_of(answer), is_lost=True)
    is_refused = answer["action"] == "refuse"
    reason = answer.get("reason")
    plan = replace(
        target.plan,
        path=safe_text(answer["path"]),
        action="refuse" if is_refused else "send",
        reason=safe_text(reason, limit=_REASON_LIMIT) if reason else None,
        free_bytes=answer.get("free_bytes"),
        existing_bytes=answer.get("existing_bytes"),
        held_bytes=answer.get("held_bytes"),
        send_bytes=None if is_refused else source.size,
    )
    candidates = answer.get("candidates") if answer["action"] == "compare" else None
    published = answer.get("held_digest") if answer.get("held_verdict") == "verified" else None
    return replace(
        target,
        plan=plan,
        path=str(answer["path"]),
        code=answer.get("code") if is_refused else None,
        candidates=tuple(int(number) for number in candidates or ()),
        lacks_entries=bool(answer.get("lacks_entries")),
        published=safe_text(published, limit=100) if published else None,
    )
