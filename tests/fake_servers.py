"""Servers that answer what a test tells them to, and remember what they were asked."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

Reply = bytes | None
"""The whole raw answer; None accepts and stays silent."""


def http(
    body: bytes | str, *, status: str = "200 OK", headers: str = "", length: int | None = None
) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    size = len(raw) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + raw


NOT_FOUND = http("404: Not Found", status="404 Not Found", headers="Server: aiohttp\r\n")


@dataclass
class FakeServer:
    """Answers by path; what is not listed gets ``default``."""

    replies: Mapping[str, Reply] = field(default_factory=dict)
    default: Reply = NOT_FOUND
    greeting: Reply = b""
    requests: list[str] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def paths(self) -> list[str]:
        return [request.split(" ")[1] for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.greeting:
                writer.write(self.greeting)
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request.decode("latin-1"))
            path = self.requests[-1].split(" ")[1] if " " in self.requests[-1] else ""
            reply = self.replies.get(path, self.default)
            if reply is None:
                await reader.read()
            else:
                writer.write(reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def ray_dashboard(
    *,
    version: str = "2.60.0",
    session: str | None = "session_2026-01-01_10-00-00_1_11",
    cluster_id: str | None = "ab" * 28,
    healthy: bool = True,
) -> dict[str, Reply]:
    """The answers of a healthy dashboard."""
    about = {"version": "4", "ray_version": version}
    if session is not None:
        about["session_name"] = session
    replies: dict[str, Reply] = {
        "/api/version": http(json.dumps(about)),
        "/api/gcs_healthz": http("success") if healthy else http("no", status="503 Unavailable"),
    }
    if cluster_id is not None:
        replies["/cluster_id"] = http(json.dumps({"data": {"clusterId": cluster_id}}))
    return replies


def locked_dashboard(mode: str = "token") -> dict[str, Reply]:
    """The answers of a dashboard to somebody without its token."""
    return {
        "/api/authentication_mode": http(json.dumps({"authentication_mode": mode})),
        "/api/gcs_healthz": http("success"),
    }


DENIED = http("Unauthorized: Missing authentication token", status="401 Unauthorized")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _field(number: int, value: bytes) -> bytes:
    size = len(value)
    varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + varint + value


SETTINGS = _frame(4, 0, 0)


def grpc_reply(answers: Mapping[int, bytes | str]) -> bytes:
    """An HTTP/2 server's bytes: stream → message, or a gRPC status for one that failed."""
    out = SETTINGS
    for stream, answer in answers.items():
        if isinstance(answer, str):
            status = answer.encode()
            trailers = b"\x88@\x0bgrpc-status" + bytes([len(status)]) + status
            out += _frame(1, 5, stream, trailers)
        else:
            body = b"\0" + struct.pack(">I", len(answer)) + answer
            out += _frame(1, 4, stream, b"\x88") + _frame(0, 0, stream, body)
            out += _frame(1, 5, stream, b"@\x0bgrpc-status\x010")
    return out


def gcs_replies(
    *,
    session: str = "session_2026-01-01_10-00-00_1_11",
    cluster_id: str = "ab" * 28,
    dashboard: str = "",
    version: str = "2.60.0",
) -> bytes:
    """What a GCS says to the five questions."""
    node = _field(1, b"n" * 28) + _field(11, _field(1, b"CPU") + b"\x11" + struct.pack("<d", 2.0))
    dead = _field(1, b"d" * 28) + b"\x38\x01"
    return grpc_reply(
        {
            1: _field(1, b"") + _field(2, bytes.fromhex(cluster_id)),
            3: _field(2, session.encode()),
            5: _field(2, dashboard.encode()),
            7: _field(2, b'{"ray_version": "' + version.encode() + b'"}'),
            9: _field(2, node) + _field(2, node) + _field(2, dead),
        }
    )
