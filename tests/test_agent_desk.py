"""The desk answers every order, whatever becomes of it."""

from __future__ import annotations

from typing import Any

from castray_tui.agent.ownership import Desk, Nodes
from castray_tui.agent.refusals import OrderRefusedError


class UnluckyNodes(Nodes):
    """One node refuses, one fails in a way that nobody foresaw, one is well."""

    def call(self, node_id: str, order: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if node_id == "refuses":
            raise OrderRefusedError("full", "the disk is full")
        if node_id == "fails":
            raise RuntimeError("System error: Actor creation cancelled.\nand much more")
        return {"order": order}


def test_an_order_that_fails_unforeseen_is_refused_with_its_reason() -> None:
    desk = Desk(UnluckyNodes(), lambda event: None, lambda result: None)
    orders = [
        {"node_id": node_id, "order": "hello", "arguments": {}}
        for node_id in ("well", "refuses", "fails")
    ]
    well, refused, failed = desk.call_all(orders)
    assert well == {"answer": {"order": "hello"}}
    assert refused == {"refused": {"code": "full", "reason": "the disk is full"}}
    assert failed["refused"]["code"] == "agent"
    assert failed["refused"]["reason"] == (
        "no agent: RuntimeError: System error: Actor creation cancelled."
    )
