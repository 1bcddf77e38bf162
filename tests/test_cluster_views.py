"""What views show and which events lead from one to the next, without any cluster."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from castray_tui.core.errors import AuthError, RayAnswerError
from castray_tui.core.models import Cluster, NodeHardware
from castray_tui.core.monitor import ClusterView, view_events
from castray_tui.core.monitor.health import Asking, pause_seconds, state_of
from castray_tui.core.monitor.reading import FrozenError, Identity
from castray_tui.core.monitor.standstill import Standstill
from castray_tui.core.monitor.view import NodeBook, totals
from castray_tui.core.ray_api.http import RefusedError, SilentError
from castray_tui.core.ray_api.node_records import NodeRecord, NodeRow

CLUSTER = Cluster(
    key="c1", name="lab", address="10.0.0.1:8265", state="connected", connected_at=1.0
)


def row(node_id: str, *, alive: bool = True, started_at: float = 1.0, **more: Any) -> NodeRow:
    return NodeRow(node_id=node_id, alive=alive, started_at=started_at, **more)


HEAD = row("aa" * 8, started_at=1.0, is_head=True)
SECOND = row("bb" * 8, started_at=2.0)
THIRD = row("cc" * 8, started_at=3.0)


def view_of(book: NodeBook, **changes: Any) -> ClusterView:
    cluster = replace(CLUSTER, **changes)
    return ClusterView(cluster=cluster, nodes=book.nodes(cluster, "fresh"))


def shown(book: NodeBook) -> list[tuple[str, str]]:
    return [(node.node_id[:2], node.status) for node in book.nodes(CLUSTER, "fresh")]


def test_rows_keep_their_places_whatever_order_ray_lists_them_in() -> None:
    book = NodeBook()
    book.listed([THIRD, SECOND, HEAD], now=10.0)
    assert shown(book) == [("aa", "alive"), ("bb", "alive"), ("cc", "alive")]
    book.listed([SECOND, HEAD, replace(THIRD, alive=False)], now=11.0)
    assert shown(book) == [("aa", "alive"), ("bb", "alive"), ("cc", "dead")]


def test_the_dead_stay_until_dismissed_also_after_ray_forgot_them() -> None:
    book = NodeBook()
    book.listed([HEAD, SECOND], now=10.0)
    book.listed([HEAD, replace(SECOND, alive=False, reason="killed")], now=11.0)
    book.listed([HEAD], now=12.0)
    assert shown(book) == [("aa", "alive"), ("bb", "dead")]
    assert book.nodes(CLUSTER, "fresh")[1].reason == "killed"
    book.dismiss(HEAD.node_id)
    book.dismiss(SECOND.node_id)
    assert shown(book) == [("aa", "alive")], "only what is dead can be dismissed"
    book.listed([HEAD, replace(SECOND, alive=False)], now=13.0)
    assert shown(book) == [("aa", "alive")]


def test_a_node_that_ray_drops_without_a_word_is_dead() -> None:
    book = NodeBook()
    book.listed([HEAD, SECOND], now=10.0)
    book.listed([HEAD], now=11.0)
    second = book.nodes(CLUSTER, "fresh")[1]
    assert (second.status, second.last_seen) == ("dead", 10.0)
    assert second.reason == "Ray no longer lists it and did not say why"


@pytest.mark.parametrize("health", ["stale", "unreachable"])
def test_nothing_of_an_old_answer_is_shown_as_healthy(health: Any) -> None:
    book = NodeBook(draining={THIRD.node_id: None})
    book.listed([HEAD, replace(SECOND, alive=False), THIRD], now=10.0)
    statuses = [node.status for node in book.nodes(CLUSTER, health)]
    assert statuses == [health, "dead", health]


def test_draining_says_until_when() -> None:
    book = NodeBook(draining={SECOND.node_id: 1_800_000_000.0, THIRD.node_id: None})
    book.listed([HEAD, SECOND, THIRD], now=10.0)
    assert [node.reason for node in book.nodes(CLUSTER, "fresh")] == [
        None,
        "Draining until 2027-01-15 08:00:00 UTC",
        "Draining, without a deadline",
    ]


def test_totals_leave_out_the_dead_and_say_nothing_of_what_is_unknown() -> None:
    book = NodeBook()
    cpu = {"CPU": 4.0, "node:10.0.0.1": 1.0}
    book.listed(
        [replace(HEAD, resources_total=cpu), replace(SECOND, alive=False, resources_total=cpu)],
        now=10.0,
    )
    assert totals(book.nodes(CLUSTER, "fresh")) == ({"CPU": 4.0}, None)
    book.used[HEAD.node_id] = {"CPU": 1.5}
    assert totals(book.nodes(CLUSTER, "fresh")) == ({"CPU": 4.0}, {"CPU": 1.5})


def test_events_of_nodes() -> None:
    book = NodeBook()
    book.listed([HEAD, SECOND], now=10.0)
    before = view_of(book)
    book.listed([HEAD, replace(SECOND, alive=False, reason="killed"), THIRD], now=11.0)
    book.draining = {HEAD.node_id: None}
    after = view_of(book)
    events = view_events(before, after)
    assert [(event.type, event.node) for event in events] == [
        ("node_draining", "head"),
        ("node_died", "bbbbbb"),
        ("node_joined", "cccccc"),
    ]
    assert events[1].message == "lab/bbbbbb died: killed"
    assert events[1].data["reason"] == "killed"
    assert view_events(after, after) == []


def test_the_first_answer_is_one_event() -> None:
    book = NodeBook()
    before = view_of(book, state="connecting", connected_at=None)
    book.listed([HEAD, replace(SECOND, alive=False)], now=10.0)
    [event] = view_events(before, view_of(book))
    assert event.type == "cluster_connected"
    assert event.data["external_nodes_count"] == 2
    assert event.data["cluster_address"] == CLUSTER.address


def test_lost_and_recovered_are_told_once_each() -> None:
    book = NodeBook()
    states = ["connected", "stale", "unreachable", "lost", "connected", "stale", "connected"]
    views = [view_of(book, state=state) for state in states]
    told = [
        event.type
        for before, after in itertools.pairwise(views)
        for event in view_events(before, after)
    ]
    assert told == ["cluster_lost", "cluster_recovered"]


@pytest.mark.parametrize(
    ("age", "error", "state"),
    [
        (None, None, "connecting"),
        (None, RefusedError("x"), "unreachable"),
        (None, AuthError("x"), "refused"),
        (1.0, None, "connected"),
        (9.9, None, "connected"),
        (10.1, None, "stale"),
        (10.1, SilentError("x"), "stale"),
        (119.0, SilentError("x"), "stale"),
        (121.0, SilentError("x"), "unreachable"),
        (121.0, None, "unreachable"),
        (1.0, RefusedError("x"), "stale"),
        (11.0, RefusedError("x"), "unreachable"),
        (601.0, RefusedError("x"), "lost"),
        (1.0, FrozenError("x"), "stale"),
        (61.0, FrozenError("x"), "unreachable"),
        (1.0, AuthError("x"), "refused"),
        (1.0, RayAnswerError("x"), "connected"),
        (11.0, RayAnswerError("x"), "stale"),
    ],
)
def test_states_by_age_and_failure(age: float | None, error: Any, state: str) -> None:
    failures = 0 if error is None else 1
    assert state_of(Asking(age, failures, error), 2.0) == state


def test_a_slow_pace_makes_nothing_stale() -> None:
    assert state_of(Asking(25.0), 10.0) == "connected"
    assert state_of(Asking(31.0), 10.0) == "stale"


def test_pauses_grow_to_half_a_minute() -> None:
    assert pause_seconds(Asking(1.0), 2.0, 0.1) == pytest.approx(1.9)
    assert pause_seconds(Asking(1.0), 2.0, 5.0) == 0.5
    pauses = [pause_seconds(Asking(300.0, failures), 2.0, 0.1) for failures in range(1, 8)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert pause_seconds(Asking(20.0, 9), 2.0, 0.1) == 5.0
    assert pause_seconds(Asking(20.0, 9), 60.0, 0.1) == 60.0


def test_identities() -> None:
    known = Identity("id-1", "session_1")
    assert known.contradicts(Identity("id-2", None))
    assert known.contradicts(Identity(None, "session_2"))
    assert not known.contradicts(Identity())
    assert not known.confirms(Identity())
    assert known.confirms(Identity("id-1", None))
    assert known.confirms(Identity(None, "session_1"))
    # The cluster ID decides where both tell one.
    assert known.contradicts(Identity("id-2", "session_1"))
    assert Identity(None, "session_1").completed_by(known) == known


def test_figures_that_stand_still_are_noticed_by_castrays_own_clock() -> None:
    def record(measured_at: float | None) -> NodeRecord:
        return NodeRecord(node_id="a", hardware=NodeHardware(measured_at=measured_at))

    standstill = Standstill()
    told = [standstill.frozen({"a": record(5.0)}, now) for now in (0.0, 10.0, 20.0, 30.0, 31.0)]
    assert told == [frozenset()] * 4 + [{"a"}]
    assert standstill.frozen({"a": record(6.0)}, 32.0) == frozenset()
    # A summary asked for once a minute says nothing by being old.
    seldom = Standstill()
    assert [seldom.frozen({"a": record(None)}, 60.0 * n) for n in range(3)] == [frozenset()] * 3
