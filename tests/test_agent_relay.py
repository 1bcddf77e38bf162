"""Agents that feed each other: chains and trees, and what happens when one of them goes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_lab import Leg, verdicts

from castray_tui.agent.node_agent import NodeAgent

Json = dict[str, Any]
MakeLeg = Callable[..., Leg]

SIZE = 6 * 1024 * 1024 + 12345


@pytest.fixture
def make_leg() -> Iterator[MakeLeg]:
    """Makes legs that end with the test."""
    made: list[Leg] = []

    def make(*args: Any, **options: Any) -> Leg:
        made.append(Leg(*args, **options))
        return made[-1]

    yield make
    for leg in made:
        leg.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of no round size."""
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def crash(agent: NodeAgent) -> None:
    """What ``kill -9`` does to an agent: its port is closed, and its connections break."""
    assert agent._listener is not None
    agent._listener.close()
    for known in agent._transfers.values():
        for member in known.members():
            member.detach()


def begun(leg: Leg, place: int, least_bytes: int = 1) -> Json:
    """Waits until a target has something."""

    def has_some(status: Json) -> bool:
        row = next(row for row in status["targets"] if row["index"] == place)
        return row.get("bytes", 0) >= least_bytes or row["verdict"] is not None

    return leg.until(has_some)


def row_of(status: Json, place: int) -> Json:
    """One target's row."""
    return dict(next(row for row in status["targets"] if row["index"] == place))


@pytest.mark.parametrize(
    "parents", [[-1], [-1, 0, 1, 2], [-1, -1, -1], [-1, 0, 0, 1, 1, 2, 2], [-1, 0, 1, -1, 3]]
)
def test_every_tree_is_fed_whole(
    make_leg: MakeLeg, source: Path, tmp_path: Path, parents: list[int]
) -> None:
    leg = make_leg(len(parents), parents)
    targets = [tmp_path / f"target-{place}" for place in range(len(parents))]
    status = leg.cast(source, *targets)
    assert verdicts(status) == ["verified"] * len(parents)
    digest = "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert status["digest"] == digest
    for place, target in enumerate(targets):
        assert target.read_bytes() == source.read_bytes()
        row = row_of(status, place)
        assert row["digest"] == digest
        assert row["bytes"] == row["sent"] == SIZE
        assert row["feeder"] == parents[place]


def test_a_relay_that_dies_is_bypassed(make_leg: MakeLeg, source: Path, tmp_path: Path) -> None:
    leg = make_leg(4)
    leg.scan(source)
    for place in range(4):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send(rate_limit=2_000_000)
    begun(leg, 3, 300_000)
    crash(leg.targets[1])
    status = leg.ended()
    assert verdicts(status) == ["verified", "failed", "verified", "verified"]
    assert row_of(status, 1)["code"] == "lost"
    assert row_of(status, 2)["feeder"] == 0
    assert row_of(status, 3)["feeder"] == 2
    # Nobody was sent again what it had.
    assert row_of(status, 3)["bytes"] == SIZE
    assert not (tmp_path / "t1").exists()


def test_a_relay_that_cannot_write_feeds_nobody_and_costs_nobody(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(3)
    (tmp_path / "file").write_bytes(b"")
    status = leg.cast(source, tmp_path / "t0", tmp_path / "file" / "t1", tmp_path / "t2")
    assert verdicts(status) == ["verified", "failed", "verified"]
    assert row_of(status, 1)["code"] != "lost"
    assert row_of(status, 2)["feeder"] == 0


def test_who_lost_its_feeder_dials_those_above(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    """The child of the dead relay cannot be dialed: it has to find the source by itself."""
    leg = make_leg(2)
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "t0")
    leg.allow(1, tmp_path / "t1")
    tree = [leg.row(0), leg.row(1, mode="await", endpoints=[])]
    leg.send(tree, rate_limit=2_000_000)
    leg.targets[1].call(
        "dial", {"transfer": leg.transfer, "index": 1, "endpoints": hello["endpoints"]}
    )
    begun(leg, 1, 300_000)
    crash(leg.targets[0])
    status = leg.ended()
    assert verdicts(status) == ["failed", "verified"]
    assert (tmp_path / "t1").read_bytes() == source.read_bytes()


def test_an_interrupted_transfer_goes_on_where_it_stopped(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(2)
    leg.scan(source)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send(rate_limit=3_000_000)
    begun(leg, 1, 2_000_000)
    crash(leg.source)
    leg.source = NodeAgent("127.0.0.1", (0, 0))
    leg.scan(source)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send()
    status = leg.ended()
    assert verdicts(status) == ["verified", "verified"]
    for place in range(2):
        assert (tmp_path / f"t{place}").read_bytes() == source.read_bytes()
        assert row_of(status, place)["sent"] <= SIZE - 2_000_000 + 512 * 1024


def test_what_is_held_of_another_content_is_not_gone_on_with(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(1)
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    leg.send(rate_limit=3_000_000)
    begun(leg, 0, 2_000_000)
    crash(leg.source)
    status = source.stat()
    source.write_bytes(os.urandom(SIZE))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    leg.source = NodeAgent("127.0.0.1", (0, 0))
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    leg.send()
    ended = leg.ended()
    assert verdicts(ended) == ["verified"]
    assert (tmp_path / "t").read_bytes() == source.read_bytes()


def test_pausing_stops_the_flow_and_keeps_the_rest(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(2)
    leg.scan(source)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send(rate_limit=3_000_000)
    begun(leg, 1, 500_000)
    leg.source.call("pause", {"transfer": leg.transfer})
    leg.until(lambda status: bool(status["paused"]))
    time.sleep(0.6)  # What is on its way still arrives.
    before = row_of(leg.status(), 1)["bytes"]
    time.sleep(0.6)
    assert row_of(leg.status(), 1)["bytes"] == before < SIZE
    leg.source.call("unpause", {"transfer": leg.transfer})
    assert verdicts(leg.ended()) == ["verified", "verified"]


def test_cancelling_reaches_the_end_of_the_chain(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(3)
    leg.scan(source)
    for place in range(3):
        leg.allow(place, tmp_path / "out" / f"t{place}")
    leg.send(rate_limit=1_000_000)
    begun(leg, 2)
    leg.source.call("cancel", {"transfer": leg.transfer})
    assert verdicts(leg.ended()) == ["cancelled"] * 3
    deadline = time.monotonic() + 5
    while (tmp_path / "out").exists():
        assert time.monotonic() < deadline, list((tmp_path / "out").iterdir())
        time.sleep(0.02)


def test_a_bridge_joins_two_that_cannot_reach_each_other(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(1)
    middle = NodeAgent("127.0.0.1", (0, 0), is_dialable=False)
    leg.scan(source)
    target = leg.allow(0, tmp_path / "t")
    secret = {"transfer": leg.transfer, "secret": leg.secret.hex(), "targets": []}
    feeder = leg.source.call("allow", secret)
    middle.call("allow", secret)
    middle.call(
        "bridge",
        {
            "transfer": leg.transfer,
            "bridge": "b" * 32,
            "index": 0,
            "feeder": feeder["endpoints"],
            "taker": target["endpoints"],
        },
    )
    time.sleep(0.1)  # The bridge stands before there is anything to send.
    leg.send([leg.row(0, mode="await", endpoints=[])])
    status = leg.ended()
    middle.close()
    assert verdicts(status) == ["verified"]
    assert (tmp_path / "t").read_bytes() == source.read_bytes()


def test_a_source_that_changes_under_way_is_delivered_to_nobody(
    make_leg: MakeLeg, source: Path, tmp_path: Path
) -> None:
    leg = make_leg(2)
    leg.scan(source)
    for place in range(2):
        leg.allow(place, tmp_path / "out" / f"t{place}")
    leg.send(rate_limit=4_000_000)
    begun(leg, 1, 300_000)
    with source.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"changed")
    status = leg.ended()
    assert verdicts(status) == ["failed", "failed"]
    assert "changed" in status["error"]
    assert not (tmp_path / "out" / "t0").exists()


def test_both_sides_may_dial_the_bridge(make_leg: MakeLeg, source: Path, tmp_path: Path) -> None:
    leg = make_leg(1)
    middle = NodeAgent("127.0.0.1", (0, 0))
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    secret = {"transfer": leg.transfer, "secret": leg.secret.hex(), "targets": []}
    meeting = {"transfer": leg.transfer, "bridge": "b" * 32, "index": 0}
    middle.call("allow", secret)
    hello = middle.call("bridge", {**meeting, "feeder": None, "taker": None})
    leg.send([leg.row(0, mode="tunnel", endpoints=hello["endpoints"], bridge="b" * 32)])
    leg.targets[0].call("dial", {**meeting, "endpoints": hello["endpoints"]})
    status = leg.ended()
    middle.close()
    assert verdicts(status) == ["verified"]
    assert (tmp_path / "t").read_bytes() == source.read_bytes()
