"""Clusters of castray's own: they start on free ports, and end without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import StartCluster

from castray_tui.core.errors import CastrayError
from castray_tui.core.own_cluster import OwnCluster

pytestmark = pytest.mark.ray


async def test_stopping_one_leaves_the_other_and_no_trace(start_cluster: StartCluster) -> None:
    stays, goes = await asyncio.gather(start_cluster(), start_cluster(node_count=2))
    going = await goes.process_ids()
    staying = await stays.process_ids()
    assert going
    assert not set(going) & set(staying)

    await goes.stop()

    assert not [pid for pid in going if psutil.pid_exists(pid)]
    assert not Path(goes.temp_dir).exists()
    assert set(staying) <= set(await stays.process_ids())


async def test_ends_with_the_process_that_started_it_even_when_that_is_killed(
    start_cluster: StartCluster,
) -> None:
    cluster = await start_cluster()
    pids = await cluster.process_ids()
    # What a dead castray looks like to the keeper: the other end of its input is closed.
    assert cluster._keeper.stdin is not None
    cluster._keeper.stdin.close()
    await cluster._keeper.wait()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not Path(cluster.temp_dir).exists()


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    no_ray = tmp_path / "python"
    no_ray.write_text("#!/bin/sh\necho no ray here\nexit 7\n")
    no_ray.chmod(0o755)
    with pytest.raises(CastrayError, match=r"exited 7: no ray here"):
        await OwnCluster.start(python=str(no_ray))


async def test_stop_in_the_middle_of_a_start_is_prompt(tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    starting = asyncio.create_task(OwnCluster.start(python=str(slow)))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    before = time.monotonic()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert time.monotonic() - before < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
