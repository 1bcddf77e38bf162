"""Following a transfer to its end, with its progress on standard error."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from castray_tui.cli.live_lines import LiveLines, can_redraw
from castray_tui.cli.output import print_json, print_line, print_message, print_table
from castray_tui.cli.transfer_progress import SparseProgress, TransferProgress
from castray_tui.cli.transfer_text import (
    DETAIL_COLUMNS,
    ENDED,
    TARGET_COLUMNS,
    detail_row,
    summary,
    target_row,
)
from castray_tui.core.config import UiSettings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Transfer
from castray_tui.core.wire_format import transfer_json

_LOOK_SECONDS = 0.2
_ROUTE_LINES = 12
_CANCEL_PATIENCE_SECONDS = 15.0


async def follow(engine: Engine, transfer_id: str, ui: UiSettings) -> Transfer:
    """Returns the transfer when it has ended. Meanwhile shows how far it is: on a terminal in lines
    that are drawn again in place, elsewhere in a line now and then.
    """
    waiting = asyncio.ensure_future(engine.wait_transfer(transfer_id))
    showing = asyncio.ensure_future(_show(engine, transfer_id, ui))
    try:
        return await waiting
    finally:
        waiting.cancel()
        showing.cancel()
        await asyncio.gather(waiting, showing, return_exceptions=True)


async def follow_or_cancel(
    engine: Engine, transfer_id: str, ui: UiSettings, *, as_json: bool
) -> Transfer:
    """As ``follow``; an interruption cancels the transfer and prints how it ended."""
    try:
        return await follow(engine, transfer_id, ui)
    except asyncio.CancelledError:
        await cancel_and_print(engine, transfer_id, as_json=as_json, ascii_only=ui.ascii)
        raise


async def cancel_and_print(
    engine: Engine, transfer_id: str, *, as_json: bool, ascii_only: bool
) -> None:
    """Cancels an interrupted transfer and prints how it ended; where no answer comes, closing the
    engine ends it anyway."""
    print_message(f"castray: Interrupted; cancelling transfer {transfer_id}")
    try:
        cancelled = await asyncio.wait_for(
            engine.cancel_transfer(transfer_id), _CANCEL_PATIENCE_SECONDS
        )
    except asyncio.TimeoutError:
        print_message(f"castray: No answer within {_CANCEL_PATIENCE_SECONDS:g} s")
    except CastrayError as error:
        print_message(f"castray: {error}")
    else:
        print_transfer(cancelled, as_json=as_json, ascii_only=ascii_only)


async def _show(engine: Engine, transfer_id: str, ui: UiSettings) -> None:
    live = LiveLines(color=ui.color, ascii_only=ui.ascii) if can_redraw(sys.stderr) else None
    draw = _sparsely(ui.ascii) if live is None else _in_place(live, ui.ascii)
    try:
        while True:
            current = await engine.transfer(transfer_id)
            if current.state not in ENDED:
                draw(current)
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        if live is not None:
            live.clear()


def _in_place(live: LiveLines, ascii_only: bool) -> Callable[[Transfer], None]:
    progress = TransferProgress()

    def draw(transfer: Transfer) -> None:
        columns, lines = live.size()
        # The last column stays free, as terminals differ in what they do there; an ellipsis in
        # ASCII takes two cells more.
        width = columns - (3 if ascii_only else 1)
        live.draw(progress.lines(transfer, time.monotonic(), width, lines - 1))

    return draw


def _sparsely(ascii_only: bool) -> Callable[[Transfer], None]:
    progress = SparseProgress()

    def draw(transfer: Transfer) -> None:
        for line in progress.lines(transfer, time.monotonic()):
            print_message(f"castray: {line}", ascii_only=ascii_only)

    return draw


def print_transfer(
    transfer: Transfer, *, as_json: bool, ascii_only: bool, in_full: bool = False
) -> None:
    """Prints a transfer with every target, as JSON or as a table and a sentence.

    Args:
        transfer: What to print.
        as_json: Whether JSON is asked for.
        ascii_only: Whether castray's own signs are spelled in ASCII.
        in_full: Whether the whole way of the bytes is printed, and not only its beginning, and of
            targets also what went over the network, and when.
    """
    if as_json:
        print_json(transfer_json(transfer))
    else:
        print_route(transfer.route, None if in_full else _ROUTE_LINES, ascii_only)
        columns, row = (DETAIL_COLUMNS, detail_row) if in_full else (TARGET_COLUMNS, target_row)
        print_table(columns, [row(each) for each in transfer.targets], ascii_only=ascii_only)
        print_line(summary(transfer), ascii_only=ascii_only)
    if transfer.error is not None:
        print_message(f"castray: {transfer.error}", ascii_only=ascii_only)


def print_route(route: tuple[str, ...], most: int | None, ascii_only: bool) -> None:
    """Prints which way the bytes go, a line for each hop, at most so many."""
    for hop in route[:most]:
        print_line(f"route  {hop}", ascii_only=ascii_only)
    if most is not None and len(route) > most:
        print_line(f"route  and {len(route) - most} hops more", ascii_only=ascii_only)
