"""One bounded HTTP GET: small enough to start at once, and safe against whatever answers.

An HTTP library takes longer to import than a whole discovery may last. What is needed here is one
request a connection, a limit on bytes and seconds, and to know exactly how it failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from castray_tui.core.discovery.addresses import host_port

Failure = Literal["refused", "silent", "unresolved", "unreachable", "closed", "not_http", "tls"]
"""``refused``: nobody listens. ``silent``: it accepted the connection and did not answer in time.
``unreachable``: the connection did not come about in time, or there is no way there."""

MAX_HEADER_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024


class NoAnswer(Exception):  # noqa: N818 - not an error but a finding
    """There is no HTTP answer at the place, and why."""

    def __init__(self, failure: Failure, first_bytes: bytes = b"", detail: str = "") -> None:
        super().__init__(failure)
        self.failure: Failure = failure
        self.first_bytes = first_bytes
        self.detail = detail


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers (lower-case names) and body; ``complete`` is False where it was cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


async def http_get(
    host: str,
    port: int,
    path: str,
    *,
    timeout_seconds: float,
    limit_bytes: int = 1024 * 1024,
    tls: bool = False,
    token: str | None = None,
) -> HttpAnswer:
    """Asks once, without following redirects.

    Args:
        host: Name or address, without brackets.
        port: TCP port.
        path: Path and query.
        timeout_seconds: For connection and answer together.
        limit_bytes: The body is cut after these.
        tls: Whether to speak TLS, with verified certificates.
        token: Ray's token; only ever given by whoever knows that it belongs there.

    Returns:
        Whatever HTTP answer came.

    Raises:
        NoAnswer: There was none.
    """
    connection = _Connection()
    try:
        return await asyncio.wait_for(
            connection.ask(host, port, path, limit_bytes=limit_bytes, tls=tls, token=token),
            timeout_seconds,
        )
    except (asyncio.TimeoutError, TimeoutError):
        raise NoAnswer("silent" if connection.connected else "unreachable") from None
    except ConnectionRefusedError:
        raise NoAnswer("refused") from None
    except OSError as error:
        raise NoAnswer(failure_of(error), detail=str(error)) from None
    finally:
        connection.close()


def failure_of(error: OSError) -> Failure:
    """What an error of the operating system means for whoever asked."""
    import socket  # noqa: PLC0415 - asyncio has loaded it already

    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "unresolved"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "closed"
    if type(error).__module__ == "ssl":
        return "tls"
    return "unreachable"


class _Connection:
    def __init__(self) -> None:
        self.connected = False
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    async def ask(
        self, host: str, port: int, path: str, *, limit_bytes: int, tls: bool, token: str | None
    ) -> HttpAnswer:
        reader, self._writer = await asyncio.open_connection(
            host, port, ssl=True if tls else None, limit=MAX_HEADER_BYTES
        )
        self.connected = True
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host_port(host, port)}",
            "Accept: application/json, */*;q=0.1",
            "User-Agent: castray",
            "Connection: close",
        ]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        first = await reader.read(MAX_HEADER_BYTES)
        if not first:
            raise NoAnswer("closed")
        while len(first) < 5 and b"HTTP/".startswith(first):
            more = await reader.read(MAX_HEADER_BYTES)
            if not more:
                raise NoAnswer("closed", first)
            first += more
        if not first.startswith(b"HTTP/"):
            raise NoAnswer("not_http", first[:200])
        while b"\r\n\r\n" not in first:
            more = await reader.read(MAX_HEADER_BYTES)
            if not more or len(first) > MAX_HEADER_BYTES:
                raise NoAnswer("not_http", first[:200])
            first += more
        head, _, start = first.partition(b"\r\n\r\n")
        status, headers = _read_head(head)
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body, complete = await _read_chunks(reader, start, limit_bytes)
        else:
            body, complete = await _read_body(reader, start, headers, limit_bytes)
        return HttpAnswer(status, headers, body, complete)


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not (words[1].isascii() and words[1].isdigit() and len(words[1]) == 3):
        raise NoAnswer("not_http", head[:200])
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


async def _read_body(
    reader: asyncio.StreamReader, start: bytes, headers: Mapping[str, str], limit_bytes: int
) -> tuple[bytes, bool]:
    length_text = headers.get("content-length", "")
    known = length_text.isascii() and length_text.isdigit() and len(length_text) < 16
    wanted = min(int(length_text), limit_bytes) if known else limit_bytes
    parts, got = [start], len(start)
    while got < wanted:
        part = await reader.read(_READ_BYTES)
        if not part:
            return b"".join(parts), not known
        parts.append(part)
        got += len(part)
    return b"".join(parts)[:wanted], known and int(length_text) <= limit_bytes


async def _read_chunks(
    reader: asyncio.StreamReader, start: bytes, limit_bytes: int
) -> tuple[bytes, bool]:
    raw, body = bytearray(start), bytearray()
    while len(body) < limit_bytes:
        size_line, separator, _ = raw.partition(b"\r\n")
        if separator:
            try:
                size = int(size_line.split(b";", 1)[0].strip() or b"x", 16)
            except ValueError:
                return bytes(body), False
            if size == 0:
                return bytes(body), True
            needed = len(size_line) + 2 + size + 2
            if len(raw) >= needed:
                body += raw[len(size_line) + 2 : needed - 2]
                del raw[:needed]
                continue
        elif len(raw) > 1024:
            return bytes(body), False
        if len(raw) > limit_bytes + 1024:
            return bytes(body), False
        part = await reader.read(_READ_BYTES)
        if not part:
            return bytes(body), False
        raw += part
    return bytes(body[:limit_bytes]), False
