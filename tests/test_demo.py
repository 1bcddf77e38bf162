"""``castray demo``: everything for real, and nothing left behind."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from castray_process import castray, command, environment
from conftest import StartCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for all temporary files of the demo, so that what it leaves can be seen."""
    monkeypatch.chdir(tmp_path)
    folder = Path(tempfile.mkdtemp(prefix="ct", dir="/tmp"))  # short, for Ray's sockets
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in argument for argument in process.info["cmdline"] or ()):
            found.append(" ".join(process.info["cmdline"])[:200])
    return found


async def test_headless_walks_through_and_leaves_nothing(
    temp_folder: Path, start_cluster: StartCluster
) -> None:
    bystander = await start_cluster()
    before = await bystander.process_ids()
    ran = castray("demo", "--headless", env={"TMPDIR": str(temp_folder)}, timeout=200)
    assert ran.code == 0, ran.out + ran.err
    assert len(re.findall(r" verified ", ran.out)) == 5
    assert f"localhost-{bystander.ports.dashboard}" in ran.out
    assert list(temp_folder.iterdir()) == []
    assert processes_in(temp_folder) == []
    assert set(before) <= set(await bystander.process_ids())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing(temp_folder: Path, number: int) -> None:
    running = subprocess.Popen(
        command("demo", "--headless"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"TMPDIR": str(temp_folder)}),
    )
    assert running.stdout is not None
    line = running.stdout.readline()
    assert "Starting" in line
    # Once Ray's own files appear, there is something that could be left behind.
    while not list(temp_folder.glob("castray-ray-*/session_*")):
        try:
            running.wait(0.1)
            raise AssertionError("the demo ended too early")
        except subprocess.TimeoutExpired:
            continue
    running.send_signal(number)
    out, err = running.communicate(timeout=90)
    assert running.returncode == 128 + number, out + err
    assert list(temp_folder.iterdir()) == []
    assert processes_in(temp_folder) == []


def test_the_demo_with_a_screen_needs_a_terminal(temp_folder: Path) -> None:
    ran = castray("demo", env={"TMPDIR": str(temp_folder)})
    assert ran.code == 2
    assert "--headless" in ran.err
    assert list(temp_folder.iterdir()) == []
