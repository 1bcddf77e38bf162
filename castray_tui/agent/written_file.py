"""A file that is being written and read at the same time, and flushed to the disk meanwhile."""

from __future__ import annotations

import os
import threading
from typing import Callable, Optional

FLUSH_EVERY_BYTES = 32 * 1024 * 1024


# More in one call makes ext4 take the page cache in larger pieces, which cost up to ten times the
# processor time where the machine is a virtual one and its host has to supply the memory.
_WRITE_BYTES = 64 * 1024


class WrittenFile:
    """An open file while its content comes. Safe from several threads. Methods raise OSError.

    ``end`` is where what was written so far ends, holes that were left out counted.
    """

    def __init__(self, fd: int) -> None:
        self.end = 0
        self._fd = fd
        self._flusher: Optional[Flusher] = None
        # One keeps writes whole, the other only keeps the descriptor from being closed in use.
        self._writing = threading.Lock()
        self._closing = threading.Lock()

    def write_at(self, offset: int, view: memoryview) -> None:
        """Writes all of the bytes."""
        with self._writing:
            written = 0
            while written < len(view):
                piece = view[written : written + _WRITE_BYTES]
                written += os.pwrite(self._fd, piece, offset + written)
            self.end = max(self.end, offset + written)
            if self.end >= FLUSH_EVERY_BYTES:
                if self._flusher is None:
                    self._flusher = Flusher(self._flush, FLUSH_EVERY_BYTES)
                self._flusher.flush_up_to(self.end)

    def skip(self, offset: int, length: int) -> None:
        """Leaves a hole."""
        with self._writing:
            self.end = max(self.end, offset + length)

    def truncate_to(self, offset: int) -> None:
        """Forgets what was written beyond."""
        with self._writing:
            os.ftruncate(self._fd, offset)
            self.end = min(self.end, offset)

    def descriptor(self) -> int:
        """A descriptor to read from with ``pread``, which the caller closes."""
        with self._closing:
            return os.dup(self._fd)

    def finish(self, size: int, mode: int, mtime_ns: int) -> None:
        """Makes up the hole at the end, if there is one, and sets mode and time."""
        with self._writing:
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, size)
            os.fchmod(self._fd, mode & 0o777)
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))

    def sync(self) -> None:
        """Returns when all of it is on the disk."""
        self._stop_flusher(True)
        os.fsync(self._fd)

    def close(self, tells_errors: bool = False) -> None:
        """Lets go of it, once; with ``tells_errors`` raises what went wrong behind the writer."""
        with self._writing:
            try:
                self._stop_flusher(tells_errors)
            finally:
                with self._closing:
                    fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)

    def _stop_flusher(self, tells_errors: bool) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.stop()
            if tells_errors and flusher.error is not None:
                raise flusher.error  # The kernel tells it once; no later sync would know.

    def _flush(self) -> None:
        getattr(os, "fdatasync", os.fsync)(self._fd)


class Flusher:
    """Writes back what was written, beside the writer, so that the last sync finds little to do.

    Args:
        sync: Does it; its OSError ends the flushing and is kept in ``error``.
        every_bytes: How much must have come since the last time.
    """

    def __init__(self, sync: Callable[[], object], every_bytes: int) -> None:
        self._sync = sync
        self._every_bytes = every_bytes
        self._flushed_bytes = 0
        self._wanted_bytes = 0
        self._is_stopping = False
        self.error: Optional[OSError] = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="castray-flush", daemon=True)
        self._thread.start()

    def flush_up_to(self, written_bytes: int) -> None:
        """Asks for what was written so far to be on the disk, some time soon."""
        if written_bytes - self._wanted_bytes >= self._every_bytes:
            with self._changed:
                self._wanted_bytes = written_bytes
                self._changed.notify()

    def stop(self) -> None:
        """Returns when nothing uses the descriptor any more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._flushed_bytes >= self._wanted_bytes and not self._is_stopping:
                    self._changed.wait()
                if self._is_stopping:
                    return
                wanted_bytes = self._wanted_bytes
            try:
                self._sync()
            except OSError as error:
                self.error = error
                return
            self._flushed_bytes = wanted_bytes
