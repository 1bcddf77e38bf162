"""The columns of one transfer's targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from castray_tui.core.models import Transfer, TransferTarget, Verdict
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Role, text_width
from castray_tui.screens.widgets.columns import Column, Paint
from castray_tui.screens.widgets.place_text import row_label
from castray_tui.screens.widgets.transfer_rates import TargetRates

_VERDICT_ROLES: Mapping[Verdict, Role] = {
    "verified": "ok",
    "identical": "ok",
    "failed": "bad",
    "cancelled": "warn",
}


def target_columns(
    rates: TargetRates, transfer: Callable[[], Transfer | None]
) -> tuple[Column[TransferTarget], ...]:
    """The columns, with rates from ``rates``; ``transfer`` is the one that the targets are of."""

    def size_of(target: TransferTarget) -> int | None:
        of = transfer()
        return target.bytes_total if of is None or of.legs else of.bytes_total

    def label(target: TransferTarget, arrow: str) -> str:
        return row_label(target.cluster, target.node, target.source, arrow)

    def verdict_cell(target: TransferTarget, paint: Paint) -> Cell:
        if target.verdict is not None:
            return ((target.verdict, _VERDICT_ROLES[target.verdict]),)
        of = transfer()
        if of is not None and of.state == "paused":
            return (("paused", "warn"),)
        if target.reason:
            return ((f"{paint.glyphs.waiting} waiting", "warn"),)
        return ((f"{paint.glyphs.waiting} under way", "accent"),)

    def done_cell(target: TransferTarget, _: Paint) -> Cell:
        if target.verdict is not None:
            return ((figures.size(target.bytes), ""),)
        share = figures.share(target.bytes, size_of(target))
        # Not 100 % before the verdict.
        shown = figures.percent(None if share is None else min(int(share), 99))
        return ((f"{figures.size(target.bytes)} ", ""), (f"{shown:>4}", "dim"))

    def rate_cell(target: TransferTarget, _: Paint) -> Cell:
        rate = rates.bytes_per_second(target)
        return ((figures.rate(rate), "dim" if rate is None else ""),)

    def reason_cell(target: TransferTarget, _: Paint) -> Cell:
        if target.reason and target.verdict in {"failed", None}:
            return ((target.reason, "bad" if target.verdict else "warn"),)
        return ((f"{target.path}  {target.reason or ''}".rstrip(), "dim"),)

    return (
        Column("verdict", "VERDICT", verdict_cell, 11, value=lambda one: (one.verdict or "",)),
        Column(
            "node",
            "NODE",
            lambda target, paint: ((label(target, paint.glyphs.arrow), "strong"),),
            14,
            60,
            value=lambda target: (target.cluster, target.node, target.source or ""),
            content=lambda target: text_width(label(target, "->")),
            wish=22,
        ),
        Column(
            "bytes",
            "DONE",
            done_cell,
            10,
            right=True,
            value=lambda target: (float(target.bytes),),
            descends=True,
        ),
        Column(
            "rate",
            "RATE",
            rate_cell,
            7,
            priority=1,
            right=True,
            value=lambda target: _number(rates.bytes_per_second(target)),
            descends=True,
        ),
        Column(
            "seconds",
            "TOOK",
            lambda target, _: ((figures.latency(target.seconds), ""),),
            6,
            priority=4,
            right=True,
            value=lambda target: _number(target.seconds),
        ),
        Column(
            "attempts",
            "TRIES",
            lambda target, _: ((str(target.attempts), "warn" if target.attempts > 1 else "dim"),),
            5,
            priority=2,
            right=True,
            value=lambda target: (float(target.attempts),),
            descends=True,
        ),
        Column(
            "sent",
            "SENT",
            lambda target, _: ((figures.size(target.sent_bytes), "dim"),),
            5,
            priority=3,
            right=True,
            value=lambda target: _number(target.sent_bytes),
            descends=True,
        ),
        Column("reason", "PATH OR REASON", reason_cell, 14, 200, priority=1),
        Column(
            "via",
            "VIA",
            lambda target, paint: (
                (f" {paint.glyphs.arrow} ".join(target.via) or figures.UNKNOWN, "dim"),
            ),
            12,
            60,
            priority=5,
        ),
    )


def _number(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (float(value),)
