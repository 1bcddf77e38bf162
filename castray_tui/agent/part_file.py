"""A file on its way in: without its real name until it is whole, verified and synced.

Where the file system can (``O_TMPFILE``), the bytes have no name at all while they come, so that
not even ``kill -9`` leaves anything. Elsewhere the name is ``.castray-<id>-<random>.part`` in the
target's folder, and a janitor waits beside it. A symbolic link at the target's path is replaced,
not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import List, Optional

from . import files, janitor
from .manifest import part_name
from .written_file import WrittenFile

_SPACE_CHECK_EVERY_BYTES = 64 * 1024 * 1024


class PartFile:
    """One target's content while it arrives. Exactly one of ``publish`` and ``discard`` ends it.

    Args:
        path: The real name to be.
        part_id: Says what this belongs to, in the temporary name.
        reserve_bytes: Disk space that stays free whatever happens.

    Raises:
        FileRefusedError: The folder cannot be made, opened or written.
    """

    def __init__(self, path: str, part_id: str, reserve_bytes: int) -> None:
        self.path = path
        self._space = SpaceCheck(path, reserve_bytes)
        self._folder, self._name = os.path.split(path)
        self._part_name = part_name(part_id)
        self._made_folders: List[str] = []
        self._folder_fd = -1
        self._file: Optional[WrittenFile] = None
        self._is_named = False
        self._janitor: Optional[janitor.Janitor] = None
        try:
            self._made_folders = janitor.make_folders(self._folder)
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fd = self._open_unnamed()
            if fd < 0:
                fd = self._open_named()
            self._file = WrittenFile(fd)
            if self._made_folders and self._janitor is None:
                self._janitor = janitor.Janitor("", self._made_folders)
        except OSError as error:
            self.discard()
            raise files.refusal_of(error, path) from error

    @property
    def written_bytes(self) -> int:
        """How far its content goes by now."""
        return 0 if self._file is None else self._file.end

    def write(self, chunk: memoryview) -> None:
        """Appends a chunk. Raises FileRefusedError where the disk is full or broken."""
        self.write_at(self.written_bytes, chunk)

    def write_at(self, offset: int, view: memoryview) -> None:
        """Writes at an offset; what lies before may be a hole.

        Raises:
            FileRefusedError: The disk is full or broken, or this has ended.
        """
        try:
            self._space.check(self._folder_fd, len(view))
            self._open_file().write_at(offset, view)
        except OSError as error:
            raise files.refusal_of(error, self.path) from error

    def skip_hole(self, offset: int, length: int) -> None:
        """Leaves a hole, which counts as written."""
        self._open_file().skip(offset, length)

    def truncate_to(self, offset: int) -> None:
        """Forgets what was written beyond. Raises FileRefusedError."""
        try:
            self._open_file().truncate_to(offset)
        except OSError as error:
            raise files.refusal_of(error, self.path) from error

    def descriptor(self) -> int:
        """A descriptor to ``pread`` from, which the caller closes; also after ``publish``.

        Raises:
            FileRefusedError: This has ended.
        """
        try:
            return self._open_file().descriptor()
        except OSError as error:
            raise files.refusal_of(error, self.path) from error

    def publish(self, mode: int, mtime_ns: int, may_replace: bool) -> None:
        """Gives the file its mode, its time and, once all is on the disk, its real name.

        Raises:
            FileRefusedError: The disk failed, or the name is taken and ``may_replace`` is False
                (code ``exists``). The file is discarded then.
        """
        try:
            file = self._open_file()
            file.finish(file.end, mode, mtime_ns)
            file.sync()
            self._give_name(may_replace)
            os.fsync(self._folder_fd)
        except OSError as error:
            self.discard()
            if error.errno == errno.EEXIST:
                raise files.FileRefusedError("exists", "exists: {}".format(self.path)) from error
            raise files.refusal_of(error, self.path) from error
        self._made_folders = []
        self._dismiss_janitor()

    def discard(self) -> None:
        """Removes the temporary file and the folders that were made for it, if still empty.

        After ``publish`` it only lets go of the file.
        """
        if self._is_named:
            _remove(self._part_name, self._folder_fd)
            self._is_named = False
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1
        janitor.remove_folders(self._made_folders)
        self._made_folders = []
        self._dismiss_janitor()

    def _open_file(self) -> WrittenFile:
        file = self._file
        if file is None:
            raise files.FileRefusedError("gone", "{}: this target has ended".format(self.path))
        return file

    def _dismiss_janitor(self) -> None:
        if self._janitor is not None:
            self._janitor.dismiss()
            self._janitor = None

    def _open_unnamed(self) -> int:
        """A descriptor of a file without a name; -1 where that cannot be had or named later."""
        flag = getattr(os, "O_TMPFILE", 0)
        if not flag or not os.path.isdir("/proc/self/fd"):
            return -1
        try:
            return os.open(self._folder, os.O_RDWR | os.O_CLOEXEC | flag, 0o600)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                return -1
            raise

    def _open_named(self) -> int:
        janitor.sweep(self._folder)
        # Before the file is there, so that there is no moment at which it would be left behind.
        part = os.path.join(self._folder, self._part_name)
        self._janitor = janitor.Janitor(part, self._made_folders)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._part_name, flags, 0o600, dir_fd=self._folder_fd)
        self._is_named = True
        janitor.lock(fd)
        return fd

    def _give_name(self, may_replace: bool) -> None:
        if not self._is_named:
            first_name = self._part_name if may_replace else self._name
            fd = self._open_file().descriptor()
            try:
                # src_dir_fd makes Python use linkat(AT_SYMLINK_FOLLOW), which /proc/self/fd needs.
                os.link(
                    "/proc/self/fd/{}".format(fd),
                    first_name,
                    src_dir_fd=self._folder_fd,
                    dst_dir_fd=self._folder_fd,
                    follow_symlinks=True,
                )
            finally:
                os.close(fd)
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


class SpaceCheck:
    """Keeps a reserve of a disk free while something is written to it."""

    def __init__(self, path: str, reserve_bytes: int) -> None:
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._unchecked_bytes = _SPACE_CHECK_EVERY_BYTES

    def check(self, fd: int, length: int) -> None:
        """To be asked before each write.

        Args:
            fd: Something on the disk.
            length: Bytes to be written.

        Raises:
            FileRefusedError: They would go into the reserve (code ``full``).
        """
        self._unchecked_bytes += length
        if not self._reserve_bytes or self._unchecked_bytes < _SPACE_CHECK_EVERY_BYTES:
            return  # A full disk says so by itself.
        self._unchecked_bytes = 0
        disk = os.fstatvfs(fd)
        # File systems without blocks have no free space to speak of.
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < self._reserve_bytes + length:
            reason = "{}: the disk has filled up to the reserve of {:,} bytes".format(
                self._path, self._reserve_bytes
            )
            raise files.FileRefusedError("full", reason)


def _remove(name: str, folder_fd: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder_fd)
