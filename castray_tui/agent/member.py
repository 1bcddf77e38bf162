"""One place in a leg's tree: it takes in, unless it is the source, and feeds those below it.

Who is lost is bypassed by whoever feeds it: those below it are fed from here, and it is tried again
until the transfer's patience is over. Who lost its feeder waits to be fed by another, and then
dials those above it. An epoch, counted up with every bypass, says whose feeding counts.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import wire
from .branches import spans, split
from .content import Content, SourceContent
from .feed import Feed
from .files import FileRefusedError
from .intake import Intake
from .limiter import Limiter
from .rows import checked

Json = Dict[str, Any]

SOURCE_INDEX = -1
_REPORT_SECONDS = 0.2
_LOOK_SECONDS = 0.25
_ORPHAN_SECONDS = 2.0
_ANCESTORS = 4
# Whoever hangs does not keep a cancelled transfer from ending.
_CANCEL_SECONDS = 3.0

Dial = Callable[[List[Any], float], wire.Channel]
DialThrough = Callable[[List[Any], str], wire.Channel]


class Member:
    """A source or a target of one leg at one agent.

    Args:
        index: Of the target, ``SOURCE_INDEX`` for the source.
        content: What is here and can be served; an ``Intake`` for a target.
        dial: Connects to endpoints with the leg's secret.
        dial_through: The same over a bridge.
        endpoints: Where this agent can be dialed; empty where nobody can.
    """

    def __init__(
        self,
        index: int,
        content: Content,
        dial: Dial,
        dial_through: DialThrough,
        endpoints: List[Any],
    ) -> None:
        self.index = index
        self.content = content
        self.dial = dial
        self.dial_through = dial_through
        self.limiter = Limiter(0)
        self.link_rate = 0
        self.patience_seconds = 30.0
        self.is_paused = False
        self.is_stopping = False
        self._endpoints = endpoints
        self._above: List[List[Any]] = []
        self._cancel_reason: Optional[str] = None
        self._lock = threading.RLock()
        self._feeds: List[Feed] = []
        self._rows: Dict[int, Json] = {}
        self._spans: Dict[int, Tuple[int, int]] = {}
        self._unsent: Dict[int, None] = {}
        self._epoch = -1
        self._fed_times = 0
        self._feeder_index = SOURCE_INDEX
        self._news = threading.Event()
        self._cancelled_at = 0.0
        self._feeds_nobody = False
        if isinstance(content, Intake):
            content.on_verdict = self._news.set
        self._feeder: Optional[wire.Channel] = None
        self._feeder_endpoints: List[Any] = []

    # --- the source -------------------------------------------------------------------------------

    def set_out(self, tree: List[Json], settings: Json) -> None:
        """Begins to feed a whole tree.

        Args:
            tree: Rows of ``index``, ``parent``, ``mode`` and ``endpoints``, parents first.
            settings: ``rate_limit``, ``link_rate_limit`` (bytes per second, 0 for none) and
                ``patience_seconds``.
        """
        self.limiter = Limiter(int(settings["rate_limit"]))
        self.link_rate = int(settings["link_rate_limit"])
        self.patience_seconds = float(settings["patience_seconds"])
        with self._lock:
            self._spans = spans(tree)
            for row in tree:
                self._rows[row["index"]] = {"index": row["index"], "verdict": None}
        for rows in split(tree):
            self._add_feed(rows)
        threading.Thread(target=self._see_to_all, name="castray-leg", daemon=True).start()

    def _see_to_all(self) -> None:
        """The source's side: a target that nobody looks after any more gets its verdict here."""
        alone_since: Optional[float] = None
        while not self.is_stopping:
            with self._lock:
                is_fed = any(not feed.is_ended for feed in self._feeds)
                left = [row for row in self._rows.values() if row["verdict"] is None]
            if not left:
                return
            now = time.monotonic()
            alone_since = None if is_fed else alone_since or now
            is_cancelled = self._cancel_reason is not None
            is_hopeless = is_cancelled or self.content.failure is not None
            limit = 0.0 if is_hopeless else self.patience_seconds
            is_late = is_cancelled and now - self._cancelled_at > _CANCEL_SECONDS
            if is_late or (alone_since is not None and now - alone_since >= limit):
                self._settle_left(left)
                return
            time.sleep(_LOOK_SECONDS)

    def _settle_left(self, left: List[Json]) -> None:
        if self._cancel_reason is not None:
            verdict, code, reason = "cancelled", "cancelled", self._cancel_reason
        elif self.content.failure is not None:
            verdict, (code, reason) = "failed", self.content.failure
        else:
            verdict, code, reason = "failed", "lost", "the way to it was lost"
        self.note_rows(
            [
                {
                    "index": row["index"],
                    "verdict": verdict,
                    "code": code,
                    "reason": row.get("reason") if code == "lost" and row.get("reason") else reason,
                }
                for row in left
            ]
        )

    def status(self) -> Json:
        """How far everybody is, as far as it was told here."""
        final = self.content.final
        with self._lock:
            rows = [_held_to(final, row) for row in self._rows.values()]
        failure = self.content.failure
        return {
            "digest": final,
            "code": failure[0] if failure else None,
            "error": failure[1] if failure else None,
            "done": all(row["verdict"] is not None for row in rows),
            "paused": self.is_paused,
            "targets": rows,
        }

    def wait_for_news(self, seconds: float) -> None:
        """Returns when somebody has a verdict, at the latest after that time."""
        self._news.wait(seconds)
        self._news.clear()

    def pause(self, is_paused: bool) -> None:
        """Stops sending, or goes on; connections stay."""
        self.is_paused = is_paused
        self._wake()

    def cancel(self, reason: str) -> None:
        """Everybody below throws away what is not whole."""
        if self._cancel_reason is None:
            self._cancelled_at = time.monotonic()
            self._cancel_reason = reason
        self._wake()

    def detach(self) -> None:
        """Ends all connections; what is here stays."""
        self.is_stopping = True
        with self._lock:
            feeds = list(self._feeds)
            feeder = self._feeder
        for feed in feeds:
            feed.stop()
        if feeder is not None:
            feeder.close()

    def stop(self) -> None:
        """Ends everything here; what others have stays theirs."""
        self.detach()
        if isinstance(self.content, SourceContent):
            self.content.stop()
        elif isinstance(self.content, Intake):
            self.content.close()

    def _wake(self) -> None:
        with self.content.changed:
            self.content.changed.notify_all()

    # --- what feeds ask and tell ------------------------------------------------------------------

    def opening(self) -> Json:
        """What a child is told first."""
        above = ([self._endpoints] if self._endpoints else []) + self._above
        return {
            "above": above[:_ANCESTORS],
            "feeder": self.index,
            "patience": self.patience_seconds,
            "link_rate": self.link_rate,
        }

    def stop_word(self) -> Optional[Json]:
        """What ends all feeding from here, besides the content's own failure."""
        if self._cancel_reason is not None:
            return {"cancel": self._cancel_reason}
        if isinstance(self.content, Intake) and self.content.verdict == "cancelled":
            return {"cancel": self.content.reason or "cancelled"}
        return None

    def note_position(self, feed: int, chunk: Optional[int]) -> None:
        """How far a feed is, for a source that reads ahead of the fastest."""
        if isinstance(self.content, SourceContent):
            self.content.note_position(feed, chunk)

    def has_verdict(self, index: int) -> bool:
        """Whether a target below has ended, as far as is known here."""
        with self._lock:
            return self._rows.get(index, {}).get("verdict") is not None

    def has_failed(self, index: int) -> bool:
        """Whether a target below has ended without having it all, so that it feeds nobody."""
        with self._lock:
            return self._rows.get(index, {}).get("verdict") in ("failed", "cancelled")

    def believable(self, told: Any, feed: int) -> List[Json]:
        """What a child said of itself and of those that are below it in the tree.

        Raises:
            ValueError, TypeError: It makes no sense.
        """
        rows = [checked(row) for row in told]
        with self._lock:
            first, end = self._spans.get(feed, (0, 0))
            return [row for row in rows if first <= self._spans.get(row["index"], (-1, 0))[0] < end]

    def note_unreadable(self, refusal: FileRefusedError) -> None:
        """What is here cannot be read any more, so that nobody can be fed from here."""
        if isinstance(self.content, Intake):
            # A matter of this node alone: others feed those below.
            self.content.end("failed", refusal.code, refusal.reason)
            self._feeds_nobody = True
            self._stop_feeds()
        else:
            self.content.fail(refusal.code, refusal.reason)

    def note_rows(self, rows: List[Json]) -> None:
        """News of targets below; a verdict that stands is not taken back."""
        with self._lock:
            for row in rows:
                index = row["index"]
                known = self._rows.setdefault(index, {"index": index, "verdict": None})
                if known["verdict"] is None:
                    known.update(row)
                    self._unsent[index] = None
                    if row.get("verdict") is not None:
                        self._news.set()

    def bypass(self, feed: Feed) -> None:
        """A child does not take what it is fed: those below it are fed from here from now on."""
        with self._lock:
            rows, feed.below = feed.below, []
        feed.keeps_below = False
        for group in split(rows):
            group[0]["epoch"] = group[0].get("epoch", 0) + 1
            self._add_feed(group)

    def note_feed_ended(self, feed: Feed) -> None:
        """A feed has nothing more to do."""
        if feed.below and not feed.is_stopped and self.has_failed(feed.index):
            self.bypass(feed)
        self._news.set()
        self._wake()

    def _add_feed(self, rows: List[Json]) -> None:
        feed = Feed(self, rows)
        with self._lock:
            if self.is_stopping or self._feeds_nobody:
                return
            self._feeds.append(feed)
        if isinstance(self.content, Intake):
            self.content.is_feeding_others = True
        feed.start()

    # --- being fed --------------------------------------------------------------------------------

    def serve_feeder(self, channel: wire.Channel, endpoints: List[Any]) -> None:
        """Takes in what a feeder sends, feeds those below, and tells of both; until all is done.

        Args:
            endpoints: Where the feeder was dialed; empty where it dialed.

        Raises:
            OSError, WireError: The connection broke.
        """
        content = self.content
        assert isinstance(content, Intake)  # noqa: S101  (the source is fed by nobody)
        opening = channel.receive_message()
        with self._lock:
            if self.is_stopping:
                return
            epoch = int(opening["epoch"])
            is_other = epoch == self._epoch and opening["feeder"] != self._feeder_index
            if epoch < self._epoch or (is_other and self._feeder is not None):
                channel.send({"taken": 1})
                return
            self._epoch, self._feeder_index = epoch, opening["feeder"]
            before, self._feeder = self._feeder, channel
            self._fed_times += 1
            self._above = opening["above"]
            self._feeder_endpoints = endpoints
            self.patience_seconds = float(opening["patience"])
            self.link_rate = int(opening["link_rate"])
            self._unsent = dict.fromkeys(self._rows)
        if before is not None:
            before.close()
        try:
            self._be_fed(channel, content, opening)
        finally:
            with self._lock:
                if self._feeder is channel:
                    self._feeder = None
                    if not self._is_done():
                        self._start_to_seek(_ORPHAN_SECONDS)

    def _be_fed(self, channel: wire.Channel, content: Intake, opening: Json) -> None:
        # Whoever fed this target before has been hung up on, but may not have let go yet.
        with content.taking:
            if content.verdict in ("failed", "cancelled"):
                channel.send({"rows": [self._own_row(content)]})
                return
            channel.send(content.position())
            if "keep" not in opening:
                self._feed_only(opening["below"])
            self._take_in(channel, content)

    def _take_in(self, channel: wire.Channel, content: Intake) -> None:
        ended = threading.Event()
        reporting = threading.Thread(
            target=self._report, args=(channel, content, ended), name="castray-report", daemon=True
        )
        reporting.start()
        try:
            try:
                content.take(channel)
            except wire.WireError:
                if content.is_damaged:
                    channel.send({"damaged": content.ready})
                raise
            if content.verdict in ("failed", "cancelled"):
                self._stop_feeds()
            self._stay(channel)
        finally:
            ended.set()
            self._news.set()
            reporting.join()

    def _stay(self, channel: wire.Channel) -> None:
        """All is here; those below may still need this connection to be told of."""
        while not self._is_done():
            # The feeder says something every few seconds.
            message = channel.receive_message()
            if "cancel" in message:
                self.cancel(str(message["cancel"])[:500])

    def _is_done(self) -> bool:
        if isinstance(self.content, Intake) and self.content.verdict is None:
            return False
        with self._lock:
            return all(feed.is_ended for feed in self._feeds)

    def _feed_only(self, rows: List[Json]) -> None:
        """Feeds exactly these; who is not among them is fed by somebody else now."""
        groups = split(rows)
        wanted = {group[0]["index"] for group in groups}
        with self._lock:
            self._spans = spans(rows)
            self._rows = {
                index: self._rows.get(index, {"index": index, "verdict": None})
                for index in self._spans
            }
            self._unsent = dict.fromkeys(self._rows)
            for feed in self._feeds:
                if feed.index not in wanted and not feed.is_ended:
                    feed.stop()
            running = {feed.index for feed in self._feeds if not feed.is_stopped}
        for group in groups:
            if group[0]["index"] not in running:
                self._add_feed(group)

    def _stop_feeds(self) -> None:
        """What is here is not whole and never will be: those below wait for another feeder, or
        hear why there is none."""
        failure = self.content.failure
        if failure is not None or self.stop_word() is not None:
            self._wake()  # The feeds tell it.
            return
        with self._lock:
            feeds = list(self._feeds)
        for feed in feeds:
            feed.stop()

    def _own_row(self, content: Intake) -> Json:
        return dict(content.row(), index=self.index)

    def _report(self, channel: wire.Channel, content: Intake, ended: threading.Event) -> None:
        """Tells the feeder how far this target and those below are, which also says: alive."""
        last: Optional[Json] = None
        last_sent = 0.0
        try:
            while True:
                self._news.wait(_REPORT_SECONDS)
                self._news.clear()
                is_over = ended.is_set()
                is_done = self._is_done()
                own = self._own_row(content)
                message: Json = {}
                shown = {key: value for key, value in own.items() if key != "seconds"}
                with self._lock:
                    rows = [dict(self._rows[index]) for index in self._unsent]
                    self._unsent.clear()
                if shown != last:
                    rows.append(own)
                    last = shown
                if rows:
                    message["rows"] = rows
                if is_done:
                    message["bye"] = 1
                if message or time.monotonic() - last_sent > wire.PING_SECONDS:
                    channel.send(message or {"ping": 1})
                    last_sent = time.monotonic()
                if is_done:
                    # The feeder hangs up; whatever still comes from it is nothing to wait for.
                    channel.end_sending()
                    return
                if is_over:
                    return
        except (OSError, ValueError, wire.WireError):
            channel.close()

    # --- without a feeder -------------------------------------------------------------------------

    def seek(self, endpoints: List[Any]) -> None:
        """Dials a feeder that waits for this target, until it has been fed by somebody."""
        with self._lock:
            if self._feeder is None:
                self._feeder_endpoints = endpoints
                self._start_to_seek(0.0)

    def _start_to_seek(self, pause_seconds: float) -> None:
        arguments = (pause_seconds, self._fed_times)
        threading.Thread(
            target=self._seek_feeder, args=arguments, name="castray-orphan", daemon=True
        ).start()

    def _seek_feeder(self, pause_seconds: float, fed_times: int) -> None:
        """Dials those above, one after another, until somebody feeds this target again."""
        assert isinstance(self.content, Intake)  # noqa: S101  (the source has no feeder to lose)
        began = time.monotonic()
        while not self.is_stopping and time.monotonic() - began < self.patience_seconds:
            time.sleep(pause_seconds)
            pause_seconds = min(max(pause_seconds * 2, 0.1), 1.0)
            with self._lock:
                # Who was fed since then and lost that feeder too has another thread that seeks.
                if self._fed_times != fed_times or self._is_done():
                    return
                places = [self._feeder_endpoints, *self._above]
            for endpoints in places:
                if endpoints and self._dial_feeder_once(endpoints, fed_times):
                    return
        with self._lock:
            if self._fed_times == fed_times and not self.is_stopping:
                self.content.give_up("lost", "the connection to who fed it was lost")
                self._stop_feeds()

    def _dial_feeder_once(self, endpoints: List[Any], fed_times: int) -> bool:
        """Whether somebody there fed this target, however that ended."""
        try:
            channel = self.dial(endpoints, wire.HANDSHAKE_SECONDS)
        except (OSError, wire.WireError):
            return False
        try:
            # Another may have begun to feed it while somebody who hung was dialed.
            if self._fed_times == fed_times:
                channel.send({"role": "taker", "index": self.index, "epoch": max(self._epoch, 0)})
                self.serve_feeder(channel, endpoints)
        except (OSError, wire.WireError, ValueError, LookupError, TypeError):
            pass  # If it had been fed, another thread seeks from now on.
        finally:
            channel.close()
        return self._fed_times != fed_times or self._is_done()

    def can_feed(self, index: int) -> bool:
        """Whether a target is one of those below, so that it may dial to be fed from here."""
        with self._lock:
            return index in self._rows

    def _has_given_up(self) -> bool:
        return isinstance(self.content, Intake) and self.content.verdict in ("failed", "cancelled")

    def accept_taker(self, channel: wire.Channel, hello: Json) -> bool:
        """Somebody dialed to be fed from here; returns when that is over, False if it cannot be."""
        index = int(hello["index"])
        with self._lock:
            if self.is_stopping or self._feeds_nobody or self._has_given_up():
                return False
            feed = next(
                (one for one in self._feeds if one.index == index and not one.is_ended), None
            )
            if feed is None:
                if index not in self._rows:
                    return False
                row = {
                    "index": index,
                    "parent": -1,
                    "mode": "await",
                    "endpoints": [],
                    "epoch": int(hello["epoch"]) + 1,
                }
                feed = Feed(self, [row])
                feed.keeps_below = True
                self._feeds.append(feed)
                feed.start()
            elif int(hello["epoch"]) > feed.child.get("epoch", 0):
                feed.child["epoch"] = int(hello["epoch"]) + 1
                feed.keeps_below = True
        feed.arrive(channel)
        return True


def _held_to(final: Optional[str], row: Json) -> Json:
    """A row as it is told: whoever says that all is right must have the digest of what was sent."""
    is_right = row["verdict"] in ("verified", "identical")
    if final is None or not is_right or row.get("digest") == final:
        return dict(row)
    reason = "what it has is not what was sent: digests differ"
    return dict(row, verdict="failed", code="digest", reason=reason)


def pairs(endpoints: List[Any]) -> List[Tuple[str, int]]:
    """Endpoints as they came in JSON, as ``wire.dial`` wants them."""
    return [(str(host), int(port)) for host, port in endpoints]
