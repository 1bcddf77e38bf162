"""What happened, newest first: the journal and what comes in meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Event, Fleet
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import drawable, text_width
from castray_tui.screens.widgets.columns import Column
from castray_tui.screens.widgets.event_text import EVENT_ROLES
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.key_bar import KeyBar
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine

_LIMIT = 500

_COLUMNS: tuple[Column[Event], ...] = (
    Column("time", "TIME", lambda event, _: ((figures.date_and_clock(event.time), "dim"),), 19),
    Column("type", "EVENT",
        lambda event, _: ((event.type.replace("_", " "), EVENT_ROLES.get(event.type, "accent")),),
        20, value=lambda event: (event.type,),
    ),
    Column("cluster", "CLUSTER", lambda event, _: ((event.cluster or figures.UNKNOWN, ""),), 10, 24,
        priority=2, value=lambda event: (event.cluster or "",),
        content=lambda event: text_width(event.cluster or ""),
    ),
    Column("message", "WHAT HAPPENED",
        lambda event, _: ((event.message, EVENT_ROLES.get(event.type, "")),), 20, 300,
    ),
)  # fmt: skip


class EventsScreen(Screen[None]):
    """Lists events.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        clock: Seconds since the epoch.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,e", "app.pop_screen", "Back", id="screen.back", tooltip="Back"),
        Binding("r", "read", "Refresh", id="events.refresh", tooltip="Read the journal again"),
        Binding("s", "sort", "Sort", id="events.sort", tooltip="Sort by the next column"),
    ]

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        glyphs: Glyphs,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._last: Event | None = None
        self.table: VirtualTable[int, Event] = VirtualTable(
            _COLUMNS,
            glyphs,
            natural=lambda event: (-event.id,),
            empty=("Reading the journal ...",),
            clock=clock,
            id="all-events",
        )

    def compose(self) -> ComposeResult:
        """Lays out the table."""
        yield self.table
        yield KeyBar(self._glyphs)

    def on_mount(self) -> None:
        """Reads the journal, and again when something happened."""
        self.table.border_title = "Events"
        self.table.focus()
        self.watch(self.app, "fleet", self._fleet_changed)

    def _fleet_changed(self, fleet: Fleet) -> None:
        if self._last is None or fleet.last_event != self._last:
            self._last = fleet.last_event
            self.action_read()

    def action_sort(self) -> None:
        """Sorts by the next column."""
        self.table.sort_next()

    @on(VirtualTable.Chosen)
    def _chosen(self, message: VirtualTable.Chosen) -> None:
        message.stop()
        event = self.table.cursor_row
        if event is not None:
            from castray_tui.screens.details import EventDetails  # noqa: PLC0415 - when chosen

            self.app.push_screen(EventDetails(event, self._glyphs))

    @work(name="read events", group="events", exclusive=True)
    async def action_read(self) -> None:
        """Reads the journal."""
        try:
            events = await (await self._engine()).past_events(limit=_LIMIT)
        except CastrayError as error:
            self.notify(drawable(f"The journal cannot be read: {error}"), severity="error",
                markup=False)  # fmt: skip
            return
        self.table.say_when_empty("Nothing has happened yet.")
        before = self.table.rows
        # The same object for the same event, so that the table sees what is new.
        self.table.set_rows({event.id: before.get(event.id, event) for event in events})
