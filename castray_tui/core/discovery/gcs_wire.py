"""Asks a GCS who it is, over gRPC written by hand.

Ray's own ``GcsClient`` needs ``import ray`` (over a second) and blocks for 40 s on a dead address.
What has to be known here are five answers whose messages have been the same from Ray 2.9 to 2.60
(``gcs_service.proto``, ``gcs.proto``): cluster ID, session name, the dashboard's address, Ray's
version and the nodes. All five are asked at once on one connection, without any name or credential,
and read by the rules of HTTP/2 (RFC 9113) and protocol buffers as far as they are needed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from castray_tui.core.discovery.addresses import host_port
from castray_tui.core.discovery.http_get import failure_of
from castray_tui.core.text_safety import safe_text

GcsState = Literal["answers", "wants_token", "not_gcs", "refused", "silent", "unreachable"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_RESET = 3
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WINDOW_BYTES = 16 * 1024 * 1024
_MAX_FRAME_BYTES = 1024 * 1024
# 10,000 nodes of about 500 bytes; parsing more than that would hold up the event loop.
_MAX_MESSAGE_BYTES = 5 * 1024 * 1024
_KV_GET = "/ray.rpc.InternalKVGcsService/InternalKVGet"
_CLUSTER_ID, _SESSION, _DASHBOARD, _METADATA, _NODES = 1, 3, 5, 7, 9
_UNIMPLEMENTED, _UNAUTHENTICATED = "12", "16"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsAnswer:
    """What stands at an address that should be a GCS.

    Attributes:
        state: ``not_gcs``: something answers, but not as a GCS does.
        speaks_grpc: Whether it at least speaks gRPC (Ray's client server and agents do).
        dashboard: ``host:port`` as the GCS has it stored; may be stale or of no use from here.
        node_count: Alive nodes.
        resources: Sum over alive nodes; ``node:…`` entries left out.
    """

    state: GcsState
    speaks_grpc: bool = False
    cluster_id: str | None = None
    session_name: str | None = None
    dashboard: str | None = None
    ray_version: str | None = None
    node_count: int | None = None
    resources: Mapping[str, float] | None = None
    detail: str = ""


async def ask_gcs(
    host: str, port: int, *, timeout_seconds: float, token: str | None = None
) -> GcsAnswer:
    """Asks whatever stands there the five questions; never raises.

    Args:
        host: Name or address, without brackets.
        port: TCP port.
        timeout_seconds: For everything together; answers that came in time count.
        token: Ray's token; only given where the user named this very address.
    """
    calls = {
        _CLUSTER_ID: ("/ray.rpc.NodeInfoGcsService/GetClusterId", b""),
        _SESSION: (_KV_GET, _kv_request(b"session_name", b"session")),
        _DASHBOARD: (_KV_GET, _kv_request(b"dashboard", b"dashboard")),
        _METADATA: (_KV_GET, _kv_request(b"CLUSTER_METADATA", b"cluster")),
        _NODES: ("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", b""),
    }
    exchange = Exchange(host, port, token)
    failure = await exchange.run(calls, timeout_seconds)
    return _read_answers(exchange, failure)


async def is_client_server(host: str, port: int, *, timeout_seconds: float) -> bool:
    """Whether a Ray client server stands there, by asking it for a key that nobody has."""
    exchange = Exchange(host, port, None)
    calls = {1: ("/ray.rpc.RayletDriver/KVExists", _field(1, b"castray-is-asking"))}
    await exchange.run(calls, timeout_seconds)
    return exchange.speaks_grpc and (
        1 in exchange.messages or exchange.statuses.get(1, _UNIMPLEMENTED) != _UNIMPLEMENTED
    )


@dataclass(slots=True)
class Exchange:
    """Some gRPC calls on one connection: stream number → message or status."""

    host: str
    port: int
    token: str | None
    connected: bool = False
    speaks_grpc: bool = False
    messages: dict[int, bytes] = field(default_factory=dict)
    statuses: dict[int, str] = field(default_factory=dict)
    _bodies: dict[int, bytearray] = field(default_factory=dict)
    _too_long: set[int] = field(default_factory=set)

    async def run(self, calls: Mapping[int, tuple[str, bytes]], timeout_seconds: float) -> str:
        """Makes the calls; returns an empty string, or how it failed as ``GcsState`` or detail."""
        try:
            await asyncio.wait_for(self._converse(calls), timeout_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return "silent" if self.connected else "unreachable"
        except (asyncio.IncompleteReadError, ValueError):
            return "not_gcs"
        except OSError as error:
            failure = failure_of(error)
            if failure in ("refused", "unresolved", "unreachable"):
                return "refused" if failure == "refused" else "unreachable"
            return "not_gcs"
        return ""

    async def _converse(self, calls: Mapping[int, tuple[str, bytes]]) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self.connected = True
        try:
            settings = struct.pack(">HI", 4, _WINDOW_BYTES)
            request = _PREFACE + _frame(_SETTINGS, 0, 0, settings)
            request += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_BYTES))
            for stream, (path, message) in calls.items():
                request += _frame(_HEADERS, _END_HEADERS, stream, self._headers(path))
                body = b"\0" + struct.pack(">I", len(message)) + message
                request += _frame(_DATA, _END_STREAM, stream, body)
            writer.write(request)
            waiting = set(calls)
            while waiting:
                head = await reader.readexactly(9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                if not self.speaks_grpc and kind != _SETTINGS:
                    raise ValueError("the first frame of an HTTP/2 server is its settings")
                if size > _MAX_FRAME_BYTES:
                    raise ValueError("a frame larger than was offered")
                self._take(writer, kind, flags, stream, await reader.readexactly(size))
                if kind == _GOAWAY or (kind == _RESET and stream in waiting):
                    self.statuses.setdefault(stream, "reset")
                    waiting = set() if kind == _GOAWAY else waiting - {stream}
                elif kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    waiting.discard(stream)
        finally:
            writer.transport.abort()

    def _take(
        self, writer: asyncio.StreamWriter, kind: int, flags: int, stream: int, payload: bytes
    ) -> None:
        if kind == _SETTINGS:
            self.speaks_grpc = True
            if not flags & _ACK:
                writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _HEADERS and flags & _END_STREAM:
            self.statuses[stream] = _status_of(payload)
        elif kind == _DATA and stream not in self._too_long:
            body = self._bodies.setdefault(stream, bytearray())
            body += payload
            if len(body) > _MAX_MESSAGE_BYTES:
                self._too_long.add(stream)
                del self._bodies[stream]
            elif len(body) >= 5 and body[0] == 0:
                end = 5 + int.from_bytes(body[1:5], "big")
                if len(body) >= end:
                    self.messages[stream] = bytes(body[5:end])

    def _headers(self, path: str) -> bytes:
        pairs = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", host_port(self.host, self.port)),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "castray"),
        ]
        if self.token is not None:
            pairs.append(("authorization", f"Bearer {self.token}"))
        return b"".join(_literal(name) + _literal(value, b"") for name, value in pairs)


def _literal(text: str, prefix: bytes = b"\0") -> bytes:
    """A header's name or value as HPACK literal without indexing or Huffman code (RFC 7541)."""
    raw = text.encode("latin-1", "replace")
    if len(raw) < 127:
        return prefix + bytes([len(raw)]) + raw
    return prefix + b"\x7f" + _varint(len(raw) - 127) + raw


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload
    )


def _status_of(trailers: bytes) -> str:
    """The gRPC status in trailers, as far as it stands there in plain bytes.

    gRPC's C core, which serves Ray's GCS and client server, writes it plainly the first time and as
    an index into its table afterwards; that later form is not needed and reads as unknown.
    """
    _, found, rest = trailers.partition(b"grpc-status")
    if not found or not rest or rest[0] > 2:
        return "unknown"
    return rest[1 : 1 + rest[0]].decode("ascii", "replace")


def _read_answers(exchange: Exchange, failure: str) -> GcsAnswer:
    messages = exchange.messages
    try:
        cluster_id = _first_bytes(messages.get(_CLUSTER_ID), 2)
        session = _first_bytes(messages.get(_SESSION), 2)
    except (ValueError, IndexError, struct.error):
        return GcsAnswer(state="not_gcs", speaks_grpc=exchange.speaks_grpc)
    if not cluster_id and not session:
        if _UNAUTHENTICATED in exchange.statuses.values():
            return GcsAnswer(state="wants_token", speaks_grpc=True)
        states: Mapping[str, GcsState] = {
            "silent": "silent",
            "refused": "refused",
            "unreachable": "unreachable",
        }
        return GcsAnswer(
            state=states.get(failure, "not_gcs"), speaks_grpc=exchange.speaks_grpc, detail=failure
        )
    node_count, resources = _read_nodes(messages.get(_NODES))
    return GcsAnswer(
        state="answers",
        speaks_grpc=True,
        cluster_id=cluster_id.hex() if 0 < len(cluster_id) <= 64 else None,
        session_name=_text(session),
        dashboard=_text(_lenient(messages.get(_DASHBOARD))),
        ray_version=_version_of(_lenient(messages.get(_METADATA))),
        node_count=node_count,
        resources=resources,
    )


def _lenient(message: bytes | None) -> bytes:
    try:
        return _first_bytes(message, 2)
    except (ValueError, IndexError, struct.error):
        return b""


def _text(raw: bytes) -> str | None:
    return safe_text(raw.decode("utf-8", "replace"), limit=300) if raw else None


def _version_of(metadata: bytes) -> str | None:
    import json  # noqa: PLC0415 - asked for only where a GCS answered

    try:
        value = json.loads(metadata) if metadata else None
    except (ValueError, RecursionError):
        return None
    version = value.get("ray_version") if isinstance(value, dict) else None
    return safe_text(version, limit=60) if isinstance(version, str) and version else None


def _read_nodes(message: bytes | None) -> tuple[int | None, dict[str, float] | None]:
    """Alive nodes and their resources from a ``GetAllNodeInfoReply``."""
    if message is None:
        return None, None
    alive, totals = 0, dict[str, float]()
    try:
        for number, value in _fields(message):
            if number != 2 or not isinstance(value, bytes):
                continue
            state, resources = 0, list[tuple[str, float]]()
            for inner, inner_value in _fields(value):
                if inner == 7 and isinstance(inner_value, int):
                    state = inner_value
                elif inner == 11 and isinstance(inner_value, bytes):
                    resources.append(_resource(inner_value))
            if state == 0:
                alive += 1
                for name, amount in resources:
                    if name and not name.startswith("node:") and len(totals) < 1_000:
                        totals[name] = totals.get(name, 0.0) + amount
    except (ValueError, IndexError, struct.error):
        return None, None
    return alive, totals


def _resource(entry: bytes) -> tuple[str, float]:
    name, amount = "", 0.0
    for number, value in _fields(entry):
        if number == 1 and isinstance(value, bytes):
            name = safe_text(value.decode("utf-8", "replace"), limit=200)
        elif number == 2 and isinstance(value, float):
            amount = value
    return name, amount


def _first_bytes(message: bytes | None, wanted: int) -> bytes:
    for number, value in _fields(message or b""):
        if number == wanted and isinstance(value, bytes):
            return value
    return b""


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a protocol buffer's message, in order."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            number, at = _read_varint(message, at)
            yield tag >> 3, number
        elif kind == 1:
            yield tag >> 3, float(struct.unpack_from("<d", message, at)[0])
            at += 8
        elif kind == 2:
            size, at = _read_varint(message, at)
            if size > end - at:
                raise ValueError("a field longer than its message")
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind == 5:
            at += 4
        else:
            raise ValueError("not a protocol buffer")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number longer than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _kv_request(key: bytes, namespace: bytes) -> bytes:
    return _field(1, key) + _field(2, namespace)
