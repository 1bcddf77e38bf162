"""Looking at a source: what a transfer of it would carry, and whether it is still the same."""

from __future__ import annotations

import errno
import hashlib
import operator
import os
import stat
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from .files import FileRefusedError, absolute, check_roots, refusal_of
from .manifest import Entry, Manifest, is_part_name
from .patterns import Patterns

Signature = Tuple[int, int, int, int]
# Path, path in the tree, status, what the patterns said, and which folders lead there.
_Folder = Tuple[str, str, os.stat_result, Tuple[bool, bool], Tuple[Tuple[int, int], ...]]

# Whatever took a file's place must not keep the opener waiting, as a fifo would.
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK_BYTES = 4096
# Smaller files are not worth looking for holes in, and file systems keep some without blocks.
_SPARSE_FROM_BYTES = 64 * 1024


class Scan:
    """A source as it was found: its manifest, and where its files lie.

    ``paths`` and ``signatures`` (size, modification time in ns, inode, device) go by file number;
    ``token`` is a hex digest that is the same as long as nothing in it changes.
    """

    def __init__(self, manifest: Manifest, paths: List[str], signatures: List[Signature]) -> None:
        self.manifest = manifest
        self.paths = paths
        self.signatures = signatures
        signed = "{} {}".format(manifest.digest, signatures)
        self.token = hashlib.sha256(signed.encode()).hexdigest()

    def open_file(self, number: int) -> int:
        """A descriptor to read a file from.

        Raises:
            FileRefusedError: It is gone, unreadable, or no longer the one scanned (``changed``).
        """
        path = self.paths[number]
        try:
            fd = os.open(path, _READ_FLAGS)
        except OSError as error:
            raise refusal_of(error, path) from error
        if _signature(os.fstat(fd)) != self.signatures[number]:
            os.close(fd)
            raise FileRefusedError("changed", "{} has changed since the plan".format(path))
        return fd

    def read_whole(self, number: int, view: memoryview) -> None:
        """Fills a buffer with a small file, in as few calls as can tell that it is the one scanned.

        Raises:
            FileRefusedError: It is gone, unreadable, or no longer the one scanned (``changed``).
        """
        path = self.paths[number]
        try:
            fd = os.open(path, _READ_FLAGS)
            try:
                count = os.readv(fd, [view]) if view else 0
                is_same = _signature(os.fstat(fd)) == self.signatures[number]
            finally:
                os.close(fd)
        except OSError as error:
            raise refusal_of(error, path) from error
        if count != len(view) or not is_same:
            raise FileRefusedError("changed", "{} has changed since the plan".format(path))

    def check_file(self, number: int, fd: int, by_name: bool = True) -> None:
        """Makes sure that a file that was read is still the one scanned.

        Args:
            number: Which one.
            fd: What ``open_file`` gave.
            by_name: Whether its path must still lead to it too.

        Raises:
            FileRefusedError: It is not (``changed``), or is gone.
        """
        path = self.paths[number]
        wanted = self.signatures[number]
        try:
            is_same = _signature(os.fstat(fd)) == wanted
            if is_same and by_name:
                is_same = _signature(os.stat(path)) == wanted
        except OSError as error:
            raise refusal_of(error, path) from error
        if not is_same:
            raise FileRefusedError("changed", "{} changed while it was read".format(path))


def scan(  # noqa: PLR0917  (the order's own arguments)
    paths: List[str],
    roots: List[str],
    links: str = "keep",
    include: Optional[List[str]] = None,
    exclude: Optional[List[str]] = None,
    is_cancelled: Optional[Callable[[], bool]] = None,
) -> Scan:
    """Looks at a source without reading any file's content.

    Args:
        paths: One file, one folder, or several of both, which go side by side by their names.
            Links are followed here, whatever ``links`` says.
        roots: Folders that all of it must lie in; none allow all.
        links: What to do with symbolic links in folders: ``keep`` them as they are, ``follow``
            them to what they lead to, or ``refuse``.
        include: Patterns, as ``patterns.py`` has them, from the top of the tree.
        exclude: The same. A single file is taken whatever they say.
        is_cancelled: Asked now and then.

    Raises:
        FileRefusedError: Something is missing, unreadable, outside the roots, neither file nor
            folder nor link, or twice there.
    """
    if links not in ("keep", "follow", "refuse"):
        raise FileRefusedError("links", "links are kept, followed or refused, not " + links)
    try:
        walk = _Walk(roots, links, Patterns(include or [], exclude or []), is_cancelled)
        tops = [_top(path, roots) for path in paths]
        if not tops:
            raise FileRefusedError("path", "nothing to send was named")
        if len(tops) == 1:
            path, name, status = tops[0]
            is_tree = stat.S_ISDIR(status.st_mode)
            walk.add_top(path, "", status)
        else:
            name, is_tree = "", True
            seen: Dict[str, str] = {}
            for path, top_name, status in sorted(tops, key=operator.itemgetter(1)):
                if not top_name or top_name in seen:
                    other = seen.get(top_name, path)
                    reason = "{} and {} would come to lie in the same place".format(other, path)
                    raise FileRefusedError("path", reason)
                seen[top_name] = path
                walk.add_top(path, top_name, status)
            if not walk.entries:
                raise FileRefusedError("empty", "the patterns leave nothing of the source")
    except OSError as error:
        raise refusal_of(error, str(error.filename or paths[0])) from error
    except ValueError as error:
        raise FileRefusedError("pattern", str(error)) from error
    manifest = Manifest(name, is_tree, tuple(walk.entries), walk.allocated_bytes)
    return Scan(manifest, walk.paths, walk.signatures)


def _top(path: str, roots: List[str]) -> Tuple[str, str, os.stat_result]:
    """A named source: its path, its name and what is there, links followed."""
    path = absolute(path)
    path = path.rstrip("/") or "/"
    name = os.path.basename(path)
    if name in ("", ".", ".."):
        name = os.path.basename(os.path.realpath(path))
    if roots:
        check_roots(os.path.realpath(path), roots)
    status = os.stat(path)
    return path, name, status


class _Walk:
    """Collects entries: of each folder first what is no folder, by name, then the folders."""

    def __init__(
        self,
        roots: List[str],
        links: str,
        patterns: Patterns,
        is_cancelled: Optional[Callable[[], bool]],
    ) -> None:
        self.entries: List[Entry] = []
        self.paths: List[str] = []
        self.signatures: List[Signature] = []
        self.allocated_bytes = 0
        self._roots = roots
        self._links = links
        self._patterns = patterns
        self._is_cancelled = is_cancelled
        self._is_root_user = os.geteuid() == 0
        # Excluded folders, which come along only if something in them does.
        self._pending: Dict[str, Entry] = {}

    def add_top(self, path: str, relative: str, status: os.stat_result) -> None:
        """Takes a named source in, at a path of the tree; "" for a single one."""
        above = (False, False)
        is_folder = stat.S_ISDIR(status.st_mode)
        if relative:
            above = self._patterns.judge(relative, is_folder, above)
            if above[0] and not above[1] and not (is_folder and self._patterns.has_includes):
                return
        if is_folder:
            self._walk((path, relative, status, above, ((status.st_dev, status.st_ino),)))
        else:
            self._add_file(path, relative, status)

    def _walk(self, top: _Folder) -> None:
        follows = self._links == "follow"
        patterns = None if self._patterns.is_empty else self._patterns
        stack = [top]
        while stack:
            folder, relative, status, above, chain = stack.pop()
            if self._is_cancelled is not None and self._is_cancelled():
                raise FileRefusedError("cancelled", "cancelled")
            self._add_folder(relative, status, above)
            prefix = relative + "/" if relative else ""
            with os.scandir(folder) as listing:
                found = sorted(listing, key=operator.attrgetter("name"))
            folders: List[_Folder] = []
            for one in found:
                path = prefix + one.name
                is_link = one.is_symlink()
                is_folder = one.is_dir(follow_symlinks=follows)
                verdict = above
                if patterns is not None:
                    verdict = patterns.judge(path, is_folder, above)
                    if verdict[0] and not verdict[1] and not (is_folder and patterns.has_includes):
                        continue
                if is_part_name(one.name):
                    continue
                try:
                    status = one.stat(follow_symlinks=follows)
                except FileNotFoundError:
                    if is_link:
                        reason = "{} is a link to nowhere; exclude it".format(one.path)
                        raise FileRefusedError("missing", reason) from None
                    continue  # Gone since the folder was listed.
                if is_link:
                    if not follows:
                        self._add_link(one.path, path, status)
                        continue
                    check_roots(os.path.realpath(one.path), self._roots)
                if not is_folder:
                    self._add_file(one.path, path, status)
                    continue
                identity = (status.st_dev, status.st_ino)
                if is_link and identity in chain:
                    raise FileRefusedError("loop", "{} leads into itself".format(one.path))
                below = chain + (identity,) if follows else chain
                folders.append((one.path, path, status, verdict, below))
            stack.extend(reversed(folders))

    def _add_folder(self, path: str, status: os.stat_result, verdict: Tuple[bool, bool]) -> None:
        mode, mtime_ns = status.st_mode & 0o777, status.st_mtime_ns
        self._pending[path] = Entry("folder", path, 0, mode, mtime_ns, "", False)
        if not path or not verdict[0] or verdict[1]:
            self._flush(path)

    def _flush(self, path: str) -> None:
        """Adds a folder, and those it lies in, unless they were added before."""
        entry = self._pending.pop(path, None)
        if entry is not None:
            if path:
                self._flush(path.rpartition("/")[0])
            self.entries.append(entry)
            self.allocated_bytes += _BLOCK_BYTES

    def _add_link(self, source: str, path: str, status: os.stat_result) -> None:
        if self._links == "refuse":
            reason = "{} is a symbolic link; keep or follow links, or exclude it".format(source)
            raise FileRefusedError("link", reason)
        self._flush(path.rpartition("/")[0])
        link = os.readlink(source)
        self.entries.append(Entry("link", path, 0, 0o777, status.st_mtime_ns, link, False))

    def _add_file(self, source: str, path: str, status: os.stat_result) -> None:
        mode, size = status.st_mode, status.st_size
        if not stat.S_ISREG(mode):
            raise FileRefusedError("not-a-file", "{} is {}".format(source, _kind_of(mode)))
        # Root may read all, but for where it has lost that right, as in containers and on NFS.
        is_readable = self._is_root_user and mode & stat.S_IROTH
        if not (is_readable or os.access(source, os.R_OK)):
            raise FileRefusedError("permission", "Permission denied: {}".format(source))
        if self._pending:
            self._flush(path.rpartition("/")[0])
        allocated = -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
        is_sparse = False
        if size >= _SPARSE_FROM_BYTES and status.st_blocks * 512 < size:
            data_bytes = _data_bytes(source, size)
            is_sparse = data_bytes < size
            allocated = data_bytes if is_sparse else allocated
        self.allocated_bytes += allocated
        mtime_ns = status.st_mtime_ns
        self.entries.append(Entry("file", path, size, mode & 0o777, mtime_ns, "", is_sparse))
        self.paths.append(source)
        self.signatures.append((size, mtime_ns, status.st_ino, status.st_dev))


def data_runs(fd: int, size: int) -> Iterator[Tuple[int, int]]:
    """Offset and length of what is no hole in a file, as far as its file system tells.

    Raises OSError.
    """
    seek_data, seek_hole = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)
    if seek_data is None or seek_hole is None:
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, seek_data)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # Nothing but a hole up to the end.
            if error.errno == errno.EINVAL:
                yield end, size - end
                return
            raise
        end = min(os.lseek(fd, start, seek_hole), size)
        if start < end:
            yield start, end - start


def _data_bytes(path: str, size: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return sum(length for _, length in data_runs(fd, size))
    finally:
        os.close(fd)


def _signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _kind_of(mode: int) -> str:
    for test, kind in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return kind + ", which cannot be sent; exclude it"
    return "neither file nor folder"
