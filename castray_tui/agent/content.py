"""What an agent can serve to others: the chunks that it has checked, and what goes with them."""

from __future__ import annotations

import base64
import collections
import hashlib
import os
import struct
import threading
import zlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from .files import FileRefusedError, os_reason
from .layout import Layout, Segment
from .manifest import Manifest, TreeDigest
from .scanning import Scan

Json = Dict[str, Any]

_ENTRY = struct.Struct("!I32s")
_REMEMBERED_CHUNKS = 6
_READ_BYTES = 1024 * 1024


class ServedChunk(NamedTuple):
    """One chunk as it goes over the wire: head, the pieces in it, and their bytes if in memory."""

    head: bytes
    segments: List[Segment]
    payload: Optional[memoryview]


def pack_head(entries: List[Tuple[int, bytes]]) -> bytes:
    """A chunk's head: for each piece the file's number and its SHA-256 up to the piece's end."""
    return b"".join(_ENTRY.pack(number, digest) for number, digest in entries)


def unpack_head(head: bytes) -> List[Tuple[int, bytes]]:
    """What ``pack_head`` packed. Raises ``struct.error`` where it is nothing of the kind."""
    return [(number, digest) for number, digest in _ENTRY.iter_unpack(head)]


class Content:
    """A leg's content at one node, as far as it is there and checked.

    Attributes:
        ready: Chunks below this number can be served.
        failure: Code and reason where there will never be more.
        final: The whole content's digest, once all of it is there and known to be right.
        changed: Notified whenever one of these changes.
    """

    def __init__(self, manifest: Manifest, layout: Layout) -> None:
        self.manifest = manifest
        self.layout = layout
        self.ready = 0
        self.failure: Optional[Tuple[str, str]] = None
        self.final: Optional[str] = None
        self.changed = threading.Condition()
        self._digests: Dict[int, List[Tuple[int, bytes]]] = {}
        self._recent: collections.OrderedDict[int, memoryview] = collections.OrderedDict()
        # Where the last look back got to; those who look back go through a file in order.
        self._looked_back = (-1, 0, hashlib.sha256())
        self._looked_back_lock = threading.Lock()

    def descriptor(self, number: int) -> int:
        """A readable descriptor of a file, which the caller closes.

        Raises:
            OSError, FileRefusedError: It cannot be read any more.
        """
        raise NotImplementedError

    def serve(self, chunk: int, is_wanted: Callable[[int], bool]) -> Optional[ServedChunk]:
        """One chunk that is ready, without the files that are not wanted; None if none is."""
        segments = [one for one in self.layout.segments(chunk) if is_wanted(one.number)]
        if not segments:
            return None
        with self.changed:
            known = dict(self._digests.get(chunk, ()))
            payload = self._recent.get(chunk)
        head = pack_head(
            [(one.number, known.get(one.number) or self._digest_up_to(one)) for one in segments]
        )
        if not self.layout.is_pack(chunk):
            return ServedChunk(head, segments, None)
        if payload is None or [one.number for one in segments] != list(known):
            payload = self._read(segments)
        return ServedChunk(head, segments, payload)

    def digest_before(self, chunk: int, segment: Segment) -> bytes:
        """The file's SHA-256 up to where a segment begins, which goes with the chunk before its."""
        with self.changed:
            known = dict(self._digests.get(chunk - 1, ()))
        before = Segment(segment.number, 0, segment.offset)
        return known.get(segment.number) or self._digest_up_to(before)

    def _read(self, segments: List[Segment]) -> memoryview:
        buffer = memoryview(bytearray(sum(one.length for one in segments)))
        at = 0
        for one in segments:
            if one.length:
                fd = self.descriptor(one.number)
                try:
                    read_exactly(fd, buffer[at : at + one.length], one.offset)
                finally:
                    os.close(fd)
            at += one.length
        return buffer

    def _digest_up_to(self, segment: Segment) -> bytes:
        """Read again: for content that did not come in this transfer, and for a look back."""
        end = segment.offset + segment.length
        with self._looked_back_lock:
            number, at, hasher = self._looked_back
        if number != segment.number or at > end:
            at, hasher = 0, hashlib.sha256()
        hasher = hasher.copy()
        fd = self.descriptor(segment.number)
        try:
            buffer = memoryview(bytearray(_READ_BYTES))
            while at < end:
                view = buffer[: min(_READ_BYTES, end - at)]
                read_exactly(fd, view, at)
                hasher.update(view)
                at += len(view)
        finally:
            os.close(fd)
        with self._looked_back_lock:
            self._looked_back = (segment.number, end, hasher)
        return hasher.digest()

    def note_ready(
        self,
        chunk: int,
        digests: List[Tuple[int, bytes]],
        payload: Optional[memoryview],
        ready: Optional[int] = None,
    ) -> None:
        """One more chunk is there and checked."""
        with self.changed:
            if digests:
                self._digests[chunk] = digests
            if payload is not None:
                self._recent[chunk] = payload
                while len(self._recent) > _REMEMBERED_CHUNKS:
                    self._recent.popitem(last=False)
            self.ready = chunk + 1 if ready is None else ready
            self.changed.notify_all()

    def fail(self, code: str, reason: str) -> None:
        """There will never be more of this content, or what there is was not right."""
        with self.changed:
            if self.failure is None:
                self.failure = (code, reason)
            self.changed.notify_all()

    def look_again(self, chunk: int) -> None:
        """Somebody got a chunk that was not what its head says; fails if that is its fault here."""

    def finish(self, digest: str) -> None:
        """All of it is there, and this is its digest."""
        with self.changed:
            self.final = digest
            self.changed.notify_all()


def read_exactly(fd: int, view: memoryview, offset: int) -> None:
    """Fills the buffer from a file. Raises FileRefusedError (``changed``) where it is too short."""
    filled = 0
    while filled < len(view):
        count = os.preadv(fd, [view[filled:]], offset + filled)
        if count == 0:
            raise FileRefusedError("changed", "a file became shorter while it was read")
        filled += count


def digest_of(fd: int) -> str:
    """The hex SHA-256 of a whole file."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    at = 0
    while True:
        count = os.preadv(fd, [buffer], at)
        if not count:
            return hasher.hexdigest()
        hasher.update(buffer[:count])
        at += count


class SourceContent(Content):
    """The source: read and hashed once, a little ahead of the fastest that is being served.

    Args:
        skip: Files that nobody wants, whose digests the scan knows.
        window_chunks: How far to read ahead; what is read is in the page cache when it is sent.
    """

    def __init__(
        self, scan: Scan, layout: Layout, skip: Dict[int, str], window_chunks: int
    ) -> None:
        super().__init__(scan.manifest, layout)
        self._scan = scan
        self._skip = skip
        self._window = window_chunks
        self._positions: Dict[int, int] = {}
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="castray-source", daemon=True)

    def start(self) -> None:
        """Begins to read, as far as the window goes."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the reading; returns when no file is open any more."""
        with self.changed:
            self._is_stopped = True
            self.changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def note_position(self, feed: int, chunk: Optional[int]) -> None:
        """How far one of those that are served is; None where it left."""
        with self.changed:
            if chunk is None:
                self._positions.pop(feed, None)
            else:
                self._positions[feed] = chunk
            self.changed.notify_all()

    def descriptor(self, number: int) -> int:
        """A readable descriptor of the file, which is still the one that was planned."""
        return self._scan.open_file(number)

    def look_again(self, chunk: int) -> None:
        """What is sent is read once more after it was hashed: it may have changed in between."""
        if not 0 <= chunk < self.layout.chunk_count:
            return
        try:
            for one in self.layout.segments(chunk):
                os.close(self.descriptor(one.number))
        except FileRefusedError as refusal:
            self.fail(refusal.code, refusal.reason)

    def _run(self) -> None:
        try:
            self._read_all()
        except FileRefusedError as refusal:
            self.fail(refusal.code, refusal.reason)
        except OSError as error:
            self.fail("source", os_reason(error, "the source"))
        except Exception as error:  # Those that wait for this thread would wait for ever.
            self.fail("source", "{}: {}".format(type(error).__name__, error)[:300])

    def _read_all(self) -> None:
        found = dict(self._skip)
        large = _LargeFile(self._scan, memoryview(bytearray(max(self.layout.chunk_bytes, 1))))
        try:
            for chunk in range(self.layout.chunk_count):
                if not self._wait_for_turn(chunk):
                    return
                pieces = [
                    one for one in self.layout.segments(chunk) if one.number not in self._skip
                ]
                if self.layout.is_pack(chunk):
                    digests, payload = self._read_pack(pieces)
                    found.update((number, digest.hex()) for number, digest in digests)
                    self.note_ready(chunk, digests, payload)
                    continue
                digests = [(one.number, large.read(one)) for one in pieces]
                for one, (_, digest) in zip(pieces, digests):  # noqa: B905  (3.8)
                    if self.layout.is_last_of(one):
                        # Before a file's last chunk is served: nobody can have it whole and wrong.
                        large.check()
                        found[one.number] = digest.hex()
                self.note_ready(chunk, digests, None)
        finally:
            large.close()
        self.finish(whole_digest(self.manifest, found))

    def _read_pack(self, pieces: List[Segment]) -> Tuple[List[Tuple[int, bytes]], memoryview]:
        """Small files, each read whole at once: their digests, and their bytes side by side."""
        buffer = memoryview(bytearray(sum(one.length for one in pieces)))
        digests = []
        at = 0
        for one in pieces:
            view = buffer[at : at + one.length]
            self._scan.read_whole(one.number, view)
            digests.append((one.number, hashlib.sha256(view).digest()))
            at += one.length
        return digests, buffer

    def _wait_for_turn(self, chunk: int) -> bool:
        with self.changed:
            while not self._is_stopped:
                ahead = max(self._positions.values(), default=-1)
                if ahead >= 0 and chunk <= ahead + self._window:
                    return True
                if chunk == 0 and not self._positions:
                    return True  # The first is read while the first connection is made.
                self.changed.wait(1.0)
        return False


def whole_digest(manifest: Manifest, files: Dict[int, str]) -> str:
    """The digest of the whole content, out of those of all its files by number (hex)."""
    digest = TreeDigest(manifest)
    for number in range(len(manifest.files)):
        digest.add(number, files[number])
    return digest.hexdigest()


class _LargeFile:
    """The file that a source reads piece by piece, and its digest so far."""

    def __init__(self, scan: Scan, buffer: memoryview) -> None:
        self._scan = scan
        self._buffer = buffer
        self._number = -1
        self._fd = -1
        self._hasher = hashlib.sha256()

    def read(self, piece: Segment) -> bytes:
        """Reads the next piece; the SHA-256 of the file up to its end."""
        if piece.number != self._number:
            self.close()
            self._fd = self._scan.open_file(piece.number)
            self._number = piece.number
            self._hasher = hashlib.sha256()
        view = self._buffer[: piece.length]
        try:
            read_exactly(self._fd, view, piece.offset)
        except FileRefusedError:
            self.check()  # says which file it was
            raise
        self._hasher.update(view)
        return self._hasher.digest()

    def check(self) -> None:
        """Raises FileRefusedError unless the file is still the one that was planned."""
        self._scan.check_file(self._number, self._fd)

    def close(self) -> None:
        """Lets go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._number = -1


def pack_numbers(numbers: Set[int]) -> str:
    """File numbers in few bytes, for there may be millions."""
    if not numbers:
        return ""
    bits = bytearray(max(numbers) // 8 + 1)
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)
    return base64.b64encode(zlib.compress(bytes(bits))).decode()


def unpack_numbers(text: str, count: int) -> Set[int]:
    """What ``pack_numbers`` packed. Raises ValueError where it is nothing of the kind.

    Args:
        count: All numbers must be below it.
    """
    if not text:
        return set()
    try:
        unpacker = zlib.decompressobj()
        bits = unpacker.decompress(base64.b64decode(text), count // 8 + 1)
    except zlib.error:
        raise ValueError("numbers that cannot be unpacked") from None
    if unpacker.unconsumed_tail:
        raise ValueError("more numbers than there are files")
    return {
        number
        for number in range(min(count, len(bits) * 8))
        if bits[number >> 3] >> (number & 7) & 1
    }


def wanted_by(skip: Set[int]) -> Callable[[int], bool]:
    """Whether a file is wanted by somebody who has these already."""
    return lambda number: number not in skip
