"""The engine over real clusters: what a face sees when clusters come, hang, go and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import StartCluster

from castray_tui.core.config import (
    ExternalClusterSettings,
    KnownClusterSettings,
    RayClusterSettings,
    Settings,
)
from castray_tui.core.engine import Engine
from castray_tui.core.errors import NotFoundError, NotRayError, UnreachableError
from castray_tui.core.models import Cluster, Event, Fleet

pytestmark = pytest.mark.ray


async def _until(
    engine: Engine, condition: Callable[[Fleet], object], *, seconds: float = 40
) -> Fleet:
    async def wait() -> Fleet:
        async for fleet in engine.changes():
            if condition(fleet):
                return fleet
        raise AssertionError("the engine ended")

    return await asyncio.wait_for(wait(), seconds)


def _at(fleet: Fleet, gcs_address: str) -> Cluster | None:
    return next((c for c in fleet.clusters if c.gcs_address == gcs_address), None)


async def test_finds_connects_and_stays_disconnected(start_cluster: StartCluster) -> None:
    ours = await start_cluster(node_count=2)
    settings = Settings(external_cluster=ExternalClusterSettings(discovery_interval=1))
    engine = Engine(settings)
    await engine.start()
    try:

        def is_live(fleet: Fleet) -> bool:
            cluster = _at(fleet, ours.gcs_address)
            return cluster is not None and cluster.alive_count == 2

        fleet = await _until(engine, is_live)
        cluster = _at(fleet, ours.gcs_address)
        assert cluster is not None
        assert cluster.state == "connected"
        assert fleet.nodes[0].is_local
        nodes = [node for node in fleet.nodes if node.cluster_key == cluster.key]
        assert [node.is_head for node in nodes] == [True, False]
        assert all(node.hardware is not None for node in nodes)

        await engine.disconnect(cluster.name)
        assert _at(engine.fleet, ours.gcs_address) is None
        await engine.discover(connect=True)
        assert any(d.key == cluster.key for d in engine.fleet.discovered)
        assert _at(engine.fleet, ours.gcs_address) is None, "it was disconnected by hand"

        again = await engine.connect(cluster.name)
        assert again.key == cluster.key
        types = [event.type for event in await engine.past_events(limit=1000)]
        assert {"cluster_discovered", "cluster_connected", "cluster_disconnected"} <= set(types)
    finally:
        await engine.close()


async def test_a_hung_dashboard_goes_stale_and_recovers(start_cluster: StartCluster) -> None:
    ours = await start_cluster()
    settings = Settings(external_cluster=ExternalClusterSettings(poll_interval=0.5))
    async with Engine(settings) as engine:
        cluster = await engine.connect(ours.dashboard_address)
        events: list[Event] = []

        async def read() -> None:
            events.extend([event async for event in engine.events()])

        reading = asyncio.create_task(read())
        dashboards = [
            pid
            for pid in await ours.process_ids()
            if any("dashboard.py" in part for part in psutil.Process(pid).cmdline())
        ]
        assert dashboards
        for pid in dashboards:
            os.kill(pid, signal.SIGSTOP)
        try:
            fleet = await _until(
                engine, lambda fleet: fleet.clusters and fleet.clusters[0].state != "connected"
            )
            statuses = {n.status for n in fleet.nodes if n.cluster_key == cluster.key}
            assert statuses <= {"stale", "unreachable"}
        finally:
            for pid in dashboards:
                os.kill(pid, signal.SIGCONT)
        await _until(engine, lambda fleet: fleet.clusters[0].state == "connected")
    await reading
    assert [event.id for event in events] == sorted(event.id for event in events)


async def test_a_restart_on_the_same_ports_is_another_cluster(start_cluster: StartCluster) -> None:
    first = await start_cluster()
    settings = Settings(external_cluster=ExternalClusterSettings(poll_interval=0.5))
    async with Engine(settings) as engine:
        before = await engine.connect(first.dashboard_address)
        await first.stop()
        await _until(
            engine, lambda fleet: fleet.clusters and fleet.clusters[0].state == "unreachable"
        )
        await start_cluster(ports=first.ports)
        fleet = await _until(
            engine,
            lambda fleet: (
                len(fleet.clusters) == 1
                and fleet.clusters[0].key != before.key
                and fleet.clusters[0].state == "connected"
            ),
            seconds=60,
        )
        assert fleet.clusters[0].name == before.name
        types = [event.type for event in await engine.past_events(limit=1000)]
        assert "cluster_restarted" in types
        assert "cluster_lost" in types


async def test_a_configured_address_is_shown_and_tried_until_it_answers(
    start_cluster: StartCluster,
) -> None:
    ours = await start_cluster()
    await ours.stop()
    settings = Settings(
        ray_cluster=RayClusterSettings(external_discovery=False),
        clusters=(KnownClusterSettings(name="mine", address=ours.dashboard_address),),
    )
    engine = Engine(settings)
    await engine.start()
    try:
        fleet = await _until(
            engine, lambda fleet: fleet.clusters and fleet.clusters[0].state == "unreachable"
        )
        assert fleet.clusters[0].name == "mine"
        assert fleet.clusters[0].error
        await start_cluster(ports=ours.ports)
        fleet = await _until(
            engine, lambda fleet: fleet.clusters and fleet.clusters[0].state == "connected"
        )
        assert [cluster.name for cluster in fleet.clusters] == ["mine"]
    finally:
        await engine.close()


async def test_where_nothing_is_found_a_cluster_of_its_own_comes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other clusters may run beside this test, so it looks only where there can be none.
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    settings = Settings(
        ray_cluster=RayClusterSettings(fallback_to_local=True),
        external_cluster=ExternalClusterSettings(
            discovery_methods=("dashboard_scan",), port_scan_range=(1, 2)
        ),
    )
    engine = Engine(settings)
    await engine.start()
    try:
        await _until(
            engine,
            lambda fleet: fleet.clusters and fleet.clusters[0].state == "connected",
            seconds=90,
        )
        assert engine._own is not None
        pids = await engine._own.process_ids()
        assert pids
    finally:
        await engine.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


async def test_addresses_without_ray_are_told_apart() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Engine(Settings()) as engine:
        with pytest.raises(NotRayError):
            await engine.connect(f"127.0.0.1:{port}")
        server.close()
        with pytest.raises(UnreachableError):
            await engine.connect("127.0.0.1:9")
        with pytest.raises(NotFoundError):
            await engine.disconnect("nothing")
        assert engine.fleet.clusters == ()


async def test_the_next_castray_tells_how_a_transfer_ended_whose_castray_was_killed(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    ours = await start_cluster(node_count=2)
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(12_000_000))
    settings = Settings(external_cluster=ExternalClusterSettings(poll_interval=0.5))
    async with Engine(settings) as engine:
        name = (await engine.connect(ours.dashboard_address)).name

    castray = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "castray_tui", "cp", "--rate-limit", "2MB"),
        *(f"{name}/head:{source}", f"{name}/*:{tmp_path}/out/"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def started() -> str:
        while True:
            async with Engine(settings) as engine:
                for transfer in await engine.past_transfers():
                    if transfer.state == "running":
                        return transfer.id
            await asyncio.sleep(0.2)

    transfer_id = await asyncio.wait_for(started(), 40)
    castray.kill()
    await castray.wait()

    engine = Engine(settings)
    await engine.start()
    try:
        fleet = await _until(
            engine,
            lambda fleet: any(
                t.id == transfer_id and t.state not in ("planning", "running")
                for t in fleet.transfers
            ),
            seconds=60,
        )
    finally:
        await engine.close()
    (transfer,) = (t for t in fleet.transfers if t.id == transfer_id)
    # Both raylets share this machine's disk, so one of the two may find the file already there.
    assert {target.verdict for target in transfer.targets} <= {"verified", "identical"}
    assert transfer.state == "done"
    assert (tmp_path / "out" / "source.bin").read_bytes() == source.read_bytes()
