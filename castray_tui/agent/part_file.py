"""A file on its way in: without its real name until it is whole, verified and synced.

Where the file system can (``O_TMPFILE``), the bytes have no name at all while they come, so that
not even ``kill -9`` leaves anything. Elsewhere the name is ``.castray-<id>-<target>.part`` in the
target's folder, locked while its writer lives; what a killed writer left is swept by the next
transfer into that folder. A symbolic link at the target's path is replaced, not followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from typing import List, Optional

from . import files

_FLUSH_EVERY_BYTES = 32 * 1024 * 1024
_SPACE_CHECK_EVERY_BYTES = 64 * 1024 * 1024
# A new writer has its file for a moment before it has its lock.
_SWEEP_AFTER_SECONDS = 60.0
_PREFIX = ".castray-"
_SUFFIX = ".part"


class PartFile:
    """One target's content while it arrives. Exactly one of ``publish`` and ``discard`` ends it.

    Args:
        path: The real name to be.
        part_id: Unique among everything that may write to this folder now.
        reserve_bytes: Disk space that stays free whatever happens.

    Raises:
        FileRefusedError: The folder cannot be made, opened or written.
    """

    def __init__(self, path: str, part_id: str, reserve_bytes: int) -> None:
        self.path = path
        self.written_bytes = 0
        self._reserve_bytes = reserve_bytes
        self._folder, self._name = os.path.split(path)
        self._part_name = _PREFIX + part_id + _SUFFIX
        self._made_folders: List[str] = []
        self._folder_fd = -1
        self._fd = -1
        self._is_named = False
        self._flusher: Optional[_Flusher] = None
        try:
            self._make_folders()
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            self._fd = self._open_unnamed()
            if self._fd < 0:
                self._fd = self._open_named()
        except OSError as error:
            self.discard()
            raise files.refusal_of(error, path) from error

    def write(self, chunk: memoryview) -> None:
        """Appends a chunk. Raises FileRefusedError where the disk is full or broken."""
        try:
            self._check_space(len(chunk))
            written = 0
            while written < len(chunk):
                written += os.write(self._fd, chunk[written:])
        except OSError as error:
            raise files.refusal_of(error, self.path) from error
        self.written_bytes += len(chunk)
        if self.written_bytes >= _FLUSH_EVERY_BYTES:
            if self._flusher is None:
                self._flusher = _Flusher(self._fd)
            self._flusher.flush_up_to(self.written_bytes)

    def publish(self, mode: int, mtime_ns: int, may_replace: bool) -> None:
        """Gives the file its mode, its time and, once all is on the disk, its real name.

        Raises:
            FileRefusedError: The disk failed, or the name is taken and ``may_replace`` is False
                (code ``exists``). The file is discarded then.
        """
        try:
            flusher = self._flusher
            self._stop_flusher()
            if flusher is not None and flusher.error is not None:
                raise flusher.error  # The kernel tells it once; the sync below would not know.
            os.fchmod(self._fd, mode & 0o777)
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
            os.fsync(self._fd)
            self._give_name(may_replace)
            os.fsync(self._folder_fd)
        except OSError as error:
            self.discard()
            if error.errno == errno.EEXIST:
                raise files.FileRefusedError("exists", "exists: {}".format(self.path)) from error
            raise files.refusal_of(error, self.path) from error
        self._close()

    def discard(self) -> None:
        """Removes the temporary file and the folders that were made for it, if still empty."""
        self._stop_flusher()
        if self._is_named:
            _remove(self._part_name, self._folder_fd)
            self._is_named = False
        self._close()
        for folder in reversed(self._made_folders):
            try:
                os.rmdir(folder)
            except OSError:
                break
        self._made_folders = []

    def _make_folders(self) -> None:
        missing = []
        folder = self._folder
        while not os.path.isdir(folder):
            missing.append(folder)
            parent = os.path.dirname(folder)
            if parent == folder:
                break
            folder = parent
        for folder in reversed(missing):
            try:
                os.mkdir(folder)
                self._made_folders.append(folder)
            except FileExistsError:
                continue  # Another target of the same host was quicker.

    def _open_unnamed(self) -> int:
        """A descriptor of a file without a name; -1 where that cannot be had or named later."""
        flag = getattr(os, "O_TMPFILE", 0)
        if not flag or not os.path.isdir("/proc/self/fd"):
            return -1
        try:
            return os.open(self._folder, os.O_WRONLY | flag, 0o600)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                return -1
            raise

    def _open_named(self) -> int:
        _sweep(self._folder_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = os.open(self._part_name, flags, 0o600, dir_fd=self._folder_fd)
        self._is_named = True
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def _give_name(self, may_replace: bool) -> None:
        if not self._is_named:
            first_name = self._part_name if may_replace else self._name
            # src_dir_fd makes Python use linkat(AT_SYMLINK_FOLLOW), which /proc/self/fd needs.
            os.link(
                "/proc/self/fd/{}".format(self._fd),
                first_name,
                src_dir_fd=self._folder_fd,
                dst_dir_fd=self._folder_fd,
                follow_symlinks=True,
            )
            self._is_named = may_replace
        elif not may_replace:
            os.link(
                self._part_name,
                self._name,
                src_dir_fd=self._folder_fd,
                dst_dir_fd=self._folder_fd,
                follow_symlinks=False,
            )
        if may_replace:
            os.rename(
                self._part_name,
                self._name,
                src_dir_fd=self._folder_fd,
                dst_dir_fd=self._folder_fd,
            )
            self._is_named = False
        elif self._is_named:
            _remove(self._part_name, self._folder_fd)
            self._is_named = False

    def _check_space(self, length: int) -> None:
        before, after = self.written_bytes, self.written_bytes + length
        if before // _SPACE_CHECK_EVERY_BYTES == after // _SPACE_CHECK_EVERY_BYTES:
            return
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail * disk.f_frsize < self._reserve_bytes + length:
            raise files.FileRefusedError(
                "full",
                "{}: the disk has filled up to the reserve of {:,} bytes".format(
                    self.path, self._reserve_bytes
                ),
            )

    def _stop_flusher(self) -> None:
        if self._flusher is not None:
            flusher, self._flusher = self._flusher, None
            flusher.stop()

    def _close(self) -> None:
        for fd in (self._fd, self._folder_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._folder_fd = -1


class _Flusher:
    """Writes back what was written, beside the writer, so that the last sync finds little to do."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._flushed_bytes = 0
        self._wanted_bytes = 0
        self._is_stopping = False
        self.error: Optional[OSError] = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="castray-flush", daemon=True)
        self._thread.start()

    def flush_up_to(self, written_bytes: int) -> None:
        """Asks for what was written so far to be on the disk, some time soon."""
        if written_bytes - self._wanted_bytes >= _FLUSH_EVERY_BYTES:
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
                getattr(os, "fdatasync", os.fsync)(self._fd)
            except OSError as error:
                self.error = error
                return
            self._flushed_bytes = wanted_bytes


def _remove(name: str, folder_fd: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder_fd)


def _sweep(folder_fd: int) -> None:
    """Removes the temporary files of writers that no longer live."""
    for name in os.listdir(folder_fd):
        if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
            continue
        try:
            fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
        except OSError:
            continue
        try:
            status = os.fstat(fd)
            is_old = time.time() - status.st_mtime > _SWEEP_AFTER_SECONDS
            if stat.S_ISREG(status.st_mode) and is_old:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(name, folder_fd)
        except OSError:
            pass  # Locked: its writer lives.
        finally:
            os.close(fd)
