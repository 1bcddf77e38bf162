"""How a leg is seen through: what is tried again, for how long, by which ways; told by agents that
answer as the tests want."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession

from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import ReadOnlyError
from castray_tui.core.models import Cluster, Fleet, Node, Transfer, TransferRequest
from castray_tui.core.transfer.leg_run import LegRun
from castray_tui.core.transfer.opening import new_transfer
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.planning import plan_transfer
from castray_tui.core.transfer.selection import select
from castray_tui.core.transfer.sessions import Session
from castray_tui.core.transfer.surroundings import Surroundings
from castray_tui.core.transfer.work import Work

Json = dict[str, Any]


def node(name: str, address: str, **more: Any) -> Node:
    return Node("ml", "ml", name, name, more.pop("status", "alive"), address=address, **more)


FLEET = Fleet(
    clusters=(Cluster(key="ml", name="ml", address="", state="connected"),),
    nodes=(
        Node("local", "local", "local", "local", "alive"),
        node("src", "10.0.0.1"),
        node("n1", "10.0.0.2"),
        node("n2", "10.0.0.3"),
    ),
)
SIZE = 400_000_000
"""So much that nodes feed each other; nobody reads it."""


class Lab:
    """One leg from ``ml/src``, and what it publishes.

    Args:
        targets: Names of nodes.
    """

    def __init__(self, tmp_path: Path, targets: tuple[str, ...], **request: Any) -> None:
        source = tmp_path / "source"
        source.touch()
        os.truncate(source, SIZE)
        self.source = source
        self.session = FakeSession(source)
        self.fleet = FLEET
        self.bridges: list[Node] = []
        self.refusal: ReadOnlyError | None = None
        self.published: list[Transfer] = []
        options: dict[str, Any] = {"patience_seconds": 20.0, **request}
        self.request = TransferRequest(
            (f"ml/src:{source}",), tuple(f"ml/{name}:/there/" for name in targets), **options
        )
        self.selection = select(self.request, FLEET)
        self.options = SendOptions.of(self.request, TransferSettings())
        self.around = Surroundings(
            fleet=lambda: self.fleet, session_for=self._session, bridges=lambda leg: self.bridges
        )
        self.work = Work(new_transfer(self.request, self.selection), self.published.append)
        self.run = LegRun(
            self.work,
            0,
            leg=self.selection.legs[0],
            places={index: each.place for index, each in enumerate(self.selection.targets)},
            options=self.options,
            around=self.around,
        )
        self.work.legs[0] = self.run
        self.task = self.run.start()

    async def _session(self, cluster_key: str) -> Session:
        if not self.session.is_open:
            self.session.is_open = True  # a new coordinator
        return self.session

    def end(self, *rows: Json, **more: Any) -> None:
        """The attempt ends with these rows."""
        self.run.heard_end({"done": True, "targets": list(rows), **more})

    async def ended(self) -> Transfer:
        await asyncio.wait_for(self.work.done.wait(), 30)
        return self.work.transfer

    async def until(self, condition: Callable[[], object]) -> None:
        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), 20)


StartLab = Callable[..., Awaitable[Lab]]


@pytest.fixture
async def start(tmp_path: Path) -> Any:
    made: list[Lab] = []

    async def start_one(*targets: str, **request: Any) -> Lab:
        lab = Lab(tmp_path, targets, **request)
        made.append(lab)
        return lab

    yield start_one
    for lab in made:
        lab.task.cancel()
        await asyncio.gather(lab.task, return_exceptions=True)


def verified(index: int, **more: Any) -> Json:
    return {
        "index": index,
        "bytes": SIZE,
        "verdict": "verified",
        "digest": "sha256:ab",
        "seconds": 1.5,
        "sent": SIZE,
        **more,
    }


def failed(index: int, code: str, **more: Any) -> Json:
    reason = f"told as {code}"
    return {"index": index, "bytes": 0, "verdict": "failed", "code": code, "reason": reason, **more}


async def test_what_is_lost_is_tried_again_and_what_is_refused_is_not(start: StartLab) -> None:
    lab = await start("n1", "n2")
    first = await lab.session.next_run()
    assert [row["index"] for row in first["tree"]] == [0, 1]
    lab.end(failed(0, "lost", bytes=400, sent=400, seconds=2.0), failed(1, "full"))
    second = await lab.session.next_run()
    assert [row["index"] for row in second["tree"]] == [0]
    waiting = lab.work.transfer
    assert waiting.targets[1].verdict == "failed"
    seen = [each.targets[0] for each in lab.published if each.targets[0].reason]
    assert [(target.verdict, target.reason) for target in seen][:1] == [(None, "told as lost")]
    # Agents that are still there know the leg by this secret.
    secrets = {arguments["secret"] for _, arguments in lab.session.told("allow")}
    assert len(secrets) == 1
    # Its agent lived on, and what it tells counts from the first attempt.
    began = time.time() - 2.5
    lab.work.change_targets({0: replace(lab.work.target(0), started=began)})
    lab.end(verified(0))
    ended = await lab.ended()
    assert ended.state == "partial"
    good = ended.targets[0]
    assert (good.verdict, good.attempts, good.sent_bytes) == ("verified", 2, 400 + SIZE)
    assert good.seconds == pytest.approx(2.5, abs=0.9)
    assert good.reason is None
    assert ended.targets[1].attempts == 1


async def test_patience_is_bounded_and_none_is_none(start: StartLab) -> None:
    at_once = await start("n1", patience_seconds=0.0)
    await at_once.session.next_run()
    at_once.end(failed(0, "lost"), error="all is lost")
    ended = await at_once.ended()
    assert (ended.targets[0].reason, ended.error) == ("told as lost", "all is lost")
    assert len(at_once.session.runs) == 1

    some = await start("n1", patience_seconds=1.0)
    await some.session.next_run()
    some.session.gone.add("n1")
    some.end(failed(0, "lost"))
    ended = await some.ended()
    assert ended.targets[0].verdict == "failed"
    assert "the node's agent is gone" in str(ended.targets[0].reason)
    assert "waited 1 s" in str(ended.targets[0].reason)
    assert len(some.session.runs) == 1
    plans = [node for node, _ in some.session.told("hello")]
    assert plans.count("n1") >= 2


async def test_a_node_that_is_dead_before_the_first_byte_is_not_waited_for(
    start: StartLab,
) -> None:
    lab = await start("n1", "n2")
    lab.session.gone.add("n1")
    await lab.session.next_run()
    lab.end(verified(1))
    ended = await lab.ended()
    assert [target.verdict for target in ended.targets] == ["failed", "verified"]


async def test_a_node_may_come_back_as_a_new_one_at_its_address(start: StartLab) -> None:
    lab = await start("n1", "n2")
    await lab.session.next_run()
    nodes = [one for one in FLEET.nodes if one.name != "n1"]
    dead = node("n1", "10.0.0.2", status="dead", reason="its raylet died")
    lab.fleet = replace(FLEET, nodes=(*nodes, dead))
    lab.end(failed(0, "lost"), verified(1))
    await lab.until(lambda: "is dead" in str(lab.work.target(0).reason))
    lab.fleet = replace(FLEET, nodes=(*nodes, dead, node("n9", "10.0.0.2")))
    run = await lab.session.next_run()
    assert [row["endpoints"] for row in run["tree"]] == [[["n9", 1]]]
    lab.end(verified(0))
    ended = await lab.ended()
    assert (ended.targets[0].node, ended.targets[0].node_id) == ("n9", "n9")
    assert ended.targets[0].attempts == 2


async def test_what_an_agent_has_published_meanwhile_counts_as_verified(start: StartLab) -> None:
    lab = await start("n1", overwrite="never")
    await lab.session.next_run()
    lab.session.plans["n1"] = {
        "action": "refuse",
        "code": "exists",
        "reason": "exists: /there/source",
        "held_verdict": "verified",
        "held_digest": "sha256:ab",
    }
    lab.end(failed(0, "source-agent"))
    ended = await lab.ended()
    target = ended.targets[0]
    assert (target.verdict, target.digest, target.bytes) == ("verified", "sha256:ab", SIZE)
    assert len(lab.session.runs) == 1


async def test_a_source_that_changes_between_two_attempts_fails_the_rest(
    start: StartLab,
) -> None:
    lab = await start("n1", "n2")
    await lab.session.next_run()
    lab.source.write_bytes(b"other")
    lab.end(verified(0), failed(1, "connection"))
    ended = await lab.ended()
    assert [target.verdict for target in ended.targets] == ["verified", "failed"]
    assert "has changed" in str(ended.targets[1].reason)
    assert ended.state == "partial"


async def test_a_coordinator_that_dies_is_replaced(start: StartLab) -> None:
    lab = await start("n1")
    await lab.session.next_run()
    lab.session.is_open = False
    lab.run.lose_owner("the coordinator of the source's cluster is gone")
    await lab.session.next_run()
    lab.end(verified(0))
    ended = await lab.ended()
    assert (ended.state, ended.error, ended.targets[0].attempts) == ("done", None, 2)


@pytest.mark.parametrize("order", ["hello", "scan", "plan", "allow", "reach"])
async def test_a_coordinator_that_dies_at_the_first_look_is_replaced(
    start: StartLab, order: str
) -> None:
    lab = await start("n1", "n2")
    lab.session.breaks_at = order
    served: set[int] = set()
    while len(served) < 2:
        run = await lab.session.next_run()
        served |= {row["index"] for row in run["tree"]}
        lab.end(*(verified(row["index"]) for row in run["tree"]))
    assert lab.session.breaks_at is None
    ended = await lab.ended()
    assert (ended.state, ended.error) == ("done", None)


async def test_the_way_is_told_as_planned_and_as_it_becomes(start: StartLab) -> None:
    lab = await start("n1", "n2")
    await lab.session.next_run()
    assert lab.work.transfer.route == ("ml/src → ml/n1", "ml/n1 → ml/n2")
    assert lab.work.target(1).via == ("ml/src", "ml/n1", "ml/n2")
    rows = [{"index": 0, "feeder": 1, "bytes": 5}, {"index": 1, "feeder": -1, "bytes": 7}]
    lab.run.heard({"targets": rows})
    assert lab.work.transfer.route == ("ml/src → ml/n2", "ml/n2 → ml/n1")
    assert lab.work.target(0).via == ("ml/src", "ml/n2", "ml/n1")
    assert lab.work.transfer.bytes_done == 12
    # Nonsense of a cluster: a circle, strangers, itself.
    lab.run.heard({"targets": [{"index": 1, "feeder": 0}, {"index": 0, "feeder": 1}]})
    lab.run.heard({"targets": [{"index": 1, "feeder": 77}, {"index": 0, "feeder": 0}]})
    assert set(lab.work.target(0).via) == {"ml/src", "ml/n1", "ml/n2"}


async def test_who_cannot_be_reached_is_bridged_and_told_so(start: StartLab) -> None:
    lab = await start("n1")
    lab.bridges = [FLEET.nodes[3], FLEET.nodes[0]]
    lab.session.walls |= {("src", "n1"), ("n1", "src"), ("src", "n2")}
    run = await lab.session.next_run()
    ((bridge, order),) = lab.session.told("bridge")
    assert bridge == "n2"
    # The source cannot dial the bridge, so the bridge dials both.
    assert (order["feeder"], order["taker"]) == ([["src", 1]], [["n1", 1]])
    assert [(row["index"], row["mode"], row["parent"]) for row in run["tree"]] == [(0, "await", -1)]
    assert lab.work.transfer.route == ("ml/src → ml/n1 (by ml/n2)",)
    assert lab.work.target(0).via == ("ml/src", "ml/n2", "ml/n1")
    lab.end(verified(0))
    assert (await lab.ended()).state == "done"


async def test_without_any_way_the_reason_names_who_could_not_reach_whom(
    start: StartLab,
) -> None:
    lab = await start("n1", "n2", patience_seconds=1.0)
    lab.session.walls |= {("src", "n1"), ("n1", "src"), ("n2", "n1"), ("n1", "n2")}
    await lab.session.next_run()
    lab.end(verified(1))
    ended = await lab.ended()
    assert [target.verdict for target in ended.targets] == ["failed", "verified"]
    assert "no route from ml/" in str(ended.targets[0].reason)


async def test_cancelling_stops_a_wait_and_has_agents_throw_away_what_they_hold(
    start: StartLab,
) -> None:
    lab = await start("n1", "n2")
    await lab.session.next_run()
    lab.session.gone.add("n1")
    lab.end(failed(0, "lost"), verified(1))
    await lab.until(lambda: "agent is gone" in str(lab.work.target(0).reason))
    await lab.run.cancel()
    ended = await lab.ended()
    assert [target.verdict for target in ended.targets] == ["cancelled", "verified"]
    assert ("n1", {"transfer": lab.run.wire_name, "indexes": [0]}) in lab.session.told("drop")


async def test_targets_let_go_of_what_they_have_open_before_the_transfer_is_over(
    start: StartLab,
) -> None:
    lab = await start("n1", "n2")
    await lab.session.next_run()
    lab.end(verified(0), verified(1))
    assert (await lab.ended()).state == "done"
    arguments = {"transfer": lab.run.wire_name}
    assert lab.session.told("forget") == [("n1", arguments), ("n2", arguments)]


async def test_cancelling_while_something_is_sent_is_an_order_to_who_owns_it(
    start: StartLab,
) -> None:
    lab = await start("n1")
    await lab.session.next_run()
    await lab.until(lambda: lab.run.state == "running")
    await lab.run.cancel()
    assert lab.session.messages == [{"cancel": lab.run.wire_name}]
    row = {"index": 0, "verdict": "cancelled", "code": "cancelled", "reason": "cancelled"}
    lab.end(row)
    assert (await lab.ended()).state == "cancelled"


async def test_a_pause_holds_what_has_not_begun_and_what_has(start: StartLab) -> None:
    lab = await start("n1")
    await lab.run.pause()
    await asyncio.sleep(0.1)
    assert lab.session.runs == []
    lab.work.tell()
    assert lab.published[-1].state == "paused"
    await lab.run.unpause()
    await lab.session.next_run()
    await lab.until(lambda: lab.run.state == "running")
    await lab.run.pause()
    await lab.run.unpause()
    assert lab.session.messages == [
        {"pause": lab.run.wire_name, "paused": True},
        {"pause": lab.run.wire_name, "paused": False},
    ]
    lab.end(verified(0))
    assert (await lab.ended()).state == "done"


async def test_a_dry_run_measures_tells_the_way_and_leaves_nothing(start: StartLab) -> None:
    lab = await start("n1", "n2")
    await lab.run.cancel()
    lab.session.orders.clear()
    plan = await plan_transfer(lab.request, lab.selection, lab.options, lab.around)
    assert plan.route == ("ml/src → ml/n1", "ml/n1 → ml/n2")
    assert plan.predicted_seconds is not None
    assert plan.predicted_seconds > 0
    assert lab.session.runs == []
    probes = [arguments["probe_bytes"] for _, arguments in lab.session.told("reach")]
    assert probes
    assert all(probes)
    assert {node for node, _ in lab.session.told("forget")} == {"src", "n1", "n2"}

    slow = replace(lab.options, rate_limit_bytes_per_second=1_000_000)
    limited = await plan_transfer(lab.request, lab.selection, slow, lab.around)
    assert limited.predicted_seconds == SIZE / 1_000_000
