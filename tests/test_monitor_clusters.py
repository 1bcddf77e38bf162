"""Watching real clusters while they are killed, hung, drained, restarted and locked."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import StartCluster

from castray_tui.core.config import ExternalClusterSettings, Settings
from castray_tui.core.errors import AuthError
from castray_tui.core.models import DiscoveredCluster, EventDraft, Node
from castray_tui.core.monitor import ClusterMonitor, ClusterView
from castray_tui.core.own_cluster import OwnCluster
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.tokens import Token

pytestmark = pytest.mark.ray

SETTINGS = Settings(
    external_cluster=ExternalClusterSettings(poll_interval=1.0, connection_timeout=5.0)
)


class Watch:
    """A monitor that runs, with everything it said."""

    def __init__(
        self, cluster: OwnCluster, *, dashboard: bool = True, token: Token | None = None
    ) -> None:
        self.views: list[ClusterView] = []
        self.events: list[EventDraft] = []
        self.restarts: list[DiscoveredCluster] = []
        self._changed = asyncio.Event()
        self.gcs = GcsProcesses()
        found = DiscoveredCluster(
            key=f"address:{cluster.gcs_address}",
            name="lab",
            gcs_address=cluster.gcs_address,
            dashboard_url=f"http://{cluster.dashboard_address}" if dashboard else None,
            on_this_host=True,
            owned_by_me=True,
        )
        self.monitor = ClusterMonitor(
            found,
            name="lab",
            address=cluster.gcs_address,
            settings=SETTINGS,
            token=token,
            read_only=False,
            read_only_reason=None,
            on_view=self._on_view,
            on_event=self._on_event,
            gcs=self.gcs,
            on_restart=self.restarts.append,
        )

    def _on_view(self, view: ClusterView) -> None:
        self.views.append(view)
        self._changed.set()

    def _on_event(self, event: EventDraft) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(
        self, holds: Callable[[ClusterView], bool], *, timeout_seconds: float = 40.0
    ) -> ClusterView:
        async def wait() -> ClusterView:
            while not holds(self.monitor.view):
                self._changed.clear()
                await self._changed.wait()
            return self.monitor.view

        try:
            return await asyncio.wait_for(wait(), timeout_seconds)
        except asyncio.TimeoutError:
            cluster, nodes = self.monitor.view.cluster, self.monitor.view.nodes
            shown = [(node.name, node.status, node.reason) for node in nodes]
            pytest.fail(f"not within {timeout_seconds} s: {cluster.state} {cluster.error} {shown}")

    def kinds(self) -> list[str]:
        return [event.type for event in self.events]


@asynccontextmanager
async def watching(cluster: OwnCluster, **options: Any) -> AsyncIterator[Watch]:
    watch = Watch(cluster, **options)
    running = asyncio.create_task(watch.monitor.run())
    try:
        yield watch
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await watch.gcs.close()


def statuses(view: ClusterView) -> list[str]:
    return [node.status for node in view.nodes]


def node_ids(view: ClusterView) -> list[str]:
    return [node.node_id for node in view.nodes]


async def pid_of(cluster: OwnCluster, *words: str) -> int:
    for pid in await cluster.process_ids():
        try:
            command = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            continue
        if all(word in command for word in words):
            return pid
    raise AssertionError(f"no process of the cluster has {words} in its command line")


async def raylet_pid(cluster: OwnCluster, node: Node) -> int:
    """Raylets name their node ID from 2.49 on; before, they tell by being no head."""
    return await pid_of(cluster, "/raylet/raylet", node.node_id)


_OCCUPY = """
import sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False)
@ray.remote(num_cpus=1, scheduling_strategy=NodeAffinitySchedulingStrategy(sys.argv[1], soft=False))
def occupy():
    time.sleep(600)
occupied = occupy.remote()
ready, _ = ray.wait([occupied], timeout=2)
print("occupied", flush=True)
ray.get(occupied)
"""


async def occupy(cluster: OwnCluster, watch: Watch, node: Node) -> None:
    """An idle node dies as soon as it is to drain; one that works drains."""
    script = Path(cluster.temp_dir) / "occupy.py"
    script.write_text(_OCCUPY)
    jobs = watch.monitor.jobs
    assert jobs is not None
    submission_id = await jobs.submit(shlex.join([cluster.python, str(script), node.node_id]))
    async for line in jobs.tail(submission_id):
        if line == "occupied":
            return
    pytest.fail(f"the node could not be occupied: {await jobs.logs(submission_id)}")


async def drain(cluster: OwnCluster, node: Node) -> None:
    process = await asyncio.create_subprocess_exec(
        cluster.python,
        "-m",
        "ray.scripts.scripts",
        "drain-node",
        f"--address={cluster.gcs_address}",
        f"--node-id={node.node_id}",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=rebalancing",
        "--deadline-remaining-seconds=600",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_nodes_die_and_drain_and_the_dashboard_hangs(start_cluster: StartCluster) -> None:
    cluster = await start_cluster(node_count=3)
    async with watching(cluster) as watch:
        first = await watch.monitor.first_view()
        assert statuses(first) == ["alive"] * 3
        assert first.nodes[0].name == "head"
        assert all(node.hardware and node.hardware.memory_total_bytes for node in first.nodes)
        assert all(node.python == cluster.python for node in first.nodes)
        assert first.cluster.access == "dashboard"
        assert watch.kinds() == ["cluster_connected"]

        doomed, drained = first.nodes[1], first.nodes[2]
        await occupy(cluster, watch, drained)
        await drain(cluster, drained)
        view = await watch.until(lambda view: "draining" in statuses(view))
        assert view.nodes[2].status == "draining"
        assert view.nodes[2].reason is not None
        assert view.nodes[2].reason.startswith("Draining until")

        os.kill(await raylet_pid(cluster, doomed), signal.SIGKILL)
        dashboard = DashboardClient(f"http://{cluster.dashboard_address}")

        async def ray_says_dead() -> float:
            while True:
                rows = await dashboard.state_nodes()
                if any(row["state"] == "DEAD" for row in rows):
                    return asyncio.get_running_loop().time()
                await asyncio.sleep(0.2)

        saying = asyncio.create_task(ray_says_dead())
        view = await watch.until(lambda view: "dead" in statuses(view), timeout_seconds=60)
        shown_at = asyncio.get_running_loop().time()
        assert shown_at - await saying < 3.0
        await dashboard.aclose()
        assert node_ids(view) == node_ids(first), "no row moves"
        assert view.nodes[1].reason
        assert "nexpected termination" in view.nodes[1].reason
        died = next(event for event in watch.events if event.type == "node_died")
        assert died.data["node_id"] == doomed.node_id
        assert died.data["reason"] == view.nodes[1].reason

        await hang_and_continue(cluster, watch)

        watch.monitor.dismiss(doomed.node_id)
        await watch.until(lambda view: len(view.nodes) == 2)
        watch.monitor.poll_now()
        answered_at = watch.monitor.view.cluster.answered_at
        view = await watch.until(lambda view: view.cluster.answered_at != answered_at)
        assert doomed.node_id not in node_ids(view), "a dismissed node stays away"


async def hang_and_continue(cluster: OwnCluster, watch: Watch) -> None:
    dashboard_pid = await pid_of(cluster, "dashboard/dashboard.py")
    os.kill(dashboard_pid, signal.SIGSTOP)
    try:
        view = await watch.until(lambda view: view.cluster.state != "connected")
        assert view.cluster.state == "stale"
        assert "alive" not in statuses(view)
        assert statuses(view)[1] == "dead"
    finally:
        os.kill(dashboard_pid, signal.SIGCONT)
    view = await watch.until(lambda view: view.cluster.state == "connected")
    assert view.nodes[0].status == "alive"


async def test_a_dead_gcs_is_never_shown_as_healthy(start_cluster: StartCluster) -> None:
    cluster = await start_cluster()
    async with watching(cluster) as watch:
        await watch.monitor.first_view()
        os.kill(await pid_of(cluster, "gcs_server"), signal.SIGKILL)
        # The dashboard itself goes on with status 200 and old data for a minute.
        view = await watch.until(lambda view: view.cluster.state != "connected", timeout_seconds=15)
        assert statuses(view) != ["alive"]
        assert view.cluster.error


async def test_restart_on_the_same_ports_is_another_cluster(start_cluster: StartCluster) -> None:
    cluster = await start_cluster(version="2.9.3")
    async with watching(cluster) as watch:
        # This Ray tells who it is on its raylet's command line only, some seconds after its start.
        before = await watch.until(lambda view: view.cluster.session_name is not None)
        assert before.cluster.ray_version == "2.9.3"
        await cluster.stop()
        await watch.until(lambda view: view.cluster.state != "connected")
        await start_cluster(version="2.9.3", ports=cluster.ports)
        view = await watch.until(lambda view: view.cluster.state == "lost", timeout_seconds=60)
        assert "Another cluster answers" in (view.cluster.error or "")
        assert watch.kinds()[-1] == "cluster_restarted"
        assert "cluster_recovered" not in watch.kinds()
        [successor] = watch.restarts
        assert successor.session_name != before.cluster.session_name
        assert successor.key not in {before.cluster.key, before.cluster.session_name}


async def test_without_a_dashboard_the_gcs_tells(start_cluster: StartCluster) -> None:
    cluster = await start_cluster(version="2.49.2", node_count=2, include_dashboard=False)
    async with watching(cluster) as watch:
        first = await watch.monitor.first_view()
        assert first.cluster.access == "gcs"
        assert first.cluster.ray_version == "2.49.2"
        assert watch.monitor.dashboard is None
        assert statuses(first) == ["alive"] * 2
        assert [node.hardware for node in first.nodes] == [None, None]
        assert first.nodes[0].resources_used is not None
        assert first.nodes[0].resources_used["CPU"] == 0.0

        # The agents tell their ports some seconds after the nodes' start.
        await watch.until(lambda view: watch.monitor.jobs is not None)
        jobs = watch.monitor.jobs
        assert jobs is not None
        submission_id = await jobs.submit("echo one; echo two", submission_id="castray-test")
        lines = [line async for line in jobs.tail(submission_id)]
        assert [line for line in lines if line in {"one", "two"}] == ["one", "two"]
        info = await jobs.info(submission_id)
        assert info.status == "SUCCEEDED"
        assert await jobs.delete(submission_id)

        await occupy(cluster, watch, first.nodes[1])
        await drain(cluster, first.nodes[1])
        view = await watch.until(lambda view: "draining" in statuses(view))
        assert view.nodes[1].status == "draining"
        os.kill(await raylet_pid(cluster, first.nodes[1]), signal.SIGKILL)
        view = await watch.until(lambda view: "dead" in statuses(view), timeout_seconds=60)
        assert view.nodes[1].reason


async def test_a_token_opens_and_a_wrong_or_missing_one_is_told_apart(
    start_cluster: StartCluster,
) -> None:
    secret = "s3cret-" + "a" * 40
    cluster = await start_cluster(environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret})
    async with watching(cluster) as watch:
        with pytest.raises(AuthError, match="wants an authentication token") as missing:
            await watch.monitor.first_view()
        assert "token_file" in (missing.value.remedy or "")
        assert watch.monitor.view.cluster.state == "refused"
    async with watching(cluster, token=Token("wrong" * 8, origin="a test")) as watch:
        with pytest.raises(AuthError, match="refuses the authentication token from a test"):
            await watch.monitor.first_view()
        assert "wrong" * 8 not in str(watch.monitor.view)
    async with watching(cluster, token=Token(secret, origin="a test")) as watch:
        await watch.monitor.first_view()
        view = await watch.monitor.complete_view(30)
        assert statuses(view) == ["alive"]
        assert view.cluster.cluster_id, "the GCS was asked with the token too"
        jobs = watch.monitor.jobs
        assert jobs is not None
        assert await jobs.list() == []
    async with watching(cluster, dashboard=False, token=Token(secret, origin="a test")) as watch:
        view = await watch.monitor.first_view()
        assert view.cluster.access == "gcs"
    async with watching(cluster, dashboard=False) as watch:
        with pytest.raises(AuthError, match="wants an authentication token"):
            await watch.monitor.first_view()
