"""Joining two agents that cannot reach each other: bytes go through, unread, from one to the other.

Both sides prove to the bridge that they hold the leg's secret, and then to each other through it.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Optional

from . import wire

FEEDER = "feeder"
TAKER = "taker"
MEET_SECONDS = 30.0
_COPY_BYTES = 256 * 1024


class Bridge:
    """A meeting place of one feeder and one taker, again and again while the transfer runs."""

    def __init__(self) -> None:
        self._takers: queue.Queue[_Waiting] = queue.Queue()
        self._lock = threading.Lock()
        self.carried_bytes = 0

    def arrive(self, side: str, channel: wire.Channel) -> None:
        """One side is there; returns when it has gone, or when the other did not come.

        Raises:
            OSError, WireError: The connection broke.
        """
        if side == TAKER:
            # The feeder's thread does the work; this one only keeps the connection.
            waiting = _Waiting(channel)
            self._takers.put(waiting)
            if not waiting.is_met.wait(MEET_SECONDS):
                with self._lock:
                    waiting.has_left = not waiting.is_met.is_set()
            if not waiting.has_left:
                waiting.has_ended.wait()
            return
        # The taker is not kept waiting for a feeder that has nothing to send yet.
        channel.sock.settimeout(MEET_SECONDS)
        if "ready" not in channel.receive_message():
            return
        taker = self._met_taker()
        if taker is None:
            return
        try:
            taker.channel.send({"joined": 1})
            channel.send({"joined": 1})
            self._join(channel.sock, taker.channel.sock)
        finally:
            taker.has_ended.set()

    def _met_taker(self) -> Optional[_Waiting]:
        """The next taker that still waits, None where none comes in time."""
        deadline = time.monotonic() + MEET_SECONDS
        while True:
            try:
                taker = self._takers.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return None
            with self._lock:
                if not taker.has_left:
                    taker.is_met.set()
                    return taker

    def _join(self, one: socket.socket, other: socket.socket) -> None:
        for sock in (one, other):
            # Both sides say something every few seconds; a host that vanished says nothing.
            sock.settimeout(2 * wire.SILENCE_SECONDS)
        back = threading.Thread(
            target=self._copy, args=(other, one), name="castray-bridge", daemon=True
        )
        back.start()
        self._copy(one, other)
        back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        buffer = memoryview(bytearray(_COPY_BYTES))
        try:
            while True:
                count = source.recv_into(buffer)
                if not count:
                    break
                target.sendall(buffer[:count])
                with self._lock:
                    self.carried_bytes += count
        except OSError:
            pass
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Waiting:
    """A taker that waits for its feeder."""

    def __init__(self, channel: wire.Channel) -> None:
        self.channel = channel
        self.is_met = threading.Event()
        self.has_ended = threading.Event()
        self.has_left = False


def wait_until_joined(channel: wire.Channel) -> None:
    """Returns when the other side is at the bridge as well.

    Raises:
        OSError, WireError: It did not come.
    """
    channel.sock.settimeout(MEET_SECONDS)
    if "joined" not in channel.receive_message():
        raise wire.WireError("a bridge that makes no sense")
