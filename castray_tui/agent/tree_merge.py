"""Putting a staged tree into a folder that is there already, entry by entry.

Everything goes by descriptors of folders that were reached without following a link: what somebody
else may do to the tree meanwhile can make this fail, and cannot lead it out of the tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import AbstractSet, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from .files import FileRefusedError
from .folders import FolderCache
from .manifest import Entry, Manifest, is_part_name
from .patterns import Patterns

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


class Survey:
    """What of a tree is there already. Changes nothing.

    Attributes:
        existing: Folders of the manifest that are there.
        new_tops: Folders that are not, though those they lie in are.
        in_the_way: Paths of files and links that are there under names of the manifest's.
        same_size: Numbers of files that are there with the size they are to have.
        links_to_make: Links that are not there, or lead elsewhere.
        replaced_bytes: Size of the files that are there under names of files.
        to_write: Existing folders in which something is missing or surely different.

    Raises:
        FileRefusedError: A folder lies where a file or link is to be, or the reverse, or
            something that is neither.
        OSError: Something cannot be looked at.
    """

    def __init__(  # noqa: PLR0912  (one branch for each thing that may lie there)
        self, top: str, manifest: Manifest, target: FolderCache
    ) -> None:
        self.existing: Set[str] = {""}
        self.new_tops: List[Entry] = []
        self.in_the_way: List[str] = []
        self.same_size: List[int] = []
        self.links_to_make: List[Entry] = []
        self.replaced_bytes = 0
        self.to_write: Set[str] = set()
        device = os.fstat(target.top_fd).st_dev
        number = -1
        for entry in manifest.entries:
            number += entry.kind == "file"
            parent, _, name = entry.path.rpartition("/")
            if not entry.path:
                continue
            status: Optional[os.stat_result] = None
            if parent in self.existing:
                folder_fd = target.fd(parent)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            if status is None:
                if entry.kind == "link":
                    self.links_to_make.append(entry)
                if parent in self.existing:
                    self.to_write.add(parent)
                    if entry.kind == "folder":
                        self.new_tops.append(entry)
                continue
            path = "{}/{}".format(top.rstrip("/"), entry.path)
            _check_kinds(entry.kind, status.st_mode, path)
            if entry.kind == "folder":
                if status.st_dev != device:
                    reason = "{} is on another disk; send into it by itself".format(path)
                    raise FileRefusedError("device", reason)
                self.existing.add(entry.path)
                continue
            self.in_the_way.append(path)
            is_file = stat.S_ISREG(status.st_mode)
            self.replaced_bytes += status.st_size if is_file else 0
            if entry.kind == "file":
                if is_file and status.st_size == entry.size:
                    self.same_size.append(number)
                else:
                    self.to_write.add(parent)
            elif is_file or os.readlink(name, dir_fd=folder_fd) != entry.link:
                self.links_to_make.append(entry)
                self.to_write.add(parent)


def _check_kinds(kind: str, mode: int, path: str) -> None:
    is_plain = stat.S_ISREG(mode) or stat.S_ISLNK(mode)
    if kind == "folder" and stat.S_ISLNK(mode):
        reason = "{} is a link, and nothing is put through it".format(path)
        raise FileRefusedError("link", reason)
    if kind == "folder" and not stat.S_ISDIR(mode):
        raise FileRefusedError("not-a-folder", "{} is there and is no folder".format(path))
    if kind != "folder" and stat.S_ISDIR(mode):
        reason = "{} is a folder, and the source has a {} there".format(path, kind)
        raise FileRefusedError("folder", reason)
    if kind != "folder" and not is_plain:
        raise FileRefusedError("not-a-file", "{} is there and is no regular file".format(path))


def refuse_existing(survey: Survey, manifest: Manifest) -> None:
    """Raises FileRefusedError (``exists``) where the names are not all free."""
    if survey.in_the_way:
        total = sum(entry.kind != "folder" for entry in manifest.entries)
        reason = "exists: {:,} of {:,} files, first {}"
        raise FileRefusedError(
            "exists", reason.format(len(survey.in_the_way), total, survey.in_the_way[0])
        )


def complete(staged: FolderCache, folders: Iterable[Entry], links: Iterable[Entry]) -> None:
    """Makes staged folders that nothing has come for yet, and links. Raises OSError."""
    for entry in folders:
        staged.fd(entry.path)
    for entry in links:
        parent, _, name = entry.path.rpartition("/")
        folder_fd = staged.fd(parent)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder_fd)
        os.symlink(entry.link, name, dir_fd=folder_fd)
        with contextlib.suppress(NotImplementedError):
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(name, ns=times, dir_fd=folder_fd, follow_symlinks=False)


def set_folders(cache: FolderCache, entries: Sequence[Entry], keeps_others: bool = False) -> None:
    """Gives folders their modes and times, the innermost first. Raises OSError.

    Args:
        cache: Of the tree they are in.
        entries: The folders, as the manifest orders them.
        keeps_others: Whether a folder that belongs to somebody else stays as it is.
    """
    for entry in reversed(entries):
        fd = cache.fd(entry.path)
        try:
            # The folder that somebody named may be anything; only its time is this tree's.
            if entry.path or not keeps_others:
                os.fchmod(fd, entry.mode & 0o777)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except PermissionError:
            if not keeps_others:
                raise


def move_all(
    manifest: Manifest,
    survey: Survey,
    caches: Tuple[FolderCache, FolderCache],
    skip: AbstractSet[int],
    may_replace: bool,
) -> None:
    """Moves what is staged to where it belongs.

    Args:
        manifest: What is staged, but for what is there already.
        survey: What was found at the target; folders that were made since are noted in it.
        caches: The staging folder and the target.
        skip: Numbers of files that are not staged.
        may_replace: Whether files and links that are there may go.

    Raises:
        FileRefusedError: A name is taken (``exists``), or something is no longer what it was.
        OSError: The disk says no.
    """
    staged, target = caches
    new_tops = {entry.path for entry in survey.new_tops}
    links = {entry.path for entry in survey.links_to_make}
    number = -1
    for entry in manifest.entries:
        number += entry.kind == "file"
        parent, _, name = entry.path.rpartition("/")
        if parent not in survey.existing or not entry.path:
            continue  # It is moved along with the folder it lies in.
        if entry.kind == "folder":
            if entry.path not in new_tops:
                continue
        elif number in skip if entry.kind == "file" else entry.path not in links:
            continue
        source_fd = staged.fd(parent)
        target_fd = target.fd(parent)
        if entry.kind == "folder":
            try:
                os.rename(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # Somebody else made it meanwhile: what lies in it is moved one by one.
                new_tops |= _note_made(entry, manifest, survey, staged)
        elif may_replace:
            os.rename(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        else:
            _take_name(name, source_fd, target_fd)


def _note_made(
    made: Entry, manifest: Manifest, survey: Survey, staged: FolderCache
) -> AbstractSet[str]:
    """Counts a folder as one that was there. The paths of those in it, which are tops now."""
    survey.existing.add(made.path)
    survey.to_write.add(made.path)
    survey.new_tops.remove(made)
    tops = [
        entry
        for entry in manifest.entries
        if entry.kind == "folder" and entry.path.rpartition("/")[0] == made.path
    ]
    for entry in tops:
        # Without the right to write to it, it could not be moved; it gets its mode afterwards.
        os.fchmod(staged.fd(entry.path), 0o700)
    survey.new_tops.extend(tops)
    return {entry.path for entry in tops}


def _take_name(name: str, source_fd: int, target_fd: int) -> None:
    """Moves a file or link, unless the name is taken; what is left behind is removed later."""
    try:
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # This file system has no second names: looking first is the best that can be had.
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=target_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        os.rename(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def remove_others(
    top: str, manifest: Manifest, survey: Survey, target: FolderCache, patterns: Patterns
) -> None:
    """Removes what the manifest does not name from the folders that it names.

    What the patterns leave out of the source stays, and so does what castray has under way.

    Raises:
        FileRefusedError: Something cannot be removed (``delete``); the rest is.
    """
    named: Dict[str, Set[str]] = {}
    for entry in manifest.entries:
        parent, _, name = entry.path.rpartition("/")
        if entry.kind == "folder" and entry.path in survey.existing:
            named.setdefault(entry.path, set())
        if parent in named and entry.path:
            named[parent].add(name)
    device = os.fstat(target.top_fd).st_dev
    failed: List[str] = []
    for folder, names in named.items():
        _remove_in(target, folder, names, patterns, device, failed)
    if failed:
        reason = "cannot remove {}/{}".format(top, failed[0])
        if len(failed) > 1:
            reason += " and {:,} more".format(len(failed) - 1)
        raise FileRefusedError("delete", reason)


def _remove_in(  # noqa: PLR0917  (what its only caller knows)
    target: FolderCache,
    top: str,
    names: Set[str],
    patterns: Patterns,
    device: int,
    failed: List[str],
) -> None:
    """Empties one folder of all but these names; a folder to be removed is emptied first."""
    doomed: List[str] = []
    stack = [(top, names)]
    while stack:
        folder, kept = stack.pop()
        try:
            with os.scandir(target.fd(folder)) as listing:
                found = [one for one in listing if one.name not in kept]
                for one in found:
                    path = folder + "/" + one.name if folder else one.name
                    is_folder = one.is_dir(follow_symlinks=False)
                    if is_part_name(one.name):
                        continue
                    if is_folder:
                        if one.stat(follow_symlinks=False).st_dev == device:
                            stack.append((path, set()))
                            if patterns.takes(path, True):
                                doomed.append(path)
                    elif patterns.takes(path, False):
                        os.unlink(one.name, dir_fd=target.fd(folder))
        except (OSError, FileRefusedError):
            failed.append(folder)
    for path in reversed(doomed):
        parent, _, name = path.rpartition("/")
        try:
            os.rmdir(name, dir_fd=target.fd(parent))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                failed.append(path)
