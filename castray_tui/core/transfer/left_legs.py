"""What earlier castrays left on a cluster: legs that still run there, and how others ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from castray_tui.core.models import Transfer
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.work import wire_name

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftLeg:
    """One leg that a coordinator knows of.

    Attributes:
        transfer: As the journal has it, or as the record tells it.
        number: The leg's.
        indexes: The targets that the attempt sends to, or sent to.
        record: What a coordinator keeps of the attempt.
        result: How the attempt ended; None while it runs.
    """

    transfer: Transfer
    number: int
    indexes: tuple[int, ...]
    record: Json
    result: Json | None = None

    @property
    def name(self) -> str:
        """The leg's name on the wire."""
        return wire_name(self.transfer.id, self.number)


def left_legs(
    results: Iterable[Json],
    records: Iterable[Json],
    wanted: Collection[str] | Mapping[str, Transfer] | None,
) -> list[LeftLeg]:
    """Reads what coordinators told, each leg once: those that run rather than how they ended
    before, and the newest end rather than an older one.

    Args:
        results: How attempts ended, in any order.
        records: Attempts that run.
        wanted: Only these transfers, by their IDs, if possible as the journal has them; None for
            all.
    """
    found: dict[str, LeftLeg] = {}
    told: list[tuple[object, Json | None]] = [
        (result.get("record"), result) for result in sorted(results, key=_ended_at)
    ]
    told += [(record, None) for record in records]
    for record, result in told:
        leg = _leg_in(record, result, wanted)
        if leg is not None:
            found[leg.name] = leg
    return list(found.values())


def _leg_in(
    record: object, result: Json | None, wanted: Collection[str] | Mapping[str, Transfer] | None
) -> LeftLeg | None:
    transfer_id = progress.transfer_id_in(record)
    if transfer_id is None or (wanted is not None and transfer_id not in wanted):
        return None
    known = wanted.get(transfer_id) if isinstance(wanted, Mapping) else None
    transfer = progress.from_record(record, known)
    if transfer is None or not isinstance(record, dict):
        return None
    count = len(transfer.targets)
    indexes = tuple(
        index for index in record.get("indexes", []) if type(index) is int and 0 <= index < count
    )
    return LeftLeg(transfer, progress.leg_of(record), indexes, record, result)


def _ended_at(result: Json) -> float:
    ended = result.get("ended")
    return float(ended) if isinstance(ended, int | float) else 0.0
