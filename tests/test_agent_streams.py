"""Files on their way from agent to agent, and everything that can happen to them there."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_lab import Leg, verdicts
from agent_processes import AgentProcess, Meddler

from castray_tui.agent import node_agent, wire
from castray_tui.agent.node_agent import NodeAgent
from castray_tui.agent.part_file import PartFile
from castray_tui.agent.refusals import OrderRefusedError

Json = dict[str, Any]
MIB = 1024 * 1024
CHUNK = 256 * 1024


@pytest.fixture
def made() -> Iterator[list[Any]]:
    """What is closed at the end of the test."""
    things: list[Any] = []
    yield things
    for thing in things:
        thing.close()


@pytest.fixture
def leg(made: list[Any]) -> Leg:
    """One target."""
    made.append(Leg())
    return made[-1]


def star(made: list[Any], targets: int) -> Leg:
    """Targets that the source feeds itself."""
    made.append(Leg(targets, [-1] * targets))
    return made[-1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "src"
    path.write_bytes(os.urandom(3 * MIB + 11))
    return path


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def wait_until(is_true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def row_of(status: Json, place: int = 0) -> Json:
    return dict(next(row for row in status["targets"] if row["index"] == place))


def begun(leg: Leg, *places: int, least_bytes: int = 1) -> None:
    """Waits until targets have something."""

    def have_some(status: Json) -> bool:
        return all(row_of(status, place).get("bytes", 0) >= least_bytes for place in places)

    leg.until(have_some)


def nothing_left(folder: Path) -> bool:
    return not list(folder.rglob(".castray*"))


@pytest.mark.parametrize("mode", ["dial", "await"])
@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_any_size_arrives_whole_whoever_dials(
    leg: Leg, tmp_path: Path, size: int, mode: str
) -> None:
    source = tmp_path / "src"
    source.write_bytes(os.urandom(size))
    source.chmod(0o640)
    leg.scan(source)
    leg.allow(0, tmp_path / "dst")
    leg.send([leg.row(0, mode=mode, endpoints=leg.row(0)["endpoints"] if mode == "dial" else [])])
    if mode == "await":
        endpoints = leg.source.call("hello", {})["endpoints"]
        order = {"transfer": leg.transfer, "index": 0, "endpoints": endpoints}
        leg.targets[0].call("dial", order)
    row = row_of(leg.ended())
    assert row["verdict"] == "verified"
    assert row["digest"] == digest(source) == digest(tmp_path / "dst")
    assert row["bytes"] == size
    assert (tmp_path / "dst").stat().st_mode & 0o777 == 0o640


def test_many_targets_are_fed_at_once(made: list[Any], source: Path, tmp_path: Path) -> None:
    targets = [tmp_path / f"dst{number}" for number in range(8)]
    assert verdicts(star(made, 8).cast(source, *targets)) == ["verified"] * 8
    assert {digest(path) for path in targets} == {digest(source)}


def test_a_slow_target_costs_the_others_nothing(
    made: list[Any], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_end = threading.Event()
    original = PartFile.write_at

    def slow(self: PartFile, offset: int, view: memoryview) -> None:
        if self.path.endswith("slow"):
            slow_end.wait(20)
        original(self, offset, view)

    monkeypatch.setattr(PartFile, "write_at", slow)
    source.write_bytes(os.urandom(24 * MIB))
    leg = star(made, 2)
    leg.scan(source)
    leg.allow(0, tmp_path / "slow")
    leg.allow(1, tmp_path / "fast")
    leg.send()
    status = leg.until(lambda status: row_of(status, 1)["verdict"] == "verified")
    assert row_of(status, 0)["verdict"] is None
    slow_end.set()
    assert verdicts(leg.ended()) == ["verified"] * 2
    assert digest(tmp_path / "slow") == digest(tmp_path / "fast") == digest(source)


def test_one_target_that_fails_costs_the_others_nothing(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    status = star(made, 2).cast(source, tmp_path / "file" / "x", tmp_path / "good")
    assert verdicts(status) == ["failed", "verified"]
    assert "Not a directory" in row_of(status)["reason"]


def grow(source: Path) -> None:
    with source.open("ab") as file:
        file.write(b"more")


def shrink(source: Path) -> None:
    os.truncate(source, MIB)


def replace(source: Path) -> None:
    other = source.with_name("other")
    other.write_bytes(source.read_bytes())
    other.replace(source)


def touch(source: Path) -> None:
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("change", [grow, shrink, replace, touch])
def test_a_source_that_changes_while_it_is_read_is_not_delivered(
    leg: Leg,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(node_agent, "_READ_AHEAD_BYTES", 2 * CHUNK)
    leg.scan(source)
    leg.allow(0, tmp_path / "new" / "dst")
    leg.send(rate_limit=4 * MIB)
    begun(leg, 0)
    change(source)
    status = leg.ended()
    row = row_of(status)
    assert row["verdict"] == "failed"
    assert f"{source} changed while it was read" in row["reason"]
    assert status["error"]
    wait_until(lambda: not (tmp_path / "new").exists())


def test_a_source_that_changed_since_the_plan_is_not_begun(
    leg: Leg, source: Path, tmp_path: Path
) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "dst")
    planned = leg.scanned["token"]
    source.write_bytes(b"another")
    leg.scan(source)
    with pytest.raises(OrderRefusedError, match="changed since the plan"):
        leg.send(token=planned)


# In the handshake, in the first message, in a chunk's head or content, near the end.
@pytest.mark.parametrize("at_byte", [100, 300, 500, 1_000_000, 3 * MIB])
def test_a_byte_that_is_flipped_on_its_way_is_repaired(
    leg: Leg, made: list[Any], source: Path, tmp_path: Path, at_byte: int
) -> None:
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "dst")
    made.append(Meddler(hello["endpoints"][0], flip_at=at_byte))
    leg.send([leg.row(0, endpoints=[made[-1].endpoint])])
    row = row_of(leg.ended())
    assert made[-1].flipped == 1
    assert row["verdict"] == "verified"
    assert digest(tmp_path / "dst") == digest(source)
    # Only what was in flight is fetched again; that may be all of so small a file.
    assert row["sent"] <= 2 * source.stat().st_size + CHUNK
    assert nothing_left(tmp_path)


def test_bytes_that_are_flipped_every_time_are_never_delivered(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg = star(made, 1)
    # Nobody can go around the meddler.
    leg.source = NodeAgent("127.0.0.1", (0, 0), is_dialable=False)
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "dst")
    made.append(Meddler(hello["endpoints"][0], flip_at=100_000, always=True))
    leg.send([leg.row(0, endpoints=[made[-1].endpoint])], patience_seconds=2)
    row = row_of(leg.ended())
    assert made[-1].flipped > 1
    assert (row["verdict"], row["code"]) == ("failed", "lost")
    assert row["reason"]
    assert row.get("bytes", 0) == 0
    leg.close()
    assert not (tmp_path / "dst").exists()
    assert nothing_left(tmp_path)


def test_connections_that_break_all_the_time_still_lead_to_the_end(
    leg: Leg, made: list[Any], source: Path, tmp_path: Path
) -> None:
    """Each breaks in the middle of a chunk, more often than there are buffers."""
    source.write_bytes(os.urandom(4 * MIB))
    leg.source = NodeAgent("127.0.0.1", (0, 0), is_dialable=False)
    made.append(leg.source)
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "dst")
    made.append(Meddler(hello["endpoints"][0], cut_after=CHUNK + CHUNK // 2))
    leg.send([leg.row(0, endpoints=[made[-1].endpoint])])
    row = row_of(leg.ended())
    assert row["verdict"] == "verified", row
    assert made[-1].connections > 6
    assert digest(tmp_path / "dst") == digest(source)


def test_a_feeder_that_comes_again_waits_for_what_the_last_one_left(
    leg: Leg, made: list[Any], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is being written when its connection breaks is not taken in twice."""
    held, go_on = threading.Event(), threading.Event()
    original = PartFile.write_at

    def slow(self: PartFile, offset: int, view: memoryview) -> None:
        if offset == 4 * CHUNK and not held.is_set():
            held.set()
            go_on.wait(20)
        original(self, offset, view)

    monkeypatch.setattr(PartFile, "write_at", slow)
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "dst")
    made.append(Meddler(hello["endpoints"][0]))
    leg.send([leg.row(0, endpoints=[made[-1].endpoint])])
    assert held.wait(20)
    made[-1].cut()
    member = leg.targets[0]._transfers[leg.transfer].targets[0]
    wait_until(lambda: member._fed_times == 2)
    time.sleep(0.3)  # Time enough for the second to begin, if nothing kept it.
    go_on.set()
    assert row_of(leg.ended())["verdict"] == "verified"
    assert digest(tmp_path / "dst") == digest(source)


def test_cancelling_is_heard_at_the_target(made: list[Any], source: Path, tmp_path: Path) -> None:
    leg = star(made, 2)
    (tmp_path / "dst").write_bytes(b"before")
    leg.scan(source)
    leg.allow(0, tmp_path / "dst")
    leg.allow(1, tmp_path / "new" / "dst")
    leg.send(rate_limit=MIB)
    begun(leg, 0, 1)
    leg.source.call("cancel", {"transfer": leg.transfer})
    assert verdicts(leg.ended()) == ["cancelled"] * 2
    wait_until(lambda: not any(agent.call("idle", {})["busy"] for agent in leg.targets))
    assert (tmp_path / "dst").read_bytes() == b"before"
    assert not (tmp_path / "new").exists()


def test_cancelling_does_not_wait_for_a_slow_rate(leg: Leg, source: Path, tmp_path: Path) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "new" / "dst")
    leg.send(link_rate_limit=CHUNK // 30)  # A chunk takes half a minute.
    begun(leg, 0)
    leg.source.call("cancel", {"transfer": leg.transfer})
    began = time.monotonic()
    assert verdicts(leg.ended()) == ["cancelled"]
    wait_until(lambda: not (tmp_path / "new").exists(), 2)
    assert time.monotonic() - began < 2.5


def test_cancelling_does_not_wait_for_a_target_that_never_dialed(
    leg: Leg, source: Path, tmp_path: Path
) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "dst")
    leg.send([leg.row(0, mode="await", endpoints=[])], patience_seconds=60)
    leg.source.call("cancel", {"transfer": leg.transfer})
    assert verdicts(leg.ended(5)) == ["cancelled"]
    member = leg.source._transfers[leg.transfer].source
    assert member is not None
    wait_until(lambda: all(feed.is_ended for feed in member._feeds), 5)


def test_a_policy_of_never_holds_to_the_last_moment(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    leg = star(made, 2)
    leg.scan(source)
    leg.allow(0, tmp_path / "mine", overwrite="never")
    leg.allow(1, tmp_path / "same", overwrite="never")
    leg.send(rate_limit=8 * MIB)
    begun(leg, 0, 1)
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "same").write_bytes(source.read_bytes())
    status = leg.ended()
    mine, same = row_of(status, 0), row_of(status, 1)
    assert (mine["verdict"], mine["code"]) == ("failed", "exists")
    assert same["verdict"] == "identical"
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert nothing_left(tmp_path)


def test_a_target_that_nobody_ordered_is_not_written(
    leg: Leg, source: Path, tmp_path: Path
) -> None:
    leg.scan(source)
    hello = leg.allow(0, tmp_path / "dst")
    endpoint = [(str(host), int(port)) for host, port in hello["endpoints"]]
    channel = wire.dial(endpoint, leg.secret, wire.DATA, bytes.fromhex(leg.transfer))
    channel.send({"role": "feeder", "index": 1})
    with pytest.raises((wire.WireError, OSError)):
        channel.receive_message()
    channel.close()
    leg.targets[0].call("drop", {"transfer": leg.transfer, "indexes": [0]})
    leg.targets[0].call("forget", {"transfer": leg.transfer})
    with pytest.raises(wire.StrangerError):
        wire.dial(endpoint, leg.secret, wire.DATA, bytes.fromhex(leg.transfer))


@pytest.mark.parametrize("limit", ["rate_limit", "link_rate_limit"])
def test_the_rate_limit_is_kept(leg: Leg, source: Path, tmp_path: Path, limit: str) -> None:
    source.write_bytes(os.urandom(2 * MIB))
    began = time.monotonic()
    leg.cast(source, tmp_path / "dst", **{limit: 2 * MIB})
    assert 0.8 < time.monotonic() - began < 3


def test_kill_9_of_the_sender_leaves_no_file(
    leg: Leg, made: list[Any], source: Path, tmp_path: Path
) -> None:
    sender = AgentProcess()
    made.append(sender)
    leg.source = sender  # type: ignore[assignment]  # It is used in the same way.
    leg.scan(source)
    leg.allow(0, tmp_path / "new" / "dst")
    leg.send(rate_limit=MIB, patience_seconds=1)
    begun(leg, 0)
    sender.kill()
    member = leg.targets[0]._transfers[leg.transfer].targets[0]
    wait_until(lambda: member.content.row()["code"] == "lost")
    assert not (tmp_path / "new" / "dst").exists()
    # What is there waits for another attempt, and goes with its agent.
    assert member.content.taken_bytes > 0
    leg.targets[0].close()
    assert not (tmp_path / "new").exists()


def test_kill_9_of_the_receiver_leaves_no_file_and_a_verdict(
    leg: Leg, made: list[Any], source: Path, tmp_path: Path
) -> None:
    receiver = AgentProcess()
    made.append(receiver)
    leg.targets[0] = receiver  # type: ignore[call-overload]  # It is used in the same way.
    leg.scan(source)
    leg.allow(0, tmp_path / "new" / "dst")
    leg.send(rate_limit=MIB)
    begun(leg, 0)
    receiver.kill()
    row = row_of(leg.ended())
    assert (row["verdict"], row["code"]) == ("failed", "lost")
    assert row["reason"]
    # The janitor outlives it.
    wait_until(lambda: not (tmp_path / "new").exists())


def test_memory_does_not_grow_with_the_file(made: list[Any], tmp_path: Path) -> None:
    """A source, a relay and a leaf."""
    source = tmp_path / "big"
    block = os.urandom(4 * MIB)
    with source.open("wb") as file:
        for _ in range(160):
            file.write(block)
    leg = Leg(2)
    agents = [AgentProcess() for _ in range(3)]
    made.extend(agents)
    leg.source, leg.targets = agents[0], agents[1:]  # type: ignore[assignment]
    leg.chunk_bytes = 4 * MIB
    leg.scan(source)
    for place in range(2):
        leg.allow(place, tmp_path / f"dst{place}")
    idle = [agent.anonymous_bytes() for agent in agents]
    most = list(idle)
    leg.send()
    done = False
    while not done:
        done = leg.source.call("status", {"transfer": leg.transfer, "wait": True})["done"]
        most = [max(now, agent.anonymous_bytes()) for now, agent in zip(most, agents, strict=True)]
    assert verdicts(leg.status()) == ["verified"] * 2
    grown = [now - before for now, before in zip(most, idle, strict=True)]
    assert max(grown) < 64 * MIB, grown
    assert (tmp_path / "dst1").stat().st_size == 160 * 4 * MIB


def test_nothing_is_left_open_by_many_transfers(
    made: list[Any], source: Path, tmp_path: Path
) -> None:
    """Whole, cancelled, failed and broken ones: descriptors and threads come back."""
    (tmp_path / "file").touch()
    agents = Leg(2)
    made.append(agents)
    meddler = Meddler(agents.targets[0].call("hello", {})["endpoints"][0], cut_after=CHUNK * 5)
    made.append(meddler)

    def one(turn: int) -> None:
        leg = Leg(2)
        leg.source, leg.targets = agents.source, agents.targets
        leg.scan(source)
        for place in range(2):
            is_bad = turn % 4 == 1 and place == 0
            leg.allow(place, tmp_path / ("file/x" if is_bad else f"dst{place}"))
        tree = [leg.row(0), leg.row(1)]
        if turn % 4 == 2:
            tree[0]["endpoints"] = [meddler.endpoint]
        leg.send(tree, rate_limit=4 * MIB if turn % 4 == 3 else 0)
        if turn % 4 == 3:
            begun(leg, 1)
            leg.source.call("cancel", {"transfer": leg.transfer})
        leg.ended()
        for agent in (leg.source, *leg.targets):
            agent.call("forget", {"transfer": leg.transfer})

    def left() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        found = [name for name in names if name.startswith("castray-")]
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(fd.readlink()).partition(":[")[0])
        return sorted(found)

    for turn in range(4):
        one(turn)
    time.sleep(1)
    before = left()
    for turn in range(20):
        one(turn)
    deadline = time.monotonic() + 10
    # A cut connection may still be on its way out.
    while len(left()) > len(before):
        more = collections.Counter(left()) - collections.Counter(before)
        assert time.monotonic() < deadline, dict(more)
        time.sleep(0.05)
