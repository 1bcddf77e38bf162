"""The columns of the transfers pane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from castray_tui.core.models import Transfer, TransferState
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Role, cell_width, text_width
from castray_tui.screens.widgets.columns import Column, Paint
from castray_tui.screens.widgets.glyphs import bar
from castray_tui.screens.widgets.place_text import place_label
from castray_tui.screens.widgets.row_list import Order
from castray_tui.screens.widgets.transfer_rates import (
    ENDED,
    TransferRates,
    progress_percent,
    sent_bytes,
    whole_bytes,
)

_STATE_ROLES: Mapping[TransferState, Role] = {
    "planning": "accent",
    "running": "accent",
    "paused": "warn",
    "done": "ok",
    "partial": "warn",
    "failed": "bad",
    "cancelled": "warn",
}


def targets_text(transfer: Transfer) -> str:
    """The one target, or how many there are and of which clusters."""
    if len(transfer.targets) == 1:
        target = transfer.targets[0]
        return f"{place_label(target.cluster, target.node)}:{target.path}"
    clusters = sorted({target.cluster for target in transfer.targets})
    where = ", ".join(clusters[:3]) + (" and more" if len(clusters) > 3 else "")
    return f"{len(transfer.targets)} nodes of {where}" if clusters else "no targets"


def verdict_cell(transfer: Transfer) -> Cell:
    """How many targets have which verdict."""
    counts = Counter(target.verdict for target in transfer.targets)
    good = counts["verified"] + counts["identical"]
    pieces: list[tuple[str, Role]] = [
        (f"{good}/{len(transfer.targets)} ok", "ok" if good and transfer.state == "done" else "")
    ]
    if counts["failed"]:
        pieces.append((f" {counts['failed']} failed", "bad"))
    if counts["cancelled"]:
        pieces.append((f" {counts['cancelled']} cancelled", "warn"))
    return tuple(pieces)


def _progress(transfer: Transfer, paint: Paint) -> Cell:
    value = progress_percent(transfer)
    if value is None:
        return ((figures.UNKNOWN, "dim"),)
    # Not 100 % before the last target has its verdict.
    shown = int(value) if transfer.state in ENDED else min(int(value), 99)
    width = paint.width - 5
    role = _STATE_ROLES[transfer.state]
    if width < 3:
        return ((f"{shown}%", role),)
    return (*bar(value, width, paint.glyphs, role), (f" {shown:>3}%", ""))


def _end_of(text: str, paint: Paint) -> str:
    """The end of a long address: the file's name says more than where it starts."""
    if text_width(text) <= paint.width:
        return text
    room = paint.width - text_width(paint.glyphs.ellipsis)
    kept = text[-paint.width :]
    while kept and text_width(kept) > room:
        kept = kept[1:]
    return paint.glyphs.ellipsis + kept


def _error_or_verdicts(transfer: Transfer) -> Cell:
    counts = verdict_cell(transfer)
    if transfer.state == "done" and transfer.started is not None and transfer.ended is not None:
        took = figures.latency(max(transfer.ended - transfer.started, 0.0))
        return (*counts, (f" in {took}", "dim"))
    if transfer.error:
        return (*counts, (f"  {transfer.error}", "bad"))
    return counts


def _verdicts(transfer: Transfer, paint: Paint) -> Cell:
    cell = _error_or_verdicts(transfer)
    # How long it took is told whole or not at all.
    return verdict_cell(transfer) if not transfer.error and cell_width(cell) > paint.width else cell


def natural_transfer_order(transfer: Transfer) -> Order:
    """The newest first."""
    return (-(transfer.started or 0.0), transfer.id)


def transfer_texts(transfer: Transfer) -> tuple[str | None, ...]:
    """What a filter looks at."""
    return (
        transfer.id,
        transfer.state,
        transfer.source,
        transfer.error,
        *(f"{place_label(one.cluster, one.node)}:{one.path}" for one in transfer.targets),
    )


def transfer_columns(rates: TransferRates) -> tuple[Column[Transfer], ...]:
    """The columns, with rates from ``rates``."""

    def rate_cell(transfer: Transfer, _: Paint) -> Cell:
        rate = rates.bytes_per_second(transfer)
        return ((figures.rate(rate), "dim" if rate is None else ""),)

    def left_cell(transfer: Transfer, _: Paint) -> Cell:
        if transfer.state in ENDED:
            return ()
        left = rates.seconds_left(transfer)
        return ((figures.duration(left), "dim" if left is None else ""),)

    return (
        Column(
            "state",
            "STATE",
            lambda transfer, _: ((transfer.state, _STATE_ROLES[transfer.state]),),
            9,
            value=lambda transfer: (transfer.state,),
        ),
        Column(
            "source",
            "SOURCE",
            lambda transfer, paint: ((_end_of(transfer.source, paint), ""),),
            10,
            48,
            value=lambda transfer: (transfer.source,),
            content=lambda transfer: text_width(transfer.source),
            wish=18,
        ),
        Column("arrow", "", lambda _, paint: ((paint.glyphs.arrow, "dim"),), 2),
        Column(
            "targets",
            "TARGETS",
            lambda transfer, _: ((targets_text(transfer), ""),),
            10,
            56,
            content=lambda transfer: text_width(targets_text(transfer)),
            wish=18,
        ),
        Column("progress", "DONE", _progress, 5, 28, right=True, value=_progress_value),
        Column(
            "size",
            "SIZE",
            lambda transfer, _: ((figures.size(whole_bytes(transfer)), ""),),
            5,
            priority=4,
            right=True,
            value=lambda transfer: _number(whole_bytes(transfer)),
            descends=True,
        ),
        Column("rate", "RATE", rate_cell, 7, priority=2, right=True),
        Column("left", "LEFT", left_cell, 5, 8, priority=3, right=True),
        Column(
            "verdicts",
            "VERDICT",
            _verdicts,
            7,
            80,
            priority=1,
            content=lambda transfer: cell_width(_error_or_verdicts(transfer)),
            wish=15,
        ),
        Column(
            "sent",
            "SENT",
            lambda transfer, _: ((figures.size(sent_bytes(transfer)), "dim"),),
            5,
            priority=6,
            right=True,
            value=lambda transfer: _number(sent_bytes(transfer)),
            descends=True,
        ),
        Column("id", "ID", lambda transfer, _: ((transfer.id, "dim"),), 8, priority=6),
    )


def _number(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (float(value),)


def _progress_value(transfer: Transfer) -> tuple[float, ...] | None:
    return _number(progress_percent(transfer))
