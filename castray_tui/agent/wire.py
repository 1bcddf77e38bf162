"""What is spoken on castray's own TCP ports: a handshake, then frames.

The dialer proves first that it holds the key, so that a stranger gets no byte back::

    dialer    magic(8) purpose(1) identity(16) nonce(32) proof(32)
    listener  nonce(32) proof(32)
    dialer    proof(32)

Proofs are HMAC-SHA256 over everything said before, each with a label of its own. The listener
remembers nonces, so that a recorded greeting opens nothing. Each direction then has its own key,
and every frame carries a MAC over its sequence number and header, so that frames can neither be
made up, repeated, dropped nor swapped::

    kind(1) length(4) offset(8) crc32(4) mac(16) payload(length)

A JSON frame's MAC also covers its payload. A data frame's payload is covered by the CRC-32 in its
header against damage, and by the SHA-256 of the whole file, which travels in a JSON frame.
Nothing is encrypted. Nothing but fields of fixed size is read before the other side is known.

The classes ``DialerHandshake``, ``Sealer`` and ``Opener`` do no I/O, so that castray's event loop
speaks the same words as the agents' threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
import threading
import time
import zlib
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from . import keys

MAGIC = b"CASTRAY1"
CONTROL = b"C"
DATA = b"D"

GREETING = struct.Struct("!8sc16s32s32s")
_PROOF_BYTES = 32
_NONCE_BYTES = 32
ANSWER_BYTES = _NONCE_BYTES + _PROOF_BYTES

HEADER = struct.Struct("!BIQI")
MAC_BYTES = 16
PREFIX_BYTES = HEADER.size + MAC_BYTES
KIND_JSON = 1
KIND_DATA = 2

DATA_JSON_LIMIT_BYTES = 64 * 1024
CONTROL_JSON_LIMIT_BYTES = 16 * 1024 * 1024
CHUNK_LIMIT_BYTES = 16 * 1024 * 1024

HANDSHAKE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""A connection that says nothing for that long is given up; both ends say something far oftener."""

Json = Dict[str, Any]


class WireError(Exception):
    """The other side said something that it must not, or stopped in the middle."""


class StrangerError(WireError):
    """The other side does not hold the key, or there is nobody at all."""


def _proof(key: bytes, label: bytes, said: bytes) -> bytes:
    return hmac.new(key, label + said, hashlib.sha256).digest()


def _frame_keys(key: bytes, said: bytes) -> Tuple[bytes, bytes]:
    return keys.derive(key, said, b"dialer to listener"), keys.derive(
        key, said, b"listener to dialer"
    )


class DialerHandshake:
    """The dialer's side of the handshake, without I/O.

    Send ``greeting``, read ``ANSWER_BYTES``, give them to ``finish`` and send what it returns.
    """

    def __init__(self, key: bytes, purpose: bytes, identity: bytes) -> None:
        self._key = key
        opening = struct.pack("!8sc16s32s", MAGIC, purpose, identity, secrets.token_bytes(32))
        self.greeting = opening + _proof(key, b"greeting", opening)
        self.send_key = b""
        self.receive_key = b""

    def finish(self, answer: bytes) -> bytes:
        """Checks the listener's answer and returns the last message.

        Raises:
            StrangerError: The listener does not hold the key.
        """
        nonce, proof = answer[:_NONCE_BYTES], answer[_NONCE_BYTES:]
        said = self.greeting + nonce
        if not hmac.compare_digest(proof, _proof(self._key, b"listener", said)):
            raise StrangerError("the listener does not hold the key")
        self.send_key, self.receive_key = _frame_keys(self._key, said)
        return _proof(self._key, b"dialer", said)


class Sealer:
    """Puts header and MAC before what one side sends, counting frames."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def prefix(self, kind: int, length: int, offset: int, crc: int, payload: bytes = b"") -> bytes:
        """The bytes that go before a payload; ``payload`` itself only where the MAC covers it."""
        header = HEADER.pack(kind, length, offset, crc)
        mac = frame_mac(self._key, self._sequence, header, payload)
        self._sequence += 1
        return header + mac

    def json_frame(self, message: Json) -> bytes:
        """A whole JSON frame."""
        payload = json.dumps(message, separators=(",", ":")).encode()
        return self.prefix(KIND_JSON, len(payload), 0, 0, payload) + payload


class Opener:
    """Checks what one side receives, counting frames."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def check(self, prefix: bytes, payload: bytes = b"") -> None:
        """Raises WireError unless the MAC is right for this frame at this place."""
        header, mac = prefix[: HEADER.size], prefix[HEADER.size :]
        if not hmac.compare_digest(mac, frame_mac(self._key, self._sequence, header, payload)):
            raise WireError("a frame was forged, lost or damaged on its way")
        self._sequence += 1

    def json_payload(self, prefix: bytes, payload: bytes) -> Json:
        """The message of a JSON frame."""
        self.check(prefix, payload)
        message = json.loads(payload.decode())
        if not isinstance(message, dict):
            raise WireError("a message that is no JSON object")
        return message


def frame_mac(key: bytes, sequence: int, header: bytes, payload: bytes) -> bytes:
    """The MAC of one frame."""
    return hmac.digest(key, sequence.to_bytes(8, "big") + header + payload, "sha256")[:MAC_BYTES]


def json_length(prefix: bytes, limit_bytes: int) -> int:
    """The payload length of a JSON frame's prefix; WireError where it is no such frame."""
    kind, length, _, _ = HEADER.unpack(prefix[: HEADER.size])
    if kind != KIND_JSON or length > limit_bytes:
        raise WireError("a frame of the wrong kind or size")
    return int(length)


class Channel:
    """An authenticated connection between two agents, or between castray and a coordinator.

    Any thread may send; only one may receive.
    """

    def __init__(
        self,
        sock: socket.socket,
        send_key: bytes,
        receive_key: bytes,
        json_limit_bytes: int = DATA_JSON_LIMIT_BYTES,
    ) -> None:
        self.sock = sock
        self._sealer = Sealer(send_key)
        self._opener = Opener(receive_key)
        self._limit_bytes = json_limit_bytes
        self._lock = threading.Lock()
        self._prefix = bytearray(PREFIX_BYTES)

    def send(self, message: Json) -> None:
        """Sends one JSON message. Raises OSError or WireError."""
        with self._lock:
            self.sock.sendall(self._sealer.json_frame(message))

    def send_data(self, offset: int, chunk: memoryview, crc: int) -> None:
        """Sends one chunk of a file with its CRC-32. Raises OSError."""
        with self._lock:
            prefix = self._sealer.prefix(KIND_DATA, len(chunk), offset, crc)
            sent = self.sock.sendmsg([prefix, chunk])
            if sent < len(prefix):
                self.sock.sendall(prefix[sent:])
                sent = len(prefix)
            sent -= len(prefix)
            # Not sendall: its time-out is for the whole, and a slow link is not a silent one.
            while sent < len(chunk):
                sent += self.sock.send(chunk[sent:])

    def receive(
        self, buffer_for: Optional[Callable[[int], memoryview]] = None
    ) -> Union[Json, Tuple[int, memoryview]]:
        """Receives one frame.

        Args:
            buffer_for: Gives a buffer of that many bytes for a chunk; None where no chunks are
                welcome.

        Returns:
            A message, or the file offset and the filled buffer of a chunk that passed its CRC.

        Raises:
            WireError: The frame is not what it must be. OSError: The connection broke.
        """
        prefix = memoryview(self._prefix)
        receive_exactly(self.sock, prefix)
        kind, length, offset, crc = HEADER.unpack_from(self._prefix)
        if kind == KIND_DATA and buffer_for is not None and length <= CHUNK_LIMIT_BYTES:
            self._opener.check(bytes(prefix))
            chunk = buffer_for(length)
            receive_exactly(self.sock, chunk)
            if zlib.crc32(chunk) != crc:
                raise WireError("a chunk at byte {} was damaged on its way".format(offset))
            return offset, chunk
        payload = bytearray(json_length(bytes(prefix), self._limit_bytes))
        receive_exactly(self.sock, memoryview(payload))
        return self._opener.json_payload(bytes(prefix), bytes(payload))

    def receive_message(self) -> Json:
        """Receives one frame, which must be a message."""
        message = self.receive()
        if isinstance(message, dict):
            return message
        raise WireError("a chunk where a message was due")

    def close(self) -> None:
        """Closes both directions, waking whoever waits in them."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def receive_exactly(
    sock: socket.socket, buffer: memoryview, deadline: Optional[float] = None
) -> None:
    """Fills the buffer. Raises WireError at the end of the stream, OSError on time-out.

    Args:
        deadline: By ``time.monotonic``; the socket's own time-out counts for each read otherwise.
    """
    filled = 0
    while filled < len(buffer):
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        count = sock.recv_into(buffer[filled:])
        if count == 0:
            raise WireError("the other side closed the connection")
        filled += count


def dial(
    endpoints: List[Tuple[str, int]],
    key: bytes,
    purpose: bytes,
    identity: bytes,
    timeout_seconds: float = HANDSHAKE_SECONDS,
) -> Channel:
    """Connects to the first of the endpoints that holds the key.

    Args:
        endpoints: Hosts and ports to try in turn.
        timeout_seconds: For each of them.

    Raises:
        StrangerError: None of them; the message says why for each.
    """
    failures = []
    for host, port in endpoints:
        try:
            return _dial_one((host, port), key, purpose, identity, timeout_seconds)
        except (OSError, WireError) as error:
            failures.append("{}:{}: {}".format(host, port, describe(error)))
    raise StrangerError("; ".join(failures) or "nowhere to connect to")


def _dial_one(
    endpoint: Tuple[str, int], key: bytes, purpose: bytes, identity: bytes, timeout_seconds: float
) -> Channel:
    sock = socket.create_connection(endpoint, timeout=timeout_seconds)
    try:
        deadline = time.monotonic() + timeout_seconds
        handshake = DialerHandshake(key, purpose, identity)
        sock.sendall(handshake.greeting)
        answer = bytearray(ANSWER_BYTES)
        receive_exactly(sock, memoryview(answer), deadline)
        sock.sendall(handshake.finish(bytes(answer)))
        _tune(sock)
    except BaseException:
        sock.close()
        raise
    return Channel(sock, handshake.send_key, handshake.receive_key)


def answer_dialer(
    sock: socket.socket,
    key_of: Callable[[bytes, bytes], Optional[bytes]],
    is_new_nonce: Callable[[bytes], bool],
    json_limit_bytes: int = DATA_JSON_LIMIT_BYTES,
) -> Tuple[Channel, bytes, bytes]:
    """The listener's side of the handshake.

    Args:
        key_of: The key for a purpose and an identity, None where there is none.
        is_new_nonce: Remembers a greeting's nonce; False where it was heard before.

    Returns:
        The channel, the purpose and the identity.

    Raises:
        StrangerError: Whoever dialed does not hold the key; nothing was told to them.
    """
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    greeting = bytearray(GREETING.size)
    receive_exactly(sock, memoryview(greeting), deadline)
    magic, purpose, identity, nonce, proof = GREETING.unpack(greeting)
    key = key_of(purpose, identity) if magic == MAGIC else None
    opening = bytes(greeting[:-_PROOF_BYTES])
    # An unknown identity costs the same work as a known one, so that time tells nothing either.
    right = hmac.compare_digest(proof, _proof(key or b"nobody", b"greeting", opening))
    if key is None or not right or not is_new_nonce(nonce):
        raise StrangerError("somebody without the key dialed")
    own_nonce = secrets.token_bytes(_NONCE_BYTES)
    said = bytes(greeting) + own_nonce
    sock.sendall(own_nonce + _proof(key, b"listener", said))
    last = bytearray(_PROOF_BYTES)
    receive_exactly(sock, memoryview(last), deadline)
    if not hmac.compare_digest(bytes(last), _proof(key, b"dialer", said)):
        raise StrangerError("somebody without the key dialed")
    _tune(sock)
    receive_key, send_key = _frame_keys(key, said)
    return Channel(sock, send_key, receive_key, json_limit_bytes), purpose, identity


def _tune(sock: socket.socket) -> None:
    sock.settimeout(SILENCE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def describe(error: BaseException) -> str:
    """An exception in a few words, for a reason that a user reads."""
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
