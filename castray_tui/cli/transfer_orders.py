"""What ``resume``, ``retry``, ``pause`` and ``cancel`` share: naming a transfer, and its end."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.following import follow, follow_or_cancel, print_transfer
from castray_tui.cli.output import print_message
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.transfer_clusters import connect_named
from castray_tui.cli.transfer_text import ENDED, EXIT_CODES
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer

Order = Callable[[Engine, str], Awaitable[Transfer]]


def add_id(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a transfer."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="as `castray transfers` shows it; its first characters will do",
    )


def run_order(arguments: argparse.Namespace, order: Order) -> int:
    """Gives an order that is carried out at once, also to a transfer of another castray, and prints
    the transfer; one that has ended is left as it is."""
    return run_until_done(_give(arguments, settings_for(arguments), order))


async def _give(arguments: argparse.Namespace, loaded: LoadedSettings, order: Order) -> int:
    ui = loaded.settings.ui
    async with engine_of(loaded.settings, for_transfer=True) as engine:
        transfer = await engine.transfer(arguments.id)
        if transfer.state in ENDED:
            print_message(f"castray: Transfer {transfer.id} has ended already: {transfer.state}")
        else:
            transfer = await order(engine, transfer.id)
    print_transfer(transfer, as_json=arguments.json, ascii_only=ui.ascii)
    return 0


def run_again(arguments: argparse.Namespace, begin: Order) -> int:
    """Goes on with a transfer, and follows it to its end.

    Args:
        arguments: The parsed command line.
        begin: Has the engine go on with a transfer that has ended or been given up.
    """
    return run_until_done(_again(arguments, settings_for(arguments), begin))


async def _again(arguments: argparse.Namespace, loaded: LoadedSettings, begin: Order) -> int:
    ui = loaded.settings.ui
    async with engine_of(loaded.settings, for_transfer=True) as engine:
        transfer = await engine.transfer(arguments.id)
        if transfer.state == "done":
            print_message(f"castray: Nothing is left to send: {transfer.id} is done")
            ended = transfer
        else:
            if transfer.state in ENDED:
                await connect_named(engine, loaded, _addresses(transfer))
            if transfer.state == "paused" or not engine.is_run_elsewhere(transfer.id):
                transfer = await begin(engine, transfer.id)
            if engine.is_run_elsewhere(transfer.id):
                ended = await _look_on(engine, transfer, loaded)
            else:
                ended = await follow_or_cancel(engine, transfer.id, ui, as_json=arguments.json)
    print_transfer(ended, as_json=arguments.json, ascii_only=ui.ascii)
    return EXIT_CODES[ended.state]


async def _look_on(engine: Engine, transfer: Transfer, loaded: LoadedSettings) -> Transfer:
    """Follows a transfer that others run; an interruption leaves it alone."""
    try:
        return await follow(engine, transfer.id, loaded.settings.ui)
    except asyncio.CancelledError:
        print_message(
            f"castray: Transfer {transfer.id} goes on; `castray cancel {transfer.id[:8]}` ends it"
        )
        raise


def _addresses(transfer: Transfer) -> tuple[str, ...]:
    """The addresses of everybody who takes part, as they were asked for."""
    if transfer.request is None:  # the engine says what is missing
        return ()
    return (*transfer.request.sources, *transfer.request.targets)
