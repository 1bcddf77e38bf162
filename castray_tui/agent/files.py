"""What the agent asks of a node's file system: sources, targets, digests, free space."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from typing import Any, Callable, Dict, List, Optional

Json = Dict[str, Any]

_DIGEST_READ_BYTES = 1024 * 1024


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


def probe_source(path: str, roots: List[str]) -> Json:
    """Looks at a source without reading it.

    Returns:
        ``path`` as opened, ``name``, ``size``, ``mode``, ``mtime_ns``, ``inode``, ``device`` and
        ``machine``.

    Raises:
        FileRefusedError: Missing, unreadable, a folder, or no regular file.
    """
    path = absolute(path)
    check_roots(os.path.realpath(path) if roots else path, roots)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise FileRefusedError("folder", "{} is a folder".format(path))
        if not stat.S_ISREG(status.st_mode):
            raise FileRefusedError("not-a-file", "{} is no regular file".format(path))
        with open(path, "rb"):
            pass
    except OSError as error:
        raise refusal_of(error, path) from error
    return dict(
        signature(status), path=path, name=os.path.basename(path), mode=stat.S_IMODE(status.st_mode)
    )


def signature(status: os.stat_result) -> Json:
    """What changes when somebody writes to a file or puts another in its place."""
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "device": status.st_dev,
        "machine": machine_id(),
    }


def digest_file(path: str, is_cancelled: Optional[Callable[[], bool]] = None) -> Json:
    """Reads a whole file and returns its ``digest`` (``sha256:…``) and ``signature``.

    Raises:
        FileRefusedError: It cannot be read, or changed meanwhile.
    """
    path = absolute(path)
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_DIGEST_READ_BYTES))
    try:
        with open(path, "rb", buffering=0) as file:
            before = signature(os.fstat(file.fileno()))
            while True:
                count = file.readinto(buffer)
                if not count:
                    break
                hasher.update(buffer[:count])
                if is_cancelled is not None and is_cancelled():
                    raise FileRefusedError("cancelled", "cancelled")
            if signature(os.fstat(file.fileno())) != before:
                raise FileRefusedError("changed", "{} changed while it was read".format(path))
    except OSError as error:
        raise refusal_of(error, path) from error
    return {"digest": "sha256:" + hasher.hexdigest(), "signature": before}


def final_path(path: str, source_name: str) -> str:
    """Where the source would come to lie: below a path that ends in ``/``, else at the path."""
    path = absolute(path)
    last = os.path.basename(path)
    if last in ("", ".", ".."):
        if source_name in ("", ".", "..") or "/" in source_name or "\0" in source_name:
            raise FileRefusedError("path", "the source has no name that could be put into a folder")
        path = os.path.join(path, source_name)
    return path


def plan_target(order: Json, reserved_bytes: Callable[[int], int]) -> Json:
    """What would happen to one target, found out without changing anything.

    Args:
        order: ``path``, ``source`` (what ``probe_source`` said), ``overwrite``, ``roots`` and
            ``reserve_bytes``.
        reserved_bytes: Bytes that other transfers still have to write to a device.

    Returns:
        ``path``, ``action`` (``send``, ``refuse`` or, where only digests can tell, ``compare``),
        ``code``, ``reason``, ``free_bytes``, ``existing_bytes``.
    """
    answer: Json = {
        "path": order["path"],
        "action": "refuse",
        "code": None,
        "reason": None,
        "free_bytes": None,
        "existing_bytes": None,
    }
    try:
        path = answer["path"] = final_path(order["path"], order["source"]["name"])
        check_roots(path, order["roots"])
        existing = existing_file(path)
        if existing is not None and stat.S_ISREG(existing.st_mode):
            answer["existing_bytes"] = existing.st_size
        folder = nearest_folder(os.path.dirname(path))
        disk = os.statvfs(folder)
        # File systems without blocks (/proc and its like) have no free space to speak of.
        free_bytes = answer["free_bytes"] = disk.f_bavail * disk.f_frsize if disk.f_blocks else None
        action = _action(path, existing, order)
        if action == "send" and free_bytes is not None:
            available = free_bytes - reserved_bytes(os.stat(folder).st_dev)
            check_space(path, order["source"]["size"], available, order["reserve_bytes"])
        answer["action"] = action
    except FileRefusedError as refusal:
        answer["code"], answer["reason"] = refusal.code, refusal.reason
    except OSError as error:
        refused = refusal_of(error, answer["path"])
        answer["code"], answer["reason"] = refused.code, refused.reason
    return answer


def _action(path: str, existing: Optional[os.stat_result], order: Json) -> str:
    source = order["source"]
    if existing is None and not os.path.islink(path):
        return "send"
    if order["overwrite"] == "never":
        raise FileRefusedError("exists", "exists: {}".format(path))
    if existing is None:
        return "send"  # A link to nowhere: the link itself is replaced.
    if (source["machine"], source["device"], source["inode"]) == (
        machine_id(),
        existing.st_dev,
        existing.st_ino,
    ):
        raise FileRefusedError("same-file", "{} is the source itself".format(path))
    same_size = existing.st_size == source["size"]
    return "compare" if order["overwrite"] == "if-different" and same_size else "send"


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
