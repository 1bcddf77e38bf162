"""Telling targets to connect to whoever feeds them, where that one cannot connect to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from castray_tui.core.errors import TransferError
from castray_tui.core.transfer.participants import ORDER_SECONDS
from castray_tui.core.transfer.sessions import Session, call


@dataclass(frozen=True, slots=True)
class Dial:
    """An order to a target's agent to connect to whoever feeds it."""

    session: Session
    node_id: str
    index: int
    endpoints: Sequence[tuple[str, int]]


async def have_dialed(transfer: str, dials: Sequence[Dial]) -> None:
    """Tells targets to connect to their feeders. What comes of it is seen from the source's side,
    which waits for them."""

    async def dial(one: Dial) -> None:
        with contextlib.suppress(TransferError):
            await call(
                one.session,
                one.node_id,
                "dial",
                {
                    "transfer": transfer,
                    "index": one.index,
                    "endpoints": [list(end) for end in one.endpoints],
                },
                ORDER_SECONDS,
            )

    await asyncio.gather(*(dial(one) for one in dials))
