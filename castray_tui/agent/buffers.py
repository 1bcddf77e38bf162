"""Buffers that are filled once, used by several threads, and used again: memory stays bounded."""

from __future__ import annotations

import queue
import threading
from typing import Optional


class Chunk:
    """A piece of a file in a buffer of a pool, given back by its last user."""

    def __init__(self, pool: BufferPool, buffer: memoryview) -> None:
        self._pool = pool
        self._buffer = buffer
        self._users = 0
        self.view = buffer
        self.offset = 0
        self.crc = 0

    def hold(self, offset: int, length: int, users: int) -> None:
        """Says what the buffer holds now and how many will ``release`` it."""
        self.offset = offset
        self.view = self._buffer[:length]
        self._users = users

    def release(self) -> None:
        """One user is done with it."""
        with self._pool.lock:
            self._users -= 1
            is_free = self._users == 0
        if is_free:
            self._pool.put(self)


class BufferPool:
    """A fixed number of buffers of one size."""

    def __init__(self, count: int, size_bytes: int) -> None:
        self.lock = threading.Lock()
        self.size_bytes = size_bytes
        self._free: queue.Queue[Chunk] = queue.Queue()
        for _ in range(count):
            self._free.put(Chunk(self, memoryview(bytearray(size_bytes))))

    def take(self, timeout_seconds: float) -> Optional[Chunk]:
        """A free buffer, or None where none came free in that time."""
        try:
            return self._free.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def put(self, chunk: Chunk) -> None:
        """Gives a buffer back that nobody uses."""
        self._free.put(chunk)
