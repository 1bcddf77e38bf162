"""Everything castray knows of one transfer and of each of its targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from castray_tui.core.models import Fleet, Transfer, TransferTarget
from castray_tui.screens.details import DetailsScreen, Fact, Section, known
from castray_tui.screens.transfer_orders import TransferOrders
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import drawable
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.key_bar import KeyBar
from castray_tui.screens.widgets.place_text import place_label
from castray_tui.screens.widgets.route_text import route_text
from castray_tui.screens.widgets.row_list import Order
from castray_tui.screens.widgets.target_columns import target_columns
from castray_tui.screens.widgets.transfer_columns import verdict_cell
from castray_tui.screens.widgets.transfer_rates import (
    ENDED,
    TargetRates,
    content_seconds,
    progress_percent,
    sent_bytes,
    whole_bytes,
)
from castray_tui.screens.widgets.virtual_table import VirtualTable


class TransferDetails(DetailsScreen, TransferOrders):
    """One transfer and each of its targets."""

    DEFAULT_CSS = """
    TransferDetails VerticalScroll { height: auto; max-height: 45%; }
    TransferDetails VirtualTable { height: 1fr; }
    TransferDetails #target { height: auto; max-height: 3; padding: 0 1; color: $secondary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "cancel_transfer", "Cancel", id="details.cancel_transfer",
            tooltip="Cancel this transfer",
        ),
        Binding("p", "pause_transfer", "Pause", id="details.pause_transfer",
            tooltip="Pause this transfer; a paused one goes on",
        ),
        Binding("R", "retry_transfer", "Retry", id="details.retry_transfer",
            tooltip="Send again to those targets that failed",
        ),
        Binding("u", "resume_transfer", "Resume", id="details.resume_transfer",
            tooltip="Go on with this transfer, which was interrupted or cancelled",
        ),
        Binding("s", "sort", "Sort", id="details.sort", tooltip="Sort by the next column"),
        Binding("J", "scroll_facts(1)", "Facts down", show=False, id="details.facts_down",
            tooltip="Next line of what stands over the targets",
        ),
        Binding("K", "scroll_facts(-1)", "Facts up", show=False, id="details.facts_up",
            tooltip="Line before, of what stands over the targets",
        ),
    ]  # fmt: skip

    def __init__(
        self, transfer_id: str, glyphs: Glyphs, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(glyphs, clock=clock)
        self._id = transfer_id
        self._transfer: Transfer | None = None
        self._rates = TargetRates()
        self.targets: VirtualTable[int, TransferTarget] = VirtualTable(
            target_columns(self._rates, lambda: self._transfer),
            glyphs,
            natural=_target_order,
            clock=clock,
            id="targets",
        )

    def compose(self) -> ComposeResult:
        """Lays out the facts over the targets, and what is known of the one under the cursor."""
        with VerticalScroll(can_focus=False):
            yield Static("", id="facts", markup=False)
        yield self.targets
        yield Static("", id="target", markup=False)
        yield KeyBar(self._glyphs)

    def on_mount(self) -> None:
        """Stands on the targets."""
        super().on_mount()
        self.targets.border_title = "Targets"
        self.targets.focus()

    def chosen_transfer(self) -> Transfer | None:
        """The one that is shown."""
        return self._transfer

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which orders make sense, by the state that the transfer is in."""
        transfer = self._transfer
        if not action.endswith("_transfer") or transfer is None:
            return True
        has_ended = transfer.state in ENDED
        if action == "retry_transfer":
            return has_ended and any(one.verdict == "failed" for one in transfer.targets)
        if action == "resume_transfer":
            return transfer.state == "paused" or (has_ended and transfer.state != "done")
        return not has_ended

    def sections(self, fleet: Fleet) -> tuple[str, Sequence[Section]] | None:
        """The transfer's facts, and its targets into the table."""
        transfer = next((one for one in fleet.transfers if one.id == self._id), None)
        if transfer is None:
            return None
        before, self._transfer = self._transfer, transfer
        self._rates.take(transfer, fleet.time)
        self.targets.set_rows(dict(enumerate(transfer.targets)))
        self._show_target()
        if before is None or before.state != transfer.state:
            self.refresh_bindings()
        return f"Transfer {transfer.id}", [("", _facts(transfer, self._rates))]

    @on(VirtualTable.CursorMoved)
    def _show_target(self) -> None:
        target = self.targets.cursor_row
        if target is None:
            return
        words = [f"{place_label(target.cluster, target.node)}:{target.path}"]
        if target.source is not None:
            words.append(f"from {target.source}")
        if len(target.via) > 1:
            words.append(f"via {' → '.join(target.via)}")
        if target.attempts > 1:
            words.append(f"attempt {target.attempts}")
        if target.reason:
            words.append(target.reason)
        self.query_one("#target", Static).update(drawable("  ".join(words)))

    def action_sort(self) -> None:
        """Sorts by the next column."""
        self.targets.sort_next()

    def action_scroll(self, lines: int) -> None:
        """Keys move in the table of targets."""
        self.targets.action_move(lines)

    def action_scroll_facts(self, lines: int) -> None:
        """Scrolls what stands over the targets."""
        super().action_scroll(lines)


def _facts(transfer: Transfer, rates: TargetRates) -> list[Fact]:
    done = f"{figures.size(transfer.bytes_done)} of {figures.size(whole_bytes(transfer))}"
    sent = sent_bytes(transfer)
    moving = [rates.bytes_per_second(one) for one in transfer.targets if one.verdict is None]
    rate = sum(filter(None, moving)) or None
    words = [done, figures.percent(progress_percent(transfer))]
    words += [figures.rate(rate)] if rate else []
    words += [f"{figures.size(sent)} sent"] if sent is not None else []
    return known(
        ("state", f"{transfer.state} ({transfer.kind})"),
        ("error", transfer.error),
        ("source", transfer.source),
        ("done", ", ".join(words)),
        ("targets", "".join(text for text, _ in verdict_cell(transfer))),
        ("digest", transfer.digest),
        ("route", route_text(transfer.route)),
        ("took", _took(transfer)),
        ("files", figures.amount(transfer.files)),
        ("overwrite", transfer.overwrite),
        *_options(transfer),
        ("started", figures.date_and_clock(transfer.started)),
        ("ended", figures.date_and_clock(transfer.ended)),
        ("by", transfer.user),
    )


def _options(transfer: Transfer) -> list[tuple[str, str | None]]:
    """What was asked for besides source and targets."""
    limit = transfer.rate_limit_bytes_per_second
    facts: list[tuple[str, str | None]] = [("limit", figures.rate(limit) if limit else None)]
    request = transfer.request
    if request is None:
        return facts
    link_limit = request.link_rate_limit_bytes_per_second
    return [
        *facts,
        ("limit of a link", figures.rate(link_limit) if link_limit else None),
        ("left out", " ".join(request.exclude)),
        ("but sent", " ".join(request.include)),
        ("links", None if request.links == "keep" else request.links),
    ]


def _took(transfer: Transfer) -> str | None:
    """How long all of it took, and how much of that bytes were on their way."""
    if transfer.started is None or transfer.ended is None:
        return None
    whole = figures.latency(max(transfer.ended - transfer.started, 0.0))
    content = content_seconds(transfer)
    if content is None:
        return whole
    return f"{whole}, {figures.latency(content)} of it from the first byte to the last verdict"


def _target_order(target: TransferTarget) -> Order:
    return (target.leg, target.cluster, target.node, target.path)
