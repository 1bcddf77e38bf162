"""What would happen at one target of a transfer, found out without changing anything."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Callable, Dict, Iterable, Optional

from . import files
from .files import FileRefusedError
from .folders import FolderCache, open_folder
from .manifest import Manifest
from .tree_merge import Survey, refuse_existing

Json = Dict[str, Any]

_READ_BYTES = 256 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def plan_target(order: Json, reserved_bytes: Callable[[int], int]) -> Json:
    """Looks at one target.

    Args:
        order: ``path``, ``manifest`` (packed), ``overwrite``, ``roots``, ``reserve_bytes``, and
            for a single source its ``machine``, ``device`` and ``inode``.
        reserved_bytes: Bytes that other transfers still have to write to a device.

    Returns:
        ``path`` (where the content really goes, which is what ``allow`` wants), ``action``
        (``send``, ``refuse`` or, where only digests can tell, ``compare``), ``code``, ``reason``,
        ``free_bytes``, ``existing_bytes`` (of what would be replaced), ``candidates``, the numbers
        of the files that are there with the same size, where those are not to be replaced, and
        ``lacks_entries``, whether anything is surely missing or different besides those.

    Raises:
        ManifestError: The manifest is none.
    """
    manifest = Manifest.unpack(order["manifest"])
    answer: Json = {
        "path": order["path"],
        "action": "refuse",
        "code": None,
        "reason": None,
        "free_bytes": None,
        "existing_bytes": None,
        "candidates": [],
        "lacks_entries": False,
    }
    try:
        path = answer["path"] = _final_path(order["path"], manifest)
        files.check_roots(path, order["roots"])
        if manifest.is_tree:
            if os.path.islink(path):
                path = answer["path"] = _behind_link(path, order)
            folder = _look_at_tree(path, manifest, order, answer)
        else:
            folder = _look_at_file(path, manifest, order, answer)
        _check_space(path, folder, manifest, order["reserve_bytes"], reserved_bytes, answer)
        is_compared = bool(answer["candidates"])
        answer["action"] = "compare" if is_compared else "send"
    except FileRefusedError as refusal:
        answer["code"], answer["reason"] = refusal.code, refusal.reason
    except OSError as error:
        refused = files.refusal_of(error, answer["path"])
        answer["code"], answer["reason"] = refused.code, refused.reason
    except UnicodeError as error:  # Names that this node's file names could not spell.
        answer["code"], answer["reason"] = "name", "{}: {}".format(answer["path"], error)
    return answer


def _final_path(path: str, manifest: Manifest) -> str:
    if not manifest.is_tree:
        return files.final_path(path, manifest.name)
    is_folder = os.path.basename(files.absolute(path)) in ("", ".", "..")
    if manifest.name:
        final = files.final_path(path, manifest.name)
    elif is_folder or manifest.entries[:1] and not manifest.entries[0].path:
        final = files.absolute(path)
    else:
        reason = "{}: several sources need a folder; end the path in /".format(path)
        raise FileRefusedError("path", reason)
    return final.rstrip("/") or "/"


def _behind_link(path: str, order: Json) -> str:
    """Where a tree goes if its path is a link: followed only where that very path was named."""
    if files.absolute(order["path"]).rstrip("/") != path:
        raise FileRefusedError("link", "{} is a link, and nothing is put through it".format(path))
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise FileRefusedError("missing", "{} is a link to nowhere".format(path))
    files.check_roots(real, order["roots"])
    return real


def _look_at_file(path: str, manifest: Manifest, order: Json, answer: Json) -> str:
    """Fills in what is there already. The folder whose disk is to be looked at."""
    existing = files.existing_file(path)
    if existing is not None:
        answer["existing_bytes"] = existing.st_size
    folder = files.nearest_folder(os.path.dirname(path))
    if existing is None and not os.path.islink(path):
        return folder
    if order["overwrite"] == "never":
        raise FileRefusedError("exists", "exists: {}".format(path))
    if existing is not None:
        _refuse_itself(path, existing, order)
        if order["overwrite"] == "if-different" and existing.st_size == manifest.total_bytes:
            answer["candidates"] = [0]
    return folder


def _look_at_tree(path: str, manifest: Manifest, order: Json, answer: Json) -> str:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return files.nearest_folder(os.path.dirname(path))
    if not stat.S_ISDIR(status.st_mode):
        raise FileRefusedError("not-a-folder", "{} is there and is no folder".format(path))
    _refuse_itself(path, status, order)
    target = FolderCache(path, open_folder(path), False)
    try:
        survey = Survey(path, manifest, target)
        answer["existing_bytes"] = survey.replaced_bytes if survey.in_the_way else None
        if order["overwrite"] == "never":
            refuse_existing(survey, manifest)
        elif order["overwrite"] == "if-different":
            answer["candidates"] = survey.same_size
        answer["lacks_entries"] = bool(survey.to_write)
        written = set(survey.to_write)
        if order["overwrite"] == "always":
            written.update(manifest.files[one].path.rpartition("/")[0] for one in survey.same_size)
        for folder in sorted(written):
            files.check_writable(os.path.join(path, folder) if folder else path)
    finally:
        target.close()
    return path


def _refuse_itself(path: str, status: os.stat_result, order: Json) -> None:
    itself = (order.get("machine"), order.get("device"), order.get("inode"))
    if itself == (files.machine_id(), status.st_dev, status.st_ino):
        raise FileRefusedError("same-file", "{} is the source itself".format(path))


def _check_space(  # noqa: PLR0917  (what its only caller knows)
    path: str,
    folder: str,
    manifest: Manifest,
    reserve_bytes: int,
    reserved_bytes: Callable[[int], int],
    answer: Json,
) -> None:
    disk = os.statvfs(folder)
    if not disk.f_blocks:
        return  # File systems without blocks have no free space to speak of.
    answer["free_bytes"] = disk.f_bavail * disk.f_frsize
    if answer["candidates"] and len(answer["candidates"]) == len(manifest.files):
        return  # It may all be there already.
    needed_bytes = manifest.allocated_bytes
    for number in answer["candidates"]:
        needed_bytes -= manifest.files[number].size
    available_bytes = answer["free_bytes"] - reserved_bytes(os.stat(folder).st_dev)
    files.check_space(path, max(needed_bytes, 0), available_bytes, reserve_bytes)
    needed_files = len(manifest.entries) - len(answer["candidates"])
    if disk.f_files and disk.f_favail < needed_files:
        reason = "no space for {}: {:,} files wanted, room for {:,}"
        raise FileRefusedError("full", reason.format(path, needed_files, disk.f_favail))


def existing_digests(
    path: str,
    manifest: Manifest,
    numbers: Iterable[int],
    is_cancelled: Optional[Callable[[], bool]] = None,
) -> Dict[int, str]:
    """The hex SHA-256 of files that are there, by their numbers; those that are not are left out.

    Args:
        path: Where the content goes, as the plan answered it.
        manifest: Whose files are meant.
        numbers: Of the files to be read.
        is_cancelled: Asked now and then.

    Raises:
        FileRefusedError: The path itself cannot be read, or this was cancelled.
    """
    found: Dict[int, str] = {}
    buffer = memoryview(bytearray(_READ_BYTES))
    path = files.absolute(path)
    target: Optional[FolderCache] = None
    try:
        if manifest.is_tree:
            target = FolderCache(path, open_folder(path), False)
        for number in sorted(numbers):
            entry = manifest.files[number]
            folder, _, name = entry.path.rpartition("/")
            try:
                if target is None:
                    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                else:
                    fd = os.open(name, _READ, dir_fd=target.fd(folder))
            except (OSError, FileRefusedError):
                continue  # What cannot be read is not known to be identical.
            try:
                digest = _digest(fd, entry.size, buffer, is_cancelled)
            finally:
                os.close(fd)
            if digest is not None:
                found[number] = digest
    except FileNotFoundError:
        return found
    except OSError as error:
        raise files.refusal_of(error, path) from error
    finally:
        if target is not None:
            target.close()
    return found


def _digest(
    fd: int, size: int, buffer: memoryview, is_cancelled: Optional[Callable[[], bool]]
) -> Optional[str]:
    """The digest of a file of that size that does not change while it is read; else None."""
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode) or before.st_size != size:
        return None
    hasher = hashlib.sha256()
    while True:
        if is_cancelled is not None and is_cancelled():
            raise FileRefusedError("cancelled", "cancelled")
        try:
            count = os.readv(fd, [buffer])
        except OSError:
            return None
        if not count:
            break
        hasher.update(buffer[:count])
        size -= count
    after = os.fstat(fd)
    is_same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return hasher.hexdigest() if is_same and not size else None
