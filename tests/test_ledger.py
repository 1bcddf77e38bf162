"""Finding transfers in the journal: each filter by itself and together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from castray_tui.core.ledger import LedgerFilter
from castray_tui.core.models import Transfer, TransferLeg, TransferTarget


def transfer(number: int, **fields: object) -> Transfer:
    made = Transfer(
        id=f"t{number}",
        kind="unicast",
        state="done",
        source=f"ml/head:/data/Model-{number}.bin",
        targets=(TransferTarget("web", f"10.0.0.{number}", "/x"),),
        started=1000.0 * number,
        legs=(TransferLeg("ml", "head", ("/data",)),),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


KEPT = [
    transfer(4, state="failed"),
    transfer(3, source="local:/a", legs=(TransferLeg("local", "local", ("/a",)),)),
    transfer(2, targets=(TransferTarget("local", "local", "/x"),)),
    transfer(1, legs=()),
]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (LedgerFilter(), ["t4", "t3", "t2", "t1"]),
        (LedgerFilter(state="failed"), ["t4"]),
        (LedgerFilter(cluster="ml"), ["t4", "t2", "t1"]),
        (LedgerFilter(cluster="web"), ["t4", "t3", "t1"]),
        (LedgerFilter(cluster="w*"), ["t4", "t3", "t1"]),
        (LedgerFilter(cluster="local"), ["t3", "t2"]),
        (LedgerFilter(node="head"), ["t4", "t2", "t1"]),
        (LedgerFilter(node="10.0.0.[34]"), ["t4", "t3"]),
        (LedgerFilter(cluster="web", node="head"), []),
        (LedgerFilter(since=3000.0), ["t4", "t3"]),
        (LedgerFilter(source="model-1"), ["t1"]),
        (LedgerFilter(cluster="web", source="data", since=2000.0), ["t4"]),
    ],
)
def test_what_a_filter_lets_pass(wanted: LedgerFilter, ids: list[str]) -> None:
    assert [each.id for each in wanted.select(KEPT, 10)] == ids


def test_the_limit_counts_what_is_wanted() -> None:
    assert [each.id for each in LedgerFilter(cluster="local").select(KEPT, 1)] == ["t3"]


def test_what_the_journal_can_look_for_itself() -> None:
    assert LedgerFilter(state="done", cluster="ml", since=1.0).is_for_the_journal
    for wanted in (
        LedgerFilter(cluster="m*"),
        LedgerFilter(cluster="local"),
        LedgerFilter(node="head"),
        LedgerFilter(source="x"),
    ):
        assert not wanted.is_for_the_journal
        assert wanted.exact_cluster is None
