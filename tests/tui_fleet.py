"""An engine for screen tests: it pushes the snapshots it is given and records orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from castray_tui.app import CastrayApp
from castray_tui.core.config import Settings, UiSettings
from castray_tui.core.models import (
    Cluster,
    DiscoveredCluster,
    DiscoveryReport,
    Disk,
    Event,
    Fleet,
    LogFile,
    Node,
    NodeHardware,
    Transfer,
    TransferPlan,
    TransferRequest,
    TransferTarget,
)
from castray_tui.screens.fleet import FleetScreen

NOW = 1_767_225_600.0
GIB = 1024**3


class PushedEngine:
    """Shows what tests push, answers what they put in ``answers``, keeps ``orders``."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.orders: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.closed = False
        self._newer = asyncio.Event()

    def push(self, fleet: Fleet) -> None:
        self.fleet = replace(fleet, version=self.fleet.version + 1)
        self._newer.set()

    async def start(self, *, background: bool = True) -> None:
        if isinstance(error := self.answers.get("start"), Exception):
            raise error

    async def close(self) -> None:
        self.closed = True

    async def changes(self) -> AsyncIterator[Fleet]:
        while True:
            self._newer.clear()
            yield self.fleet
            await self._newer.wait()

    async def _answer(self, name: str, argument: Any, default: Any = None) -> Any:
        self.orders.append((name, argument))
        answer = self.answers.get(name, default)
        if callable(answer):
            answer = await answer(argument)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def discover(self, *, connect: bool = False) -> DiscoveryReport:
        return await self._answer("discover", connect, DiscoveryReport())

    async def connect(self, address: str) -> Cluster:
        return await self._answer("connect", address, cluster("ml"))

    async def disconnect(self, name: str) -> None:
        await self._answer("disconnect", name)

    def refresh(self, name: str | None = None) -> None:
        self.orders.append(("refresh", name))

    def dismiss_dead(self, cluster_key: str, node_id: str) -> None:
        self.orders.append(("dismiss", (cluster_key, node_id)))

    async def past_events(self, *, limit: int = 200, before_id: int | None = None) -> list[Event]:
        return await self._answer("past_events", limit, [])

    async def log_files(self, cluster_name: str, node_id: str) -> list[LogFile]:
        return await self._answer("log_files", (cluster_name, node_id), [])

    async def read_log(
        self, cluster_name: str, node_id: str, file_name: str, *, lines: int = 500
    ) -> str:
        return await self._answer("read_log", file_name, "")

    async def plan_transfer(self, request: TransferRequest) -> TransferPlan:
        return await self._answer("plan", request)

    async def start_transfer(self, request: TransferRequest) -> Transfer:
        return await self._answer("start_transfer", request, transfer("t1"))

    async def cancel_transfer(self, transfer_id: str) -> Transfer:
        return await self._answer("cancel", transfer_id, transfer("t1", state="cancelled"))

    async def pause_transfer(self, transfer_id: str) -> Transfer:
        return await self._answer("pause", transfer_id, transfer("t1", state="paused"))

    async def unpause_transfer(self, transfer_id: str) -> Transfer:
        return await self._answer("unpause", transfer_id, transfer("t1"))

    async def resume_transfer(self, transfer_id: str) -> Transfer:
        return await self._answer("resume", transfer_id, transfer("t1"))

    async def retry_transfer(self, transfer_id: str) -> Transfer:
        return await self._answer("retry", transfer_id, transfer("t1"))


def hardware(cpu: float | None = 10.0, memory: float = 25.0, **more: Any) -> NodeHardware:
    return NodeHardware(
        measured_at=NOW,
        cpu_percent=cpu,
        memory_total_bytes=16 * GIB,
        memory_used_bytes=int(16 * GIB * memory / 100),
        disks=(Disk("/", 100 * GIB, 40 * GIB, 60 * GIB),),
        network_sent_bytes_per_second=1e5,
        network_received_bytes_per_second=2e6,
        object_store_used_bytes=GIB,
        object_store_total_bytes=4 * GIB,
        **more,
    )


def local_node() -> Node:
    return Node(
        "local", "local", "local", "local", "alive",
        hostname="here", hardware=hardware(5.0), last_seen=NOW,
    )  # fmt: skip


def node(
    cluster_name: str, name: str, *, status: Any = "alive", cpu: float | None = 10.0, **more: Any
) -> Node:
    more.setdefault("is_head", name == "head")
    return Node(
        f"key-{cluster_name}", cluster_name, f"{name}-id", name, status,
        address="10.0.0.1",
        hostname=f"host-{name}",
        resources_total={"CPU": 8.0, "memory": 16.0 * GIB},
        resources_used={"CPU": 2.0},
        hardware=hardware(cpu),
        last_seen=NOW - 1,
        **more,
    )  # fmt: skip


def cluster(name: str, **more: Any) -> Cluster:
    more.setdefault("state", "connected")
    return Cluster(
        f"key-{name}", name, "127.0.0.1:8265",
        access="dashboard",
        dashboard_url="http://127.0.0.1:8265",
        ray_version="2.49.2",
        answered_at=NOW - 1,
        latency_seconds=0.012,
        node_count=2,
        alive_count=2,
        resources_total={"CPU": 16.0, "memory": 32.0 * GIB},
        resources_used={"CPU": 4.0},
        **more,
    )  # fmt: skip


def found(name: str) -> DiscoveredCluster:
    return DiscoveredCluster(
        f"key-{name}", name, ray_version="2.9.3", sources=("temp_dir",), node_count=1
    )


def transfer(transfer_id: str, *, state: Any = "running", **more: Any) -> Transfer:
    more.setdefault("source", "local:/data/model.bin")
    more.setdefault("bytes_total", GIB)
    more.setdefault("bytes_done", GIB // 2)
    more.setdefault("started", NOW - 10)
    more.setdefault("targets", (TransferTarget("ml", "head", "/tmp/model.bin", bytes=GIB // 2),))
    return Transfer(transfer_id, "unicast", state, **more)


def small_fleet(**more: Any) -> Fleet:
    values: dict[str, Any] = {
        "version": 1,
        "time": NOW,
        "clusters": (cluster("ml"), cluster("web")),
        "discovered": (found("lab"),),
        "nodes": (
            local_node(),
            node("ml", "head", cpu=20.0),
            node("ml", "10.0.0.2", cpu=95.0),
            node("ml", "10.0.0.3", cpu=None),
            node("web", "head", cpu=50.0),
            node("web", "10.0.1.2", cpu=5.0),
        ),
        "last_event": Event(7, "node_joined", NOW - 3, "ml/10.0.0.3 joined"),
    }
    return Fleet(**{**values, **more})


def changed(fleet: Fleet, name: str, cluster_name: str = "ml", **values: Any) -> Fleet:
    """The fleet with one node changed."""
    return replace(
        fleet,
        nodes=tuple(
            replace(one, **values) if (one.cluster, one.name) == (cluster_name, name) else one
            for one in fleet.nodes
        ),
    )


class Harness:
    """An app over a pushed engine, to be run with ``run``."""

    def __init__(
        self,
        fleet: Fleet | None = None,
        *,
        settings: Settings | None = None,
        ui: UiSettings | None = None,
        answers: dict[str, Any] | None = None,
        clock: Callable[[], float] = lambda: NOW,
        discover: bool = True,
    ) -> None:
        ui = ui or UiSettings(refresh_rate=1000)
        self.settings = settings or Settings(ui=ui)
        self.engine = PushedEngine(fleet or small_fleet())
        self.engine.answers.update(answers or {})
        self.app = CastrayApp(
            lambda: self.engine,  # type: ignore[arg-type,return-value]
            self.settings,
            discover=discover,
            clock=clock,
        )

    @property
    def screen(self) -> FleetScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, FleetScreen)
        return screen

    async def settle(self, pilot: Any) -> None:
        """Returns when the app shows the engine's newest snapshot and has drawn it."""
        async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else _Nothing():
            while self.app.fleet.version != self.engine.fleet.version:
                await asyncio.sleep(0)
                await pilot.pause()
        waiting = {"engine", "question", "leave"}
        if orders := [one for one in self.app.workers if one.group not in waiting]:
            await self.app.workers.wait_for_complete(orders)
        await pilot.pause()

    async def push(self, pilot: Any, fleet: Fleet) -> None:
        self.engine.push(fleet)
        await self.settle(pilot)

    def names(self) -> list[str]:
        """The nodes shown, in order."""
        table = self.screen.nodes
        return [f"{table.rows[key].cluster}/{table.rows[key].name}" for key in table.shown_keys]

    def cursor(self) -> str:
        row = self.screen.nodes.cursor_row
        assert row is not None
        return f"{row.cluster}/{row.name}"

    def text(self) -> str:
        """The whole screen as text, a line each."""
        return "\n".join(
            strip.text
            for strip in self.app.screen._compositor.render_strips()
        )  # fmt: skip

    def toasts(self) -> list[str]:
        return [toast.message for toast in self.app._notifications]


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
