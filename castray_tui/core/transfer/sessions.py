"""Sessions with those who hold agents: castray's own agent process, and a cluster's coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from castray_tui.agent import keys
from castray_tui.agent.wire import CONTROL_JSON_LIMIT_BYTES
from castray_tui.core.errors import TransferError
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.answers import Answers
from castray_tui.core.transfer.control_connection import ControlConnection

Json = dict[str, Any]

_LINE_LIMIT_BYTES = CONTROL_JSON_LIMIT_BYTES
_LARGE_BYTES = 32 * 1024
_END_SECONDS = 5.0


class AgentRefusedError(TransferError):
    """A node's agent refused, or there is none to be had. ``refusal`` is the agent's short word."""

    def __init__(self, refusal: str, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


class Session(Protocol):
    """One side of a transfer, wherever it is."""

    on_event: Callable[[Json], None]
    on_closed: Callable[[], None]

    @property
    def is_open(self) -> bool:
        """Whether orders can be given."""
        ...

    async def request(self, message: Json, timeout_seconds: float) -> list[Any]:
        """One order; raises TransferError where it is refused or not answered."""
        ...

    def sealed(self, secret: bytes) -> Json:
        """A transfer's secret as it goes into an order of this session."""
        ...


async def call(
    session: Session, node_id: str, order: str, arguments: Json, timeout_seconds: float
) -> Json:
    """One order to one node's agent.

    Raises:
        AgentRefusedError: The agent said no, with its reason.
        TransferError: Nobody answered.
    """
    (result,) = await call_all(session, [(node_id, order, arguments)], timeout_seconds)
    if isinstance(result, TransferError):
        raise result
    return result


async def call_all(
    session: Session,
    calls: Sequence[tuple[str, str, Json]],
    timeout_seconds: float,
    shared: Json | None = None,
) -> list[Json | TransferError]:
    """Orders to several agents of one session, side by side.

    Args:
        calls: Node ID, order and arguments of each.
        shared: Arguments that all of them have. What is large is sent once for all calls; then,
            and only then, the answers come together, when the slowest agent has given its own.

    Returns:
        An answer or an error for each call.
    """
    if not calls:
        return []
    if len(calls) > 1 and sum(_length(value) for value in (shared or {}).values()) > _LARGE_BYTES:
        return await _ask(session, calls, timeout_seconds, shared)
    results = await asyncio.gather(
        *(
            _ask(session, [(node_id, order, {**(shared or {}), **arguments})], timeout_seconds)
            for node_id, order, arguments in calls
        )
    )
    return [result for (result,) in results]


async def _ask(
    session: Session,
    calls: Sequence[tuple[str, str, Json]],
    timeout_seconds: float,
    shared: Json | None = None,
) -> list[Json | TransferError]:
    """One message with some calls in it."""
    message: Json = {
        "calls": [
            {"node_id": node_id, "order": order, "arguments": arguments}
            for node_id, order, arguments in calls
        ]
    }
    if shared is not None:
        message["shared"] = shared
    try:
        answers = await session.request(message, timeout_seconds)
    except TransferError as error:
        return [error for _ in calls]
    results: list[Json | TransferError] = []
    for answer in answers:
        if isinstance(answer.get("answer"), dict):
            results.append(answer["answer"])
        else:
            refused = answer.get("refused") or {}
            results.append(
                AgentRefusedError(
                    safe_text(refused.get("code"), limit=50),
                    safe_text(refused.get("reason") or "the agent refused", limit=1000),
                )
            )
    if len(results) != len(calls):
        return [TransferError("An agent answered in an unknown shape") for _ in calls]
    return results


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


class LocalSession:
    """The agent process of the machine that castray runs on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers = Answers("castray's own agent")
        self.on_event: Callable[[Json], None] = lambda event: None
        self.on_closed: Callable[[], None] = lambda: None
        self._is_open = True
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, niceness: int = 0) -> LocalSession:
        """Starts the process, in a group of its own so that ctrl-c does not reach it.

        Args:
            niceness: How far it stands back for what else wants the processor.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "castray_tui.agent.local_process",
            str(niceness),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
            limit=_LINE_LIMIT_BYTES,
        )
        return cls(process)

    @property
    def is_open(self) -> bool:
        """Whether the process takes orders."""
        return self._is_open

    def sealed(self, secret: bytes) -> Json:
        """Plain: nobody else reads the pipe to a child process."""
        return {"secret": secret.hex()}

    async def request(self, message: Json, timeout_seconds: float) -> list[Any]:
        """One order; raises TransferError where it is refused or not answered."""
        if not self._is_open:
            raise TransferError("castray's own agent process has ended")
        return await self._answers.ask(self._send, message, timeout_seconds)

    def _send(self, message: Json) -> None:
        assert self._process.stdin is not None  # opened as a pipe
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """Ends the process: it aborts what it sends and removes what it has not whole."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        stdout = self._process.stdout
        while stdout is not None:
            try:
                line = await stdout.readline()
            except ValueError:  # A line beyond the limit: nothing of ours writes that.
                break
            if not line:
                break
            message = json.loads(line)
            if "event" in message:
                self.on_event(message)
                continue
            self._answers.take(message)
        self._is_open = False
        self._answers.fail("castray's own agent process has ended")
        self.on_closed()


class ClusterSession:
    """A cluster's coordinator, reached over its control port."""

    def __init__(self, connection: ControlConnection, control_key: bytes) -> None:
        self._connection = connection
        self._control_key = control_key
        self.on_event: Callable[[Json], None] = lambda event: None
        self.on_closed: Callable[[], None] = lambda: None
        connection.on_event = self._pass_on_event
        connection.on_closed = self._pass_on_closed

    @property
    def is_open(self) -> bool:
        """Whether the coordinator can be given orders."""
        return self._connection.is_open

    def sealed(self, secret: bytes) -> Json:
        """Under a pad of the control key: the control port is not encrypted."""
        return {"wrapped_secret": keys.wrap(self._control_key, secret)}

    async def request(self, message: Json, timeout_seconds: float) -> list[Any]:
        """One order; raises TransferError where it is refused or not answered."""
        return await self._connection.request(message, timeout_seconds)

    def _pass_on_event(self, event: Json) -> None:
        self.on_event(event)

    def _pass_on_closed(self) -> None:
        self.on_closed()

    async def leave(self) -> bool:
        """Says goodbye; whether the coordinator ends now, as nobody else needs it."""
        try:
            (answer,) = await self._connection.request({"leave": 1}, _END_SECONDS)
            return bool(answer["stopping"])
        except (TransferError, ValueError, KeyError):
            return False

    async def close(self) -> None:
        """Hangs up."""
        await self._connection.close()
