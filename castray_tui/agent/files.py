"""What the agent asks of a node's file system: paths, what is there, free space."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import List, Optional


class FileRefusedError(Exception):
    """Something about a path stands in the way. ``code`` is short, the message is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def os_reason(error: OSError, path: str) -> str:
    """An operating system's refusal in words: ``No space left on device: /mnt/x``."""
    return "{}: {}".format(error.strerror or str(error) or type(error).__name__, path)


def refusal_of(error: OSError, path: str) -> FileRefusedError:
    """An OSError as a FileRefusedError."""
    codes = {
        errno.ENOENT: "missing",
        errno.EACCES: "permission",
        errno.EPERM: "permission",
        errno.EROFS: "read-only",
        errno.ENOSPC: "full",
        errno.EDQUOT: "full",
        errno.EISDIR: "folder",
        errno.ENOTDIR: "not-a-folder",
    }
    return FileRefusedError(codes.get(error.errno or 0, "os"), os_reason(error, path))


def machine_id() -> str:
    """What two agents share if and only if they share a running kernel, hence inode numbers."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def absolute(path: str) -> str:
    """The path with ``~`` expanded on this node.

    Raises:
        FileRefusedError: It is not absolute, or is no path at all.
    """
    if not path or "\0" in path:
        raise FileRefusedError("path", "no path that a file could have")
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded):
        raise FileRefusedError(
            "path", "{}: a path on a node must be absolute or begin with ~".format(path)
        )
    return expanded


def check_roots(path: str, roots: List[str]) -> None:
    """Refuses a path whose folder, links followed, is in none of the roots; none allow all."""
    if not roots:
        return
    folder, name = os.path.split(path)
    real = os.path.join(os.path.realpath(folder), name)
    for root in roots:
        real_root = os.path.realpath(os.path.expanduser(root))
        if os.path.commonpath([real_root, real]) == real_root:
            return
    raise FileRefusedError("roots", "{} lies outside transfer.allowed_roots".format(path))


def final_path(path: str, source_name: str) -> str:
    """Where the source would come to lie: below a path that ends in ``/``, else at the path."""
    path = absolute(path)
    last = os.path.basename(path)
    if last in ("", ".", ".."):
        if source_name in ("", ".", "..") or "/" in source_name or "\0" in source_name:
            raise FileRefusedError("path", "the source has no name that could be put into a folder")
        path = os.path.join(path, source_name)
    return path


def existing_file(path: str) -> Optional[os.stat_result]:
    """What a file at that path is, links followed; None if there is none.

    Raises FileRefusedError for what is no file, and OSError.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise FileRefusedError(
            "folder",
            "{} is a folder; end the path in / to put the file into it".format(path),
        )
    if not stat.S_ISREG(status.st_mode):
        raise FileRefusedError("not-a-file", "{} is there and is no regular file".format(path))
    return status


def nearest_folder(folder: str) -> str:
    """The folder, or the nearest one above it that exists and in which folders can be made."""
    while True:
        try:
            status = os.stat(folder)
            break
        except FileNotFoundError:
            if os.path.islink(folder):
                raise FileRefusedError(
                    "missing", "{} is a link to nowhere".format(folder)
                ) from None
            folder = os.path.dirname(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise FileRefusedError("not-a-folder", "{} is not a folder".format(folder))
    check_writable(folder)
    return folder


def check_writable(folder: str) -> None:
    """Raises FileRefusedError where nothing can be put into a folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        # os.access knows a read-only file system even for root, which file modes do not stop.
        read_only = bool(os.statvfs(folder).f_flag & getattr(os, "ST_RDONLY", 1))
        if read_only:
            raise FileRefusedError("read-only", "Read-only file system: {}".format(folder))
        raise FileRefusedError("permission", "Permission denied: {}".format(folder))


def check_space(path: str, size: int, available_bytes: int, reserve_bytes: int) -> None:
    """Raises FileRefusedError (``full``) where so many bytes would go into the reserve."""
    if size + reserve_bytes > available_bytes:
        raise FileRefusedError(
            "full",
            "no space for {}: {:,} bytes wanted besides a reserve of {:,}, {:,} free".format(
                path, size, reserve_bytes, max(available_bytes, 0)
            ),
        )
