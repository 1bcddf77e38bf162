"""Who may speak on an agent's port: nobody without the key, and nobody twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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


def take(channel: wire.Channel) -> tuple[wire.ChunkHead, bytes]:
    """A chunk with its payload."""
    head = channel.receive()
    assert isinstance(head, wire.ChunkHead)
    payload = bytearray(0 if head.is_hole else head.length)
    wire.receive_exactly(channel.sock, memoryview(payload))
    return head, bytes(payload)


def test_chunks_arrive_with_their_heads_from_memory_files_and_holes(tmp_path: Path) -> None:
    one, other, _, _ = pair()
    content = os.urandom(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)

    def send() -> None:
        one.send_chunk(7, b"head", memoryview(content))
        one.send_chunk_of_file(8, b"another", fd, 1000, 500_000)
        one.send_hole(9, b"", 4096)
        one.send_chunk(10, b"empty", memoryview(b""))
        one.send({"that": "was all"})

    sender = threading.Thread(target=send)
    sender.start()
    assert take(other) == (wire.ChunkHead(7, b"head", 1_000_000, False), content)
    assert take(other) == (wire.ChunkHead(8, b"another", 500_000, False), content[1000:501_000])
    assert take(other) == (wire.ChunkHead(9, b"", 4096, True), b"")
    assert take(other) == (wire.ChunkHead(10, b"empty", 0, False), b"")
    assert other.receive_message() == {"that": "was all"}
    sender.join()
    os.close(fd)


def test_a_file_that_became_shorter_is_noticed_while_it_is_sent(tmp_path: Path) -> None:
    one, _, _, _ = pair()
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(wire.ShortFileError):
        one.send_chunk_of_file(0, b"", fd, 0, 2000)
    os.close(fd)


def test_a_head_that_was_changed_is_refused() -> None:
    """The payload is held to the digests in the head by whoever takes it in."""
    sealer = wire.Sealer(b"a" * 32)
    for at in (1, 5, 13, 17, 20, wire.PREFIX_BYTES):
        _, other, left, _ = pair()
        frame = bytearray(sealer.prefix(wire.KIND_CHUNK, 4, 7, b"digest") + b"digest")
        sealer = wire.Sealer(b"a" * 32)
        frame[at + 3 if at < 17 else at] ^= 1
        left.sendall(frame + b"load" + bytes(600))
        with pytest.raises(wire.WireError):
            other.receive()


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
    for header in (
        (wire.KIND_JSON, 0, 0, 1 << 31),
        (wire.KIND_JSON, 1, 0, 10),
        (wire.KIND_CHUNK, wire.CHUNK_LIMIT_BYTES + 1, 0, 36),
        (wire.KIND_CHUNK, 10, 0, wire.CHUNK_HEAD_LIMIT_BYTES + 1),
        (wire.KIND_HOLE, 1 << 31, 0, 36),
        (77, 0, 0, 10),
    ):
        _, other, left, _ = pair()
        left.sendall(wire.HEADER.pack(*header) + bytes(wire.MAC_BYTES))
        with pytest.raises(wire.WireError, match="size"):
            other.receive()
    one, other, _, _ = pair()
    message = {"text": "x" * wire.DATA_JSON_LIMIT_BYTES}

    def send() -> None:
        with contextlib.suppress(OSError):  # The other side hangs up.
            one.send(message)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(wire.WireError, match="size"):
        other.receive_message()
    other.close()
    sender.join()


@pytest.mark.parametrize("said", [b"[" * 100_000, b"\xff", b"{", b"[1]", b"null"])
def test_a_message_that_is_none_is_refused(said: bytes) -> None:
    _, other, left, _ = pair()
    left.sendall(wire.Sealer(b"a" * 32).prefix(wire.KIND_JSON, 0, 0, said) + said)
    with pytest.raises(wire.WireError):
        other.receive_message()


def test_a_chunk_is_no_message() -> None:
    one, other, _, _ = pair()
    one.send_hole(0, b"", 10)
    with pytest.raises(wire.WireError, match="message"):
        other.receive_message()


def test_a_listener_survives_running_out_of_descriptors(listener: Listener) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    client = socket.socket()
    highest = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        client.connect(("127.0.0.1", listener.port))
        time.sleep(0.3)  # It tries to accept this one, and cannot.
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wire.dial(endpoint(listener), KEY, wire.DATA, IDENTITY).close()
    client.close()


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
