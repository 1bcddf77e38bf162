"""A dry run: what a transfer would do, found out without sending a byte of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import PlannedTarget, TransferPlan, TransferRequest
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.opening import source_text
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.participants import Preparation
from castray_tui.core.transfer.preparation import prepare
from castray_tui.core.transfer.selection import Leg, Place, Selection
from castray_tui.core.transfer.sessions import call_all
from castray_tui.core.transfer.surroundings import Surroundings
from castray_tui.core.transfer.ways import WayFinder
from castray_tui.core.transfer.work import wire_name

_PROBE_BYTES = 4 * 1024 * 1024
_FORGET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _PlannedLeg:
    """What would become of one leg; ``preparation`` is None where its source cannot be sent."""

    targets: dict[int, PlannedTarget]
    preparation: Preparation | None = None
    lines: tuple[str, ...] = ()
    seconds: float | None = None


async def plan_transfer(
    request: TransferRequest, selection: Selection, options: SendOptions, around: Surroundings
) -> TransferPlan:
    """Asks everybody, and measures how fast the ways between them are.

    Raises:
        CastrayError: The only source cannot be sent.
    """
    name = secrets.token_hex(16)
    legs = await asyncio.gather(
        *(
            _plan_leg(number, selection, wire_name(name, number), options, around)
            for number in range(len(selection.legs))
        )
    )
    rows = {index: row for leg in legs for index, row in leg.targets.items()}
    sources = [leg.preparation.source for leg in legs if leg.preparation is not None]
    seconds = [leg.seconds for leg in legs if leg.seconds is not None]
    sends = any(row.action == "send" for row in rows.values())
    return TransferPlan(
        source=source_text(request, selection),
        kind=selection.kind,
        bytes_total=sum(source.size for source in sources) if sources else None,
        digest=sources[0].digest if len(sources) == len(legs) == 1 else None,
        targets=tuple(rows[index] for index in range(len(selection.targets))),
        route=tuple(line for leg in legs for line in leg.lines),
        predicted_seconds=max(seconds, default=None) if sends else 0.0,
        files=sum(source.files for source in sources) if sources else None,
    )


async def _plan_leg(
    number: int, selection: Selection, name: str, options: SendOptions, around: Surroundings
) -> _PlannedLeg:
    leg = selection.legs[number]
    targets = [
        (index, each.place) for index, each in enumerate(selection.targets) if each.leg == number
    ]
    try:
        preparation = await prepare(leg, targets, name, options, around.session_for)
    except CastrayError as error:
        if not selection.has_several_legs:
            raise
        return _PlannedLeg(_refused(leg, targets, str(error)))
    try:
        return await _find_ways(preparation, leg, options, around, selection.has_several_legs)
    finally:
        source = preparation.source
        order = (leg.node.node_id, "forget", {"transfer": name})
        await call_all(source.session, [order], _FORGET_SECONDS)


async def _find_ways(
    preparation: Preparation,
    leg: Leg,
    options: SendOptions,
    around: Surroundings,
    names_source: bool,
) -> _PlannedLeg:
    rows = {
        one.index: one.plan if names_source else replace(one.plan, source=None)
        for one in preparation.targets
    }
    if all(row.action != "send" for row in rows.values()):
        return _PlannedLeg(rows, preparation)
    finder = WayFinder(
        preparation,
        secret=secrets.token_bytes(32),
        options=options,
        session_for=around.session_for,
        bridges=around.bridges(leg),
    )
    try:
        ways = await finder.find(probe_bytes=_PROBE_BYTES)
    finally:
        await finder.forget()
    for index, lost in ways.none.items():
        rows[index] = replace(rows[index], action="refuse", reason=lost.reason, send_bytes=None)
    return _PlannedLeg(rows, preparation, ways.route.lines(), finder.predicted_seconds(ways.route))


def _refused(
    leg: Leg, targets: Sequence[tuple[int, Place]], reason: str
) -> dict[int, PlannedTarget]:
    return {
        index: PlannedTarget(
            cluster=place.node.cluster,
            node=place.node.name,
            path=safe_text(place.path),
            action="refuse",
            reason=reason,
            node_id=None if place.node.is_local else place.node.node_id,
            source=safe_text(str(leg)),
        )
        for index, place in targets
    }
