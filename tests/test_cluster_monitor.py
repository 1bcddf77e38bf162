"""A monitor over a dashboard that the test plays: garbage, silence, another cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from castray_tui.core.config import ExternalClusterSettings, Settings
from castray_tui.core.errors import CastrayError, NotRayError, UnreachableError
from castray_tui.core.models import DiscoveredCluster, EventDraft
from castray_tui.core.monitor import ClusterMonitor, ClusterView, health
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.http import RefusedError

SETTINGS = Settings(
    external_cluster=ExternalClusterSettings(poll_interval=0.05, connection_timeout=5.0)
)
HEAD, WORKER = "aa" * 28, "bb" * 28


def row(node_id: str, **more: Any) -> dict[str, Any]:
    told = {"node_id": node_id, "node_ip": "10.0.0.1", "state": "ALIVE", "start_time_ms": 5}
    return {**told, "is_head_node": node_id == HEAD, "resources_total": {"CPU": 2.0}, **more}


class FakeDashboard:
    """A dashboard of Ray 2.60 as far as a monitor asks it; each answer can be replaced."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "/api/version": {"ray_version": "2.60.0", "session_name": "session_1"},
            "/api/gcs_healthz": "success",
            "/nodes": {"result": True, "data": {"summary": []}},
        }
        self.list(row(HEAD), row(WORKER))
        self.status = 200
        self.open = asyncio.Event()
        self.open.set()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def list(self, *rows: Any) -> None:
        self.answers["/api/v0/nodes"] = {"result": True, "data": {"result": {"result": rows}}}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.decode().split(" ", 2)
                assert method == "GET", "watching changes nothing"
                await self.open.wait()
                told = self.answers.get(target.partition("?")[0], {})
                body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body)) + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class Watched:
    def __init__(self, port: int, *, gcs_address: str | None = None) -> None:
        self.events: list[EventDraft] = []
        self.restarts: list[DiscoveredCluster] = []
        self.changed = asyncio.Event()
        self.gcs = GcsProcesses(("/nonexistent",))
        url = f"http://127.0.0.1:{port}"
        self.monitor = ClusterMonitor(
            DiscoveredCluster(key="k", name="lab", dashboard_url=url, gcs_address=gcs_address),
            name="lab",
            address=url,
            settings=SETTINGS,
            token=None,
            read_only=False,
            read_only_reason=None,
            on_view=lambda view: self.changed.set(),
            on_event=self.events.append,
            gcs=self.gcs,
            on_restart=self.restarts.append,
        )

    async def until(self, holds: Callable[[ClusterView], bool]) -> ClusterView:
        async def wait() -> ClusterView:
            while not holds(self.monitor.view):
                self.changed.clear()
                await self.changed.wait()
            return self.monitor.view

        return await asyncio.wait_for(wait(), 10)


@asynccontextmanager
async def watching(dashboard: FakeDashboard) -> AsyncIterator[Watched]:
    server = await asyncio.start_server(dashboard.serve, "127.0.0.1", 0)
    watched = Watched(server.sockets[0].getsockname()[1])
    running = asyncio.create_task(watched.monitor.run())
    try:
        yield watched
    finally:
        dashboard.open.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await watched.gcs.close()
        server.close()


def statuses(view: ClusterView) -> list[str]:
    return [node.status for node in view.nodes]


async def test_rows_go_stale_while_the_question_is_still_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "_SHORTEST_STALE_SECONDS", 0.5)
    dashboard = FakeDashboard()
    async with watching(dashboard) as watched:
        first = await watched.monitor.first_view()
        assert statuses(first) == ["alive", "alive"]
        dashboard.open.clear()
        # Requests time out after 5 s only.
        view = await asyncio.wait_for(watched.until(lambda view: "stale" in statuses(view)), 3)
        assert statuses(view) == ["stale", "stale"]
        assert view.cluster.state == "stale"
        assert "still open" in (view.cluster.error or "")
        dashboard.open.set()
        view = await watched.until(lambda view: view.cluster.state == "connected")
        assert statuses(view) == ["alive", "alive"]
        assert view.cluster.error is None
        assert [event.type for event in watched.events] == ["cluster_connected"]


async def test_a_death_is_told_with_its_reason_and_moves_no_row() -> None:
    dashboard = FakeDashboard()
    async with watching(dashboard) as watched:
        first = await watched.monitor.first_view()
        dashboard.list(row(WORKER, state="DEAD", state_message="killed \x1b[31m"), row(HEAD))
        view = await watched.until(lambda view: "dead" in statuses(view))
        assert [node.key for node in view.nodes] == [node.key for node in first.nodes]
        assert view.nodes[1].reason == "killed \ufffd[31m"
        assert watched.events[-1].type == "node_died"


async def test_another_session_at_the_address_is_another_cluster() -> None:
    dashboard = FakeDashboard()
    async with watching(dashboard) as watched:
        await watched.monitor.first_view()
        dashboard.answers["/api/version"]["session_name"] = "session_2"
        view = await watched.until(lambda view: view.cluster.state == "lost")
        assert statuses(view) == ["unreachable", "unreachable"]
        kinds = [event.type for event in watched.events]
        assert kinds == ["cluster_connected", "cluster_restarted"]
        [successor] = watched.restarts
        assert (successor.key, successor.session_name) == ("session_2", "session_2")


@pytest.mark.parametrize(
    "body",
    [
        "<html>login</html>",
        '{"result": true, "data": {"result": {"result": [{"node_id"',
        '{"result": true, "data": {"result": {"result": null}}}',
        "x" * 10_000_000,
        '"' + "x" * 10_000_000 + '"',
        "[" * 10_000,
    ],
    ids=["html", "truncated", "null", "10 MB", "10 MB string", "deep"],
)
async def test_garbage_in_the_middle_changes_no_row(body: str) -> None:
    dashboard = FakeDashboard()
    async with watching(dashboard) as watched:
        first = await watched.monitor.first_view()
        dashboard.answers["/api/v0/nodes"] = body
        view = await watched.until(lambda view: view.cluster.error is not None)
        assert statuses(view) == ["alive", "alive"]
        assert len(view.cluster.error or "") < 1_000
        dashboard.list(row(HEAD), row(WORKER))
        view = await watched.until(lambda view: view.cluster.error is None)
        assert [node.key for node in view.nodes] == [node.key for node in first.nodes]


async def test_rows_that_hold_anything_are_shown_or_left_out() -> None:
    dashboard = FakeDashboard()
    name = "\x1b]0;title\x07" + "n" * 10_000_000
    odd = [None, 3, [], {}, {"node_id": 5}, {"node_id": "cc", "state": None}]
    dashboard.list(row(HEAD), *odd, row(WORKER, node_ip=name, labels={name: name}, state="ALIVE"))
    dashboard.answers["/nodes"] = {"data": {"summary": [None, 5, {"raylet": {"nodeId": WORKER}}]}}
    async with watching(dashboard) as watched:
        view = await watched.monitor.first_view()
        assert [node.node_id for node in view.nodes] == [HEAD, WORKER]
        odd_node = view.nodes[1]
        assert odd_node.name == WORKER[:6]
        assert odd_node.address is not None
        assert len(odd_node.address) <= 200
        assert odd_node.address.isprintable()


async def test_what_is_no_ray_is_said_to_be_none() -> None:
    dashboard = FakeDashboard()
    dashboard.answers["/api/version"] = "<html>Grafana</html>"
    async with watching(dashboard) as watched:
        with pytest.raises(NotRayError):
            await watched.monitor.first_view()
        assert watched.monitor.view.cluster.state == "refused"
        del dashboard.answers["/api/version"]
        with pytest.raises(CastrayError):
            await watched.monitor.first_view()


async def test_where_neither_door_is_open_the_dashboard_is_named() -> None:
    dashboard = FakeDashboard()
    async with watching(dashboard) as watched:
        first = await watched.monitor.first_view()
        url = first.cluster.dashboard_url
    gone = Watched(int(str(url).rpartition(":")[2]), gcs_address="127.0.0.1:1")
    running = asyncio.create_task(gone.monitor.run())
    with pytest.raises(RefusedError, match=f"Nothing answers at {url}"):
        await gone.monitor.first_view()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_waits_for_a_monitor_that_is_let_go_gets_an_error() -> None:
    dashboard = FakeDashboard()
    dashboard.open.clear()
    async with watching(dashboard) as watched:
        waiting = asyncio.create_task(watched.monitor.first_view())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(UnreachableError, match="let go"):
        await waiting
