"""Agents that answer as told, without agents: what the transfer floor does with their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castray_tui.agent.scanning import scan
from castray_tui.core.errors import TransferError
from castray_tui.core.transfer.answers import ConnectionBrokenError

Json = dict[str, Any]


class FakeSession:
    """A session with a cluster whose agents all are here.

    Args:
        source: What every scan finds.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self.on_event: Callable[[Json], None] = lambda event: None
        self.on_closed: Callable[[], None] = lambda: None
        self.is_open = True
        self.orders: list[tuple[str, str, Json]] = []
        """Node, order and arguments of every call."""
        self.runs: list[Json] = []
        """What source's agents were told to send."""
        self.messages: list[Json] = []
        """Everything that was no call and no run."""
        self.plans: dict[str, Json] = {}
        """What is different in a node's answer to ``plan``."""
        self.gone: set[str] = set()
        """Nodes without an agent."""
        self.walls: set[tuple[str, str]] = set()
        """Who cannot connect to whom, by node."""
        self.breaks_at: str | None = None
        """The order at which the connection breaks, once."""
        self.started = asyncio.Event()

    def sealed(self, secret: bytes) -> Json:
        return {"secret": secret.hex()}

    async def request(self, message: Json, timeout_seconds: float) -> list[Any]:
        await asyncio.sleep(0)
        if not self.is_open:
            raise TransferError("The coordinator is gone")
        if any(one["order"] == self.breaks_at for one in message.get("calls", [])):
            self.breaks_at = None
            raise ConnectionBrokenError("The connection to the coordinator broke")
        if "calls" in message:
            shared = message.get("shared", {})
            return [
                self._answer(one["node_id"], one["order"], {**shared, **one["arguments"]})
                for one in message["calls"]
            ]
        if "run" in message:
            self.runs.append({**message["run"], "record": message["record"]})
            self.started.set()
            return []
        self.messages.append(message)
        return []

    def told(self, order: str) -> list[tuple[str, Json]]:
        """To whom an order was given, with its arguments."""
        return [(node, arguments) for node, known, arguments in self.orders if known == order]

    async def next_run(self) -> Json:
        """The next order to send."""
        await asyncio.wait_for(self.started.wait(), 10)
        self.started.clear()
        return self.runs[-1]

    def _answer(self, node: str, order: str, arguments: Json) -> Json:
        self.orders.append((node, order, arguments))
        if node in self.gone:
            return {"refused": {"code": "agent", "reason": "the node's agent is gone"}}
        return {"answer": getattr(self, f"_{order}")(node, arguments)}

    def _hello(self, node: str, arguments: Json) -> Json:
        return {"endpoints": [[node, 1]], "machine": node, "python": "3", "pid": 1}

    _allow = _hello

    def _scan(self, node: str, arguments: Json) -> Json:
        found = scan([str(self._source)], [])
        return {
            "manifest": found.manifest.pack(),
            "size": found.manifest.total_bytes,
            "files": len(found.manifest.files),
            "token": found.token,
            "path": str(self._source),
        }

    def _plan(self, node: str, arguments: Json) -> Json:
        answer = {"path": arguments["path"], "action": "send", "code": None, "reason": None}
        return {**answer, **self.plans.get(node, {})}

    def _reach(self, node: str, arguments: Json) -> Json:
        results = [
            "no connection" if (node, endpoints[0][0]) in self.walls else None
            for endpoints in arguments["agents"]
        ]
        rates = [1e8 if result is None else None for result in results]
        return {"results": results, "rates": rates}

    def _nothing(self, node: str, arguments: Json) -> Json:
        return {}

    _bridge = _dial = _drop = _forget = _nothing
