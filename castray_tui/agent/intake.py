"""One target taking its content in: received, checked chunk by chunk, written, published.

What was checked stays until it is published or thrown away, whatever becomes of the connection: the
next feeder goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Set

from . import wire
from .arrival import Arrived, agreed_digests, hash_zeros
from .buffers import BufferPool, Chunk
from .content import Content, digest_of, pack_numbers, whole_digest
from .files import FileRefusedError
from .layout import Layout, Segment
from .manifest import Manifest
from .staging import Destination, open_destination

Json = Dict[str, Any]

_BUFFERS = 4


class Intake(Content):
    """One target of a leg.

    Args:
        order: What castray said about this target: ``path``, ``overwrite``, ``reserve_bytes``,
            ``part_id``, ``skip`` (files that are there already) and ``skip_digests``.

    Attributes:
        verdict: ``verified``, ``identical``, ``failed`` or ``cancelled`` at the end.
        taken_bytes: Content bytes that are there and checked, without what is skipped.
    """

    def __init__(self, manifest: Manifest, layout: Layout, order: Json) -> None:
        super().__init__(manifest, layout)
        self.order = order
        self.skip: Set[int] = set(order["skip"])
        self.verdict: Optional[str] = None
        self.code: Optional[str] = None
        self.reason: Optional[str] = None
        self.digest: Optional[str] = None
        self.taken_bytes = 0
        self.is_feeding_others = False
        self.on_verdict: Callable[[], object] = lambda: None
        self._found: Dict[int, str] = {int(n): str(h) for n, h in order["skip_digests"].items()}
        self._destination: Optional[Destination] = None
        self._next = 0  # The chunk that is to be received next.
        self._hasher = hashlib.sha256()
        self._hasher_before = self._hasher
        self._queue: queue.Queue[Optional[Arrived]] = queue.Queue(_BUFFERS)
        self._pool: Optional[BufferPool] = None
        self._damaged = False
        self._refusal: Optional[FileRefusedError] = None
        self._started: Optional[float] = None
        self._seconds: Optional[float] = None
        # Feeders come and go; only one of them is listened to.
        self.taking = threading.Lock()
        self._opening = threading.Lock()
        self._is_closed = False
        self._ending = threading.RLock()
        self._pass_over_what_is_there()

    # --- what others may ask --------------------------------------------------------------------

    def wants(self, number: int) -> bool:
        """Whether a file is still to come."""
        return number not in self.skip

    def position(self) -> Json:
        """Where a feeder goes on: the next chunk, and what shows that those before are the same."""
        with self.changed:
            at = self.ready
        answer: Json = {"want": at, "skip": pack_numbers(self.skip)}
        if at < self.layout.chunk_count:
            first = self.layout.segments(at)[0]
            if first.offset and self.wants(first.number):
                answer["check"] = self._hasher.hexdigest()
        return answer

    def row(self) -> Json:
        """How far this target is."""
        if self._seconds is not None:
            seconds: Optional[float] = self._seconds
        else:
            seconds = None if self._started is None else time.monotonic() - self._started
        return {
            "bytes": self.taken_bytes,
            "verdict": self.verdict,
            "code": self.code,
            "reason": self.reason,
            "digest": self.digest,
            "seconds": seconds,
        }

    def bytes_to_come(self) -> int:
        """What is still to be written while this target is being fed; 0 while it is not."""
        if self._started is None or self.verdict is not None:
            return 0
        files = self.manifest.files
        skipped = sum(files[number].size for number in self.skip)
        return max(self.manifest.total_bytes - skipped - self.taken_bytes, 0)

    def descriptor(self, number: int) -> int:
        """A readable descriptor of what is there of a file, which the caller closes."""
        return self._opened().descriptor(number)

    # --- taking in ------------------------------------------------------------------------------

    def take(self, channel: wire.Channel) -> None:
        """Takes in what comes over a connection until it ends or all is there and published.

        Whoever calls holds ``taking``, from before it said the ``position`` to the feeder.

        Raises:
            OSError, WireError: The connection broke; what was checked stays.
        """
        self._damaged = False
        self._next = self.ready
        if self._started is None:
            self._started = time.monotonic()
        checker = threading.Thread(target=self._check_all, name="castray-check", daemon=True)
        checker.start()
        try:
            self._opened()
            self._receive_all(channel)
        except FileRefusedError as refusal:
            self._refusal = refusal
        finally:
            self._queue.put(None)
            checker.join()
            self._pool = None
        if self._refusal is not None:
            self.end("failed", self._refusal.code, self._refusal.reason)
        elif self._damaged:
            raise wire.WireError("a chunk was damaged on its way")

    def _receive_all(self, channel: wire.Channel) -> None:
        while self._refusal is None and not self._damaged:
            message = channel.receive()
            if isinstance(message, dict):
                if "ping" in message:
                    continue
                if "restart" in message:
                    self._start_over()
                    return
                if "final" in message:
                    self._finish(str(message["final"]))
                    return
                if "cancel" in message:
                    self.end("cancelled", "cancelled", str(message["cancel"])[:500])
                    return
                if "abort" in message:
                    self._abort(message["abort"])
                    return
                raise wire.WireError("a message that makes no sense here")
            self._receive_chunk(channel, message)

    def _abort(self, told: Json) -> None:
        code, reason = str(told.get("code"))[:50], str(told.get("reason"))[:1000]
        self.fail(code, reason)
        self.end("failed", code, reason)

    def _receive_chunk(self, channel: wire.Channel, head: wire.ChunkHead) -> None:
        layout = self.layout
        while self._next < layout.chunk_count and not self._wanted(self._next):
            self._next += 1
        if head.number != self._next or head.number >= layout.chunk_count:
            raise wire.WireError("a chunk out of its place")
        segments = self._wanted(head.number)
        is_pack = layout.is_pack(head.number)
        digests = agreed_digests(head, segments, is_pack)
        buffer: Optional[Chunk] = None
        view: Optional[memoryview] = None
        if is_pack:
            view = memoryview(bytearray(head.length))
        elif not head.is_hole:
            buffer = self._free_buffer()
            buffer.hold(segments[0].offset, head.length, users=1)
            view = buffer.view
        try:
            if view is not None:
                wire.receive_exactly(channel.sock, view)
            if not is_pack:
                self._write_piece(segments[0], view)
        except BaseException:
            if buffer is not None:
                buffer.release()
            raise
        self._queue.put(Arrived(head.number, segments, digests, view, buffer))
        self._next = head.number + 1

    def _write_piece(self, piece: Segment, view: Optional[memoryview]) -> None:
        destination = self._opened()
        if view is None:
            destination.skip_hole(piece.number, piece.offset, piece.length)
        else:
            destination.write(piece.number, piece.offset, view)

    @property
    def is_damaged(self) -> bool:
        """Whether the last connection brought something that was not what its head said."""
        return self._damaged

    def _free_buffer(self) -> Chunk:
        if self._pool is None:
            self._pool = BufferPool(_BUFFERS, self.layout.chunk_bytes)
        while True:
            chunk = self._pool.take(1.0)
            if chunk is not None:
                return chunk

    # --- checking, in a thread of its own ---------------------------------------------------------

    def _check_all(self) -> None:
        while True:
            arrived = self._queue.get()
            try:
                if arrived is None:
                    return
                if not self._damaged and self._refusal is None:
                    self._check(arrived)
            except FileRefusedError as refusal:
                self._refusal = refusal
            except Exception as error:  # Whoever waits for this thread would wait for ever.
                reason = "{}: {}".format(type(error).__name__, error)
                self._refusal = FileRefusedError("agent-failure", reason[:300])
            finally:
                if arrived is not None and arrived.buffer is not None:
                    arrived.buffer.release()
                self._queue.task_done()

    def _check(self, arrived: Arrived) -> None:
        at = 0
        is_pack = self.layout.is_pack(arrived.chunk)
        for piece, (_, digest) in zip(arrived.segments, arrived.digests):  # noqa: B905  (3.8)
            if piece.offset == 0:
                self._hasher = hashlib.sha256()
            before = self._hasher.copy()
            if arrived.view is None:
                hash_zeros(self._hasher, piece.length)
            else:
                self._hasher.update(arrived.view[at : at + piece.length])
            if self._hasher.digest() != digest:
                self._hasher = before
                self._damaged = True
                if not is_pack:
                    self._opened().truncate_to(piece.number, piece.offset)
                return
            if is_pack and arrived.view is not None:
                self._opened().write_whole(piece.number, arrived.view[at : at + piece.length])
            if self.layout.is_last_of(piece):
                self._found[piece.number] = digest.hex()
            at += piece.length
        self.taken_bytes += at
        keep = arrived.view if is_pack and self.is_feeding_others else None
        self.note_ready(
            arrived.chunk, arrived.digests, keep, self._past_what_is_there(arrived.chunk + 1)
        )

    def _wait_until_checked(self) -> None:
        self._queue.join()

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, final: str) -> None:
        self._wait_until_checked()
        if self._damaged or self._refusal is not None:
            return
        if self.ready < self.layout.chunk_count:
            raise wire.WireError("the end came before all of the content")
        digest = whole_digest(self.manifest, self._found)
        if digest != final:
            raise FileRefusedError("digest", "what arrived is not what was sent: digests differ")
        self.digest = digest
        # Those behind need not wait for this disk.
        self.finish(digest)
        with self._ending:
            if self.verdict is None:
                self.end(self._published(digest), None, None)

    def _published(self, digest: str) -> str:
        """Gives the content its real name; the verdict."""
        try:
            self._opened().publish()
        except FileRefusedError as refusal:
            # Somebody else was quicker, maybe with the same: raylets of one host share its disk.
            if refusal.code != "exists" or self.manifest.is_tree or not self._is_there(digest):
                raise
            return "identical"
        return "verified"

    def _is_there(self, digest: str) -> bool:
        try:
            fd = os.open(self.order["path"], os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            return "sha256:" + digest_of(fd) == digest
        except OSError:
            return False
        finally:
            os.close(fd)

    def end(self, verdict: str, code: Optional[str], reason: Optional[str]) -> None:
        """The verdict, unless there is one; without ``verified``, what is here is thrown away."""
        with self._ending:
            if self.verdict is not None:
                return
            if verdict in ("failed", "cancelled"):
                self.digest = None
                with self._opening:
                    self._is_closed = True
                self.throw_away()
            if self._started is not None:
                self._seconds = time.monotonic() - self._started
            self.code, self.reason = code, reason
            self.verdict = verdict
        self.on_verdict()
        with self.changed:
            self.changed.notify_all()

    def give_up(self, code: str, reason: str) -> None:
        """Nobody feeds this target any more. What is there stays, for another attempt."""
        with self._ending:
            if self.verdict is not None:
                return
            self.code, self.reason, self.verdict = code, reason, "failed"
        with self.changed:
            self._recent.clear()
            self.changed.notify_all()

    def go_on(self) -> bool:
        """Another attempt begins; whether what is here can be gone on with."""
        if self.verdict == "failed" and not self.is_over:
            self.verdict = self.code = self.reason = None
        return (
            self.verdict in (None, "verified", "identical")
            and self.failure is None
            and self._refusal is None
        )

    @property
    def is_over(self) -> bool:
        """Whether no other attempt could go on with what is here."""
        is_lost = self.verdict == "failed" and self.code in ("lost", "connection")
        return self.verdict is not None and not is_lost

    def throw_away(self) -> None:
        """Removes what is not published."""
        with self._opening:
            destination, self._destination = self._destination, None
        if destination is not None:
            destination.discard()
        self.taken_bytes = 0

    def close(self) -> None:
        """Removes what is not published, for good."""
        with self._opening:
            self._is_closed = True
        with self._ending, contextlib.suppress(FileRefusedError):
            self.throw_away()

    # --- what is there ----------------------------------------------------------------------------

    def _opened(self) -> Destination:
        with self._opening:
            if self._destination is None:
                if self._is_closed:
                    raise FileRefusedError("gone", "this target has ended")
                self._destination = open_destination(self.order, self.manifest)
            return self._destination

    def _start_over(self) -> None:
        """What is here is not the beginning of what the feeder has."""
        self._wait_until_checked()
        self.throw_away()
        with self.changed:
            self.ready = 0
            self._digests.clear()
            self._recent.clear()
        skipped = {number: self._found[number] for number in self.skip}
        self._found = skipped
        self._pass_over_what_is_there()
        raise wire.WireError("the beginning was not the same; it is sent again")

    def _wanted(self, chunk: int) -> List[Segment]:
        return [one for one in self.layout.segments(chunk) if one.number not in self.skip]

    def _past_what_is_there(self, chunk: int) -> int:
        if self.skip:
            while chunk < self.layout.chunk_count and not self._wanted(chunk):
                chunk += 1
        return chunk

    def _pass_over_what_is_there(self) -> None:
        self.ready = self._past_what_is_there(0)
