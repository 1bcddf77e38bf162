"""The one stream of events: drafts go in, get a place in the journal, and come out to readers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from castray_tui.core.models import Event, EventDraft

_READER_BACKLOG_EVENTS = 10_000


class EventStream:
    """Numbers events in the order in which they were posted and hands them to every reader.

    Args:
        record: Writes a draft into the journal and returns the event with its number.
    """

    def __init__(self, record: Callable[[EventDraft], Awaitable[Event]]) -> None:
        self._record = record
        self._drafts: asyncio.Queue[EventDraft | None] = asyncio.Queue()
        self._readers: set[asyncio.Queue[Event | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.on_event: Callable[[Event], None] | None = None

    def start(self) -> None:
        """Begins to hand on what is posted."""
        self._task = asyncio.create_task(self._run(), name="event stream")

    def post(self, draft: EventDraft) -> None:
        """Adds an event; returns at once."""
        self._drafts.put_nowait(draft)

    async def close(self) -> None:
        """Hands on what was posted, then ends every reader's iteration."""
        if self._task is None:
            return
        self._drafts.put_nowait(None)
        await self._task
        for reader in list(self._readers):
            self._end(reader)

    async def read(self) -> AsyncIterator[Event]:
        """Every event from now on. Ends with the stream, or when the reader falls 10,000 behind."""
        queue = self.subscribe()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._readers.discard(queue)

    def subscribe(self) -> asyncio.Queue[Event | None]:
        """A queue that gets every event from this moment on, and None at the end."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_READER_BACKLOG_EVENTS)
        self._readers.add(queue)
        return queue

    async def _run(self) -> None:
        while (draft := await self._drafts.get()) is not None:
            event = await self._record(draft)
            if self.on_event is not None:
                self.on_event(event)
            for reader in list(self._readers):
                try:
                    reader.put_nowait(event)
                except asyncio.QueueFull:
                    self._end(reader)

    def _end(self, reader: asyncio.Queue[Event | None]) -> None:
        self._readers.discard(reader)
        with contextlib.suppress(asyncio.QueueEmpty):
            if reader.full():
                reader.get_nowait()
        reader.put_nowait(None)
