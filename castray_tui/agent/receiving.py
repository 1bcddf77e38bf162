"""Taking a file in: receive, check, hash and write side by side, then verify and name it."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from typing import Any, Callable, Dict, Optional

from . import files, wire
from .buffers import BufferPool, Chunk
from .part_file import PartFile

Json = Dict[str, Any]

_BUFFERS = 4
REPORT_SECONDS = 0.2


class Receiving:
    """One stream into one target.

    Args:
        channel: To the source's agent, past its handshake.
        order: What castray said about this target: ``path``, ``size``, ``overwrite``,
            ``reserve_bytes``, ``part_id``.
        on_bytes: Told of every chunk that was written, for the agent's own accounts.
    """

    def __init__(self, channel: wire.Channel, order: Json, on_bytes: Callable[[int], None]) -> None:
        self._channel = channel
        self._order = order
        self._on_bytes = on_bytes
        self._writer_queue: queue.Queue[Optional[Chunk]] = queue.Queue()
        self._hasher_queue: queue.Queue[Optional[Chunk]] = queue.Queue()
        self._hasher = hashlib.sha256()
        self._part: Optional[PartFile] = None
        self._failure: Optional[files.FileRefusedError] = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Serves the stream to its end; whatever happens, no temporary file stays."""
        try:
            self._channel.send(self._receive())
        except files.FileRefusedError as refusal:
            self._say({"verdict": "failed", "code": refusal.code, "reason": refusal.reason})
        except wire.WireError as error:
            self._say({"verdict": "failed", "code": "wire", "reason": str(error)})
        except OSError:
            pass  # The connection broke; the source's agent sees that by itself.
        finally:
            self._ended.set()

    def _say(self, message: Json) -> None:
        try:
            self._channel.send(message)
        except OSError:
            return
        self._linger()

    def _linger(self) -> None:
        """Takes in and drops what is still under way: closing at once would reset the connection
        and could lose the reason that was just sent."""
        self._channel.sock.settimeout(1.0)
        deadline = time.monotonic() + 5.0
        scratch = bytearray(256 * 1024)
        try:
            while time.monotonic() < deadline and self._channel.sock.recv_into(scratch):
                pass
        except OSError:
            pass

    def _receive(self) -> Json:
        """The verdict. Raises FileRefusedError, WireError or OSError."""
        offer = self._channel.receive_message()
        size = offer.get("size")
        if size != self._order["size"]:
            raise files.FileRefusedError("changed", "the source is not the one that was planned")
        chunk_bytes = offer.get("chunk_bytes")
        if not isinstance(chunk_bytes, int) or not 0 < chunk_bytes <= wire.CHUNK_LIMIT_BYTES:
            raise wire.WireError("chunks of an impossible size")
        self._part = PartFile(
            self._order["path"], self._order["part_id"], self._order["reserve_bytes"]
        )
        try:
            return self._take_in(offer, size, chunk_bytes)
        finally:
            self._part.discard()  # Does nothing after it was published.

    def _take_in(self, offer: Json, size: int, chunk_bytes: int) -> Json:
        assert self._part is not None  # noqa: S101  (set by the only caller)
        self._channel.send({"accept": True, "have": 0})
        workers = [
            threading.Thread(target=self._write, name="castray-write", daemon=True),
            threading.Thread(target=self._hash, name="castray-hash", daemon=True),
        ]
        for worker in workers:
            worker.start()
        threading.Thread(target=self._report, name="castray-report", daemon=True).start()
        try:
            end = self._read_stream(size, chunk_bytes)
        finally:
            self._writer_queue.put(None)
            self._hasher_queue.put(None)
            for worker in workers:
                worker.join()
        if self._failure is not None:
            raise self._failure
        digest = "sha256:" + self._hasher.hexdigest()
        if self._part.written_bytes != size or end.get("digest") != digest:
            raise files.FileRefusedError(
                "digest", "what arrived is not what was sent: digests differ"
            )
        try:
            self._part.publish(
                int(offer["mode"]), int(offer["mtime_ns"]), self._order["overwrite"] != "never"
            )
        except files.FileRefusedError as refusal:
            if refusal.code == "exists" and self._is_there_already(digest, size):
                return {"verdict": "identical", "digest": digest}
            raise
        return {"verdict": "verified", "digest": digest, "bytes": size}

    def _is_there_already(self, digest: str, size: int) -> bool:
        """Whether somebody else just put the same content there (raylets that share a disk)."""
        try:
            found = files.digest_file(self._order["path"])
        except files.FileRefusedError:
            return False
        return bool(found["digest"] == digest and found["signature"]["size"] == size)

    def _read_stream(self, size: int, chunk_bytes: int) -> Json:
        """Receives chunks until the closing message, which is returned."""
        pool = BufferPool(_BUFFERS, min(chunk_bytes, max(size, 1)))
        expected = 0
        current: list[Chunk] = []

        def buffer_for(length: int) -> memoryview:
            while True:
                chunk = pool.take(1.0)
                if self._failure is not None:
                    raise self._failure
                if chunk is not None:
                    break
            if length > pool.size_bytes:
                raise wire.WireError("a chunk longer than agreed")
            chunk.hold(expected, length, users=2)
            current.append(chunk)
            return chunk.view

        while True:
            message = self._channel.receive(buffer_for)
            if isinstance(message, dict):
                if "ping" in message:
                    continue
                if "abort" in message:
                    raise files.FileRefusedError("aborted", str(message["abort"])[:500])
                return message
            offset, view = message
            chunk = current.pop()
            if offset != expected or offset + len(view) > size:
                raise wire.WireError("a chunk out of its place")
            expected += len(view)
            self._writer_queue.put(chunk)
            self._hasher_queue.put(chunk)

    def _write(self) -> None:
        assert self._part is not None  # noqa: S101
        while True:
            chunk = self._writer_queue.get()
            if chunk is None:
                return
            if self._failure is None:
                try:
                    self._part.write(chunk.view)
                    self._on_bytes(len(chunk.view))
                except files.FileRefusedError as refusal:
                    self._failure = refusal
            chunk.release()

    def _hash(self) -> None:
        while True:
            chunk = self._hasher_queue.get()
            if chunk is None:
                return
            if self._failure is None:
                self._hasher.update(chunk.view)
            chunk.release()

    def _report(self) -> None:
        """Tells the source how far this target is, which also says that it is alive."""
        assert self._part is not None  # noqa: S101
        while not self._ended.wait(REPORT_SECONDS):
            try:
                self._channel.send({"written": self._part.written_bytes})
            except (OSError, ValueError):
                return
