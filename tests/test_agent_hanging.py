"""Agents that neither run nor end: the others go around them, and take them back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_lab import Leg, verdicts
from agent_processes import AgentProcess

from castray_tui.agent import wire
from castray_tui.agent.node_agent import NodeAgent

Json = dict[str, Any]
SIZE = 6 * 1024 * 1024 + 12345
SILENCE_SECONDS, PING_SECONDS = 2.0, 0.4


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is closed at the end of the test; all of it is quicker to lose patience than usual."""
    monkeypatch.setattr(wire, "SILENCE_SECONDS", SILENCE_SECONDS)
    monkeypatch.setattr(wire, "PING_SECONDS", PING_SECONDS)
    things: list[Any] = []
    yield things
    for thing in things:
        thing.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def leg_with_process(made: list[Any], agents: int, place: int) -> tuple[Leg, AgentProcess]:
    """A chain, one of whose targets has a process of its own."""
    leg = Leg(agents)
    process = AgentProcess(SILENCE_SECONDS, PING_SECONDS)
    leg.targets[place].close()
    leg.targets[place] = process  # type: ignore[call-overload]  # It is used in the same way.
    made.append(leg)
    return leg, process


def begin(leg: Leg, source: Path, folder: Path, **order: Any) -> None:
    leg.scan(source)
    for place in range(len(leg.targets)):
        leg.allow(place, folder / f"t{place}")
    leg.send(**order)


def row_of(status: Json, place: int) -> Json:
    return dict(next(row for row in status["targets"] if row["index"] == place))


def begun(leg: Leg, place: int, least_bytes: int) -> None:
    leg.until(lambda status: row_of(status, place).get("bytes", 0) >= least_bytes)


def test_a_relay_that_hangs_is_bypassed_and_comes_back_as_a_leaf(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg, relay = leg_with_process(made, 3, 1)
    begin(leg, source, tmp_path, rate_limit=1_000_000, patience_seconds=60)
    begun(leg, 2, 500_000)
    relay.hang()
    leg.until(lambda status: row_of(status, 2).get("feeder") == 0)
    had = row_of(leg.status(), 1)["bytes"]
    begun(leg, 2, 3_000_000)
    assert row_of(leg.status(), 1)["verdict"] is None
    relay.wake()
    status = leg.ended()
    assert verdicts(status) == ["verified"] * 3
    assert [row_of(status, place)["feeder"] for place in range(3)] == [-1, 0, 0]
    # It was sent nothing again that it had.
    assert had > 0
    assert row_of(status, 1)["sent"] < SIZE + 1_500_000
    for place in range(3):
        assert (tmp_path / f"t{place}").read_bytes() == source.read_bytes()


def test_a_leaf_that_hangs_for_good_costs_the_others_nothing(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg, leaf = leg_with_process(made, 3, 2)
    begin(leg, source, tmp_path, rate_limit=2_000_000, patience_seconds=3)
    begun(leg, 2, 300_000)
    leaf.hang()
    status = leg.ended()
    assert verdicts(status) == ["verified", "verified", "failed"]
    assert row_of(status, 2)["code"] == "lost"
    assert row_of(status, 2)["reason"]
    assert not (tmp_path / "t2").exists()
    assert row_of(status, 1)["seconds"] < 8


def test_cancelling_does_not_wait_for_a_relay_that_hangs(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg, relay = leg_with_process(made, 3, 1)
    begin(leg, source, tmp_path / "out", rate_limit=500_000, patience_seconds=60)
    begun(leg, 2, 1)
    relay.hang()
    leg.source.call("cancel", {"transfer": leg.transfer})
    began = time.monotonic()
    assert verdicts(leg.ended()) == ["cancelled"] * 3
    assert time.monotonic() - began < 5
    relay.wake()
    for agent in leg.targets:
        agent.call("drop", {"transfer": leg.transfer, "indexes": [0, 1, 2]})
    deadline = time.monotonic() + 10
    while (tmp_path / "out").exists():
        assert time.monotonic() < deadline, list((tmp_path / "out").iterdir())
        time.sleep(0.05)


def test_a_pause_outlives_patience_and_can_be_cancelled(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg = Leg(2)
    made.append(leg)
    begin(leg, source, tmp_path / "out", rate_limit=1_000_000, patience_seconds=1)
    begun(leg, 1, 300_000)
    leg.source.call("pause", {"transfer": leg.transfer})
    time.sleep(SILENCE_SECONDS + 1.5)
    status = leg.status()
    assert status["paused"]
    assert verdicts(status) == [None, None]
    leg.source.call("cancel", {"transfer": leg.transfer})
    assert verdicts(leg.ended(5)) == ["cancelled"] * 2
    deadline = time.monotonic() + 5
    while (tmp_path / "out").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_orphan_without_patience_keeps_what_it_has_for_another_attempt(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg = Leg(2)
    sender = AgentProcess(SILENCE_SECONDS, PING_SECONDS)
    made += [leg, sender]
    leg.source = sender  # type: ignore[assignment]  # It is used in the same way.
    begin(leg, source, tmp_path, rate_limit=3_000_000, patience_seconds=1)
    begun(leg, 1, 2_000_000)
    sender.kill()
    members = [agent._transfers[leg.transfer].targets for agent in leg.targets]
    deadline = time.monotonic() + 15
    while not all(member[place].content.verdict for place, member in enumerate(members)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for place, agent in enumerate(leg.targets):
        agent.call("forget", {"transfer": leg.transfer})
        plan = {
            "transfer": leg.transfer,
            "index": place,
            "path": str(tmp_path / f"t{place}"),
            "manifest": leg.scanned["manifest"],
            "overwrite": "always",
            "roots": [],
            "reserve_bytes": 0,
            "machine": "",
            "device": 0,
            "inode": 0,
        }
        answer = agent.call("plan", plan)
        assert answer["held_bytes"] >= 2_000_000
        assert answer["held_verdict"] == "failed"
    leg.source = NodeAgent("127.0.0.1", (0, 0))
    begin(leg, source, tmp_path)
    status = leg.ended()
    assert verdicts(status) == ["verified"] * 2
    for place in range(2):
        assert (tmp_path / f"t{place}").read_bytes() == source.read_bytes()
        assert row_of(status, place)["sent"] <= SIZE - 2_000_000 + 512 * 1024
