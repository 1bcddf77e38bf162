"""Transfers and plans as people read them: tables, a progress line, and exit codes."""

from __future__ import annotations

import time
from collections import deque

from castray_tui.cli.output import Column, bytes_text, cell_width, seconds_text
from castray_tui.core.models import Transfer, TransferPlan, TransferState, TransferTarget
from castray_tui.core.transfer.addresses import format_address

ENDED: frozenset[TransferState] = frozenset({"done", "partial", "failed", "cancelled"})
EXIT_CODES: dict[TransferState, int] = {"done": 0, "partial": 3, "failed": 1, "cancelled": 1}

TARGET_COLUMNS = [
    Column("VERDICT"),
    Column("TARGET"),
    Column("SENT", right=True),
    Column("TIME", right=True),
    Column("RATE", right=True),
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
    Column("FREE", right=True),
    Column("THERE NOW", right=True),
    Column("REASON"),
]
_RATE_WINDOW_SECONDS = 3.0


def target_row(target: TransferTarget) -> list[str]:
    """One target of a transfer, for ``TARGET_COLUMNS``."""
    rate = target.bytes / target.seconds if target.bytes and target.seconds else None
    return [
        target.verdict or "under way",
        format_address(target.cluster, target.node, target.path),
        bytes_text(target.bytes),
        seconds_text(target.seconds),
        "-" if rate is None else f"{bytes_text(rate)}/s",
        target.reason or "",
    ]


def transfer_row(transfer: Transfer) -> list[str]:
    """One transfer, for ``TRANSFER_COLUMNS``."""
    started = "-"
    if transfer.started is not None:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(transfer.started))
    return [
        transfer.id,
        transfer.state,
        transfer.source,
        str(len(transfer.targets)),
        str(good_count(transfer)),
        bytes_text(transfer.bytes_total),
        started,
    ]


def plan_rows(plan: TransferPlan) -> list[list[str]]:
    """The targets of a plan, for ``PLAN_COLUMNS``."""
    return [
        [
            target.action,
            format_address(target.cluster, target.node, target.path),
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


def good_count(transfer: Transfer) -> int:
    """How many targets hold the verified content."""
    return sum(target.verdict in {"verified", "identical"} for target in transfer.targets)


def summary(transfer: Transfer) -> str:
    """The end of a transfer in a sentence."""
    count = len(transfer.targets)
    text = f"{transfer.id} {transfer.state}: {good_count(transfer)} of {count} "
    text += "target" if count == 1 else "targets"
    if transfer.bytes_total is not None:
        text += f", {bytes_text(transfer.bytes_total)}"
    if transfer.started is not None and transfer.ended is not None:
        text += f", {seconds_text(transfer.ended - transfer.started)}"
    if transfer.digest is not None:
        text += f", {transfer.digest}"
    return text


class ProgressLine:
    """The line that shows how far a transfer is, with the rate of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def text(self, transfer: Transfer, now: float, width: int) -> str:
        """The line.

        Args:
            transfer: How far it is.
            now: A monotonic time in seconds.
            width: The most terminal cells to use.
        """
        if not transfer.bytes_done:
            self._samples.clear()  # the time before the first byte says nothing about the rate
        self._samples.append((now, transfer.bytes_done))
        while now - self._samples[0][0] > _RATE_WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        count = len(transfer.targets)
        parts: list[str] = [transfer.state]
        total = (transfer.bytes_total or 0) * count
        if total:
            share = 100.0 * transfer.bytes_done / total
            parts.append(f"{share:3.0f} %")
            parts.append(f"{bytes_text(transfer.bytes_done)} of {bytes_text(total)}")
        seconds = now - self._samples[0][0]
        rate = (transfer.bytes_done - self._samples[0][1]) / seconds if seconds else 0.0
        if rate > 0:
            parts.append(f"{bytes_text(rate)}/s")
            if total:
                parts.append(f"{seconds_text((total - transfer.bytes_done) / rate)} left")
        parts.append(f"{good_count(transfer)}/{count} verified")
        text = "  ".join(parts)
        while cell_width(text) > width:
            text = text[:-1]
        return text
