"""One place in a leg's tree, the source's or a target's: it feeds those below it.

Who is lost is bypassed by whoever feeds it: those below it are fed from here, and it is tried again
until the transfer's patience is over. An epoch, counted up with every bypass, says whose feeding
counts.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import wire
from .branches import split
from .content import Content
from .feed import Feed
from .files import FileRefusedError
from .limiter import Limiter
from .rows import checked

Json = Dict[str, Any]

SOURCE_INDEX = -1
_ANCESTORS = 4

Dial = Callable[[List[Any], float], wire.Channel]
DialThrough = Callable[[List[Any], str], wire.Channel]


class Member:
    """A source or a target of one leg at one agent.

    Args:
        index: Of the target, ``SOURCE_INDEX`` for the source.
        content: What is here and can be served.
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
        self._news = threading.Event()
        self._cancelled_at = 0.0
        self._feeds_nobody = False

    def cancel(self, reason: str) -> None:
        """Everybody below throws away what is not whole."""
        if self._cancel_reason is None:
            self._cancelled_at = time.monotonic()
            self._cancel_reason = reason
        self._wake()

    def detach(self) -> None:
        """Ends all connections; what is here stays."""
        self.is_stopping = True
        self._end_feeds()

    def stop(self) -> None:
        """Ends everything here; what others have stays theirs."""
        self.detach()

    def _end_feeds(self) -> None:
        with self._lock:
            feeds = list(self._feeds)
        for feed in feeds:
            feed.stop()

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
        return None

    def note_position(self, feed: int, chunk: Optional[int]) -> None:
        """How far a feed is, for a source that reads ahead of the fastest."""

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
        feed.start()

    def can_feed(self, index: int) -> bool:
        """Whether a target is one of those below, so that it may dial to be fed from here."""
        with self._lock:
            return index in self._rows

    def _has_given_up(self) -> bool:
        """Whether what is here will never be whole."""
        return False

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
