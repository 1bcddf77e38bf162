"""What a leg needs from the castray around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from castray_tui.core.models import Fleet, Node
from castray_tui.core.transfer.preparation import SessionFor
from castray_tui.core.transfer.selection import Leg

_LEGS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a leg needs from the castray around it.

    Attributes:
        fleet: Gives the newest snapshot.
        session_for: Gives the session of a cluster.
        bridges: Gives the nodes that may pass on what others cannot send directly, best first.
        places: How many legs may be under way at once: gathering from a thousand nodes is no
            reason to open a thousand streams to one.
    """

    fleet: Callable[[], Fleet]
    session_for: SessionFor
    bridges: Callable[[Leg], Sequence[Node]]
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LEGS_AT_ONCE))
