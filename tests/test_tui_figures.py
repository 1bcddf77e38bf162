"""Figures that the screen works out itself: rates, times, counts of nodes."""

from __future__ import annotations

from typing import Any

import pytest
from tui_fleet import NOW, Harness, node, small_fleet, transfer

from castray_tui.core.models import Transfer, TransferTarget
from castray_tui.screens.widgets.fleet_line import fleet_parts
from castray_tui.screens.widgets.glyphs import glyphs_for
from castray_tui.screens.widgets.transfer_rates import TransferRates


def ended(seconds: float | None, *, state: Any = "done") -> Transfer:
    target = TransferTarget("ml", "head", "/tmp/x", "verified", bytes=10**8, seconds=seconds)
    return transfer(
        "t1", state=state, targets=(target,), bytes_done=10**8, started=NOW - 10, ended=NOW
    )


def test_rate_of_an_ended_transfer_counts_from_its_first_byte() -> None:
    rates = TransferRates()
    assert rates.bytes_per_second(ended(0.5)) == 2 * 10**8
    assert rates.bytes_per_second(ended(None)) is None


def test_two_targets_at_once_are_twice_as_fast_as_the_slower_alone() -> None:
    targets = tuple(
        TransferTarget("ml", name, "/tmp/x", "verified", bytes=10**8, seconds=seconds)
        for name, seconds in (("head", 2.0), ("10.0.0.2", 1.0))
    )
    assert TransferRates().bytes_per_second(transfer("t1", state="done", targets=targets)) == 10**8


async def test_an_ended_transfer_says_that_its_time_is_what_it_took() -> None:
    harness = Harness(small_fleet(transfers=(ended(0.5),)))
    async with harness.app.run_test(size=(140, 40)) as pilot:
        await harness.settle(pilot)
        assert "1/1 ok in 10.0s" in harness.text()
        assert "191M/s" in harness.text()


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (("alive", "alive"), "2 alive"),
        (("stale", "stale", "alive"), "1 alive 2 stale"),
        (("unreachable", "dead"), "0 alive 1 dead 1 unreachable"),
    ],
)
def test_fleet_line_says_what_ails_the_nodes(statuses: tuple[Any, ...], said: str) -> None:
    nodes = tuple(node("ml", f"n{n}", status=status) for n, status in enumerate(statuses))
    text = "  ".join(
        "".join(piece for piece, _ in part)
        for part in fleet_parts(small_fleet(nodes=nodes), glyphs_for(False))
    )
    assert f"nodes {said}  " in text
