"""Starts small Ray clusters of castray's own, on free ports, and ends exactly those.

Used by ``castray demo``, by ``ray_cluster.fallback_to_local`` and by the tests. The work is done by
one keeper process a cluster (``own_cluster_keeper``), which ends its cluster even when castray is
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from castray_tui.core.errors import CastrayError

_START_ATTEMPTS = 3
_START_TIMEOUT_SECONDS = 90.0
_STOP_TIMEOUT_SECONDS = 25.0
# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between
# the moment it is found free and the moment Ray binds it.
_PORT_RANGE = (20_000, 32_000)
_WORKER_PORTS_PER_NODE = 40
_OBJECT_STORE_BYTES = 80_000_000  # Ray refuses less than 75 MB


@dataclass(frozen=True, slots=True)
class OwnPorts:
    """The ports a cluster of castray's own was given."""

    gcs: int
    dashboard: int
    client_server: int
    dashboard_metrics: int
    autoscaler_metrics: int


@dataclass(kw_only=True, slots=True)
class OwnCluster:
    """One running Ray cluster that castray started.

    Make one with ``OwnCluster.start``; end it with ``stop`` or ``async with``.
    """

    python: str
    temp_dir: str
    keeper_pid: int
    ports: OwnPorts
    include_dashboard: bool
    node_count: int = 0
    _keeper: asyncio.subprocess.Process = field(repr=False)
    _environment: Mapping[str, str] = field(repr=False)
    _node_ip: str = "127.0.0.1"
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _order_unanswered: bool = False

    @property
    def gcs_address(self) -> str:
        """``host:port`` of the GCS."""
        return f"{self._node_ip}:{self.ports.gcs}"

    @property
    def dashboard_address(self) -> str:
        """``host:port`` where the dashboard listens, if there is one."""
        return f"127.0.0.1:{self.ports.dashboard}"

    @classmethod
    async def start(
        cls,
        *,
        node_count: int = 1,
        cpus_per_node: int = 1,
        python: str = sys.executable,
        include_dashboard: bool = True,
        environment: Mapping[str, str] | None = None,
        ports: OwnPorts | None = None,
    ) -> OwnCluster:
        """Starts a head and further nodes, all on this machine.

        Args:
            node_count: Raylets in all, the head's included.
            cpus_per_node: Logical CPUs of each; Ray starts that many idle workers.
            python: An interpreter that has Ray.
            include_dashboard: Whether the head runs a dashboard.
            environment: Variables for Ray's processes, besides this process's own.
            ports: The ports to use; None for free ones.

        Returns:
            The cluster, when all its nodes have started.

        Raises:
            CastrayError: Ray could not be started; the message ends with Ray's own words.
        """
        fixed = ports is not None
        for attempt in range(1, _START_ATTEMPTS + 1):
            cluster = await cls._with_keeper(python, include_dashboard, environment, ports)
            try:
                await cluster._start_head(cpus_per_node)
                for _ in range(node_count - 1):
                    await cluster.add_node(cpus=cpus_per_node)
            except BaseException as error:
                await cluster.stop()
                # A port may have been taken meanwhile; other ports are worth another try.
                if not isinstance(error, CastrayError) or fixed or attempt == _START_ATTEMPTS:
                    raise
            else:
                return cluster
        raise AssertionError("unreachable")

    async def add_node(
        self, *, cpus: int = 1, resources: Mapping[str, float] | None = None
    ) -> None:
        """Starts one more raylet that joins the cluster.

        Raises:
            CastrayError: Ray could not be started.
        """
        low, high = _free_port_block(_WORKER_PORTS_PER_NODE)
        arguments = [
            f"--address={self.gcs_address}",
            *_node_arguments(cpus, low, high),
        ]
        if resources:
            arguments.append(f"--resources={json.dumps(dict(resources))}")
        await self._ray_start(arguments, head=False)

    async def process_ids(self) -> list[int]:
        """The IDs of all processes of this cluster that run now, the keeper left out."""
        answer = await self._ask({"do": "processes"})
        return [int(pid) for pid in answer["pids"]]

    async def stop(self) -> None:
        """Ends all processes of this cluster and removes its folder. May be called twice."""
        keeper = self._keeper
        if keeper.stdin is not None and not keeper.stdin.is_closing():
            keeper.stdin.close()
        if self._order_unanswered:
            # It is in the middle of an order and would see the end of its input only afterwards.
            with contextlib.suppress(ProcessLookupError):
                keeper.terminate()
        try:
            await asyncio.wait_for(keeper.wait(), _STOP_TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            # The keeper ends its cluster on SIGTERM as well; killing it would leave Ray behind.
            with contextlib.suppress(ProcessLookupError):
                keeper.terminate()
            await keeper.wait()

    async def __aenter__(self) -> OwnCluster:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Shielded, so that a second ctrl-c does not leave half a cluster behind.
        await asyncio.shield(self.stop())

    @classmethod
    async def _with_keeper(
        cls,
        python: str,
        include_dashboard: bool,
        environment: Mapping[str, str] | None,
        ports: OwnPorts | None,
    ) -> OwnCluster:
        keeper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "castray_tui.core.own_cluster_keeper",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert keeper.stdout is not None
        line = await keeper.stdout.readline()
        if not line:
            raise CastrayError("The process that keeps a Ray cluster could not be started")
        hello = json.loads(line)
        return cls(
            python=python,
            temp_dir=hello["temp_dir"],
            keeper_pid=hello["pid"],
            ports=ports or _free_ports(),
            include_dashboard=include_dashboard,
            _keeper=keeper,
            _environment=dict(environment or {}),
        )

    async def _start_head(self, cpus: int) -> None:
        low, high = _free_port_block(_WORKER_PORTS_PER_NODE)
        await self._ray_start(
            [
                "--head",
                f"--port={self.ports.gcs}",
                f"--dashboard-port={self.ports.dashboard}",
                "--dashboard-host=127.0.0.1",
                f"--include-dashboard={self.include_dashboard}",
                f"--ray-client-server-port={self.ports.client_server}",
                *_node_arguments(cpus, low, high),
            ],
            head=True,
        )
        self._node_ip = await asyncio.to_thread(_address_of_listener, self.ports.gcs)

    async def _ray_start(self, arguments: list[str], *, head: bool) -> None:
        answer = await self._ask(
            {
                "do": "ray_start",
                "python": self.python,
                "arguments": arguments,
                "environment": {
                    # Two clusters on one host collide on the defaults of these.
                    "DASHBOARD_METRIC_PORT": str(self.ports.dashboard_metrics),
                    "AUTOSCALER_METRIC_PORT": str(self.ports.autoscaler_metrics),
                    # A token in the user's home would make Ray 2.60 want it everywhere, half of
                    # its own processes not knowing it.
                    "RAY_AUTH_MODE": "disabled",
                    **self._environment,
                },
                "timeout_seconds": _START_TIMEOUT_SECONDS,
                "head": head,
            }
        )
        if not answer["ok"]:
            raise CastrayError(
                f"A Ray cluster of castray's own could not be started: {answer['error']}",
                remedy=f"Try `{self.python} -m ray.scripts.scripts start --head` by hand",
            )
        self.node_count += 1

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        keeper = self._keeper
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        async with self._asking:
            self._order_unanswered = True
            try:
                keeper.stdin.write(json.dumps(order).encode() + b"\n")
                await keeper.stdin.drain()
                line = await keeper.stdout.readline()
            except (BrokenPipeError, ConnectionResetError):
                line = b""
            self._order_unanswered = False
        if not line:
            raise CastrayError("The process that keeps castray's own Ray cluster has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _node_arguments(cpus: int, worker_port_low: int, worker_port_high: int) -> list[str]:
    return [
        f"--num-cpus={cpus}",
        "--num-gpus=0",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        f"--dashboard-agent-listen-port={_free_port()}",
        f"--min-worker-port={worker_port_low}",
        f"--max-worker-port={worker_port_high}",
        "--disable-usage-stats",
    ]


def _free_ports() -> OwnPorts:
    return OwnPorts(
        gcs=_free_port(),
        dashboard=_free_port(),
        client_server=_free_port(),
        dashboard_metrics=_free_port(),
        autoscaler_metrics=_free_port(),
    )


def _free_port() -> int:
    return _free_port_block(1)[0]


def _free_port_block(count: int) -> tuple[int, int]:
    """The first and last of ``count`` consecutive ports that nobody listens on now."""
    for _ in range(200):
        low = random.randrange(_PORT_RANGE[0], _PORT_RANGE[1] - count)  # noqa: S311
        if all(_is_free(port) for port in range(low, low + count)):
            return low, low + count - 1
    raise CastrayError(
        f"No {count} free ports in a row between {_PORT_RANGE[0]} and {_PORT_RANGE[1]}"
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _address_of_listener(port: int) -> str:
    """The address of this machine that a GCS on ``port`` gave itself: Ray takes the address that
    a packet to the outside would leave from, and loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # sends nothing; Ray's own way to find its address
            address = str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        reachable = connection.connect_ex((address, port)) == 0
    return address if reachable else "127.0.0.1"
