"""What is told of a transfer while it runs and when it has ended: statuses into models."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from castray_tui.core.models import Transfer, TransferState, TransferTarget, Verdict
from castray_tui.core.text_safety import safe_text

Json = dict[str, Any]

_VERDICTS: tuple[Verdict, ...] = ("verified", "identical", "failed", "cancelled")
GOOD: frozenset[Verdict | None] = frozenset({"verified", "identical"})
ENDED: frozenset[TransferState] = frozenset({"done", "partial", "failed", "cancelled"})

RETRIABLE = frozenset(
    {"connection", "lost", "agent", "source-agent", "coordinator", "timeout", "dead"}
)
"""Short words of agents for what may be well again in a moment; everything else is final."""

_REASON_LIMIT = 1000
_DIGEST_LIMIT = 100


def rows_of(status: Mapping[str, Any]) -> dict[int, Json]:
    """The rows in a status by their targets' numbers; what cannot be read is left out.

    Args:
        status: From a coordinator: data of a cluster, so anything may be in it.
    """
    rows = status.get("targets")
    return {
        row["index"]: row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and type(row.get("index")) is int
    }


def is_retriable(row: Mapping[str, Any]) -> bool:
    """Whether a row has failed for a reason that may pass."""
    return row.get("verdict") == "failed" and row.get("code") in RETRIABLE


def with_status(
    transfer: Transfer, status: Mapping[str, Any], indexes: Iterable[int] | None = None
) -> Transfer:
    """The transfer as the source's side sees it now; verdicts that stand are not taken back.

    Args:
        status: From a coordinator: data of a cluster, so anything may be in it.
        indexes: The only targets that it may speak of; None for all.
    """
    targets = list(transfer.targets)
    allowed = None if indexes is None else set(indexes)
    for index, row in rows_of(status).items():
        if not 0 <= index < len(targets) or (allowed is not None and index not in allowed):
            continue
        if targets[index].verdict is None:
            size = targets[index].bytes_total
            if size is None:
                size = transfer.bytes_total
            targets[index] = target_with(targets[index], row, size)
    digest = digest_in(status)
    if digest is not None and len(transfer.legs) <= 1:
        transfer = replace(transfer, digest=digest)
    return with_targets(transfer, tuple(targets))


def digest_in(status: Mapping[str, Any]) -> str | None:
    """The source's digest, where the status tells it."""
    digest = status.get("digest")
    return safe_text(digest, limit=_DIGEST_LIMIT) if digest else None


def target_with(target: TransferTarget, row: Mapping[str, Any], size: int | None) -> TransferTarget:
    """A target after what its row says.

    Args:
        size: Of what it is to have, beyond which nothing is believed.
    """
    verdict = row.get("verdict")
    known: Verdict | None = next((word for word in _VERDICTS if word == verdict), None)
    done, sent = row.get("bytes"), row.get("sent")
    reason, digest, seconds = row.get("reason"), row.get("digest"), row.get("seconds")
    return replace(
        target,
        verdict=known,
        reason=safe_text(reason, limit=_REASON_LIMIT) if reason and known != "verified" else None,
        digest=safe_text(digest, limit=_DIGEST_LIMIT) if digest else None,
        bytes=min(done, size) if type(done) is int and size is not None else target.bytes,
        sent_bytes=sent if type(sent) is int and sent >= 0 else target.sent_bytes,
        seconds=float(seconds)
        if isinstance(seconds, int | float) and math.isfinite(seconds)
        else target.seconds,
        attempts=max(target.attempts, 1),
        ended=time.time() if known is not None else target.ended,
    )


def with_targets(transfer: Transfer, targets: tuple[TransferTarget, ...]) -> Transfer:
    """The transfer with other targets and the sum of what they have."""

    def done(target: TransferTarget) -> int:
        if target.verdict != "identical":
            return target.bytes
        return (transfer.bytes_total if target.bytes_total is None else target.bytes_total) or 0

    return replace(transfer, targets=targets, bytes_done=sum(map(done, targets)))


def ended(transfer: Transfer, *, error: str | None = None) -> Transfer:
    """The transfer after its last verdict; targets without one get what the rest suggests."""
    now = time.time()
    targets = tuple(
        target
        if target.verdict is not None
        else replace(target, verdict="failed", reason=error or "ended without a verdict", ended=now)
        for target in transfer.targets
    )
    finished = with_targets(transfer, targets)
    return replace(finished, state=final_state(targets), error=error or finished.error, ended=now)


def cancelled(transfer: Transfer, reason: str) -> Transfer:
    """The transfer with ``cancelled`` for every target that has no verdict yet."""
    now = time.time()
    targets = tuple(
        target
        if target.verdict is not None
        else replace(target, verdict="cancelled", reason=reason, ended=now)
        for target in transfer.targets
    )
    return ended(with_targets(transfer, targets))


def final_state(targets: tuple[TransferTarget, ...]) -> TransferState:
    """What the verdicts make of the whole."""
    verdicts = {target.verdict for target in targets}
    good = verdicts & GOOD
    if good and verdicts <= GOOD:
        return "done"
    if "cancelled" in verdicts:
        return "cancelled"
    return "partial" if good else "failed"


# --- what a coordinator keeps -----------------------------------------------------------------


def to_record(transfer: Transfer, leg: int, indexes: Iterable[int]) -> Json:
    """One leg of a transfer as a coordinator keeps it for a later castray.

    Args:
        leg: Its number.
        indexes: The numbers of the targets that are sent to; no others are in the record, which
            would grow with the square of the number of legs.
    """
    numbers = list(indexes)
    told = replace(transfer, targets=tuple(transfer.targets[number] for number in numbers))
    return {
        "transfer": msgspec.to_builtins(told),
        "leg": leg,
        "indexes": numbers,
        "count": len(transfer.targets),
    }


def transfer_id_in(record: object) -> str | None:
    """The ID of the transfer that a record tells of."""
    told = record.get("transfer") if isinstance(record, dict) else None
    name = told.get("id") if isinstance(told, dict) else None
    return name if isinstance(name, str) else None


def from_record(record: object, known: Transfer | None = None) -> Transfer | None:
    """The transfer in a record, None where it cannot be read.

    Args:
        known: The transfer as the journal has it, which is believed rather than the record.
            Without it, only a record that has all its targets can be read.
    """
    if not isinstance(record, dict) or transfer_id_in(record) is None:
        return None
    if known is not None and known.id == transfer_id_in(record):
        return known
    if record.get("indexes") != list(range(record.get("count", 0))):
        return None
    try:
        return msgspec.convert(record["transfer"], Transfer)
    except msgspec.ValidationError:
        return None


def leg_of(record: object) -> int:
    """Which leg a record is of; records of older castrays are of the only one."""
    leg = record.get("leg", 0) if isinstance(record, dict) else 0
    return leg if type(leg) is int else 0


def with_result(transfer: Transfer, leg: int, result: Json) -> Transfer:
    """The transfer after the end of one leg's attempt that nobody goes on with. It has ended if all
    its targets have verdicts.

    Args:
        leg: Its number.
        result: As a coordinator tells it.
    """
    status = result.get("status")
    seen = with_status(
        transfer,
        status if isinstance(status, dict) else {},
        [index for index, target in enumerate(transfer.targets) if target.leg == leg],
    )
    targets = tuple(
        replace(target, verdict="failed", reason="ended without a verdict")
        if target.verdict is None and target.leg == leg
        else target
        for target in seen.targets
    )
    seen = with_targets(seen, targets)
    if any(target.verdict is None for target in targets):
        return seen
    finished = ended(seen)
    moment = result.get("ended")
    return replace(finished, ended=float(moment)) if isinstance(moment, int | float) else finished
