"""Several sources, folders and relays in a real cluster; what is lost and comes back, and orders of
one castray to another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from conftest import StartCluster
from transfer_lab import LabFleet, Published, digest, sent, service, verdicts

from castray_tui.core.config import ExternalClusterSettings, KnownClusterSettings, Settings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import TransferError, UsageError
from castray_tui.core.models import Node, Transfer, TransferRequest
from castray_tui.core.own_cluster import OwnCluster
from castray_tui.core.transfer.service import TransferService
from castray_tui.core.transfer.sessions import call

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    module_clusters: StartCluster, tmp_path_factory: pytest.TempPathFactory
) -> OwnCluster:
    """Three nodes of castray's own Ray."""
    home = {"HOME": str(tmp_path_factory.mktemp("home"))}
    return await module_clusters(node_count=3, environment=home)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(cluster: OwnCluster) -> AsyncIterator[LabFleet]:
    made = LabFleet()
    await made.add("ml", cluster)
    yield made
    await made.close()


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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(6 * MIB + 17))
    return path


def nodes_of(lab: LabFleet) -> list[Node]:
    """The head first."""
    return sorted(lab.fleet.nodes, key=lambda node: not node.is_head)


async def agent_pid(made: TransferService, node: Node) -> int:
    session = await made._keeper.session("ml")
    hello = await call(session, node.node_id, "hello", {}, 10.0)
    return int(hello["pid"])


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), seconds)


def tree(path: Path) -> dict[str, object]:
    """What is in a folder, by relative path."""
    found: dict[str, object] = {}
    for one in sorted(path.rglob("*")):
        name = str(one.relative_to(path))
        if one.is_symlink():
            found[name] = f"-> {one.readlink()}"
        else:
            found[name] = one.read_bytes() if one.is_file() else None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "data set"
    (top / "empty").mkdir(parents=True)
    (top / "a b").mkdir()
    (top / "a b" / "new\nline ü").write_text("small")
    (top / "none").touch()
    (top / "link").symlink_to("a b")
    (top / "large").write_bytes(os.urandom(3 * MIB))
    for number in range(40):
        (top / f"file {number}").write_bytes(os.urandom(number))
    return top


# --- what is sent -----------------------------------------------------------------------------


async def test_a_folder_comes_whole_to_every_node_over_one_another(
    lab: LabFleet, start: StartService, folder: Path, tmp_path: Path
) -> None:
    made, _ = start()
    nodes = nodes_of(lab)
    targets = [f"ml/{node.name}:{tmp_path}/to {n}/" for n, node in enumerate(nodes)]
    plan = await made.plan(TransferRequest((str(folder),), tuple(targets)))
    assert [target.action for target in plan.targets] == ["send"] * 3
    assert plan.files == 43
    assert plan.predicted_seconds is not None
    assert 0 < plan.predicted_seconds < 30
    assert not (tmp_path / "to 0").exists()

    transfer = await sent(made, str(folder), *targets)
    assert verdicts(transfer) == ["verified"] * 3
    for number in range(3):
        assert tree(tmp_path / f"to {number}" / "data set") == tree(folder)
    assert len({target.digest for target in transfer.targets} | {transfer.digest}) == 1
    assert transfer.files == 43
    # This machine sends once; the nodes feed each other.
    assert sum(line.startswith("local → ") for line in transfer.route) == 1
    assert plan.route == transfer.route
    assert sorted(len(target.via) for target in transfer.targets)[0] == 2
    assert max(len(target.via) for target in transfer.targets) > 2

    (tmp_path / "to 0" / "data set" / "file 7").write_text("altered")
    (tmp_path / "to 1" / "data set" / "empty").rmdir()
    again = await made.plan(TransferRequest((str(folder),), tuple(targets)))
    assert [target.action for target in again.targets] == ["send", "send", "skip"]
    assert [target.send_bytes for target in again.targets][:2] == [7, 0]
    second = await sent(made, str(folder), *targets)
    assert sorted(str(verdict) for verdict in verdicts(second)) == [
        "identical",
        "verified",
        "verified",
    ]
    for number in range(3):
        assert tree(tmp_path / f"to {number}" / "data set") == tree(folder)
    await made.close()


async def test_several_sources_go_side_by_side_and_patterns_choose(
    lab: LabFleet, start: StartService, folder: Path, source: Path, tmp_path: Path
) -> None:
    made, _ = start()
    request = TransferRequest(
        (f"ml/head:{folder}", f"ml/head:{source}"),
        (f"local:{tmp_path}/here", f"ml/{nodes_of(lab)[1].name}:{tmp_path}/there/"),
        exclude=("file *",),
        include=("file 1",),
    )
    transfer = await made.start(request)
    ended = await made.wait(transfer.id)
    assert (verdicts(ended), ended.error) == (["verified"] * 2, None)
    for place in (tmp_path / "here", tmp_path / "there"):
        assert (place / source.name).read_bytes() == source.read_bytes()
        names = set(tree(place / folder.name))
        assert "file 1" in names
        assert not names & {f"file {number}" for number in range(2, 40)}
    await made.close()


async def test_gathering_puts_each_node_into_a_folder_of_its_own(
    lab: LabFleet, start: StartService, tmp_path: Path
) -> None:
    made, published = start()
    log = tmp_path / "node.log"
    log.write_text("what happened\n")
    nodes = nodes_of(lab)
    dead = Node("ml", "ml", "d" * 56, "gone", "dead", reason="it was killed")
    lab.set_nodes("ml", [*nodes, dead])
    try:
        transfer = await sent(made, f"ml/*:{log}", f"local:{tmp_path}/out")
    finally:
        lab.set_nodes("ml", nodes)
    by_source = {str(target.source): target for target in transfer.targets}
    assert len(by_source) == 4
    assert by_source[f"ml/gone:{log}"].verdict == "failed"
    assert "it was killed" in str(by_source[f"ml/gone:{log}"].reason)
    assert transfer.state == "partial"
    for node in nodes:
        target = by_source[f"ml/{node.name}:{log}"]
        assert (target.verdict, target.via) == ("verified", (f"ml/{node.name}", "local"))
        copied = tmp_path / "out" / f"ml-{node.name}" / log.name
        assert copied.read_text() == log.read_text()
        assert target.path == str(copied)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"ml-{node.name}" for node in nodes
    )
    assert (transfer.kind, transfer.bytes_total) == ("unicast", 3 * log.stat().st_size)
    assert published[-1] == transfer
    await made.close()


# --- what is lost -----------------------------------------------------------------------------


async def test_a_target_whose_agent_is_killed_is_served_when_it_is_back(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    _, first, second = nodes_of(lab)
    request = TransferRequest(
        (f"ml/head:{source}",),
        tuple(f"ml/{node.name}:{tmp_path}/{node.name}/" for node in (first, second)),
        rate_limit_bytes_per_second=3 * MIB,
        patience_seconds=20.0,
    )
    transfer = await made.start(request)
    await until(lambda: published[-1].bytes_done > MIB)
    os.kill(await agent_pid(made, first), signal.SIGKILL)
    ended = await asyncio.wait_for(made.wait(transfer.id), 60)
    assert (verdicts(ended), ended.error) == (["verified"] * 2, None)
    assert ended.targets[0].attempts == 2
    for node in (first, second):
        there = tmp_path / node.name
        assert [path.name for path in there.iterdir()] == [source.name]
        assert digest(there / source.name) == digest(source) == ended.digest
    await made.close()


async def test_a_killed_coordinator_costs_a_pause(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    _, first, second = nodes_of(lab)
    request = TransferRequest(
        (f"ml/{first.name}:{source}",),
        (f"ml/{second.name}:{tmp_path}/there/", f"local:{tmp_path}/here/"),
        rate_limit_bytes_per_second=3 * MIB,
    )
    transfer = await made.start(request)
    await until(lambda: published[-1].bytes_done > MIB)
    for keeper_pid in lab.keeper_pids:
        for process in psutil.Process(keeper_pid).children(recursive=True):
            words = " ".join(process.cmdline())
            if "castray_agent" in words and "coordinator" in words:
                process.kill()
    ended = await asyncio.wait_for(made.wait(transfer.id), 90)
    assert verdicts(ended) == ["verified"] * 2
    assert {target.attempts for target in ended.targets} <= {2, 3}
    assert digest(tmp_path / "there" / source.name) == digest(tmp_path / "here" / source.name)
    assert [path.name for path in (tmp_path / "there").iterdir()] == [source.name]
    await made.close()


async def test_retry_sends_only_to_what_failed_and_resume_to_all_that_is_left(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, _ = start()
    _, first, _ = nodes_of(lab)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, and no folder")
    transfer = await sent(
        made, str(source), f"ml/head:{tmp_path}/good/", f"ml/{first.name}:{blocked}/x"
    )
    assert verdicts(transfer) == ["verified", "failed"]
    blocked.unlink()
    (tmp_path / "good" / source.name).write_text("altered since, and none of this transfer's")

    # Another castray goes on with what the journal tells of it.
    other, _ = start()
    again = await other.resume(transfer, only_failed=True)
    assert again.id == transfer.id
    ended = await other.wait(transfer.id)
    assert (verdicts(ended), ended.state) == (["verified", "verified"], "done")
    assert [target.attempts for target in ended.targets] == [1, 1]
    assert digest(blocked / "x") == digest(source)
    assert (tmp_path / "good" / source.name).read_text().startswith("altered")
    assert ended.started == transfer.started
    with pytest.raises(UsageError, match="Nothing is left"):
        await other.resume(ended)

    source.write_bytes(b"something else")
    half = replace_verdict(ended, 1)
    changed = await other.resume(half)
    ended = await other.wait(changed.id)
    assert verdicts(ended) == ["verified", "failed"]
    assert "has changed" in str(ended.targets[1].reason)
    await made.close()
    await other.close()


def replace_verdict(transfer: Transfer, index: int) -> Transfer:
    """The same transfer, one target of which has failed."""
    targets = list(transfer.targets)
    targets[index] = replace(targets[index], verdict="failed")
    return replace(transfer, targets=tuple(targets), state="partial")


async def test_pausing_stops_the_bytes_and_unpausing_goes_on(
    lab: LabFleet, start: StartService, source: Path, tmp_path: Path
) -> None:
    made, published = start()
    first = nodes_of(lab)[1]
    request = TransferRequest(
        (f"ml/head:{source}",),
        (f"ml/{first.name}:{tmp_path}/out/",),
        rate_limit_bytes_per_second=2 * MIB,
    )
    transfer = await made.start(request)
    await until(lambda: published[-1].bytes_done > MIB)
    paused = await made.pause(transfer.id)
    assert paused.state == "paused"
    await asyncio.sleep(1.0)
    before = published[-1].bytes_done
    await asyncio.sleep(1.0)
    assert published[-1].bytes_done == before
    assert published[-1].state == "paused"
    unpaused = await made.unpause(transfer.id)
    assert unpaused.state == "running"
    ended = await asyncio.wait_for(made.wait(transfer.id), 30)
    assert (verdicts(ended), ended.targets[0].attempts) == (["verified"], 1)
    assert digest(tmp_path / "out" / source.name) == digest(source)
    await made.close()


# --- orders of another castray ----------------------------------------------------------------


def settings_for(cluster: OwnCluster, state: Path) -> Settings:
    return Settings(
        clusters=(KnownClusterSettings(name="ml", address=cluster.dashboard_address),),
        external_cluster=ExternalClusterSettings(discovery_methods=()),
        state_dir=state,
    )


async def test_another_castray_pauses_goes_on_and_cancels(
    cluster: OwnCluster, source: Path, tmp_path: Path
) -> None:
    settings = settings_for(cluster, tmp_path / "shared")
    async with Engine(settings) as owner:
        await owner.connect("ml")
        transfer = await owner.start_transfer(
            TransferRequest(
                (f"ml/head:{source}",),
                (f"ml/head:{tmp_path}/out/", f"local:{tmp_path}/here/"),
                rate_limit_bytes_per_second=MIB // 4,
            )
        )
        await until(lambda: any(each.bytes_done for each in owner.fleet.transfers))
        async with Engine(settings) as other:
            assert (await other.transfer(transfer.id[:8])).state == "running"
            paused = await other.pause_transfer(transfer.id)
            assert paused.state == "paused"
            assert owner.fleet.transfers[0].state == "paused"
            resumed = await other.resume_transfer(transfer.id)
            assert resumed.state == "running"
            with pytest.raises(TransferError, match="still runs"):
                await other.retry_transfer(transfer.id)
            waiting = asyncio.ensure_future(other.wait_transfer(transfer.id))
            cancelled = await other.cancel_transfer(transfer.id)
            assert cancelled.state == "cancelled"
            assert (await asyncio.wait_for(waiting, 10)).state == "cancelled"
        assert (await owner.wait_transfer(transfer.id)).state == "cancelled"
        assert not list(tmp_path.glob("out/*"))
        assert not list(tmp_path.glob("here/*"))


CASTRAY_THAT_IS_KILLED = """
import asyncio, json, sys
from pathlib import Path
from castray_tui.core.config import ExternalClusterSettings, KnownClusterSettings, Settings
from castray_tui.core.engine import Engine
from castray_tui.core.models import TransferRequest
told = json.loads(sys.argv[1])
async def main():
    settings = Settings(
        clusters=(KnownClusterSettings(name="ml", address=told["address"]),),
        external_cluster=ExternalClusterSettings(discovery_methods=()),
        state_dir=Path(told["state"]))
    async with Engine(settings) as engine:
        await engine.connect("ml")
        transfer = await engine.start_transfer(TransferRequest(
            tuple(told["sources"]), tuple(told["targets"]),
            rate_limit_bytes_per_second=told["rate"]))
        while min(target.bytes for target in engine.fleet.transfers[0].targets) < told["bytes"]:
            await asyncio.sleep(0.05)
        print(transfer.id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def killed_castray(
    cluster: OwnCluster, tmp_path: Path, sources: list[str], targets: list[str], **more: int
) -> str:
    """The ID of a transfer whose castray was killed amid it."""
    told = {
        "address": cluster.dashboard_address,
        "state": str(tmp_path / "shared"),
        "sources": sources,
        "targets": targets,
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CASTRAY_THAT_IS_KILLED, json.dumps(told)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    transfer_id = (await asyncio.to_thread(process.stdout.readline)).strip()
    process.kill()
    process.wait()
    process.stdout.close()
    assert transfer_id
    return transfer_id


async def test_a_local_file_whose_castray_was_killed_is_gone_on_with(
    cluster: OwnCluster, source: Path, tmp_path: Path
) -> None:
    size = source.stat().st_size
    transfer_id = await killed_castray(
        cluster,
        tmp_path,
        [str(source)],
        [f"ml/*:{tmp_path}/out/"],
        rate=2 * MIB,
        bytes=2 * MIB,
    )
    assert not list(tmp_path.glob("out/*"))
    async with Engine(settings_for(cluster, tmp_path / "shared")) as engine:
        await engine.find_out_about_left()
        left = await engine.transfer(transfer_id)
        assert left.state == "failed"
        assert "castray ended before" in str(left.error)
        again = await engine.resume_transfer(transfer_id)
        assert again.id == transfer_id
        ended = await asyncio.wait_for(engine.wait_transfer(transfer_id), 60)
        assert verdicts(ended) == ["verified"] * 3
        assert digest(tmp_path / "out" / source.name) == digest(source)
        assert [target.attempts for target in ended.targets] == [2] * 3
        # What the agents still held was not sent again.
        assert sum(target.sent_bytes or 0 for target in ended.targets) < 3 * size
        events = await engine.past_events()
        assert [event.type for event in events if event.data.get("id") == transfer_id].count(
            "transfer_started"
        ) == 2


async def test_what_goes_on_alone_is_taken_up_to_be_cancelled(
    cluster: OwnCluster, source: Path, tmp_path: Path
) -> None:
    transfer_id = await killed_castray(
        cluster,
        tmp_path,
        [f"ml/*:{source}"],
        [f"ml/head:{tmp_path}/out/"],
        rate=MIB // 2,
        bytes=MIB // 2,
    )
    async with Engine(settings_for(cluster, tmp_path / "shared")) as engine:
        running = await engine.transfer(transfer_id)
        assert running.state == "running"
        cancelled = await engine.cancel_transfer(transfer_id)
        assert (cancelled.state, cancelled.error) == ("cancelled", None)
        assert verdicts(cancelled) == ["cancelled"] * 3
        assert not list(tmp_path.rglob("out/*/*"))
