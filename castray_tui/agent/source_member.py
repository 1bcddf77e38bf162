"""The source of a leg: it sets the tree out, and knows how far everybody in it is."""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, List, Optional

from .branches import spans, split
from .content import SourceContent
from .limiter import Limiter
from .member import SOURCE_INDEX, Dial, DialThrough, Member

Json = Dict[str, Any]

_LOOK_SECONDS = 0.25
# Whoever hangs does not keep a cancelled transfer from ending.
_CANCEL_SECONDS = 3.0


class SourceMember(Member):
    """Where a leg's content comes from."""

    content: SourceContent

    def __init__(
        self,
        content: SourceContent,
        dial: Dial,
        dial_through: DialThrough,
        endpoints: List[Any],
    ) -> None:
        super().__init__(SOURCE_INDEX, content, dial, dial_through, endpoints)

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

    def note_position(self, feed: int, chunk: Optional[int]) -> None:
        """How far a feed is: what is read is a little ahead of the fastest."""
        self.content.note_position(feed, chunk)

    def stop(self) -> None:
        """Ends everything here; what others have stays theirs."""
        super().stop()
        self.content.stop()


def _held_to(final: Optional[str], row: Json) -> Json:
    """A row as it is told: whoever says that all is right must have the digest of what was sent."""
    is_right = row["verdict"] in ("verified", "identical")
    if final is None or not is_right or row.get("digest") == final:
        return dict(row)
    reason = "what it has is not what was sent: digests differ"
    return dict(row, verdict="failed", code="digest", reason=reason)
