"""What is spoken on castray's own TCP ports: a handshake, then frames.

The dialer proves first that it holds the key, so that a stranger gets no byte back::

    dialer    magic(8) purpose(1) identity(16) nonce(32) proof(32)
    listener  nonce(32) proof(32)
    dialer    proof(32)

Proofs are HMAC-SHA256 over everything said before, each with a label of its own. The listener
remembers nonces, so that a recorded greeting opens nothing. Each direction then has its own key,
and every frame carries a MAC over its sequence number and header, so that frames can neither be
made up, repeated, dropped nor swapped::

    kind(1) length(4) number(8) head_length(4) mac(16) head(head_length) payload(length)

The MAC covers header and head; a JSON message is a head without a payload. A chunk's head holds
the SHA-256 of every file in it up to where the chunk ends, so what covers the head covers the
payload as well, once it is hashed, which every receiver does. A hole is a chunk without a payload.
Nothing is encrypted. Nothing but fields of fixed size is read before the other side is known.

The classes ``DialerHandshake``, ``Sealer`` and ``Opener`` do no I/O, so that castray's event loop
speaks the same words as the agents' threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import select
import socket
import struct
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

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
KIND_CHUNK = 2
KIND_HOLE = 3

DATA_JSON_LIMIT_BYTES = 8 * 1024 * 1024
CONTROL_JSON_LIMIT_BYTES = 64 * 1024 * 1024
CHUNK_LIMIT_BYTES = 16 * 1024 * 1024
CHUNK_HEAD_LIMIT_BYTES = 64 * 1024

HANDSHAKE_SECONDS = 5.0
SILENCE_SECONDS = 8.0
"""A connection that says nothing for that long is given up; both ends say something far oftener."""
PING_SECONDS = 1.5
CONTROL_SILENCE_SECONDS = 30.0
"""The same between castray and a coordinator, where a stop of castray by ctrl-z costs more."""

Json = Dict[str, Any]

_MORE = getattr(socket, "MSG_MORE", 0)


class WireError(Exception):
    """The other side said something that it must not, or stopped in the middle."""


class ShortFileError(Exception):
    """A file that is being sent has become shorter."""


class StrangerError(WireError):
    """The other side does not hold the key, or there is nobody at all.

    Attributes:
        is_refused: Whether the ports are closed, so that whoever listened there is gone.
    """

    is_refused = False


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

    def prefix(self, kind: int, length: int, number: int, head: bytes) -> bytes:
        """What goes before a frame's head and its payload of ``length`` bytes."""
        header = HEADER.pack(kind, length, number, len(head))
        mac = frame_mac(self._key, self._sequence, header, head)
        self._sequence += 1
        return header + mac

    def json_frame(self, message: Json) -> bytes:
        """A whole JSON frame."""
        head = json.dumps(message, separators=(",", ":")).encode()
        return self.prefix(KIND_JSON, 0, 0, head) + head


class Opener:
    """Checks what one side receives, counting frames."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def check(self, prefix: bytes, head: bytes) -> None:
        """Raises WireError unless the MAC is right for this frame at this place."""
        header, mac = prefix[: HEADER.size], prefix[HEADER.size :]
        if not hmac.compare_digest(mac, frame_mac(self._key, self._sequence, header, head)):
            raise WireError("a frame was forged, lost or damaged on its way")
        self._sequence += 1

    def json_payload(self, prefix: bytes, head: bytes) -> Json:
        """The message of a JSON frame."""
        self.check(prefix, head)
        try:
            message = json.loads(head.decode())
        except (ValueError, RecursionError):
            raise WireError("a message that is no JSON") from None
        if not isinstance(message, dict):
            raise WireError("a message that is no JSON object")
        return message


def frame_mac(key: bytes, sequence: int, header: bytes, head: bytes) -> bytes:
    """The MAC of one frame."""
    return hmac.digest(key, sequence.to_bytes(8, "big") + header + head, "sha256")[:MAC_BYTES]


def json_length(prefix: bytes, limit_bytes: int) -> int:
    """The head's length of a JSON frame's prefix; WireError where it is no such frame."""
    kind, length, _, head_length = HEADER.unpack(prefix[: HEADER.size])
    if kind != KIND_JSON or length or head_length > limit_bytes:
        raise WireError("a frame of the wrong kind or size")
    return int(head_length)


class ChunkHead(NamedTuple):
    """What goes before a chunk: its number, its head, the bytes that follow, or the hole's."""

    number: int
    head: bytes
    length: int
    is_hole: bool


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

    def send_chunk(self, number: int, head: bytes, payload: memoryview) -> None:
        """Sends one chunk out of memory. Raises OSError."""
        with self._lock:
            prefix = self._sealer.prefix(KIND_CHUNK, len(payload), number, head) + head
            sent = self.sock.sendmsg([prefix, payload])
            if sent < len(prefix):
                self.sock.sendall(prefix[sent:])
                sent = len(prefix)
            sent -= len(prefix)
            # Not sendall: its time-out is for the whole, and a slow link is not a silent one.
            while sent < len(payload):
                sent += self.sock.send(payload[sent:])

    def send_chunk_of_file(
        self, number: int, head: bytes, fd: int, offset: int, length: int
    ) -> None:
        """Sends one chunk out of a file, without its bytes passing through this process.

        Raises:
            OSError: The connection broke. ShortFileError: The file has become shorter.
        """
        with self._lock:
            prefix = self._sealer.prefix(KIND_CHUNK, length, number, head) + head
            self.sock.sendall(prefix, _MORE)
            sent = 0
            while sent < length:
                try:
                    count = os.sendfile(self.sock.fileno(), fd, offset + sent, length - sent)
                except BlockingIOError:
                    self._wait_until_writable()
                    continue
                if count == 0:
                    raise ShortFileError
                sent += count

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLOUT)
        if not poll.poll(SILENCE_SECONDS * 1000):
            raise socket.timeout("timed out")

    def send_hole(self, number: int, head: bytes, length: int) -> None:
        """Sends one chunk that is all zeros and takes no room. Raises OSError."""
        with self._lock:
            self.sock.sendall(self._sealer.prefix(KIND_HOLE, length, number, head) + head)

    def receive(self) -> Union[Json, ChunkHead]:
        """Receives one message, or what goes before a chunk's payload, which is to be taken with
        ``receive_exactly`` then.

        Raises:
            WireError: The frame is not what it must be. OSError: The connection broke.
        """
        prefix = memoryview(self._prefix)
        receive_exactly(self.sock, prefix)
        kind, length, number, head_length = HEADER.unpack_from(self._prefix)
        is_chunk = kind in (KIND_CHUNK, KIND_HOLE)
        if is_chunk and (head_length > CHUNK_HEAD_LIMIT_BYTES or length > CHUNK_LIMIT_BYTES):
            raise WireError("a chunk of the wrong size")
        if not is_chunk:
            head_length = json_length(bytes(prefix), self._limit_bytes)
        head = bytearray(head_length)
        receive_exactly(self.sock, memoryview(head))
        if not is_chunk:
            return self._opener.json_payload(bytes(prefix), bytes(head))
        self._opener.check(bytes(prefix), bytes(head))
        return ChunkHead(number, bytes(head), length, kind == KIND_HOLE)

    def receive_message(self) -> Json:
        """Receives one frame, which must be a message."""
        message = self.receive()
        if isinstance(message, dict):
            return message
        raise WireError("a chunk where a message was due")

    def end_sending(self) -> None:
        """Says that nothing more comes from here; the other side hangs up then."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

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
    is_refused = bool(endpoints)
    for host, port in endpoints:
        try:
            return _dial_one((host, port), key, purpose, identity, timeout_seconds)
        except (OSError, WireError) as error:
            failures.append("{}:{}: {}".format(host, port, describe(error)))
            is_refused = is_refused and isinstance(error, ConnectionRefusedError)
    stranger = StrangerError("; ".join(failures) or "nowhere to connect to")
    stranger.is_refused = is_refused
    raise stranger


def _dial_one(
    endpoint: Tuple[str, int], key: bytes, purpose: bytes, identity: bytes, timeout_seconds: float
) -> Channel:
    sock = socket.create_connection(endpoint, timeout=timeout_seconds)
    return dial_over(sock, key, purpose, identity, timeout_seconds)


def dial_over(
    sock: socket.socket, key: bytes, purpose: bytes, identity: bytes, timeout_seconds: float
) -> Channel:
    """The dialer's side of the handshake on a connection that stands; closes it where that fails.

    Raises:
        OSError, WireError: Nobody there holds the key.
    """
    try:
        deadline = time.monotonic() + timeout_seconds
        handshake = DialerHandshake(key, purpose, identity)
        sock.sendall(handshake.greeting)
        answer = bytearray(ANSWER_BYTES)
        receive_exactly(sock, memoryview(answer), deadline)
        sock.sendall(handshake.finish(bytes(answer)))
        _tune(sock, purpose)
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
    _tune(sock, purpose)
    receive_key, send_key = _frame_keys(key, said)
    return Channel(sock, send_key, receive_key, json_limit_bytes), purpose, identity


def _tune(sock: socket.socket, purpose: bytes) -> None:
    sock.settimeout(CONTROL_SILENCE_SECONDS if purpose == CONTROL else SILENCE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def describe(error: BaseException) -> str:
    """An exception in a few words, for a reason that a user reads."""
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
