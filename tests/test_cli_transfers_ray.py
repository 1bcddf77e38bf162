"""Transfers by command over a real Ray cluster: sources, orders, the background, a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from castray_process import castray, command, environment
from conftest import StartCluster

from castray_tui.core.own_cluster import OwnCluster

pyte = pytest.importorskip("pyte")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SLOW = ("--rate-limit", "2MB")
IDLE_SECONDS = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(module_clusters: StartCluster) -> AsyncIterator[OwnCluster]:
    """Two nodes of castray's own Ray."""
    # Ray takes a token into use by itself where whoever runs the tests has one.
    yield await module_clusters(node_count=2, environment={"RAY_AUTH_MODE": "disabled"})


@pytest.fixture(autouse=True)
def named(cluster: OwnCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster by name in a configuration beside the command."""
    (tmp_path / "castray.toml").write_text(
        f"[transfer]\nagent_idle_time = {IDLE_SECONDS}\n"
        f'[[clusters]]\nname = "lab"\naddress = "{cluster.dashboard_address}"\n'
    )
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Takes a minute at the rate limit of these tests."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(120_000_000))
    return path


def transfers(*words: str) -> list[Any]:
    listed: list[Any] = castray("transfers", *words, "--json").json["transfers"]
    return listed


def wait_for_state(*states: str) -> Any:
    """The newest transfer, once it is in one of these states."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        listed = transfers("--limit", "1")
        if listed and listed[0]["state"] in states:
            return listed[0]
        time.sleep(0.2)
    raise AssertionError(f"{listed} is not {states}")


def worker_address() -> str:
    nodes = castray("nodes", "lab", "--json").json["nodes"]
    return next(f"lab/{n['name']}" for n in nodes if n["type"] == "external" and not n["is_head"])


# --- what is sent -----------------------------------------------------------------------------


def test_folders_and_several_sources(source: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "kept.txt").write_text("kept")
    (tree / "left.log").write_text("left")
    (tree / "needed.log").write_text("needed")
    (tree / "link").symlink_to("deep/kept.txt")
    words = ("--exclude", "*.log", "--include", "needed.log")
    sent = castray("cp", "tree", str(source), f"lab/head:{tmp_path}/out/", *words, "--json")
    assert sent.code == 0, sent.err
    out = tmp_path / "out"
    assert (out / source.name).read_bytes() == source.read_bytes()
    assert (out / "tree" / "deep" / "kept.txt").read_text() == "kept"
    assert (out / "tree" / "needed.log").exists()
    assert not (out / "tree" / "left.log").exists()
    assert (out / "tree" / "link").readlink() == Path("deep/kept.txt")
    (out / "tree" / "deep" / "old.txt").write_text("old")
    again = castray("cp", "tree", f"lab/head:{out}/", *words, "--json")
    assert again.json["targets"][0]["verdict"] == "identical", again.out
    assert (out / "tree" / "deep" / "old.txt").exists()
    (out / "tree" / "kept.log").write_text("left out")
    cleared = castray("cp", "tree", f"lab/head:{out}/", *words, "--delete", "--json")
    assert cleared.code == 0, cleared.out
    assert not (out / "tree" / "deep" / "old.txt").exists()
    assert (out / "tree" / "kept.log").exists()
    assert (out / source.name).exists()
    refused = castray("cp", "tree", f"lab/head:{tmp_path}/other/", "--links", "refuse", "--json")
    assert refused.code == 1
    assert "link" in refused.err
    assert not (tmp_path / "other").exists()


def test_gathering_gives_each_node_a_folder(source: Path, tmp_path: Path) -> None:
    gathered = castray("cp", f"lab/*:{source}", f"{tmp_path}/home/", "--json")
    assert gathered.code == 0, gathered.err
    assert [each["verdict"] for each in gathered.json["targets"]] == ["verified", "verified"]
    assert len({each["source"] for each in gathered.json["targets"]}) == 2
    found = sorted((tmp_path / "home").glob(f"*/{source.name}"))
    assert len(found) == 2
    assert all(path.read_bytes() == source.read_bytes() for path in found)
    shown = castray("transfers", gathered.json["id"][:8])
    assert "→" in shown.out
    assert "sha256:" in shown.out


def test_a_dry_run_prints_the_plan(source: Path, tmp_path: Path) -> None:
    targets = (f"lab/*:{tmp_path}/x/", "--to", f"lab/head:{source}/no")
    told = castray("cp", str(source), *targets, "--dry-run")
    assert told.code == 3, told.err
    assert "route" in told.out
    assert "refuse" in told.out
    assert "3 targets, 2 to send, 1 refused" in told.out
    assert not (tmp_path / "x").exists()


# --- the second command -----------------------------------------------------------------------


def test_a_second_command_goes_straight_to_the_agents(
    source: Path, tmp_path: Path, own_home: Path
) -> None:
    """It does not connect to the cluster before it sends, and makes no new coordinator."""

    def connections() -> int:
        with contextlib.closing(sqlite3.connect(journal)) as opened:
            query = "SELECT count(*) FROM events WHERE type = 'cluster_connected'"
            return int(opened.execute(query).fetchone()[0])

    journal = own_home / "state" / "castray" / "journal.sqlite3"
    first = castray("cp", str(source), f"lab/head:{tmp_path}/one/")
    assert first.code == 0, first.err
    assert connections() == 1
    second = castray("cp", str(source), f"lab/head:{tmp_path}/two/")
    assert second.code == 0, second.err
    assert connections() == 1
    assert (tmp_path / "two" / source.name).read_bytes() == source.read_bytes()
    unknown = castray("cp", str(source), f"lab/nosuch:{tmp_path}/x", "--json")
    assert unknown.json["error"]["code"] == "not_found"


# --- orders -----------------------------------------------------------------------------------


@contextlib.contextmanager
def running_cp(*words: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        command("cp", *words, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def test_another_castray_pauses_resumes_and_cancels(large: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with running_cp(str(large), f"lab/head:{target}/", *SLOW) as running:
        transfer = wait_for_state("running")
        paused = castray("pause", transfer["id"][:8], "--json")
        assert paused.code == 0, paused.err
        assert wait_for_state("paused")["id"] == transfer["id"]
        following = subprocess.Popen(
            command("resume", transfer["id"][:8], "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert wait_for_state("running")["id"] == transfer["id"]
        cancelled = castray("cancel", transfer["id"][:8], "--json")
        assert cancelled.code == 0, cancelled.err
        assert cancelled.json["state"] == "cancelled"
        out, err = running.communicate(timeout=30)
        assert running.returncode == 1, err
        assert json.loads(out)["targets"][0]["verdict"] == "cancelled"
        followed, err = following.communicate(timeout=30)
        assert following.returncode == 1, err
        assert json.loads(followed)["state"] == "cancelled"
    assert not target.exists() or not any(target.iterdir())


def test_what_was_cancelled_is_resumed_and_what_failed_is_retried(
    source: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    targets = (f"lab/head:{tmp_path}/good/", "--to", f"lab/head:{blocked}/x")
    partial = castray("cp", str(source), *targets, "--json")
    assert partial.code == 3, partial.out
    blocked.unlink()
    again = castray("retry", partial.json["id"], "--json")
    assert again.code == 0, again.err
    assert again.json["id"] == partial.json["id"]
    assert again.json["targets"][0]["attempts"] == partial.json["targets"][0]["attempts"]
    assert (blocked / "x").read_bytes() == source.read_bytes()
    done = castray("resume", partial.json["id"])
    assert done.code == 0
    assert "Nothing is left to send" in done.err


# --- the background ---------------------------------------------------------------------------


def test_a_detached_transfer_outlives_its_terminal(large: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    ours, theirs = pty.openpty()
    # The shell's session ends with its terminal, and the background must not.
    words = ["cp", str(large), f"lab/head:{target}/", *SLOW, "--detach", "--json"]
    with subprocess.Popen(
        command(*words),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as foreground:
        out, _ = foreground.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert foreground.returncode == 0
    started = json.loads(out)
    assert started["state"] == "running"
    now = wait_for_state("running")
    assert now["id"] == started["id"]
    cancelled = castray("cancel", started["id"], "--json")
    assert cancelled.json["state"] == "cancelled"
    assert not target.exists() or not any(target.iterdir())


def test_a_detached_transfer_between_nodes_ends_by_itself(source: Path, tmp_path: Path) -> None:
    target = f"{worker_address()}:{tmp_path}/over/"
    told = castray("cp", f"lab/head:{source}", target, "--detach")
    assert told.code == 0, told.err
    assert "goes on in the background" in told.err or "done" in told.out
    assert wait_for_state("done")["targets"][0]["verdict"] == "verified"
    assert (tmp_path / "over" / source.name).read_bytes() == source.read_bytes()


def test_a_detached_refusal_is_told_in_the_foreground(tmp_path: Path) -> None:
    missing = castray("cp", f"{tmp_path}/nosuch", f"lab/head:{tmp_path}/x", "--detach", "--json")
    assert missing.code == 1
    assert "nosuch" in missing.err
    blocked = castray("cp", "castray.toml", "lab/head:/proc/no/", "--detach", "--json")
    assert blocked.code == 1
    assert blocked.json["targets"][0]["verdict"] == "failed"


# --- a terminal -------------------------------------------------------------------------------


async def test_a_terminal_shows_each_target(large: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    running = subprocess.Popen(
        command("cp", str(large), f"lab/*:{tmp_path}/out/large.bin", *SLOW),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({"TERM": "xterm-256color", "NO_COLOR": "1"}),
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        raw = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                got = os.read(ours, 65536)
                raw += got
                stream.feed(got)
            shown = "\n".join(line.rstrip() for line in screen.display).strip()
            if shown.count(" left") and shown.count("from ") == 2:
                break
            await asyncio.sleep(0.1)
        lines = shown.splitlines()
        assert lines[0].startswith("running"), shown
        assert len(lines) == 3, shown
        assert all("large.bin" in line and "%" in line for line in lines[1:])
        assert b"\x1b[3" not in raw  # NO_COLOR
        running.send_signal(signal.SIGINT)
        while running.poll() is None:
            with contextlib.suppress(BlockingIOError, OSError):
                stream.feed(os.read(ours, 65536))
            await asyncio.sleep(0.05)
        assert running.returncode == 130
    finally:
        running.kill()
        running.wait()
        os.close(ours)
