"""Castray's end of a coordinator's control port, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from castray_tui.agent import wire
from castray_tui.agent.control import CONTROL_IDENTITY
from castray_tui.core.errors import TransferError
from castray_tui.core.transfer.answers import Answers

Json = dict[str, Any]

_PING_SECONDS = 5.0


class ControlConnection:
    """Orders out, answers and events in. Made by ``connect_to_coordinator``."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handshake: wire.DialerHandshake,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._sealer = wire.Sealer(handshake.send_key)
        self._opener = wire.Opener(handshake.receive_key)
        self._answers = Answers("The coordinator")
        self.on_event: Callable[[Json], None] = lambda event: None
        self.on_closed: Callable[[], None] = lambda: None
        self.is_open = True
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._ping())]

    async def request(self, message: Json, timeout_seconds: float) -> list[Any]:
        """One order; what it came to.

        Raises:
            TransferError: Refused, no answer in time, or the connection is gone.
        """
        if not self.is_open:
            raise TransferError("The coordinator is gone")
        return await self._answers.ask(self._send, message, timeout_seconds)

    def _send(self, message: Json) -> None:
        if not self.is_open:
            return
        self._writer.write(self._sealer.json_frame(message))

    async def close(self) -> None:
        """Hangs up."""
        self._writer.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._end()

    def _end(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._writer.close()
        self._answers.fail("The connection to the coordinator broke")
        self.on_closed()

    async def _ping(self) -> None:
        while self.is_open:
            await asyncio.sleep(_PING_SECONDS)
            self._send({"ping": 1})

    async def _read(self) -> None:
        try:
            while True:
                message = await asyncio.wait_for(self._message(), wire.CONTROL_SILENCE_SECONDS)
                if "event" in message:
                    self.on_event(message)
                elif "id" in message:
                    self._answers.take(message)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, wire.WireError):
            pass  # Whoever waits for an answer is told below.
        except (ValueError, json.JSONDecodeError):
            pass  # An authenticated coordinator that talks nonsense is as good as none.
        finally:
            self._end()

    async def _message(self) -> Json:
        prefix = await self._reader.readexactly(wire.PREFIX_BYTES)
        length = wire.json_length(prefix, wire.CONTROL_JSON_LIMIT_BYTES)
        return self._opener.json_payload(prefix, await self._reader.readexactly(length))


async def connect_to_coordinator(
    hosts: Sequence[str], port: int, key: bytes, timeout_seconds: float = wire.HANDSHAKE_SECONDS
) -> ControlConnection:
    """Connects to the first of the hosts where a coordinator proves that it holds the key.

    Raises:
        TransferError: None of them; the message says why for each.
    """
    attempts = {
        asyncio.create_task(_connect_one(host, port, key, timeout_seconds)): host for host in hosts
    }
    failures = []
    connection: ControlConnection | None = None
    try:
        for attempt in asyncio.as_completed(attempts):
            try:
                connection = await attempt
                return connection
            except (OSError, asyncio.TimeoutError, EOFError, wire.WireError) as error:
                failures.append(wire.describe(error))
    finally:
        for task in attempts:
            task.cancel()
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(result, ControlConnection) and result is not connection:
                await result.close()
    places = ", ".join(f"{host}:{port}" for host in hosts)
    raise TransferError(
        f"The coordinator's control port cannot be reached at {places or port}: "
        + ("; ".join(sorted(set(failures))) or "no host is known"),
        remedy="Open the port to this machine; transfer.port_range sets which ports are used",
    )


async def _connect_one(
    host: str, port: int, key: bytes, timeout_seconds: float
) -> ControlConnection:
    return await asyncio.wait_for(_shake_hands(host, port, key), timeout_seconds)


async def _shake_hands(host: str, port: int, key: bytes) -> ControlConnection:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        handshake = wire.DialerHandshake(key, wire.CONTROL, CONTROL_IDENTITY)
        writer.write(handshake.greeting)
        writer.write(handshake.finish(await reader.readexactly(wire.ANSWER_BYTES)))
        return ControlConnection(reader, writer, handshake)
    except BaseException:
        writer.close()
        raise
