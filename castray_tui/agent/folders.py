"""The folders of a tree, by descriptor: reached part by part, never through a symbolic link."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Dict

from .files import FileRefusedError

_OPEN_FOLDERS = 64
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(path: str) -> int:
    """A folder's descriptor. Raises OSError, also for a link to one."""
    return os.open(path, _FLAGS)


class FolderCache:
    """Keeps the folders open that were used last. To be used by one thread at a time.

    Args:
        top: The path of the tree, for messages.
        top_fd: Its descriptor, which is closed with this.
        makes: Whether folders that are missing are made.
    """

    def __init__(self, top: str, top_fd: int, makes: bool) -> None:
        self.top_fd = top_fd
        self._top = top
        self._makes = makes
        self._fds: Dict[str, int] = {}

    def fd(self, path: str) -> int:
        """The descriptor of a folder, to be used before the next is asked for.

        Raises:
            FileRefusedError: A part of the path is a link or no folder.
            OSError: It is missing, or cannot be opened.
        """
        found = self._fds.get(path) if path else self.top_fd
        if found is not None:
            return found
        start = path
        while start and start not in self._fds:
            start = start.rpartition("/")[0]
        fd = self._fds[start] if start else self.top_fd
        for name in path[len(start) :].lstrip("/").split("/"):
            start = start + "/" + name if start else name
            fd = self._open(start, name, fd)
        return fd

    def close_all_but_top(self) -> None:
        """Closes the folders in the tree; they are opened again when they are asked for."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """Closes all of them."""
        self.close_all_but_top()
        if self.top_fd >= 0:
            os.close(self.top_fd)
        self.top_fd = -1

    def _open(self, path: str, name: str, parent_fd: int) -> int:
        if self._makes:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        try:
            fd = os.open(name, _FLAGS, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                reason = "{}/{} is a link or no folder, and nothing is put through it"
                raise FileRefusedError("not-a-folder", reason.format(self._top, path)) from error
            raise
        if len(self._fds) >= _OPEN_FOLDERS:
            os.close(self._fds.pop(next(iter(self._fds))))
        self._fds[path] = fd
        return fd
