"""What is told of a transfer while it runs and when it has ended: statuses into models."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from castray_tui.core.models import Transfer, TransferState, TransferTarget, Verdict
from castray_tui.core.text_safety import safe_text

Json = dict[str, Any]

_VERDICTS: tuple[Verdict, ...] = ("verified", "identical", "failed", "cancelled")
ENDED: frozenset[TransferState] = frozenset({"done", "partial", "failed", "cancelled"})


def with_status(transfer: Transfer, status: Mapping[str, Any]) -> Transfer:
    """The transfer as the source's side sees it now; verdicts that stand are not taken back.

    Args:
        status: From a coordinator: data of a cluster, so anything may be in it.
    """
    targets = list(transfer.targets)
    rows = status.get("targets")
    for row in rows if isinstance(rows, list) else []:
        index = row.get("index") if isinstance(row, dict) else None
        if isinstance(index, int) and 0 <= index < len(targets) and targets[index].verdict is None:
            targets[index] = _target_with(targets[index], row, transfer.bytes_total)
    digest = status.get("digest")
    return with_targets(
        replace(transfer, digest=safe_text(digest, limit=100) if digest else transfer.digest),
        tuple(targets),
    )


def _target_with(target: TransferTarget, row: Json, size: int | None) -> TransferTarget:
    verdict = row.get("verdict")
    known: Verdict | None = next((word for word in _VERDICTS if word == verdict), None)
    sent = row.get("bytes")
    reason, digest, seconds = row.get("reason"), row.get("digest"), row.get("seconds")
    return replace(
        target,
        verdict=known,
        reason=safe_text(reason, limit=1000) if reason and known != "verified" else None,
        digest=safe_text(digest, limit=100) if digest else None,
        bytes=min(sent, size) if isinstance(sent, int) and size is not None else target.bytes,
        seconds=float(seconds)
        if isinstance(seconds, int | float) and math.isfinite(seconds)
        else target.seconds,
        attempts=max(target.attempts, 1),
    )


def with_targets(transfer: Transfer, targets: tuple[TransferTarget, ...]) -> Transfer:
    """The transfer with other targets and the sum of what they have."""
    size = transfer.bytes_total or 0
    done = sum(size if target.verdict == "identical" else target.bytes for target in targets)
    return replace(transfer, targets=targets, bytes_done=done)


def ended(transfer: Transfer, *, error: str | None = None) -> Transfer:
    """The transfer after its last verdict; targets without one get what the rest suggests."""
    targets = tuple(
        target
        if target.verdict is not None
        else replace(target, verdict="failed", reason=error or "ended without a verdict")
        for target in transfer.targets
    )
    finished = with_targets(transfer, targets)
    return replace(
        finished,
        state=final_state(targets),
        error=error or finished.error,
        ended=time.time(),
    )


def cancelled(transfer: Transfer, reason: str) -> Transfer:
    """The transfer with ``cancelled`` for every target that has no verdict yet."""
    targets = tuple(
        target
        if target.verdict is not None
        else replace(target, verdict="cancelled", reason=reason)
        for target in transfer.targets
    )
    return ended(with_targets(transfer, targets))


def final_state(targets: tuple[TransferTarget, ...]) -> TransferState:
    """What the verdicts make of the whole."""
    verdicts = {target.verdict for target in targets}
    good = verdicts & {"verified", "identical"}
    if good and verdicts <= {"verified", "identical"}:
        return "done"
    if "cancelled" in verdicts:
        return "cancelled"
    return "partial" if good else "failed"


def to_record(transfer: Transfer) -> Json:
    """A transfer as a coordinator keeps it for a later castray."""
    return {
        "transfer": asdict(transfer),
        "indexes": [i for i, target in enumerate(transfer.targets) if target.verdict is None],
    }


def from_result(result: Json) -> Transfer | None:
    """The ended transfer that a coordinator's result tells, None where it cannot be read."""
    transfer = from_record(result.get("record"))
    status = result.get("status")
    if transfer is None or not isinstance(status, dict):
        return None
    finished = ended(with_status(transfer, status))
    moment = result.get("ended")
    return replace(finished, ended=float(moment)) if isinstance(moment, int | float) else finished


def from_record(record: object) -> Transfer | None:
    """The transfer in a record, None where it cannot be read."""
    told = record.get("transfer") if isinstance(record, dict) else None
    if not isinstance(told, dict):
        return None
    try:
        targets = tuple(
            TransferTarget(**{**target, "via": tuple(target["via"])}) for target in told["targets"]
        )
        return Transfer(**{**told, "targets": targets, "route": tuple(told["route"])})
    except (TypeError, ValueError, KeyError):
        return None
