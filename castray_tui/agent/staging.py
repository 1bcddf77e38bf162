"""What one target writes into: content that has no real name until all of it is there and right."""

# ruff: noqa: D102  (the methods are documented at Destination)

from __future__ import annotations

import os
from typing import Any, Dict

from . import files
from .manifest import Manifest
from .part_file import PartFile

Json = Dict[str, Any]


class Destination:
    """Where the content of one target comes to lie. Safe from several threads.

    Files go by their number in the manifest; those to be skipped are there already. All methods
    but ``discard`` raise FileRefusedError.

    Args:
        order: What an ``allow`` said about the target: ``path`` (as the plan answered it),
            ``part_id`` (for the temporary name), ``skip`` (the
            numbers of files that are there already, identical), ``overwrite``, ``reserve_bytes``
            (disk space that stays free whatever happens) and, if they matter, ``roots``,
            ``delete``, ``include`` and ``exclude``.
        manifest: What is to come.

    Raises:
        FileRefusedError: The path is outside the roots, or its folder cannot be written.
    """

    def __init__(self, order: Json, manifest: Manifest) -> None:
        self.path = files.absolute(order["path"])
        files.check_roots(self.path, order.get("roots") or [])
        self.manifest = manifest
        self.part_id: str = order["part_id"]
        self.skip = frozenset(order["skip"])
        self.overwrite: str = order["overwrite"]
        self.reserve_bytes: int = order["reserve_bytes"]

    @property
    def written_bytes(self) -> int:
        """Bytes that are there by now, holes counted, without what is skipped."""
        raise NotImplementedError

    def write(self, number: int, offset: int, view: memoryview) -> None:
        """Writes a piece of a file."""
        raise NotImplementedError

    def skip_hole(self, number: int, offset: int, length: int) -> None:
        """Leaves a piece of a file out, which will read as zeros."""
        raise NotImplementedError

    def write_whole(self, number: int, view: memoryview) -> None:
        """Writes a whole file at once; again, where it was written before."""
        raise NotImplementedError

    def truncate_to(self, number: int, offset: int) -> None:
        """Forgets what was written of a file beyond an offset."""
        raise NotImplementedError

    def descriptor(self, number: int) -> int:
        """A descriptor to ``pread`` from what is there of a file, which the caller closes.

        That is what was written so far, the file that is skipped, or after ``publish`` the file
        under its real name.
        """
        raise NotImplementedError

    def publish(self) -> None:
        """Puts everything onto the disk and under its real name. The end, but for reading.

        Raises FileRefusedError with code ``exists`` where ``overwrite`` is ``never`` and a name
        was taken meanwhile. Whatever it raises, ``discard`` is still to be called.
        """
        raise NotImplementedError

    def discard(self) -> None:
        """Removes everything that is not published, with the folders that were made for it.

        After ``publish`` it lets go of what was kept open for reading. May be repeated.
        """
        raise NotImplementedError


class SingleFileDestination(Destination):
    """One file."""

    def __init__(self, order: Json, manifest: Manifest) -> None:
        super().__init__(order, manifest)
        self._part = None if self.skip else PartFile(self.path, self.part_id, self.reserve_bytes)

    @property
    def written_bytes(self) -> int:
        return 0 if self._part is None else self._part.written_bytes

    def write(self, number: int, offset: int, view: memoryview) -> None:
        self._open_part().write_at(offset, view)

    def skip_hole(self, number: int, offset: int, length: int) -> None:
        self._open_part().skip_hole(offset, length)

    def write_whole(self, number: int, view: memoryview) -> None:
        part = self._open_part()
        if part.written_bytes:
            part.truncate_to(0)
        part.write_at(0, view)

    def truncate_to(self, number: int, offset: int) -> None:
        self._open_part().truncate_to(offset)

    def descriptor(self, number: int) -> int:
        if self._part is not None:
            return self._part.descriptor()
        try:
            return os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise files.refusal_of(error, self.path) from error

    def publish(self) -> None:
        if self._part is None:
            return
        entry = self.manifest.files[0]
        if self._part.written_bytes != entry.size:
            raise files.FileRefusedError("digest", "{} is not whole".format(self.path))
        self._part.publish(entry.mode, entry.mtime_ns, self.overwrite != "never")

    def discard(self) -> None:
        if self._part is not None:
            self._part.discard()

    def _open_part(self) -> PartFile:
        if self._part is None:
            raise files.FileRefusedError("exists", "{} was to be skipped".format(self.path))
        return self._part


def open_destination(order: Json, manifest: Manifest) -> Destination:
    """The destination that fits a manifest. Arguments and errors are those of ``Destination``."""
    if manifest.is_tree:
        from .tree_staging import TreeDestination  # It needs Destination.

        return TreeDestination(order, manifest)
    return SingleFileDestination(order, manifest)
