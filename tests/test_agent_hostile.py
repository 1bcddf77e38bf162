"""Peers that hold a leg's secret and say what makes no sense, or what is not theirs to say."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_lab import Leg, verdicts

from castray_tui.agent import branches, content, rows, wire

Json = dict[str, Any]
CHUNK = 256 * 1024
SIZE = 4 * CHUNK


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def leg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leg]:
    """One that loses patience sooner than usual."""
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(wire, "PING_SECONDS", 0.4)
    made = Leg()
    yield made
    made.close()


def row_of(status: Json, place: int) -> Json:
    return dict(next(row for row in status["targets"] if row["index"] == place))


OPENING: Json = {
    "above": [],
    "feeder": -1,
    "patience": 5,
    "link_rate": 0,
    "epoch": 0,
    "below": [],
}


def fed_by_hand(leg: Leg, opening: Json) -> wire.Channel:
    """A connection to the target as a feeder that has said its opening."""
    endpoints = leg.targets[0].call("hello", {})["endpoints"]
    channel = wire.dial(
        [(host, port) for host, port in endpoints],
        leg.secret,
        wire.DATA,
        bytes.fromhex(leg.transfer),
    )
    channel.send({"role": "feeder", "index": 0})
    channel.send(opening)
    return channel


def is_hung_up_on(channel: wire.Channel) -> bool:
    """Whether the other side closes within a few seconds."""
    channel.sock.settimeout(5)
    try:
        while True:
            channel.receive()
    except TimeoutError:
        return False
    except (OSError, wire.WireError):
        return True


def head_of(payload: bytes, number: int = 0) -> bytes:
    return content.pack_head([(number, hashlib.sha256(payload).digest())])


def chunk(number: int, head: bytes, payload: bytes) -> Callable[[wire.Channel], None]:
    return lambda channel: channel.send_chunk(number, head, memoryview(payload))


@pytest.mark.parametrize(
    "say",
    [
        chunk(1, head_of(bytes(CHUNK)), bytes(CHUNK)),
        chunk(1 << 60, head_of(bytes(CHUNK)), bytes(CHUNK)),
        chunk(0, head_of(bytes(CHUNK), 7), bytes(CHUNK)),
        chunk(0, head_of(bytes(CHUNK)) * 2, bytes(CHUNK)),
        chunk(0, b"", bytes(CHUNK)),
        chunk(0, b"what", bytes(CHUNK)),
        chunk(0, head_of(bytes(CHUNK)), bytes(CHUNK - 1)),
        chunk(0, head_of(b"another"), bytes(CHUNK)),
        lambda channel: channel.send_hole(0, head_of(b"no hole"), CHUNK),
        lambda channel: channel.send({"final": "sha256:00"}),
        lambda channel: channel.send({"restart": 1}),
        lambda channel: channel.send({"dance": 1}),
    ],
)
def test_a_feeder_that_makes_no_sense_is_hung_up_on_and_the_next_is_listened_to(
    leg: Leg, source: Path, tmp_path: Path, say: Callable[[wire.Channel], None]
) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    channel = fed_by_hand(leg, OPENING)
    assert channel.receive_message()["want"] == 0
    with contextlib.suppress(OSError):
        say(channel)
    assert is_hung_up_on(channel)
    channel.close()
    leg.send()
    assert verdicts(leg.ended()) == ["verified"]
    assert (tmp_path / "t").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "opening",
    [
        {},
        {"epoch": "many"},
        dict(OPENING, patience=None),
        dict(OPENING, below=[{"no": "row"}]),
        dict(OPENING, below=7),
        dict(OPENING, epoch=[1]),
    ],
)
def test_an_opening_that_makes_no_sense_costs_nothing(
    leg: Leg, source: Path, tmp_path: Path, opening: Json
) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    channel = fed_by_hand(leg, opening)
    assert is_hung_up_on(channel)
    channel.close()
    leg.send()
    assert verdicts(leg.ended()) == ["verified"]


def test_content_that_is_whole_but_not_what_was_sent_is_not_published(
    leg: Leg, source: Path, tmp_path: Path
) -> None:
    """A feeder whose last word is not what arrived."""
    leg.scan(source)
    leg.allow(0, tmp_path / "new" / "t")
    channel = fed_by_hand(leg, OPENING)
    channel.receive_message()
    hasher = hashlib.sha256()
    for number in range(4):
        hasher.update(bytes(CHUNK))
        channel.send_chunk(
            number, content.pack_head([(0, hasher.digest())]), memoryview(bytes(CHUNK))
        )
    channel.send({"final": "sha256:" + "0" * 64})
    assert is_hung_up_on(channel)
    channel.close()
    assert not (tmp_path / "new").exists()


class FalseTarget:
    """Listens as a target's agent would and says what the test wants.

    Args:
        leg: Whose secret it holds.
        replies: What it says once it was greeted, before it takes in anything.
    """

    def __init__(self, leg: Leg, replies: list[Json]) -> None:
        self._leg = leg
        self._replies = replies
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoints = [list(self._server.getsockname())]
        self.connections = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        channel, _, _ = wire.answer_dialer(sock, lambda _, __: self._leg.secret, lambda _: True)
        with contextlib.suppress(OSError, wire.WireError), contextlib.closing(channel):
            channel.receive_message()  # who feeds
            channel.receive_message()  # its opening
            for reply in self._replies:
                channel.send(reply)
            while True:
                head = channel.receive()
                if isinstance(head, wire.ChunkHead) and not head.is_hole:
                    wire.receive_exactly(channel.sock, memoryview(bytearray(head.length)))

    def close(self) -> None:
        self._server.close()


def send_to(leg: Leg, liar: FalseTarget, source: Path, target: Path) -> Json:
    """To the liar (index 1) and to an honest target (index 0) beside it; the last status."""
    leg.scan(source)
    leg.allow(0, target)
    tree = [
        leg.row(0),
        {"index": 1, "parent": -1, "mode": "dial", "endpoints": liar.endpoints},
    ]
    leg.send(tree, patience_seconds=1, rate_limit=2_000_000)
    status = leg.ended(30)
    liar.close()
    return status


WANT: Json = {"want": 0, "skip": ""}


@pytest.mark.parametrize(
    "replies",
    [
        [{}],
        [{"want": 99, "skip": ""}],
        [{"want": -1, "skip": ""}],
        [{"want": "all", "skip": ""}],
        [{"want": 0}],
        [{"want": 0, "skip": 7}],
        [{"want": 0, "skip": "%"}],
        [{"want": 0, "skip": "aGVsbG8="}],
        [{"want": 0, "skip": content.pack_numbers({10_000_000})}],
        [{"rows": 7}],
        [{"rows": [{"index": 0, "verdict": "failed", "code": "x", "reason": "y"}]}],
        [WANT, {"rows": [{"index": 0, "verdict": "failed", "code": "x", "reason": "y"}]}],
        [WANT, {"rows": [{"index": 0, "verdict": "verified", "digest": "sha256:1"}]}],
        [WANT, {"rows": [{"index": 1, "verdict": "verified", "digest": "sha256:1"}]}],
        [WANT, {"rows": [{"index": 5, "verdict": None, "bytes": 1}]}],
        [WANT, {"rows": [{"index": 1, "verdict": "splendid"}]}],
        [WANT, {"rows": [{"index": 1, "bytes": "many"}]}],
        [WANT, {"rows": [{"index": 1, "bytes": -(1 << 70)}]}],
        [WANT, {"rows": [{}]}],
        [WANT, {"rows": [7]}],
        [WANT, {"rows": {"index": 1}}],
        [WANT, {"damaged": "all"}],
        [WANT, {"damaged": 1 << 70}],
        [WANT, {"bye": 1}],
        [{"taken": 1}],
    ],
)
def test_a_target_that_lies_harms_only_itself(
    leg: Leg, source: Path, tmp_path: Path, replies: list[Json]
) -> None:
    status = send_to(leg, FalseTarget(leg, replies), source, tmp_path / "t")
    assert sorted(row["index"] for row in status["targets"]) == [0, 1]
    honest = row_of(status, 0)
    assert honest["verdict"] == "verified", status
    assert honest["digest"] == status["digest"]
    assert (tmp_path / "t").read_bytes() == source.read_bytes()
    assert row_of(status, 1)["verdict"] == "failed"


@pytest.mark.parametrize("reply", [{}, {"want": 99, "skip": ""}, {"rows": []}])
def test_a_target_that_lies_is_not_asked_all_the_time(
    leg: Leg, source: Path, tmp_path: Path, reply: Json
) -> None:
    liar = FalseTarget(leg, [reply])
    send_to(leg, liar, source, tmp_path / "t")
    assert liar.connections < 10


def test_a_target_that_nobody_named_is_not_fed(leg: Leg, source: Path, tmp_path: Path) -> None:
    leg.scan(source)
    leg.allow(0, tmp_path / "t")
    leg.send(rate_limit=500_000)
    endpoints = leg.source.call("hello", {})["endpoints"]
    places = [(host, port) for host, port in endpoints]
    channel = wire.dial(places, leg.secret, wire.DATA, bytes.fromhex(leg.transfer))
    channel.send({"role": "taker", "index": 77, "epoch": 0})
    assert is_hung_up_on(channel)
    channel.close()
    assert [row["index"] for row in leg.status()["targets"]] == [0]


@pytest.mark.parametrize(
    "hello",
    [
        {},
        {"role": "feeder"},
        {"role": "feeder", "index": [1]},
        {"role": "taker"},
        {"role": "taker", "index": "x", "epoch": 0},
        {"role": "bridge"},
        {"role": "bridge", "bridge": "none", "side": "feeder"},
        {"role": "tunnel"},
        {"role": "probe"},
        {"role": "probe", "bytes": "all"},
        {"role": "dance"},
    ],
)
def test_a_greeting_that_makes_no_sense_costs_nothing(
    leg: Leg, source: Path, tmp_path: Path, hello: Json
) -> None:
    leg.scan(source)
    places = [(host, port) for host, port in leg.allow(0, tmp_path / "t")["endpoints"]]
    channel = wire.dial(places, leg.secret, wire.DATA, bytes.fromhex(leg.transfer))
    channel.send(hello)
    assert is_hung_up_on(channel)
    channel.close()
    deadline = time.monotonic() + 5
    while leg.targets[0].call("idle", {})["busy"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("numbers", [set(), {0}, {7, 8, 9}, {999}, set(range(0, 1000, 3))])
def test_numbers_are_packed_and_unpacked(numbers: set[int]) -> None:
    assert content.unpack_numbers(content.pack_numbers(numbers), 1000) == numbers


def test_many_numbers_fit_into_a_message() -> None:
    packed = content.pack_numbers(set(range(0, 1_000_000, 2)))
    assert len(packed) < wire.DATA_JSON_LIMIT_BYTES // 8


def test_rows_are_cut_to_what_belongs_into_them() -> None:
    row = rows.checked(
        {
            "index": 3,
            "bytes": 5,
            "verdict": "failed",
            "code": "c" * 1000,
            "reason": "r" * 100_000,
            "digest": None,
            "seconds": 1,
            "extra": ["x"] * 1000,
        }
    )
    assert row == {
        "index": 3,
        "bytes": 5,
        "verdict": "failed",
        "code": "c" * 50,
        "reason": "r" * 1000,
        "digest": None,
        "seconds": 1.0,
    }


def test_spans_hold_exactly_those_below() -> None:
    parents = [-1, 0, 0, -1, 1, 3, 4, 2]
    tree = [{"index": 10 + place, "parent": parent} for place, parent in enumerate(parents)]
    found = branches.spans(tree)

    def is_below(place: int, top: int) -> bool:
        return place == top or (place >= 0 and is_below(parents[place], top))

    for top in range(len(parents)):
        first, end = found[10 + top]
        inside = {place for place in range(len(parents)) if first <= found[10 + place][0] < end}
        assert inside == {place for place in range(len(parents)) if is_below(place, top)}
