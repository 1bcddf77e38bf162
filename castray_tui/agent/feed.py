"""Feeding one child: everything that is checked here goes on to it, from wherever it stands."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from . import wire
from .branches import below
from .content import ServedChunk, unpack_numbers, wanted_by
from .files import FileRefusedError
from .limiter import Limiter

if TYPE_CHECKING:
    from .member import Member

Json = Dict[str, Any]

_DIAL_SECONDS = 3.0
_FIRST_RETRY_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_BYPASS_SECONDS = 1.0
# A port that is closed belongs to an agent that is gone, and it does not come back by itself.
_REFUSED_SECONDS = 3.0
_LAST_WORDS_SECONDS = 5.0
_DAMAGES = 5


class MovedError(Exception):
    """The child is fed by somebody else now, and no longer this node's concern."""


class Feed:
    """The way from one member of a leg to one that it feeds.

    Args:
        member: Who feeds.
        rows: The child's row of the tree, its ``parent`` -1, and after it those of everybody below
            it, each with the place of its parent in the list.
    """

    def __init__(self, member: Member, rows: List[Json]) -> None:
        self._member = member
        self.child = rows[0]
        self.index: int = self.child["index"]
        self.below = below(rows)
        self.is_ended = False
        self.is_stopped = False
        self.keeps_below = False
        self._arrived: queue.Queue[wire.Channel] = queue.Queue()
        self._channel: Optional[wire.Channel] = None
        self._said_bye = threading.Event()
        self._reply_error: Optional[BaseException] = None
        self._lost_since: Optional[float] = None
        self._refused_since: Optional[float] = None
        self._damages = 0
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._taken_chunks = 0
        self._at = 0
        self._last_sent = 0.0
        self._fd = -1
        self._fd_number = -1
        self._limiter = Limiter(member.link_rate)
        self._thread = threading.Thread(target=self._run, name="castray-feed", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def arrive(self, channel: wire.Channel) -> None:
        """The child dialed by itself; returns when its connection is no longer used."""
        before = self._channel
        self._arrived.put(channel)
        if before is not None:
            before.close()  # The child has left it, or it would not have dialed.
        self._wake()
        self._thread.join()

    def stop(self) -> None:
        """The child is no longer this feed's concern."""
        self.is_stopped = True
        if self._channel is not None:
            self._channel.close()
        self._wake()

    def _wake(self) -> None:
        with self._member.content.changed:
            self._member.content.changed.notify_all()

    # --- connecting, again and again --------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.is_stopped and not self._said_bye.is_set():
                if self._is_settled() and not self.below:
                    break
                if not self._try_once():
                    break
        finally:
            self._close_file()
            self.is_ended = True
            self._member.note_feed_ended(self)

    def _try_once(self) -> bool:
        """One connection from beginning to end; whether another is to be tried."""
        try:
            self._channel = self._connect()
            self._serve(self._channel)
        except MovedError:
            self.is_stopped = True
            return False
        except FileRefusedError as refusal:
            # Not the child's fault: what is here cannot be read any more.
            self._member.note_unreadable(refusal)
            return self._note_lost(refusal)
        except wire.ShortFileError as error:
            self._member.content.look_again(self._at)
            return self._note_lost(error)
        except (OSError, wire.WireError, ValueError, LookupError, TypeError) as error:
            return self._note_lost(error)  # The last ones: it said what makes no sense.
        finally:
            if self._channel is not None:
                self._channel.close()
            self._member.note_position(self.index, None)
        return not self._said_bye.is_set()

    def _connect(self) -> wire.Channel:
        member = self._member
        mode = self.child["mode"]
        try:
            return self._arrived.get_nowait()
        except queue.Empty:
            pass
        if mode == "dial":
            channel = member.dial(self.child["endpoints"], _DIAL_SECONDS)
            channel.send({"role": "feeder", "index": self.index})
            return channel
        if mode == "tunnel":
            channel = member.dial_through(self.child["endpoints"], self.child["bridge"])
            channel.send({"role": "feeder", "index": self.index})
            return channel
        deadline = time.monotonic() + member.patience_seconds
        while time.monotonic() < deadline and not (self.is_stopped or self._is_over()):
            with contextlib.suppress(queue.Empty):
                return self._arrived.get(timeout=0.2)
        raise wire.WireError("nobody connected")

    def _note_lost(self, error: BaseException) -> bool:
        """The connection broke; whether to try again. Those below are fed from here meanwhile."""
        member = self._member
        if self.is_stopped or member.is_stopping:
            return False
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        waited = now - self._lost_since
        is_refused = isinstance(error, wire.StrangerError) and error.is_refused
        self._refused_since = (self._refused_since or now) if is_refused else None
        # A connection that breaks once may come again at once; those below notice nothing then.
        if is_refused or waited >= _BYPASS_SECONDS:
            member.bypass(self)
        is_over = self._is_over()
        if self._is_settled() or is_over:
            if not (self.below or is_over) or waited >= _REFUSED_SECONDS:
                return False
            return self._wait_to_retry(_FIRST_RETRY_SECONDS)
        why = "the connection broke: " + wire.describe(error)
        is_gone = self._refused_since is not None and now - self._refused_since > _REFUSED_SECONDS
        if is_gone or waited > member.patience_seconds or self._damages > _DAMAGES:
            self._note("failed", "lost", why)
            return False
        self._note(None, "lost", why)
        return self._wait_to_retry(_RETRY_SECONDS if waited > 0 else _FIRST_RETRY_SECONDS)

    def _wait_to_retry(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.is_stopped and self._arrived.empty():
            time.sleep(0.05)
        return not self._member.is_stopping

    def _is_over(self) -> bool:
        """Whether nobody is fed from here any more; they are only to be told of it."""
        return self._member.stop_word() is not None or self._member.content.failure is not None

    def _is_settled(self) -> bool:
        return self._member.has_verdict(self.index)

    def _note(self, verdict: Optional[str], code: str, reason: str) -> None:
        self._member.note_rows(
            [{"index": self.index, "verdict": verdict, "code": code, "reason": reason}]
        )

    # --- one connection ---------------------------------------------------------------------------

    def _serve(self, channel: wire.Channel) -> None:
        member = self._member
        opening = member.opening()
        opening["epoch"] = self.child.get("epoch", 0)
        if self.keeps_below:
            opening["keep"] = 1
        else:
            opening["below"] = self.below
        channel.send(opening)
        answer = channel.receive_message()
        if "taken" in answer:
            raise MovedError
        self._reply_error = None
        replies = threading.Thread(
            target=self._read_replies, args=(channel,), name="castray-replies", daemon=True
        )
        if "want" not in answer:
            member.note_rows(member.believable(answer.get("rows", []), self.index))
            if not member.has_failed(self.index):
                raise wire.WireError("an answer that makes no sense")
            member.bypass(self)
            self._said_bye.set()
            return
        replies.start()
        try:
            self._send_all(channel, answer)
            while replies.is_alive() and not self.is_stopped:
                self._ping(channel)
                replies.join(0.5)
        except OSError:
            # The child may have said why before it closed; its word is worth more than ours.
            replies.join(1.0)
            if not self._said_bye.is_set():
                raise
        finally:
            self._close_file()
        if self._reply_error is not None:
            raise self._reply_error

    def _send_all(self, channel: wire.Channel, answer: Json) -> None:
        member, content = self._member, self._member.content
        skip = unpack_numbers(answer["skip"], len(content.manifest.files))
        at = int(answer["want"])
        if not 0 <= at <= content.layout.chunk_count:
            raise wire.WireError("a chunk was asked for that there is not")
        if at > self._taken_chunks:
            self._taken_chunks = at
            self._note_use()
        member.note_position(self.index, at)
        if answer.get("check") is not None and self._wait_for(channel, at + 1):
            first = content.layout.segments(at)[0]
            if content.digest_before(at, first).hex() != answer["check"]:
                channel.send({"restart": 1})
                raise wire.WireError("the beginning differs; it is sent again")
        is_wanted = wanted_by(skip)
        while at < content.layout.chunk_count:
            if not self._wait_for(channel, at + 1):
                return
            self._at = at
            chunk = content.serve(at, is_wanted)
            if chunk is not None:
                self._send(channel, at, chunk)
            at += 1
            member.note_position(self.index, at)
        if self._wait_for(channel, None):
            channel.send({"final": content.final})

    def _wait_for(self, channel: wire.Channel, ready: Optional[int]) -> bool:
        """Waits for that many chunks, or for the end; whether they came. Says why if not."""
        content, member = self._member.content, self._member
        while True:
            with content.changed:
                is_there = (
                    content.ready >= ready if ready is not None else content.final is not None
                )
                stop = member.stop_word()
                has_all = ready is None and is_there
                if stop is None and content.failure is not None and not has_all:
                    code, reason = content.failure
                    stop = {"abort": {"code": code, "reason": reason}}
                is_over = (
                    self.is_stopped or self._said_bye.is_set() or self._reply_error is not None
                )
                if stop is None and not is_over:
                    if is_there and not member.is_paused:
                        return True
                    content.changed.wait(0.5)
            if is_over:
                return False
            if stop is not None:
                channel.send(stop)
                return False
            self._ping(channel)

    def _send(self, channel: wire.Channel, number: int, chunk: ServedChunk) -> None:
        length = sum(one.length for one in chunk.segments)

        def is_over() -> bool:
            is_useless = self.is_stopped or self._reply_error is not None
            return is_useless or self._member.stop_word() is not None

        for limiter in (self._member.limiter, self._limiter):
            limiter.wait_for(length, is_over, lambda: self._ping(channel))
        if is_over():
            return
        if chunk.payload is not None:
            channel.send_chunk(number, chunk.head, chunk.payload)
        else:
            piece = chunk.segments[0]
            fd = self._descriptor(piece.number)
            if _is_hole(fd, piece.offset, piece.length):
                channel.send_hole(number, chunk.head, piece.length)
                length = 0
            else:
                channel.send_chunk_of_file(number, chunk.head, fd, piece.offset, piece.length)
        self._sent_bytes += length
        self._last_sent = time.monotonic()

    def _descriptor(self, number: int) -> int:
        if number != self._fd_number:
            self._close_file()
            self._fd = self._member.content.descriptor(number)
            self._fd_number = number
        return self._fd

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._fd_number = -1

    def _ping(self, channel: wire.Channel) -> None:
        if time.monotonic() - self._last_sent > wire.PING_SECONDS:
            channel.send({"ping": 1})
            self._last_sent = time.monotonic()

    # --- what the child says ----------------------------------------------------------------------

    def _read_replies(self, channel: wire.Channel) -> None:
        member = self._member
        try:
            while True:
                message = channel.receive_message()
                told = message.get("rows")
                if told:
                    rows = member.believable(told, self.index)
                    for row in rows:
                        if row["index"] == self.index:
                            self._note_progress(row)
                    member.note_rows(rows)
                if "damaged" in message:
                    self._damages += 1
                    member.content.look_again(int(message["damaged"]))
                if "bye" in message:
                    self._said_bye.set()
                    break
                if member.has_failed(self.index) and self.below:
                    member.bypass(self)
        except (OSError, wire.WireError, ValueError, LookupError, TypeError) as error:
            self._reply_error = error
        finally:
            self._wake()

    def _note_progress(self, row: Json) -> None:
        row["sent"], row["feeder"] = self._sent_bytes, self._member.index
        if row.get("bytes", 0) > self._taken_bytes:
            self._taken_bytes = row["bytes"]
            self._note_use()

    def _note_use(self) -> None:
        """Only what the child has checked says that its connections are of use."""
        self._lost_since = self._refused_since = None
        self._damages = 0


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """Whether that piece of a file takes no room on the disk."""
    seek_data = getattr(os, "SEEK_DATA", None)
    if seek_data is None:
        return False
    try:
        return os.lseek(fd, offset, seek_data) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # Nothing but a hole up to the end.
