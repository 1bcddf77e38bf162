"""The desk answers every order, whatever becomes of it, and follows what it started to its end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from castray_tui.agent.ownership import Desk, Nodes
from castray_tui.agent.refusals import OrderRefusedError

Json = dict[str, Any]


class UnluckyNodes(Nodes):
    """One node refuses, one fails in a way that nobody foresaw, one is well."""

    def call(self, node_id: str, order: str, arguments: Json) -> Json:
        if node_id == "refuses":
            raise OrderRefusedError("full", "the disk is full")
        if node_id == "fails":
            raise RuntimeError("System error: Actor creation cancelled.\nand much more")
        return {"order": order, "arguments": arguments}


def quiet_desk(nodes: Nodes) -> Desk:
    return Desk(nodes, lambda event: None, lambda result: None)


def test_an_order_that_fails_unforeseen_is_refused_with_its_reason() -> None:
    orders = [
        {"node_id": node_id, "order": "hello", "arguments": {}}
        for node_id in ("well", "refuses", "fails")
    ]
    well, refused, failed = quiet_desk(UnluckyNodes()).call_all(orders)
    assert well == {"answer": {"order": "hello", "arguments": {}}}
    assert refused == {"refused": {"code": "full", "reason": "the disk is full"}}
    assert failed["refused"]["code"] == "agent"
    assert failed["refused"]["reason"] == (
        "no agent: RuntimeError: System error: Actor creation cancelled."
    )


def test_a_transfer_that_cannot_be_started_is_refused_whatever_the_reason() -> None:
    desk = quiet_desk(UnluckyNodes())
    for node_id, code in (("refuses", "full"), ("fails", "agent")):
        with pytest.raises(OrderRefusedError) as refused:
            desk.answer({"node_id": node_id, "run": {"transfer": "t"}, "record": {}})
        assert refused.value.code == code
        assert not desk.is_busy


def test_shared_arguments_go_into_every_call_and_give_way_to_its_own() -> None:
    answers = quiet_desk(UnluckyNodes()).answer(
        {
            "shared": {"manifest": "m", "index": 0},
            "calls": [
                {"node_id": "well", "order": "allow", "arguments": {}},
                {"node_id": "well", "order": "allow", "arguments": {"index": 1}},
            ],
        }
    )["answers"]
    assert [one["answer"]["arguments"] for one in answers] == [
        {"manifest": "m", "index": 0},
        {"manifest": "m", "index": 1},
    ]


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(OrderRefusedError, match="not known"):
        quiet_desk(UnluckyNodes()).answer({"dance": 1})


class OneSource(Nodes):
    """A node whose agent sends, as the test says."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.waited = 0
        self.status: Json = {
            "digest": None,
            "code": None,
            "error": None,
            "done": False,
            "paused": False,
            "targets": [{"index": 0, "bytes": 0, "verdict": None}],
        }
        self.is_gone = False
        self.news = threading.Event()

    def call(self, node_id: str, order: str, arguments: Json) -> Json:
        if self.is_gone:
            raise OrderRefusedError("agent", "the node died")
        if order == "status":
            self.waited += bool(arguments.get("wait"))
            self.news.wait(0.05)
            return dict(self.status)
        self.orders.append(order)
        return {}


class Heard:
    """A desk with one running transfer, and what it told."""

    def __init__(self) -> None:
        self.nodes = OneSource()
        self.events: list[Json] = []
        self.results: list[Json] = []
        self.orders_at_end: list[str] = []
        self.ended = threading.Event()
        self.desk = Desk(self.nodes, self._hear, self.results.append)
        self.start()

    def start(self) -> None:
        self.ended.clear()
        record = {"id": "t", "indexes": [0]}
        self.desk.answer({"node_id": "n", "run": {"transfer": "t"}, "record": record})

    def _hear(self, event: Json) -> None:
        self.events.append(event)
        if event["event"] == "finished":
            self.orders_at_end = list(self.nodes.orders)
            self.ended.set()

    def until_followed(self) -> None:
        deadline = time.monotonic() + 5
        while not self.events:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, verdict: str) -> None:
        self.until_followed()
        target = {"index": 0, "bytes": 1, "verdict": verdict}
        self.nodes.status = dict(self.nodes.status, done=True, targets=[target])
        self.nodes.news.set()
        assert self.ended.wait(5)


def test_a_transfer_is_followed_to_its_end_and_forgotten_before_that_is_told() -> None:
    heard = Heard()
    assert heard.desk.is_busy
    assert heard.desk.answer({"known": 1})["answers"][0]["records"] == [{"id": "t", "indexes": [0]}]
    heard.end("verified")
    assert heard.nodes.waited  # The agent was asked to answer as soon as there is news.
    # Whoever hears of the end may try again at once, and must not be forgotten then.
    assert heard.orders_at_end == ["send", "forget"]
    assert [event["event"] for event in heard.events] == ["progress", "progress", "finished"]
    assert heard.results[0]["status"]["targets"][0]["verdict"] == "verified"
    assert not heard.desk.is_busy
    known = heard.desk.answer({"known": 1})["answers"][0]
    assert known["records"] == []
    assert [one["record"]["id"] for one in known["results"]] == ["t"]


def test_another_attempt_takes_the_place_of_the_last_ones_result() -> None:
    heard = Heard()
    heard.end("failed")
    heard.nodes.status = dict(heard.nodes.status, done=False)
    heard.nodes.news.clear()
    heard.start()
    assert heard.desk.known()["results"] == []
    heard.end("verified")
    assert len(heard.desk.known()["results"]) == 1


def test_pause_and_cancel_reach_the_source_while_it_runs() -> None:
    heard = Heard()
    heard.desk.answer({"pause": "t", "paused": True})
    heard.desk.answer({"pause": "t", "paused": False})
    heard.desk.answer({"cancel": "t"})
    assert heard.nodes.orders == ["send", "pause", "unpause", "cancel"]
    heard.end("cancelled")
    heard.desk.answer({"pause": "t", "paused": True})
    heard.desk.answer({"cancel": "t"})
    assert heard.nodes.orders == ["send", "pause", "unpause", "cancel", "forget"]


@pytest.mark.parametrize(("is_cancelled", "verdict"), [(False, "failed"), (True, "cancelled")])
def test_where_the_source_is_gone_every_target_still_gets_a_verdict(
    is_cancelled: bool, verdict: str
) -> None:
    heard = Heard()
    heard.until_followed()
    if is_cancelled:
        heard.desk.cancel("t")
    heard.nodes.is_gone = True
    assert heard.ended.wait(5)
    status = heard.results[0]["status"]
    assert (status["done"], status["code"]) == (True, "source-agent")
    (target,) = status["targets"]
    assert (target["verdict"], target["code"]) == (verdict, "source-agent")
    assert "the node died" in target["reason"]
