"""Transfers and plans as people read them: tables, sentences, and exit codes."""

from __future__ import annotations

import time

from castray_tui.cli.output import Column, bytes_text, seconds_text
from castray_tui.core.models import (
    PlannedTarget,
    Transfer,
    TransferPlan,
    TransferState,
    TransferTarget,
)
from castray_tui.core.transfer.addresses import format_address

ENDED: frozenset[TransferState] = frozenset({"done", "partial", "failed", "cancelled"})
EXIT_CODES: dict[TransferState, int] = {"done": 0, "partial": 3, "failed": 1, "cancelled": 1}

TARGET_COLUMNS = [
    Column("VERDICT"),
    Column("TARGET"),
    Column("SENT", right=True),
    Column("TIME", right=True),
    Column("RATE", right=True),
    Column("TRIES", right=True),
    Column("DIGEST"),
    Column("REASON"),
]
DETAIL_COLUMNS = [
    Column("VERDICT"),
    Column("TARGET"),
    Column("BYTES", right=True),
    Column("SENT", right=True),
    Column("TIME", right=True),
    Column("RATE", right=True),
    Column("TRIES", right=True),
    Column("BEGAN"),
    Column("ENDED"),
    Column("DIGEST"),
    Column("REASON"),
]
TRANSFER_COLUMNS = [
    Column("ID"),
    Column("STATE"),
    Column("SOURCE"),
    Column("TARGETS", right=True),
    Column("GOOD", right=True),
    Column("SIZE", right=True),
    Column("STARTED"),
]
PLAN_COLUMNS = [
    Column("ACTION"),
    Column("TARGET"),
    Column("TO SEND", right=True),
    Column("FREE", right=True),
    Column("THERE NOW", right=True),
    Column("REASON"),
]
_DIGEST_CHARACTERS = len("sha256:") + 12


def target_row(target: TransferTarget) -> list[str]:
    """One target of a transfer, for ``TARGET_COLUMNS``."""
    rate = target.bytes_per_second
    return [
        target.verdict or "under way",
        target_address(target),
        bytes_text(target.bytes),
        seconds_text(target.seconds),
        "-" if rate is None else f"{bytes_text(rate)}/s",
        str(target.attempts),
        "-" if target.digest is None else target.digest[:_DIGEST_CHARACTERS],
        target.reason or "",
    ]


def detail_row(target: TransferTarget) -> list[str]:
    """One target with all that is kept of it, for ``DETAIL_COLUMNS``."""
    verdict, address, held, *figures, digest, reason = target_row(target)
    times = [_time_of_day(target.started), _time_of_day(target.ended)]
    return [verdict, address, held, bytes_text(target.sent_bytes), *figures, *times, digest, reason]


def _time_of_day(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%H:%M:%S", time.localtime(seconds))


def target_address(target: TransferTarget | PlannedTarget) -> str:
    """A target as it would be named; with its source before it where the transfer has several."""
    address = format_address(target.cluster, target.node, target.path)
    return address if target.source is None else f"{target.source} → {address}"


def transfer_row(transfer: Transfer) -> list[str]:
    """One transfer, for ``TRANSFER_COLUMNS``."""
    return [
        transfer.id,
        transfer.state,
        transfer.source,
        str(len(transfer.targets)),
        str(good_count(transfer)),
        bytes_text(transfer.bytes_total),
        _local_time(transfer.started),
    ]


def detail_lines(transfer: Transfer) -> list[str]:
    """Who, what and when, for one transfer that is shown by itself."""
    lines = [f"source   {transfer.source}"]
    if len(transfer.legs) > 1:
        lines += [
            f"from     {leg.cluster}/{leg.node}  {content_text(leg.bytes_total, leg.files)}  "
            f"{leg.digest or '-'}"
            for leg in transfer.legs
        ]
    times = f"{_local_time(transfer.started)} to {_local_time(transfer.ended)}"
    lines.append(f"time     {times}" + (f"  by {transfer.user}" if transfer.user else ""))
    if transfer.request is not None:
        options = [f"overwrite {transfer.request.overwrite}", f"links {transfer.request.links}"]
        options += ["delete"] if transfer.request.delete else []
        options += [f"exclude {pattern}" for pattern in transfer.request.exclude]
        options += [f"include {pattern}" for pattern in transfer.request.include]
        lines.append("options  " + ", ".join(options))
    return lines


def _local_time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def plan_rows(plan: TransferPlan) -> list[list[str]]:
    """The targets of a plan, for ``PLAN_COLUMNS``."""
    return [
        [
            target.action,
            target_address(target),
            bytes_text(target.send_bytes),
            bytes_text(target.free_bytes),
            bytes_text(target.existing_bytes),
            target.reason or "",
        ]
        for target in plan.targets
    ]


def plan_exit_code(plan: TransferPlan) -> int:
    """0 where nothing is refused, 3 where some targets are, 1 where all are."""
    refused = sum(target.action == "refuse" for target in plan.targets)
    if not refused:
        return 0
    return 1 if refused == len(plan.targets) else 3


def plan_summary(plan: TransferPlan) -> str:
    """What a plan adds up to, in a sentence."""
    count = len(plan.targets)
    parts = [f"{count} target" if count == 1 else f"{count} targets"]
    for action, words in (("send", "to send"), ("skip", "identical"), ("refuse", "refused")):
        number = sum(target.action == action for target in plan.targets)
        if number:
            parts.append(f"{number} {words}")
    if plan.bytes_total is not None:
        parts.append(content_text(plan.bytes_total, plan.files))
    if plan.predicted_seconds is not None:
        parts.append(f"about {seconds_text(plan.predicted_seconds)}")
    return ", ".join(parts)


def content_text(size: int | None, files: int | None) -> str:
    """``1.5 GB``, and in how many files where there are several or none."""
    text = bytes_text(size)
    return text if files in (None, 1) else f"{text} in {files:,} files"


def good_count(transfer: Transfer) -> int:
    """How many targets hold the verified content."""
    return sum(target.verdict in {"verified", "identical"} for target in transfer.targets)


def summary(transfer: Transfer) -> str:
    """The end of a transfer in a sentence."""
    count = len(transfer.targets)
    text = f"{transfer.id} {transfer.state}: {good_count(transfer)} of {count} "
    text += "target" if count == 1 else "targets"
    if transfer.bytes_total is not None:
        text += f", {content_text(transfer.bytes_total, transfer.files)}"
    if transfer.started is not None and transfer.ended is not None:
        text += f", {seconds_text(transfer.ended - transfer.started)}"
    if transfer.digest is not None:
        text += f", {transfer.digest}"
    return text
