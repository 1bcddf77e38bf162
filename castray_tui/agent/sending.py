"""Sending one file to many targets: read and hashed once, fed to every stream that keeps up.

A stream that cannot keep up with the others reads the rest of the file by itself, so that a slow
target costs the fast ones nothing. Memory: a fixed pool, and one buffer for each slow stream.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
import zlib
from typing import Any, Callable, Dict, List, Optional

from . import files, wire
from .buffers import BufferPool, Chunk

Json = Dict[str, Any]

_BUFFERS = 6
_QUEUE_POLL_SECONDS = 5.0
_START_TOGETHER_SECONDS = 1.0
_LAGGARD_SECONDS = 0.1
AWAIT_DIALER_SECONDS = 20.0


class SendingCancelledError(Exception):
    """The transfer was cancelled; everything in it stops."""


class Sending:
    """One source on its way to its targets.

    Args:
        spec: ``path``, ``signature`` and ``mode`` (as ``probe_source`` gave), ``chunk_bytes``,
            ``rate_limit`` (bytes per second over all streams, 0 for none) and ``targets``: for
            each ``index`` and ``hops``, the way to it. A hop has ``mode`` (``dial``: this agent
            connects to one of ``endpoints``; ``await``: the target's agent connects to this one).
        dial: Connects to endpoints with this transfer's secret.
    """

    def __init__(self, spec: Json, dial: Callable[[List[Any]], wire.Channel]) -> None:
        self._spec = spec
        self.dial = dial
        self.path: str = spec["path"]
        self.size: int = spec["signature"]["size"]
        self.mode: int = spec["mode"]
        self.mtime_ns: int = spec["signature"]["mtime_ns"]
        self.chunk_bytes: int = spec["chunk_bytes"]
        self.limiter = Limiter(spec["rate_limit"])
        self.streams = [Stream(self, target) for target in spec["targets"]]
        self.is_cancelled = threading.Event()
        self.digest: Optional[str] = None
        self.source_failure: Optional[str] = None
        self.digest_known = threading.Event()
        self.is_feed_decided = threading.Event()
        self._fd = -1
        self._thread = threading.Thread(target=self._run, name="castray-source", daemon=True)

    def start(self) -> None:
        """Opens the source and starts all streams; returns at once.

        Raises:
            FileRefusedError: The source is gone, or is no longer the one that was planned.
        """
        try:
            self._fd = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise files.refusal_of(error, self.path) from error
        if files.signature(os.fstat(self._fd)) != self._spec["signature"]:
            os.close(self._fd)
            raise files.FileRefusedError(
                "changed", "{} has changed since the plan".format(self.path)
            )
        for stream in self.streams:
            stream.start()
        self._thread.start()

    def cancel(self) -> None:
        """Tells every stream to stop; their targets remove what they have."""
        self.is_cancelled.set()
        for stream in self.streams:
            stream.stop("cancelled")

    @property
    def is_done(self) -> bool:
        """Whether every target has its verdict."""
        return all(stream.verdict is not None for stream in self.streams)

    def status(self) -> Json:
        """How far every target is, by its own word, and the digest once it is known."""
        return {
            "digest": self.digest,
            "error": self.source_failure,
            "done": self.is_done and not self._thread.is_alive(),
            "targets": [stream.status() for stream in self.streams],
        }

    def read_at(self, view: memoryview, offset: int) -> int:
        """Fills the buffer from the source; fewer bytes only at its end."""
        filled = 0
        while filled < len(view):
            count = os.preadv(self._fd, [view[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled

    def _run(self) -> None:
        try:
            self._wait_for_streams()
            if any(stream.is_wanting for stream in self.streams):
                self.digest = self._feed()
                self._check_unchanged()
        except files.FileRefusedError as refusal:
            self._fail(refusal.reason)
        except OSError as error:
            self._fail(files.os_reason(error, self.path))
        except SendingCancelledError:
            self._fail("cancelled")
        self.is_feed_decided.set()
        self.digest_known.set()
        for stream in self.streams:
            stream.join()
        os.close(self._fd)

    def _fail(self, reason: str) -> None:
        self.digest = None
        self.source_failure = reason
        self.digest_known.set()
        for stream in self.streams:
            stream.stop(reason)

    def _wait_for_streams(self) -> None:
        """Waits until all are ready or failed; late ones read the beginning by themselves."""
        deadline: Optional[float] = None
        while True:
            undecided = [stream for stream in self.streams if not stream.is_settled.is_set()]
            if not undecided or (deadline is not None and time.monotonic() > deadline):
                return
            if deadline is None and any(stream.is_sending for stream in self.streams):
                deadline = time.monotonic() + _START_TOGETHER_SECONDS
            undecided[0].is_settled.wait(0.02)

    def _feed(self) -> Optional[str]:
        """Reads the source for all; its digest, or None where nobody was left to read for."""
        pool = BufferPool(_BUFFERS, min(self.chunk_bytes, max(self.size, 1)))
        hasher_queue: queue.Queue[Optional[Chunk]] = queue.Queue()
        hasher = hashlib.sha256()

        def work() -> None:
            while True:
                chunk = hasher_queue.get()
                if chunk is None:
                    return
                hasher.update(chunk.view)
                chunk.release()

        hashing = threading.Thread(target=work, name="castray-hash", daemon=True)
        hashing.start()
        for stream in self.streams:
            stream.join_feed()
        self.is_feed_decided.set()
        try:
            offset = 0
            while offset < self.size:
                chunk = self._free_chunk(pool)
                if chunk is None:
                    return None
                length = min(pool.size_bytes, self.size - offset)
                chunk.hold(offset, length, users=1)
                if self.read_at(chunk.view, offset) != length:
                    raise files.FileRefusedError(
                        "changed", "{} became shorter while it was read".format(self.path)
                    )
                chunk.crc = zlib.crc32(chunk.view)
                fed = [stream for stream in self.streams if stream.is_fed]
                chunk.hold(offset, length, users=1 + len(fed))
                hasher_queue.put(chunk)
                for stream in fed:
                    stream.feed(chunk)
                offset += length
        finally:
            hasher_queue.put(None)
            hashing.join()
        return "sha256:" + hasher.hexdigest()

    def _free_chunk(self, pool: BufferPool) -> Optional[Chunk]:
        while True:
            if self.is_cancelled.is_set():
                raise SendingCancelledError
            if not any(stream.is_wanting for stream in self.streams):
                return None
            chunk = pool.take(_LAGGARD_SECONDS)
            if chunk is not None:
                return chunk
            fed = [stream for stream in self.streams if stream.is_fed]
            waits = [stream.backlog for stream in fed]
            if waits and min(waits) == 0:
                for stream, backlog in zip(fed, waits):  # noqa: B905  (3.8)
                    if backlog > 1:
                        stream.leave_feed()

    def _check_unchanged(self) -> None:
        wanted = self._spec["signature"]
        try:
            by_name = files.signature(os.stat(self.path))
        except OSError as error:
            raise files.refusal_of(error, self.path) from error
        if files.signature(os.fstat(self._fd)) != wanted or by_name != wanted:
            raise files.FileRefusedError(
                "changed", "{} changed while it was read".format(self.path)
            )


class Stream:
    """The way to one target."""

    def __init__(self, sending: Sending, target: Json) -> None:
        self._sending = sending
        self.index: int = target["index"]
        self._hop: Json = target["hops"][0]
        self.is_settled = threading.Event()
        self.is_sending = False
        self.is_fed = False
        self.verdict: Optional[str] = None
        self._code: Optional[str] = None
        self._reason: Optional[str] = None
        self._digest: Optional[str] = None
        self._written_bytes = 0
        self._started: Optional[float] = None
        self._seconds: Optional[float] = None
        self._queue: queue.Queue[Chunk] = queue.Queue()
        self._lock = threading.Lock()
        self._stop_reason: Optional[str] = None
        self._channel: Optional[wire.Channel] = None
        self._arrived: queue.Queue[wire.Channel] = queue.Queue()
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="castray-stream", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def join(self) -> None:
        """Returns when the target has its verdict."""
        self._thread.join()

    def arrive(self, channel: wire.Channel) -> None:
        """The target's agent dialed; returns when the stream has ended."""
        self._arrived.put(channel)
        self._thread.join()

    def stop(self, reason: str) -> None:
        """Ends the stream, telling the target why."""
        if self._stop_reason is None:
            self._stop_reason = reason

    @property
    def backlog(self) -> int:
        """Chunks that wait to be sent."""
        return self._queue.qsize()

    def join_feed(self) -> None:
        """From now on the source's reader feeds this stream, if it is ready."""
        with self._lock:
            self.is_fed = self.is_sending

    @property
    def is_wanting(self) -> bool:
        """Whether it takes content now or may still do."""
        return self.is_sending or not self.is_settled.is_set()

    def feed(self, chunk: Chunk) -> None:
        """One more chunk; released here if the stream has left the feed meanwhile."""
        with self._lock:
            if self.is_fed:
                self._queue.put(chunk)
                return
        chunk.release()

    def leave_feed(self) -> None:
        """Stops being fed; what waits is given back and read again by the stream itself."""
        with self._lock:
            self.is_fed = False
            while True:
                try:
                    self._queue.get_nowait().release()
                except queue.Empty:
                    return

    def status(self) -> Json:
        """How far it is, for the transfer's owner."""
        return {
            "index": self.index,
            "bytes": self._written_bytes,
            "verdict": self.verdict,
            "code": self._code,
            "reason": self._reason,
            "digest": self._digest,
            "seconds": self._seconds,
        }

    def _run(self) -> None:
        try:
            self._serve()
        except SendingCancelledError:
            self._end("cancelled", "cancelled", "cancelled")
        except files.FileRefusedError as refusal:
            self._end("failed", refusal.code, refusal.reason)
        except (OSError, wire.WireError) as error:
            self._end("failed", "connection", wire.describe(error))
        finally:
            self.is_sending = False
            self.leave_feed()
            self.is_settled.set()
            if self._channel is not None:
                self._channel.close()

    def _serve(self) -> None:
        self._channel = self._connect()
        sending = self._sending
        self._channel.send(
            {
                "size": sending.size,
                "mode": sending.mode,
                "mtime_ns": sending.mtime_ns,
                "chunk_bytes": sending.chunk_bytes,
            }
        )
        first = self._channel.receive_message()
        if "accept" not in first:
            self._take_verdict(first)
            self._raise_stopped()
            return
        replies = threading.Thread(target=self._read_replies, name="castray-replies", daemon=True)
        replies.start()
        self._started = time.monotonic()
        self.is_sending = True
        self.is_settled.set()
        try:
            self._send_content()
        except OSError:
            # The target may have said why before it closed; its word is worth more than ours.
            if not self._answered.wait(2.0):
                raise
        replies.join(None if self._answered.is_set() else wire.SILENCE_SECONDS + 5.0)
        if self.verdict is None:
            self._raise_stopped()
            raise wire.WireError(self._reason or "the connection broke before the verdict")

    def _connect(self) -> wire.Channel:
        if self._hop["mode"] == "dial":
            channel = self._sending.dial(self._hop["endpoints"])
            channel.send({"role": "source", "index": self.index})
            return channel
        deadline = time.monotonic() + AWAIT_DIALER_SECONDS
        while time.monotonic() < deadline:
            self._raise_stopped()
            try:
                return self._arrived.get(timeout=0.1)
            except queue.Empty:
                continue
        raise wire.WireError("the target's agent did not connect")

    def _send_content(self) -> None:
        assert self._channel is not None  # noqa: S101  (set by the only caller)
        sending = self._sending
        offset = 0
        own: Optional[memoryview] = None
        sending.is_feed_decided.wait(_START_TOGETHER_SECONDS + 1.0)
        while offset < sending.size and not self._answered.is_set():
            if self._stop_reason is not None:
                break
            if self.is_fed or not self._queue.empty():
                try:
                    chunk = self._queue.get(timeout=0.1)
                except queue.Empty:
                    self._ping()
                    continue
                try:
                    self._send_chunk(chunk.view, chunk.offset, chunk.crc)
                    offset = chunk.offset + len(chunk.view)
                finally:
                    chunk.release()
                continue
            if own is None:
                own = memoryview(bytearray(min(sending.chunk_bytes, sending.size)))
            length = min(len(own), sending.size - offset)
            if sending.read_at(own[:length], offset) != length:
                raise files.FileRefusedError(
                    "changed", "the source became shorter while it was read"
                )
            self._send_chunk(own[:length], offset, zlib.crc32(own[:length]))
            offset += length
        while not self._answered.is_set() and self._stop_reason is None:
            if sending.digest_known.wait(0.5):
                break
            self._ping()
        if self._answered.is_set():
            return
        if self._stop_reason is not None or sending.digest is None:
            reason = self._stop_reason or sending.source_failure or "the source failed"
            self._channel.send({"abort": reason})
            self._raise_stopped()
        else:
            self._channel.send({"digest": sending.digest})

    _last_sent = 0.0

    def _ping(self) -> None:
        assert self._channel is not None  # noqa: S101
        if time.monotonic() - self._last_sent > _QUEUE_POLL_SECONDS:
            self._channel.send({"ping": 1})
            self._last_sent = time.monotonic()

    def _send_chunk(self, view: memoryview, offset: int, crc: int) -> None:
        assert self._channel is not None  # noqa: S101
        self._sending.limiter.wait_for(len(view), lambda: self._stop_reason is not None, self._ping)
        self._channel.send_data(offset, view, crc)
        self._last_sent = time.monotonic()

    def _raise_stopped(self) -> None:
        if self._sending.is_cancelled.is_set():
            raise SendingCancelledError
        if self._stop_reason is not None:
            raise files.FileRefusedError("source", self._stop_reason)

    def _read_replies(self) -> None:
        assert self._channel is not None  # noqa: S101
        try:
            while True:
                message = self._channel.receive_message()
                if "written" in message:
                    self._written_bytes = int(message["written"])
                    continue
                self._take_verdict(message)
                return
        except (OSError, wire.WireError, ValueError) as error:
            if self._stop_reason is None:
                self._reason = "the target's agent went away: " + wire.describe(error)
        finally:
            self._answered.set()

    def _take_verdict(self, message: Json) -> None:
        verdict = message.get("verdict")
        if self._stop_reason is not None and verdict == "failed":
            return  # It echoes our own abort.
        if verdict in ("verified", "identical"):
            self._digest = str(message.get("digest"))
            if verdict == "verified":
                self._written_bytes = self._sending.size
            self._end(verdict, None, None)
        else:
            self._end(
                "failed",
                str(message.get("code") or "failed")[:50],
                str(message.get("reason") or "the target's agent gave no reason")[:1000],
            )

    def _end(self, verdict: str, code: Optional[str], reason: Optional[str]) -> None:
        self._code, self._reason = code, reason
        if self._started is not None:
            self._seconds = time.monotonic() - self._started
        self.verdict = verdict


class Limiter:
    """Keeps the sum of what several streams send below a rate. 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def wait_for(
        self, length: int, is_stopped: Callable[[], bool], meanwhile: Callable[[], None]
    ) -> None:
        """Returns when that many more bytes may be sent."""
        if not self._rate:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + length / self._rate
        while not is_stopped():
            left = turn - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))
            meanwhile()
