"""Files between this machine and real Ray clusters of two versions; nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from conftest import StartCluster
from ray_lab import OLD_RAY
from transfer_lab import LabFleet, Published, digest, sent, service, verdicts

from castray_tui.core.errors import NotFoundError, ReadOnlyError
from castray_tui.core.models import TransferRequest
from castray_tui.core.transfer.service import TransferService
from castray_tui.core.transfer.sessions import call

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(
    module_clusters: StartCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabFleet]:
    """``old``: three nodes of the oldest Ray; ``new``: two of castray's own."""
    # A token in the home of whoever runs the tests would switch Ray's authentication on.
    home = {"HOME": str(tmp_path_factory.mktemp("home"))}
    old = await module_clusters(version=OLD_RAY, node_count=3, environment=home)
    new = await module_clusters(node_count=2, environment=home)
    made = LabFleet()
    await made.add("old", old)
    await made.add("new", new)
    yield made
    await made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source file.bin"
    path.write_bytes(os.urandom(9 * MIB + 17))
    path.chmod(0o640)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


StartService = Callable[..., tuple[TransferService, Published]]


@pytest_asyncio.fixture(loop_scope="module")
async def start(lab: LabFleet, tmp_path: Path) -> AsyncIterator[StartService]:
    """Makes transfer services that share a state folder, and closes them."""
    made: list[TransferService] = []

    def start_one(**options: Any) -> tuple[TransferService, Published]:
        one, published = service(lab, tmp_path / "state", **options)
        made.append(one)
        return one, published

    yield start_one
    await asyncio.gather(*(one.close() for one in made))


def agent_processes(lab: LabFleet) -> list[int]:
    """Coordinators and agents on the tests' own clusters; other castrays may run beside them."""
    found = []
    for keeper_pid in lab.keeper_pids:
        for process in psutil.Process(keeper_pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if "castray_agent" in words or "ray::CastrayAgent" in words:
                    found.append(process.pid)
    return found


async def all_ended(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def test_local_file_to_every_node_and_nothing_left_behind(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    before = agent_processes(lab)
    made, published = start()
    transfer = await sent(made, str(source), f"old/*:{tmp_path}/out/")
    started = [pid for pid in agent_processes(lab) if pid not in before]
    assert verdicts(transfer) == ["verified"] * 3
    assert (transfer.kind, transfer.state) == ("broadcast", "done")
    copied = tmp_path / "out" / source.name
    assert {target.digest for target in transfer.targets} == {digest(source)} == {digest(copied)}
    assert transfer.bytes_done == 3 * source.stat().st_size
    assert copied.stat().st_mode & 0o777 == 0o640
    assert copied.stat().st_mtime == 1_600_000_000
    assert [path.name for path in copied.parent.iterdir()] == [source.name]
    assert published[0].state == "planning"
    assert started

    again = await sent(made, str(source), f"old/*:{tmp_path}/out/")
    assert verdicts(again) == ["identical"] * 3
    assert sum(target.bytes for target in again.targets) == 0

    await made.close()
    assert await lab.forgets("old") == []
    assert await all_ended(started, 10.0)


async def test_between_nodes_within_and_across_versions_and_back(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, _ = start()
    worker = lab.node("old", head=False).name
    within = await sent(made, f"old/head:{source}", f"old/{worker}:{tmp_path}/within")
    across = await sent(made, f"old/{worker}:{tmp_path}/within", f"new/*:{tmp_path}/across/")
    home = await sent(made, f"new/head:{tmp_path}/across/within", f"local:{tmp_path}/back")
    assert [verdicts(t) for t in (within, across, home)] == [
        ["verified"],
        ["verified", "verified"],
        ["verified"],
    ]
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert within.kind == "unicast"
    assert across.route[0].startswith(f"old/{worker} → new/")

    plan = await made.plan(
        TransferRequest((f"new/head:{source}",), (f"old/head:{tmp_path}/plan/", str(source)))
    )
    assert [target.action for target in plan.targets] == ["send", "refuse"]
    assert "is the source itself" in str(plan.targets[1].reason)
    assert not (tmp_path / "plan").exists()
    await made.close()
    assert await lab.forgets("old", "new") == []


async def test_what_cannot_be_is_said_for_each_target(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, _ = start()
    there = tmp_path / "there"
    there.write_text("mine")
    never = await sent(made, str(source), f"old/head:{there}", overwrite="never")
    assert verdicts(never) == ["failed"]
    assert "exists" in str(never.targets[0].reason)
    assert there.read_text() == "mine"

    folder = await sent(made, str(source), f"old/head:{tmp_path}", f"old/head:{tmp_path}/ok/")
    assert verdicts(folder) == ["failed", "verified"]
    assert folder.state == "partial"

    missing = await sent(made, f"old/head:{tmp_path}/nothing", str(tmp_path / "x"))
    assert missing.state == "failed"
    assert "No such file" in str(missing.error)

    with pytest.raises(NotFoundError, match="did you mean old"):
        await made.start(TransferRequest((str(source),), ("olt/head:/x",)))
    await made.close()


async def test_nodes_that_are_dead_or_unknown_to_ray_fail_and_the_rest_is_served(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, _ = start()
    nodes = [node for node in lab.fleet.nodes if node.cluster == "new"]
    dead = replace(nodes[0], node_id="d" * 56, name="gone", status="dead", reason="it was killed")
    # Ray knows no such node, but castray's picture of the cluster is older than that.
    stale = replace(nodes[0], node_id="e" * 56, name="stale", is_head=False)
    lab.set_nodes("new", [*nodes, dead, stale])
    try:
        started = time.monotonic()
        transfer = await sent(made, str(source), f"new/*:{tmp_path}/out/")
    finally:
        lab.set_nodes("new", nodes)
    by_name = {target.node: target for target in transfer.targets}
    assert by_name["gone"].reason == "node is dead: it was killed"
    assert "no such node" in str(by_name["stale"].reason)
    assert sorted(str(v) for v in verdicts(transfer)) == [
        "failed",
        "failed",
        "verified",
        "verified",
    ]
    assert transfer.state == "partial"
    assert time.monotonic() - started < 30
    await made.close()


async def test_read_only_clusters_are_refused_before_anything_is_submitted(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    door = lab.doors["new"]
    lab.doors["new"] = replace(door, read_only_reason="its processes belong to somebody else")
    try:
        with pytest.raises(ReadOnlyError, match="somebody else"):
            await made.start(TransferRequest((str(source),), (f"new/head:{tmp_path}/x",)))
    finally:
        lab.doors["new"] = door
    assert published == []
    assert await lab.forgets("new") == []
    await made.close()


async def test_cancelling_leaves_no_file(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    request = TransferRequest(
        (f"old/head:{source}",), (f"new/*:{tmp_path}/out/",), rate_limit_bytes_per_second=MIB
    )
    transfer = await made.start(request)
    while not any(state.bytes_done for state in published):
        await asyncio.sleep(0.05)
    ended = await made.cancel(transfer.id)
    assert ended.state == "cancelled"
    assert set(verdicts(ended)) == {"cancelled"}
    deadline = time.monotonic() + 10
    while (tmp_path / "out").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not (tmp_path / "out").exists()
    await made.close()


async def test_agents_leave_when_idle_and_come_back_when_needed(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    before = agent_processes(lab)
    made, _ = start(idle_seconds=2.0)
    assert (await sent(made, str(source), f"old/head:{tmp_path}/a")).state == "done"
    started = [pid for pid in agent_processes(lab) if pid not in before]
    assert started
    assert await all_ended(started, 15.0)
    assert (await sent(made, str(source), f"old/head:{tmp_path}/b")).state == "done"
    await made.close()
    assert await lab.forgets("old") == []


CASTRAY_THAT_IS_KILLED = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from transfer_lab import LabFleet, service
from castray_tui.core.models import Cluster, Fleet, Node, TransferRequest
from castray_tui.core.ray_api.jobs import JobClient
from castray_tui.core.transfer.access import ClusterDoor
told = json.loads(sys.argv[2])
async def main():
    lab = LabFleet()
    for name, door in told["doors"].items():
        lab.doors[name] = ClusterDoor(key=name, name=name, jobs=JobClient(door["url"]),
            python=door["python"], control_hosts=("127.0.0.1", door["host"]))
        lab.set_nodes(name, [Node(**node) for node in told["nodes"] if node["cluster"] == name])
    made, published = service(lab, Path(told["state"]), idle_seconds=3.0)
    transfer = await made.start(TransferRequest(
        (told["source"],), (told["target"],), rate_limit_bytes_per_second=4 * 1024 * 1024))
    while not any(state.bytes_done for state in published):
        await asyncio.sleep(0.05)
    print(transfer.id, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_killed_castray_leaves_a_transfer_that_ends_and_the_next_one_knows_how(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    before = agent_processes(lab)
    told = {
        "doors": {
            name: {
                "url": door.jobs.http.shown_url if door.jobs else "",
                "python": door.python,
                "host": door.control_hosts[1],
            }
            for name, door in lab.doors.items()
        },
        "nodes": [
            {
                "cluster_key": node.cluster_key,
                "cluster": node.cluster,
                "node_id": node.node_id,
                "name": node.name,
                "status": "alive",
                "address": node.address,
                "is_head": node.is_head,
            }
            for node in lab.fleet.nodes
        ],
        "state": str(tmp_path / "state"),
        "source": f"new/head:{source}",
        "target": f"new/{lab.node('new', head=False).name}:{tmp_path}/out",
    }
    first = subprocess.Popen(
        [
            sys.executable,
            "-c",
            CASTRAY_THAT_IS_KILLED,
            str(Path(__file__).parent),
            json.dumps(told),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    transfer_id = (await asyncio.to_thread(first.stdout.readline)).strip()
    started = [pid for pid in agent_processes(lab) if pid not in before]
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert transfer_id
    assert not (tmp_path / "out").exists()

    second, published = start()
    await second.adopt("new", {transfer_id})
    ended = await second.wait(transfer_id)
    assert (ended.state, verdicts(ended)) == ("done", ["verified"])
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert published[-1] == ended
    # Killed as it was, nobody says goodbye: the agents leave by themselves.
    assert await all_ended(started, 20.0)
    third, results = start()
    await asyncio.sleep(2.0)  # Ray looks after its jobs once a second.
    await third.adopt("new")
    assert await lab.forgets("new") == []
    assert [t.id for t in results] in ([transfer_id], [])
    await second.close()
    await third.close()


async def test_a_source_agent_that_is_killed_costs_a_pause(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    worker = lab.node("new", head=False)
    transfer = await made.start(
        TransferRequest(
            (f"new/{worker.name}:{source}",),
            (f"new/head:{tmp_path}/out/",),
            rate_limit_bytes_per_second=4 * MIB,
        )
    )
    while not any(state.bytes_done for state in published):
        await asyncio.sleep(0.05)
    session = await made._keeper.session("new")
    hello = await call(session, worker.node_id, "hello", {}, 10.0)
    os.kill(hello["pid"], signal.SIGKILL)
    ended = await asyncio.wait_for(made.wait(transfer.id), 60)
    assert (verdicts(ended), ended.error) == (["verified"], None)
    assert ended.targets[0].attempts == 2
    waiting = [state.targets[0] for state in published if state.targets[0].reason]
    assert waiting
    assert waiting[0].verdict is None
    assert "source's agent is gone" in str(waiting[0].reason)
    assert digest(tmp_path / "out" / source.name) == digest(source)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [source.name]


async def test_without_patience_a_source_agent_that_is_killed_leaves_no_file_and_a_reason(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    worker = lab.node("new", head=False)
    transfer = await made.start(
        TransferRequest(
            (f"new/{worker.name}:{source}",),
            (f"new/head:{tmp_path}/out/",),
            rate_limit_bytes_per_second=MIB,
            patience_seconds=0.0,
        )
    )
    while not any(state.bytes_done for state in published):
        await asyncio.sleep(0.05)
    session = await made._keeper.session("new")
    hello = await call(session, worker.node_id, "hello", {}, 10.0)
    os.kill(hello["pid"], signal.SIGKILL)
    ended = await asyncio.wait_for(made.wait(transfer.id), 30)
    assert verdicts(ended) == ["failed"]
    assert "source's agent is gone" in str(ended.targets[0].reason)
    assert not (tmp_path / "out" / source.name).exists()
