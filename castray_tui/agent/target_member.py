"""A target of a leg: it is fed by one of those above it in the tree, and feeds those below it.

Who lost its feeder waits to be fed by another, and then dials those above it. The epoch of whoever
bypassed somebody is higher, and so is its word.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, List, Optional

from . import wire
from .branches import spans, split
from .files import FileRefusedError
from .intake import Intake
from .member import SOURCE_INDEX, Dial, DialThrough, Member

Json = Dict[str, Any]

_REPORT_SECONDS = 0.2
_ORPHAN_SECONDS = 2.0


class TargetMember(Member):
    """Where a leg's content is taken in."""

    content: Intake

    def __init__(
        self,
        index: int,
        content: Intake,
        dial: Dial,
        dial_through: DialThrough,
        endpoints: List[Any],
    ) -> None:
        super().__init__(index, content, dial, dial_through, endpoints)
        self._epoch = -1
        self._fed_times = 0
        self._feeder_index = SOURCE_INDEX
        self._feeder: Optional[wire.Channel] = None
        self._feeder_endpoints: List[Any] = []
        content.on_verdict = self._news.set

    def detach(self) -> None:
        """Ends all connections; what is here stays."""
        super().detach()
        with self._lock:
            feeder = self._feeder
        if feeder is not None:
            feeder.close()

    def stop(self) -> None:
        """Ends everything here and removes what is not whole."""
        super().stop()
        self.content.close()

    def stop_word(self) -> Optional[Json]:
        """What ends all feeding from here, besides the content's own failure."""
        word = super().stop_word()
        if word is None and self.content.verdict == "cancelled":
            return {"cancel": self.content.reason or "cancelled"}
        return word

    def note_unreadable(self, refusal: FileRefusedError) -> None:
        """What is here cannot be read any more: a matter of this node alone, others feed those
        below."""
        self.content.end("failed", refusal.code, refusal.reason)
        self._feeds_nobody = True
        self._stop_feeds()

    def _add_feed(self, rows: List[Json]) -> None:
        self.content.is_feeding_others = True
        super()._add_feed(rows)

    def _has_given_up(self) -> bool:
        return self.content.verdict in ("failed", "cancelled")

    # --- being fed --------------------------------------------------------------------------------

    def serve_feeder(self, channel: wire.Channel, endpoints: List[Any]) -> None:
        """Takes in what a feeder sends, feeds those below, and tells of both; until all is done.

        Args:
            endpoints: Where the feeder was dialed; empty where it dialed.

        Raises:
            OSError, WireError: The connection broke.
        """
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
            self._be_fed(channel, opening)
        finally:
            with self._lock:
                if self._feeder is channel:
                    self._feeder = None
                    if not self._is_done():
                        self._start_to_seek(_ORPHAN_SECONDS)

    def _be_fed(self, channel: wire.Channel, opening: Json) -> None:
        content = self.content
        # Whoever fed this target before has been hung up on, but may not have let go yet.
        with content.taking:
            if self._has_given_up():
                channel.send({"rows": [self._own_row()]})
                return
            channel.send(content.position())
            if "keep" not in opening:
                self._feed_only(opening["below"])
            self._take_in(channel)

    def _take_in(self, channel: wire.Channel) -> None:
        content = self.content
        ended = threading.Event()
        reporting = threading.Thread(
            target=self._report, args=(channel, ended), name="castray-report", daemon=True
        )
        reporting.start()
        try:
            try:
                content.take(channel)
            except wire.WireError:
                if content.is_damaged:
                    channel.send({"damaged": content.ready})
                raise
            if self._has_given_up():
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
        if self.content.verdict is None:
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
        self._end_feeds()

    def _own_row(self) -> Json:
        return dict(self.content.row(), index=self.index)

    def _report(self, channel: wire.Channel, ended: threading.Event) -> None:
        """Tells the feeder how far this target and those below are, which also says: alive."""
        last: Optional[Json] = None
        last_sent = 0.0
        try:
            while True:
                self._news.wait(_REPORT_SECONDS)
                self._news.clear()
                is_over = ended.is_set()
                is_done = self._is_done()
                own = self._own_row()
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
