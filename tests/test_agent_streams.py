"""Files on their way from agent to agent, and everything that can happen to them there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_lab import Pair, wait_until

from castray_tui.agent import wire
from castray_tui.agent.refusals import OrderRefusedError

MIB = 1024 * 1024


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "src"
    path.write_bytes(os.urandom(3 * MIB + 11))
    return path


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mode", ["dial", "await"])
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, MIB])
def test_any_size_arrives_whole_whoever_dials(
    pair: Pair, tmp_path: Path, size: int, mode: str
) -> None:
    source = tmp_path / "src"
    source.write_bytes(os.urandom(size))
    pair.send(source, tmp_path / "dst", mode=mode)
    (target,) = pair.ended()
    assert target["verdict"] == "verified"
    assert target["digest"] == digest(source) == digest(tmp_path / "dst")
    assert target["bytes"] == size


def test_many_targets_are_fed_at_once(pair: Pair, source: Path, tmp_path: Path) -> None:
    targets = [tmp_path / f"dst{number}" for number in range(8)]
    pair.send(source, *targets)
    assert [target["verdict"] for target in pair.ended()] == ["verified"] * 8
    assert {digest(path) for path in targets} == {digest(source)}


def test_a_slow_target_costs_the_others_nothing(pair: Pair, source: Path, tmp_path: Path) -> None:
    slow_end = threading.Event()
    write = "castray_tui.agent.part_file.PartFile.write"
    with pytest.MonkeyPatch.context() as patch:
        from castray_tui.agent.part_file import PartFile  # noqa: PLC0415

        original = PartFile.write

        def slow(self: PartFile, chunk: memoryview) -> None:
            if self.path.endswith("slow"):
                slow_end.wait(20)
            original(self, chunk)

        patch.setattr(write, slow)
        source.write_bytes(os.urandom(24 * MIB))
        pair.send(source, tmp_path / "slow", tmp_path / "fast")
        pair.wait_for(lambda status: status["targets"][1]["verdict"] == "verified")
        assert pair.status()["targets"][0]["verdict"] is None
        slow_end.set()
        assert [target["verdict"] for target in pair.ended()] == ["verified"] * 2
    assert digest(tmp_path / "slow") == digest(tmp_path / "fast") == digest(source)


def test_one_target_that_fails_costs_the_others_nothing(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    pair.send(source, tmp_path / "file" / "x", tmp_path / "good")
    bad, good = pair.ended()
    assert (bad["verdict"], good["verdict"]) == ("failed", "verified")
    assert "Not a directory" in bad["reason"]


def test_a_source_that_grows_shrinks_or_changes_is_not_delivered(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    def grow() -> None:
        with source.open("ab") as file:
            file.write(b"more")

    def shrink() -> None:
        os.truncate(source, MIB)

    def replace() -> None:
        (tmp_path / "other").write_bytes(source.read_bytes())
        (tmp_path / "other").replace(source)

    for change in (grow, shrink, replace):
        made = Pair()
        source.write_bytes(os.urandom(3 * MIB))
        made.send(source, tmp_path / "dst", rate_limit=4 * MIB)
        made.wait_for(lambda status: bool(status["targets"][0]["bytes"]))
        change()
        (target,) = made.ended()
        assert target["verdict"] == "failed", change
        assert "changed" in target["reason"] or "shorter" in target["reason"]
        made.close()
        wait_until(lambda: not list(tmp_path.glob(".castray*")))
        assert not (tmp_path / "dst").exists()


def test_a_source_that_changed_since_the_plan_is_not_begun(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    probe = pair.source.call("probe", {"path": str(source), "roots": []})
    pair.allow(tmp_path / "dst", size=probe["size"])
    source.write_bytes(b"another")
    with pytest.raises(OrderRefusedError, match="changed since the plan"):
        pair.source.call(
            "send",
            {
                "transfer": pair.transfer,
                "path": str(source),
                "signature": {
                    name: probe[name] for name in ("size", "mtime_ns", "inode", "device", "machine")
                },
                "mode": 0o644,
                "chunk_bytes": 65536,
                "rate_limit": 0,
                "targets": [],
            },
        )


class Meddler:
    """Stands between two agents and changes one byte of the content on its way."""

    def __init__(self, endpoint: list[object], at_byte: int) -> None:
        self._endpoint = (str(endpoint[0]), int(str(endpoint[1])))
        self._left = at_byte
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = list(self._server.getsockname())
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        one, _ = self._server.accept()
        other = socket.create_connection(self._endpoint)
        threading.Thread(target=self._pass, args=(other, one, False), daemon=True).start()
        self._pass(one, other, True)

    def _pass(self, one: socket.socket, other: socket.socket, meddles: bool) -> None:
        try:
            while data := bytearray(one.recv(65536)):
                if meddles and 0 <= self._left < len(data):
                    data[self._left] ^= 0x40
                self._left -= len(data) if meddles else 0
                other.sendall(data)
        except OSError:
            pass
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("at_byte", [100, 400, 1_000_000, 3 * MIB])
def test_a_byte_that_is_flipped_on_its_way_is_never_delivered(
    pair: Pair, source: Path, tmp_path: Path, at_byte: int
) -> None:
    hello = pair.target.call("hello", {})
    meddler = Meddler(hello["endpoints"][0], at_byte)
    pair.send(source, tmp_path / "dst", endpoints=[meddler.endpoint])
    (target,) = pair.ended()
    assert target["verdict"] == "failed"
    assert target["reason"]
    assert not (tmp_path / "dst").exists()
    wait_until(lambda: pair.target.call("idle", {})["busy"] is False)
    assert not list(tmp_path.glob(".castray*"))
    meddler.close()


def test_cancelling_is_heard_at_the_target(pair: Pair, source: Path, tmp_path: Path) -> None:
    (tmp_path / "dst").write_bytes(b"before")
    pair.send(source, tmp_path / "dst", tmp_path / "new" / "dst", rate_limit=MIB)
    pair.wait_for(lambda status: all(target["bytes"] for target in status["targets"]))
    pair.source.call("cancel", {"transfer": pair.transfer})
    assert [target["verdict"] for target in pair.ended()] == ["cancelled"] * 2
    wait_until(lambda: pair.target.call("idle", {})["busy"] is False)
    assert (tmp_path / "dst").read_bytes() == b"before"
    assert not (tmp_path / "new").exists()


def test_a_policy_of_never_holds_to_the_last_moment(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    pair.send(source, tmp_path / "mine", tmp_path / "same", overwrite="never", rate_limit=8 * MIB)
    pair.wait_for(lambda status: bool(status["targets"][0]["bytes"]))
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "same").write_bytes(source.read_bytes())
    mine, same = pair.ended()
    assert (mine["verdict"], mine["code"]) == ("failed", "exists")
    assert same["verdict"] == "identical"
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_target_that_nobody_ordered_is_not_written(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    hello = pair.allow(tmp_path / "dst", size=source.stat().st_size)
    endpoint = [(str(host), int(port)) for host, port in hello["endpoints"]]
    channel = wire.dial(endpoint, pair.secret, wire.DATA, bytes.fromhex(pair.transfer))
    channel.send({"role": "source", "index": 1})
    with pytest.raises((wire.WireError, OSError)):
        channel.receive_message()
    pair.target.call("forget", {"transfer": pair.transfer})
    with pytest.raises(wire.StrangerError):
        wire.dial(endpoint, pair.secret, wire.DATA, bytes.fromhex(pair.transfer))


def test_the_rate_limit_is_kept(pair: Pair, source: Path, tmp_path: Path) -> None:
    source.write_bytes(bytes(2 * MIB))
    started = time.monotonic()
    pair.send(source, tmp_path / "dst", rate_limit=2 * MIB)
    pair.ended()
    assert 0.8 < time.monotonic() - started < 3


SENDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent_lab import Pair
pair = Pair()
pair.transfer, pair.secret = sys.argv[2], bytes.fromhex(sys.argv[3])
pair.send(Path(sys.argv[4]), Path(sys.argv[5]), rate_limit=1024 * 1024,
          endpoints=[["127.0.0.1", int(sys.argv[6])]])
time.sleep(60)
"""


def test_kill_9_of_the_sender_leaves_no_file(pair: Pair, source: Path, tmp_path: Path) -> None:
    hello = pair.allow(tmp_path / "new" / "dst", size=source.stat().st_size)
    sender = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SENDER,
            str(Path(__file__).parent),
            pair.transfer,
            pair.secret.hex(),
            str(source),
            str(tmp_path / "new" / "dst"),
            str(hello["endpoints"][0][1]),
        ]
    )
    wait_until((tmp_path / "new").is_dir, 20)
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    wait_until(lambda: not (tmp_path / "new").exists())


RECEIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent_lab import Pair
pair = Pair()
pair.transfer, pair.secret = sys.argv[2], bytes.fromhex(sys.argv[3])
print(json.dumps(pair.allow(Path(sys.argv[4]), size=int(sys.argv[5]))["endpoints"]), flush=True)
sys.stdin.read()
"""


def test_kill_9_of_the_receiver_leaves_no_file_and_a_verdict(
    pair: Pair, source: Path, tmp_path: Path
) -> None:
    import json  # noqa: PLC0415

    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            RECEIVER,
            str(Path(__file__).parent),
            pair.transfer,
            pair.secret.hex(),
            str(folder / "dst"),
            str(source.stat().st_size),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as receiver:
        assert receiver.stdout is not None
        endpoints = json.loads(receiver.stdout.readline())
        pair.send(source, folder / "dst", rate_limit=MIB, endpoints=endpoints)
        pair.wait_for(lambda status: bool(status["targets"][0]["bytes"]))
        receiver.kill()
    (target,) = pair.ended()
    assert target["verdict"] == "failed"
    assert target["reason"]
    assert not (folder / "dst").exists()
    if not list(folder.iterdir()):
        return
    # A file system without O_TMPFILE: what stays has a temporary name and is swept later.
    assert [path.suffix for path in folder.iterdir()] == [".part"]


def test_memory_does_not_grow_with_the_file(pair: Pair, tmp_path: Path) -> None:
    import tracemalloc  # noqa: PLC0415

    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(256 * MIB)
    tracemalloc.start()
    pair.send(source, tmp_path / "dst", chunk_bytes=MIB)
    pair.ended(60)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 24 * MIB  # Both agents together.
    assert (tmp_path / "dst").stat().st_size == 256 * MIB
