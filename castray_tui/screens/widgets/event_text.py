"""How an event reads on one line."""

from __future__ import annotations

from collections.abc import Mapping

from castray_tui.core.models import Event, EventType
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, Role
from castray_tui.screens.widgets.glyphs import Glyphs

EVENT_ROLES: Mapping[EventType, Role] = {
    "cluster_lost": "bad",
    "node_died": "bad",
    "cluster_restarted": "warn",
    "node_draining": "warn",
    "cluster_recovered": "ok",
    "cluster_connected": "ok",
}
"""Events that stand out; the others are drawn plain."""


def event_cell(event: Event, glyphs: Glyphs) -> Cell:
    """An event on one line."""
    role = EVENT_ROLES.get(event.type)
    return (
        (f"{figures.clock(event.time)} ", "dim"),
        (f"{event.type.replace('_', ' ')} ", role or "accent"),
        (f"{glyphs.dot} {event.message}", role or ""),
    )
