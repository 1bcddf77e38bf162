"""The processes that ask GCS servers for castray, seen from castray's side.

One child (``gcs_reader``) serves all clusters without a token, and one each distinct token. A child
that dies is a failed answer and a new child, after a while; never an exception of another kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from castray_tui.core.errors import (
    AuthError,
    CastrayError,
    RayAnswerError,
    RayMismatchError,
)
from castray_tui.core.ray_api.http import RefusedError, SilentError
from castray_tui.core.ray_api.tokens import REMEDY_FOR_MISSING, REMEDY_FOR_WRONG, Token
from castray_tui.core.text_safety import safe_text

_MAX_LINE_BYTES = 64 * 1024 * 1024
_FIRST_ANSWER_EXTRA_SECONDS = 15.0
"""``import ray`` comes before the first answer: 0.6 s to several on a busy machine."""
_LONGEST_WAIT_SECONDS = 30.0
_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class GcsSnapshot:
    """What one GCS told, as plain data.

    Attributes:
        rows: Nodes in the shape of the dashboard's ``/api/v0/nodes`` with ``agent_port`` besides.
        usage: ``{node ID: {resource: (used, total)}}``, of nodes that are not dead.
        draining: Node ID and when its deadline is, in seconds since the epoch; None without one.
        dashboard: The address that the GCS has for its dashboard; it may name one that is not
            there.
    """

    cluster_id: str | None
    session_name: str | None
    ray_version: str | None
    dashboard: str | None
    rows: tuple[Mapping[str, object], ...]
    usage: Mapping[str, Mapping[str, object]]
    draining: Mapping[str, float | None]


class GcsProcesses:
    """All children of one castray; they start when they are first needed.

    Args:
        command: What a child runs; tests put something else there.
    """

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        self._command = command or (sys.executable, "-m", "castray_tui.core.ray_api.gcs_reader")
        self._children: dict[Token | None, _Child] = {}

    async def poll(
        self, address: str, *, token: Token | None = None, timeout_seconds: float = 5.0
    ) -> GcsSnapshot:
        """Nodes, resources and draining of one cluster.

        Args:
            address: ``host:port`` of its GCS.

        Raises:
            RefusedError: Nobody listens there.
            SilentError: No answer in time.
            AuthError: The token is missing or wrong.
            RayMismatchError: This machine's Ray cannot ask that GCS.
            RayAnswerError: Anything else, the child's death included.
        """
        told = await self._ask(
            {"op": "poll", "address": address}, token=token, timeout_seconds=timeout_seconds
        )
        return _snapshot(told)

    async def job_record(
        self,
        address: str,
        submission_id: str,
        *,
        token: Token | None = None,
        timeout_seconds: float = 5.0,
    ) -> Mapping[str, object] | None:
        """A submitted job's record, None where Ray remembers none; raises as ``poll``."""
        told = await self._ask(
            {"op": "job_record", "address": address, "submission_id": submission_id},
            token=token,
            timeout_seconds=timeout_seconds,
        )
        return told if isinstance(told, Mapping) else None

    async def close(self) -> None:
        """Ends the children."""
        children, self._children = list(self._children.values()), {}
        await asyncio.gather(*(child.close() for child in children))

    async def _ask(
        self, request: dict[str, object], *, token: Token | None, timeout_seconds: float
    ) -> object:
        child = self._children.get(token)
        if child is None:
            child = self._children[token] = _Child(self._command, token)
        return await child.ask(request, timeout_seconds)


@dataclass(slots=True)
class _Running:
    process: asyncio.subprocess.Process
    reading: asyncio.Task[None]
    waiting: dict[int, asyncio.Future[Mapping[str, object]]] = field(default_factory=dict)
    answered: bool = False
    """Whether it answered anything yet; before that, ``import ray`` may still be under way."""


class _Child:
    """One process, started when asked, and again after it died."""

    def __init__(self, command: tuple[str, ...], token: Token | None) -> None:
        self._command = command
        self._token = token
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._failures = 0
        self._not_before = 0.0

    async def ask(self, request: dict[str, object], timeout_seconds: float) -> object:
        running = await self._started()
        number = next(self._numbers)
        future: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        running.waiting[number] = future
        patience = timeout_seconds + (0.0 if running.answered else _FIRST_ANSWER_EXTRA_SECONDS)
        line = json.dumps({**request, "id": number, "timeout": timeout_seconds})
        address = safe_text(request["address"], limit=200)
        try:
            assert running.process.stdin is not None  # opened as a pipe below
            running.process.stdin.write(line.encode() + b"\n")
            await running.process.stdin.drain()
            told = await asyncio.wait_for(future, patience)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise SilentError(
                f"The GCS at {address} did not answer within {patience:g} s"
            ) from error
        except OSError as error:
            raise RayAnswerError(
                f"castray's reader for GCS servers ended while {address} was asked"
            ) from error
        finally:
            running.waiting.pop(number, None)
        self._failures = 0
        if "ok" in told:
            return told["ok"]
        raise self._error(address, told)

    async def close(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        if running.process.stdin is not None:
            running.process.stdin.close()
        try:
            await asyncio.wait_for(running.process.wait(), _END_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()
            await running.process.wait()
        await running.reading

    async def _started(self) -> _Running:
        async with self._starting:
            if self._running is not None and self._running.process.returncode is None:
                return self._running
            wait_seconds = self._not_before - time.monotonic()
            if wait_seconds > 0:
                raise RayAnswerError(
                    "castray's reader for GCS servers died; it starts again in "
                    f"{wait_seconds:.0f} s"
                )
            environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith("RAY_AUTH_")
            }
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    # What Ray prints there would run across the screen.
                    stderr=asyncio.subprocess.DEVNULL,
                    env=environment,
                    limit=_MAX_LINE_BYTES,
                    # ctrl-c on the terminal is castray's business; the child ends with its input.
                    start_new_session=True,
                )
                assert process.stdin is not None  # opened as a pipe above
                token = None if self._token is None else self._token.reveal()
                process.stdin.write(json.dumps({"token": token}).encode() + b"\n")
                await process.stdin.drain()
            except OSError as error:
                self._postpone()
                raise RayAnswerError(
                    f"castray's reader for GCS servers cannot start: {error.strerror or error}"
                ) from error
            running = _Running(process, asyncio.get_running_loop().create_task(asyncio.sleep(0)))
            running.reading = asyncio.get_running_loop().create_task(self._read(running))
            self._running = running
            return running

    def _postpone(self) -> None:
        self._failures += 1
        seconds = min(2.0 ** (self._failures - 1), _LONGEST_WAIT_SECONDS)
        self._not_before = time.monotonic() + seconds

    async def _read(self, running: _Running) -> None:
        """Hands answers to who waits for them, until the child ends."""
        stdout = running.process.stdout
        assert stdout is not None  # opened as a pipe in _started
        try:
            while line := await stdout.readline():
                told = json.loads(line)
                running.answered = True
                future = running.waiting.get(told["id"])
                if future is not None and not future.done():
                    future.set_result(told)
        except (ValueError, KeyError, TypeError):
            # A line too long or no answer: the child cannot be trusted any more.
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()
        await running.process.wait()
        if self._running is running:
            self._running = None
            self._postpone()
        for future in running.waiting.values():
            if not future.done():
                future.set_result({"error": "failed", "message": "the reader's process died"})

    def _error(self, address: str, told: Mapping[str, object]) -> CastrayError:
        words = safe_text(told.get("message"), limit=300)
        kind = told.get("error")
        if kind == "refused":
            return RefusedError(f"Nothing answers at the GCS address {address} ({words})")
        if kind == "silent":
            return SilentError(f"The GCS at {address} did not answer in time")
        if kind == "auth":
            return AuthError(
                f"The GCS at {address} refuses the authentication token from {self._token.origin}"
                if self._token is not None
                else f"The GCS at {address} wants an authentication token",
                remedy=REMEDY_FOR_MISSING if self._token is None else REMEDY_FOR_WRONG,
            )
        if kind == "mismatch":
            return RayMismatchError(f"The GCS at {address} cannot be asked from here: {words}")
        return RayAnswerError(f"The GCS at {address} could not be read: {words}")


def _snapshot(told: object) -> GcsSnapshot:
    if not isinstance(told, Mapping):
        raise RayAnswerError("castray's reader for GCS servers answered in an unknown shape")
    draining: dict[str, float | None] = {}
    for node_id, about in _mapping(told.get("draining")).items():
        deadline_ms = _mapping(about).get("deadline_ms")
        if isinstance(deadline_ms, int) and 0 < deadline_ms < 10**14:
            draining[node_id] = deadline_ms / 1000.0
        else:
            draining[node_id] = None
    rows = told.get("nodes")
    return GcsSnapshot(
        cluster_id=_text(told.get("cluster_id")),
        session_name=_text(told.get("session_name")),
        ray_version=_text(told.get("ray_version")),
        dashboard=_text(told.get("dashboard")),
        rows=tuple(row for row in rows if isinstance(row, Mapping))
        if isinstance(rows, list)
        else (),
        usage={
            node_id: usage
            for node_id, usage in _mapping(told.get("usage")).items()
            if isinstance(usage, Mapping)
        },
        draining=draining,
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return safe_text(value, limit=200) if isinstance(value, str) and value else None
