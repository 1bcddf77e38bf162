"""What a transfer carries: one file, or a tree of folders, files and symbolic links.

A manifest is made by a scan of the source and travels, packed, to every target; it is the only
place that names come from, so that unpacking trusts nothing in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import zlib
from typing import Any, List, NamedTuple, Optional, Set, Tuple

# Names of what is not whole yet, at targets; they are no part of any source.
_PART_PREFIX = ".castray-"
_PART_SUFFIX = ".part"

_FORMAT = 1
_LIMIT_ENTRIES = 4_000_000
_LIMIT_BYTES = 512 * 1024 * 1024
_LIMIT_SIZE = 1 << 62
_LIMIT_MTIME_NS = 1 << 63
_KINDS = {"f": "file", "d": "folder", "l": "link"}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
# Every part of a path is a name: not empty, not "." or "..", without NUL.
_PATH = re.compile(r"(?:(?!\.{1,2}(?:/|\Z))[^/\0]+(?:/(?!\Z)|\Z))+\Z").match


class ManifestError(ValueError):
    """A manifest that no scan has made."""


class Entry(NamedTuple):
    """A file, folder or link of a tree, by its path from the top ("" is the top itself)."""

    kind: str
    path: str
    size: int
    mode: int
    mtime_ns: int
    link: str
    sparse: bool


class Manifest:
    """The entries of one source in order, folders before what is in them.

    Args:
        name: What the source is called when it is put into a folder; "" for several sources.
        is_tree: Whether it is anything but a single file.
        entries: All of them; those of kind ``file`` are numbered from 0 in this order.
        allocated_bytes: About how much of a disk the files take, holes left out.
    """

    def __init__(
        self, name: str, is_tree: bool, entries: Tuple[Entry, ...], allocated_bytes: int
    ) -> None:
        self.name = name
        self.is_tree = is_tree
        self.entries = entries
        self.files = tuple(entry for entry in entries if entry.kind == "file")
        self.total_bytes = sum(entry.size for entry in self.files)
        self.allocated_bytes = allocated_bytes
        self._digest: Optional[str] = None

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything in it."""
        if self._digest is None:
            self._encode()
        assert self._digest is not None  # noqa: S101  (what encoding is for)
        return self._digest

    def pack(self) -> str:
        """It as text, for ``unpack``."""
        return base64.b64encode(zlib.compress(self._encode(), 3)).decode()

    @staticmethod
    def unpack(text: str) -> Manifest:
        """The manifest that was packed. The last two are remembered: they are asked for often.

        Raises:
            ManifestError: The text is none, or names what must not be named.
        """
        return _unpack(text)

    def _encode(self) -> bytes:
        rows: List[List[Any]] = []
        for kind, path, size, mode, mtime_ns, link, sparse in self.entries:
            if kind == "file":
                rows.append(["f", path, mode, mtime_ns, size, int(sparse)])
            else:
                rows.append([_LETTERS[kind], path, mode, mtime_ns, link])
        whole = [_FORMAT, self.name, int(self.is_tree), self.allocated_bytes, rows]
        data = json.dumps(whole, separators=(",", ":")).encode("ascii")
        self._digest = hashlib.sha256(data).hexdigest()
        return data

    def _check(self) -> None:
        """Raises ManifestError for whatever could lead anywhere but into the tree."""
        if self.name and (not _PATH(self.name) or "/" in self.name):
            raise ManifestError("a manifest with an impossible name")
        if not self.is_tree:
            if [(entry.kind, entry.path) for entry in self.entries] != [("file", "")]:
                raise ManifestError("a manifest of one file that is not one file")
            return
        folders: Set[str] = {""}
        for place, (kind, path, _, _, _, link, _) in enumerate(self.entries):
            if not path and place == 0 and kind == "folder":
                continue
            if not _PATH(path):
                raise ManifestError("a manifest with an impossible path: {!r}".format(path))
            # Only what was listed as a folder can hold anything: no file, no link, nothing unseen.
            if path.rpartition("/")[0] not in folders:
                raise ManifestError("a manifest with a path in no folder: {!r}".format(path))
            if kind == "folder":
                folders.add(path)
            elif kind == "link" and (not link or "\0" in link):
                raise ManifestError("a manifest with a link to nothing: {!r}".format(path))
        if len({entry.path for entry in self.entries}) != len(self.entries):
            raise ManifestError("a manifest with a path that is there twice")


@functools.lru_cache(maxsize=2)
def _unpack(text: str) -> Manifest:
    try:
        unzipper = zlib.decompressobj()
        data = unzipper.decompress(base64.b64decode(text, validate=True), _LIMIT_BYTES)
        if unzipper.unconsumed_tail or not unzipper.eof:
            raise ManifestError("a manifest that is too large or cut off")
        version, name, is_tree, allocated_bytes, rows = json.loads(data)
        if version != _FORMAT or len(rows) > _LIMIT_ENTRIES or is_tree not in (0, 1):
            raise ManifestError("a manifest of another kind")
        entries = []
        for row in rows:
            letter, path, mode, mtime_ns, value = row[:5]
            if letter == "f":
                _check_number(value, _LIMIT_SIZE)
                entry = Entry("file", path, value, mode, mtime_ns, "", row[5] == 1)
            elif type(value) is str:
                entry = Entry(_KINDS[letter], path, 0, mode, mtime_ns, value, False)
            else:
                raise ManifestError("a manifest with a link to no path")
            _check_number(mode, 0o777)
            _check_number(abs(mtime_ns), _LIMIT_MTIME_NS)
            entries.append(entry)
        _check_number(allocated_bytes, _LIMIT_SIZE)
        # Raises for what is no text, and for what this node's file names could not spell.
        os.fsencode("/".join([name] + [entry.path + "/" + entry.link for entry in entries]))
    except ManifestError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, zlib.error) as error:
        raise ManifestError("no manifest: {}".format(error)) from error
    manifest = Manifest(name, bool(is_tree), tuple(entries), allocated_bytes)
    manifest._digest = hashlib.sha256(data).hexdigest()
    manifest._check()
    return manifest


def _check_number(value: object, limit: int) -> None:
    if type(value) is not int or not 0 <= value <= limit:
        raise ManifestError("a manifest with an impossible number: {!r}".format(value))


class TreeDigest:
    """One digest for a whole transfer, the same at both ends if and only if the contents are.

    For a single file its SHA-256. For a tree the SHA-256 over one line for each entry in order:
    kind, path, and the file's hex SHA-256 or the link's target, parted by NUL, ended by a newline.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._entries = manifest.entries
        self._is_tree = manifest.is_tree
        self._place = 0
        self._number = 0
        self._hasher = hashlib.sha256()
        self._last = ""

    def add(self, number: int, digest: str) -> None:
        """The hex SHA-256 of the next file. Raises ValueError for one out of its turn."""
        if number != self._number:
            raise ValueError("file {} came in place of {}".format(number, self._number))
        self._pass_to_file()
        self._line(self._entries[self._place], digest)
        self._place += 1
        self._number += 1
        self._last = digest

    def hexdigest(self) -> str:
        """``sha256:`` and the hex digits, once every file was added."""
        self._pass_to_file()
        if self._place != len(self._entries):
            raise ValueError("file {} has not come yet".format(self._number))
        return "sha256:" + (self._hasher.hexdigest() if self._is_tree else self._last)

    def _pass_to_file(self) -> None:
        while self._place < len(self._entries) and self._entries[self._place].kind != "file":
            entry = self._entries[self._place]
            self._line(entry, entry.link)
            self._place += 1

    def _line(self, entry: Entry, value: str) -> None:
        line = "\0".join((entry.kind, entry.path, value)) + "\n"
        self._hasher.update(line.encode("utf-8", "surrogateescape"))


def part_name(part_id: str) -> str:
    """A name that nobody has, whatever an attempt before this one may have left."""
    return "{}{}-{}{}".format(_PART_PREFIX, part_id, os.urandom(4).hex(), _PART_SUFFIX)


def is_part_name(name: str) -> bool:
    """Whether a name is one that castray gives to what is not whole yet."""
    return name.startswith(_PART_PREFIX) and name.endswith(_PART_SUFFIX)
