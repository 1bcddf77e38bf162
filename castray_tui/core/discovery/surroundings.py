"""What one discovery learns about its surroundings, asked once however many methods want it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from castray_tui.core.discovery.addresses import host_port, is_loopback
from castray_tui.core.discovery.gcs_wire import GcsAnswer, ask_gcs
from castray_tui.core.discovery.probing import Standing, probe_dashboard
from castray_tui.core.discovery.ray_processes import (
    LocalProcesses,
    LocalSession,
    group_sessions,
    list_local_processes,
    listening_ports,
    own_hosts,
)

_Answer = TypeVar("_Answer")

PROBE_SECONDS = 1.5
"""How long one server may take for one answer; a healthy one takes 10 ms, on a machine that is busy
to the brim up to a second."""


async def _known(standing: Standing) -> Standing:
    return standing


class Surroundings:
    """Processes of this machine and answers of servers, each asked for once and shared.

    Args:
        probe_seconds: For each question to a server.
    """

    def __init__(self, *, probe_seconds: float = PROBE_SECONDS) -> None:
        self.probe_seconds = probe_seconds
        self._tasks: dict[tuple[object, ...], asyncio.Task[Any]] = {}

    async def _once(
        self, key: tuple[object, ...], question: Coroutine[Any, Any, _Answer]
    ) -> _Answer:
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.ensure_future(question)
            self._tasks[key] = task
        else:
            question.close()
        # Shielded: a method that runs out of time must not take the answer from the others.
        answer: _Answer = await asyncio.shield(task)
        return answer

    async def close(self) -> None:
        """Ends what is still being asked."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def processes(self) -> LocalProcesses:
        """Ray's processes on this machine."""
        return await self._once(("processes",), asyncio.to_thread(list_local_processes))

    async def sessions(self) -> tuple[LocalSession, ...]:
        """The same, put together by session."""
        return group_sessions(await self.processes())

    async def gcs(self, host: str, port: int) -> GcsAnswer:
        """What stands at an address that should be a GCS."""
        return await self._once(
            ("gcs", host, port), ask_gcs(host, port, timeout_seconds=self.probe_seconds)
        )

    async def dashboard(self, host: str, port: int, *, with_nodes: bool = False) -> Standing:
        """What stands at an address that should be a dashboard. Never carries a token.

        ``with_nodes`` also counts its nodes and asks how its head was started.
        """
        return await self._once(
            ("dashboard", host, port, with_nodes),
            probe_dashboard(host, port, timeout_seconds=self.probe_seconds, with_nodes=with_nodes),
        )

    def remember(self, standing: Standing) -> None:
        """Keeps what was found at a place, so that nobody asks a hung server twice."""
        key = ("dashboard", standing.host, standing.port, False)
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(_known(standing))

    async def listens(self, pids: tuple[int, ...], port: int) -> bool | None:
        """Whether one of the processes listens on the port; None where that may not be known."""
        answers = [
            await self._once(("listens", pid), asyncio.to_thread(listening_ports, pid))
            for pid in pids
        ]
        known = [ports for ports in answers if ports is not None]
        if any(port in ports for ports in known):
            return True
        return False if known and len(known) == len(answers) else None

    async def own_hosts(self) -> frozenset[str]:
        """This machine's addresses and name, as far as they can be known."""
        try:
            return await self._once(("own hosts",), asyncio.to_thread(own_hosts))
        except OSError:
            return frozenset()

    async def is_here(self, host: str) -> bool:
        """Whether a host is this machine."""
        return is_loopback(host) or host in await self.own_hosts()

    async def place(self, host: str, port: int) -> str:
        """A place to compare by: every address of this machine is the same host."""
        return f"here:{port}" if await self.is_here(host) else host_port(host.lower(), port)
