"""Putting agents on nodes: one Ray actor that asks for no CPU, pinned by node ID, on demand."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Dict, List, Tuple

from . import bundle
from .leg import pairs
from .ownership import Nodes
from .refusals import OrderRefusedError
from .resting import REST_AFTER_SECONDS

Json = Dict[str, Any]

START_SECONDS = 30.0
# Of orders that look at content, which takes its time; Ray notices long before that a node died.
CALL_SECONDS = 3600.0
_LONG_ORDERS = frozenset({"scan", "plan", "existing", "digests"})
# All others are carried out at once, by an agent that does not hang.
SHORT_CALL_SECONDS = 20.0
_CONCURRENT_CALLS = 16
_HEAD_RESOURCE = "node:__internal_head__"
# The others are about a transfer that only the agent that had it knows of.
_STARTING_ORDERS = frozenset({"hello", "scan", "plan", "existing", "allow"})


def _actor_class() -> Any:
    """The actor's class. Made inside a function so that Ray ships it by value: the package that it
    would otherwise be imported from is not installed on the nodes."""

    class CastrayAgent:
        def __init__(  # noqa: PLR0917  (an actor's arguments)
            self, loader: str, packed: str, address: str, ports: Tuple[int, int], niceness: int
        ) -> None:
            import contextlib  # noqa: PLC0415  the class travels without its module
            import os  # noqa: PLC0415

            os.nice(niceness)
            exec(loader, {"bundle": packed})  # noqa: S102  (castray's own source, from its own job)
            from castray_agent.node_agent import (  # type: ignore[import-not-found]  # noqa: PLC0415
                NodeAgent,
            )
            from castray_agent.resting import (  # type: ignore[import-not-found]  # noqa: PLC0415
                Resting,
            )

            self._agent = NodeAgent(address, ports)
            # Where this is not the main thread, or there is no such signal, idling costs more.
            with contextlib.suppress(ValueError, AttributeError):
                self._agent.on_dialed = Resting(self._agent.idle_seconds).wake

        def call(self, order: str, arguments: Json) -> Json:
            # Exceptions of a package that only exists in memory are told as data.
            from castray_agent.refusals import (  # type: ignore[import-not-found]  # noqa: PLC0415
                OrderRefusedError as Refused,
            )

            try:
                return {"answer": self._agent.call(order, arguments)}
            except Refused as refused:
                return {"refused": {"code": refused.code, "reason": refused.reason}}

    return CastrayAgent


class RayNodes(Nodes):
    """The agents of one cluster's nodes. Needs ``ray.init`` to have been called.

    Args:
        port_range: Ports for the agents to listen on.
        niceness: How much the agents give way to others, beyond what Ray's workers do.
    """

    def __init__(self, port_range: Tuple[int, int], niceness: int = 0) -> None:
        import ray  # noqa: PLC0415  only a coordinator has Ray

        self._ray = ray
        self._port_range = port_range
        self._niceness = niceness
        self._lock = threading.Lock()
        self._agents: Dict[str, _Placed] = {}
        self._class = ray.remote(_actor_class())

    def call(self, node_id: str, order: str, arguments: Json) -> Json:
        """One order to one node's agent, which is started if there is none."""
        placed = self._placed(node_id, order)
        try:
            result = placed.call(order, arguments)
        except OrderRefusedError:
            if not placed.is_gone or order not in _STARTING_ORDERS:
                raise
            # It had died unnoticed; the node may be well.
            placed = self._placed(node_id, order)
            result = placed.call(order, arguments)
        if "refused" in result:
            raise OrderRefusedError(result["refused"]["code"], result["refused"]["reason"])
        answer = result["answer"]
        return dict(answer) if isinstance(answer, dict) else {}

    def listing(self) -> List[Json]:
        """All nodes of the cluster, dead ones included, as Ray lists them now."""
        return [
            {
                "node_id": node["NodeID"],
                "alive": bool(node["Alive"]),
                "address": node.get("NodeManagerAddress"),
                "hostname": node.get("NodeManagerHostname"),
                "is_head": _HEAD_RESOURCE in (node.get("Resources") or {}),
            }
            for node in self._ray.nodes()
        ]

    def idle_seconds(self) -> float:
        """For how long no agent did anything; 0 while one does, infinite where there is none."""
        with self._lock:
            agents = list(self._agents.items())
        shortest = float("inf")
        for node_id, placed in agents:
            try:
                answer = placed.call("idle", {})["answer"]
                shortest = min(shortest, 0.0 if answer["busy"] else answer["seconds"])
            except OrderRefusedError:
                self._drop(node_id, placed)
        return shortest

    def _placed(self, node_id: str, order: str) -> _Placed:
        with self._lock:
            placed = self._agents.get(node_id)
            if placed is None or placed.is_gone:
                if order not in _STARTING_ORDERS:
                    raise OrderRefusedError("agent", "the node's agent is gone")
                placed = self._agents[node_id] = _Placed(
                    self._ray, self._class, node_id, (self._port_range, self._niceness)
                )
        try:
            placed.wait_until_up()
        except OrderRefusedError:
            self._drop(node_id, placed)
            raise
        return placed

    def _drop(self, node_id: str, placed: _Placed) -> None:
        """An agent that is gone is not asked again; the next order starts a new one."""
        placed.kill()
        with self._lock:
            if self._agents.get(node_id) is placed:
                del self._agents[node_id]


class _Placed:
    """One agent, on its way up or there."""

    def __init__(self, ray: Any, actor: Any, node_id: str, settings: Tuple[Any, ...]) -> None:
        self._ray = ray
        self._node_id = node_id
        self._lock = threading.Lock()
        self._is_up = False
        self._actor: Any = None
        self._class = actor
        self._settings = settings
        self._endpoints: List[Tuple[str, int]] = []
        self._last_call = 0.0
        self.is_gone = False

    def wait_until_up(self) -> None:
        """Starts the agent where nobody did. Raises OrderRefusedError within ``START_SECONDS``."""
        with self._lock:
            if self.is_gone:
                raise OrderRefusedError("agent", "the node's agent is gone")
            if self._is_up:
                return
            self._start()
            self._is_up = True

    def _start(self) -> None:
        from ray.util.scheduling_strategies import (  # noqa: PLC0415
            NodeAffinitySchedulingStrategy,
        )

        node = self._node()
        # A lease on what needs nothing is asked of a random node, which may have died a moment ago
        # without Ray's notice; this resource only that node's address has.
        address = "node:{}".format(node["NodeManagerAddress"])
        wanted = {address: 0.001} if address in node.get("Resources", {}) else None
        try:
            self._actor = self._class.options(
                num_cpus=0,
                resources=wanted,
                max_restarts=0,
                max_concurrency=_CONCURRENT_CALLS,
                name="castray-agent-{}-{:x}".format(self._node_id[:16], int(time.time() * 1000)),
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node_id, soft=False),
            ).remote(bundle.LOADER, bundle.pack(), node["NodeManagerAddress"], *self._settings)
            hello = self._get(self._actor.call.remote("hello", {}), START_SECONDS)
            self._endpoints = pairs(hello["answer"]["endpoints"])
            self._last_call = time.monotonic()
        except OrderRefusedError as refused:
            self.kill()
            raise OrderRefusedError(
                "agent", "no agent could be started: " + refused.reason
            ) from None

    def _node(self) -> Json:
        nodes: List[Json] = self._ray.nodes()
        for node in nodes:
            if node["NodeID"] == self._node_id:
                if node["Alive"]:
                    return node
                raise OrderRefusedError("agent", "the node is dead")
        raise OrderRefusedError("agent", "the cluster has no such node any more")

    def call(self, order: str, arguments: Json) -> Json:
        """One order. Raises OrderRefusedError where the agent is gone or does not answer; one that
        hangs is ended, so that the next order finds a new one."""
        if self._actor is None:
            raise OrderRefusedError("agent", "the node's agent is not up")
        self._wake()
        is_long = order in _LONG_ORDERS
        timeout_seconds = CALL_SECONDS if is_long else SHORT_CALL_SECONDS
        return self._get(self._actor.call.remote(order, arguments), timeout_seconds)

    def _wake(self) -> None:
        """Dials an agent that may be resting, so that the order is taken up at once."""
        now = time.monotonic()
        is_awake = now - self._last_call < REST_AFTER_SECONDS / 2
        self._last_call = now
        if not is_awake:
            threading.Thread(target=_dial_and_hang_up, args=(self._endpoints,), daemon=True).start()

    def kill(self) -> None:
        """Ends the agent's process, if there is one."""
        self.is_gone = True
        if self._actor is not None:
            # It may be gone already.
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(self._actor)

    def _get(self, reference: Any, timeout_seconds: float) -> Json:
        exceptions = self._ray.exceptions
        try:
            result = self._ray.get(reference, timeout=timeout_seconds)
        except exceptions.GetTimeoutError:
            self.kill()
            raise OrderRefusedError(
                "agent", "no answer from the node within {:.0f} s".format(timeout_seconds)
            ) from None
        except exceptions.RayTaskError as error:
            raise OrderRefusedError("agent", _last_line(error)) from None
        except exceptions.RayError as error:
            self.is_gone = True
            raise OrderRefusedError("agent", _first_line(error)) from None
        return dict(result)


def _dial_and_hang_up(endpoints: List[Tuple[str, int]]) -> None:
    for endpoint in endpoints:
        with contextlib.suppress(OSError):
            socket.create_connection(endpoint, timeout=1.0).close()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
