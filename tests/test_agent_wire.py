"""Who may speak on an agent's port: nobody without the key, and nobody twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from castray_tui.agent import keys, wire
from castray_tui.agent.listening import STRANGERS_AT_ONCE, Listener

KEY = b"k" * 32
IDENTITY = b"i" * 16


@pytest.fixture
def heard() -> list[object]:
    return []


@pytest.fixture
def listener(heard: list[object]) -> Iterator[Listener]:
    def on_channel(channel: wire.Channel, purpose: bytes, identity: bytes) -> None:
        while True:
            message = channel.receive_message()
            heard.append(message)
            channel.send({"heard": message})

    made = Listener(
        "127.0.0.1",
        (0, 0),
        lambda p, i: KEY if (p, i) == (wire.DATA, IDENTITY) else None,
        on_channel,
    )
    yield made
    made.close()


def endpoint(listener: Listener) -> list[tuple[str, int]]:
    return [("127.0.0.1", listener.port)]


def answer_to(listener: Listener, said: bytes) -> bytes:
    """Everything that comes back to raw bytes until the listener hangs up."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as sock:
        answer = b""
        try:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(4096):
                answer += piece
        except OSError:  # It hung up before it heard all.
            pass
        return answer


def test_both_sides_with_the_key_understand_each_other(listener: Listener) -> None:
    channel = wire.dial(endpoint(listener), KEY, wire.DATA, IDENTITY)
    for number in range(3):
        channel.send({"number": number})
        assert channel.receive_message() == {"heard": {"number": number}}
    channel.close()


@pytest.mark.parametrize(
    ("key", "purpose", "identity"),
    [
        (b"x" * 32, wire.DATA, IDENTITY),
        (KEY, wire.CONTROL, IDENTITY),
        (KEY, wire.DATA, b"j" * 16),
    ],
)
def test_a_wrong_key_purpose_or_name_opens_nothing(
    listener: Listener, heard: list[object], key: bytes, purpose: bytes, identity: bytes
) -> None:
    with pytest.raises(wire.StrangerError):
        wire.dial(endpoint(listener), key, purpose, identity)
    assert heard == []


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n\r\n" * 20, os.urandom(4096), wire.MAGIC + b"D" + bytes(80)],
)
def test_a_stranger_hears_not_one_byte(
    listener: Listener, heard: list[object], said: bytes
) -> None:
    assert answer_to(listener, said) == b""
    assert heard == []


def test_a_recorded_greeting_is_not_answered_again(listener: Listener) -> None:
    greeting = wire.DialerHandshake(KEY, wire.DATA, IDENTITY).greeting
    assert len(answer_to(listener, greeting)) == wire.ANSWER_BYTES
    assert answer_to(listener, greeting) == b""


def test_a_greeting_without_the_last_proof_opens_nothing(
    listener: Listener, heard: list[object]
) -> None:
    greeting = wire.DialerHandshake(KEY, wire.DATA, IDENTITY).greeting
    assert len(answer_to(listener, greeting + bytes(32))) == wire.ANSWER_BYTES
    assert heard == []


def test_a_listener_without_the_key_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pretend() -> None:
            sock, _ = server.accept()
            sock.recv(4096)
            sock.sendall(bytes(wire.ANSWER_BYTES))
            sock.close()

        threading.Thread(target=pretend, daemon=True).start()
        with pytest.raises(wire.StrangerError, match="does not hold the key"):
            wire.dial([server.getsockname()], KEY, wire.DATA, IDENTITY)


def test_strangers_who_say_nothing_are_few_and_short(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_SECONDS", 0.5)
    silent = [
        socket.create_connection(("127.0.0.1", listener.port)) for _ in range(STRANGERS_AT_ONCE)
    ]
    late = socket.create_connection(("127.0.0.1", listener.port), timeout=5)
    with contextlib.suppress(ConnectionResetError):
        assert late.recv(1) == b""  # One too many: closed at once.
    started = time.monotonic()
    for sock in silent:
        sock.settimeout(5)
        assert sock.recv(1) == b""
        sock.close()
    assert time.monotonic() - started < 3
    late.close()
    wire.dial(endpoint(listener), KEY, wire.DATA, IDENTITY).close()


def test_a_dripping_stranger_is_cut_off_all_the_same(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as sock:
        started = time.monotonic()
        with pytest.raises(OSError):  # reset or broken pipe, as the kernel likes
            while time.monotonic() - started < 5:
                sock.sendall(b"C")
                time.sleep(0.05)
        assert time.monotonic() - started < 3


def pair() -> tuple[wire.Channel, wire.Channel, socket.socket, socket.socket]:
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.settimeout(5)
    one = wire.Channel(left, b"a" * 32, b"b" * 32)
    other = wire.Channel(right, b"b" * 32, b"a" * 32)
    return one, other, left, right


def test_a_chunk_arrives_where_it_belongs_and_damage_is_seen() -> None:
    one, other, _, _ = pair()
    content = memoryview(bytearray(os.urandom(100_000)))

    def receive() -> object:
        return other.receive(lambda length: memoryview(bytearray(length)))

    sender = threading.Thread(target=one.send_data, args=(7, content, zlib.crc32(content)))
    sender.start()
    received = receive()
    sender.join()
    assert isinstance(received, tuple)
    assert received[0] == 7
    assert received[1] == content

    sender = threading.Thread(target=one.send_data, args=(7, content, zlib.crc32(content) ^ 1))
    sender.start()
    with pytest.raises(wire.WireError, match="damaged"):
        receive()
    sender.join()


def test_forged_repeated_and_swapped_frames_are_refused() -> None:
    sealer = wire.Sealer(b"a" * 32)
    first, second = sealer.json_frame({"n": 1}), sealer.json_frame({"n": 2})
    for frames in ([second], [first, first], [first[:-2] + b"9}"]):
        _, other, left, _ = pair()
        left.sendall(b"".join(frames))
        with pytest.raises(wire.WireError, match="forged"):
            for _ in frames:
                other.receive_message()


def test_a_frame_of_any_size_is_not_believed() -> None:
    _, other, left, _ = pair()
    left.sendall(struct.pack("!BIQI", wire.KIND_JSON, 1 << 31, 0, 0) + bytes(wire.MAC_BYTES))
    with pytest.raises(wire.WireError, match="size"):
        other.receive_message()
    one, other, _, _ = pair()
    one.send({"text": "x" * wire.DATA_JSON_LIMIT_BYTES})
    with pytest.raises(wire.WireError, match="size"):
        other.receive_message()


def test_the_group_is_the_one_of_rfc_7919() -> None:
    # The RFC gives the prime as a formula over e; its digest here was computed from that formula.
    prime = keys.FFDHE2048_PRIME
    assert prime.bit_length() == 2048
    assert pow(2, (prime - 1) // 2, prime) == 1  # 2 generates the subgroup of prime order
    top = (1 << 64) - 1
    assert prime >> 1984 == top
    assert prime & top == top
    known = hashlib.sha256(prime.to_bytes(256, "big")).hexdigest()
    assert known == "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966"


def test_both_agree_and_nobody_else_does() -> None:
    one, other, third = (keys.new_private_key() for _ in range(3))
    key = keys.agree(one, keys.public_key(other), b"context")
    assert key == keys.agree(other, keys.public_key(one), b"context")
    assert key != keys.agree(third, keys.public_key(one), b"context")
    assert key != keys.agree(one, keys.public_key(other), b"other context")
    for useless in (0, 1, keys.FFDHE2048_PRIME - 1, keys.FFDHE2048_PRIME, -5):
        with pytest.raises(ValueError, match="group"):
            keys.agree(one, useless, b"context")


def test_a_wrapped_secret_is_only_for_the_key() -> None:
    secret = os.urandom(32)
    wrapped = keys.wrap(KEY, secret)
    assert keys.unwrap(KEY, wrapped) == secret
    assert keys.unwrap(b"x" * 32, wrapped) != secret
    assert secret.hex() not in wrapped
    assert keys.wrap(KEY, secret) != wrapped
    with pytest.raises(ValueError, match="length"):
        keys.unwrap(KEY, "00")
