"""``castray cancel``: ends a transfer that is under way."""

from __future__ import annotations

import argparse

from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.output import print_json, print_line
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.transfer_text import summary
from castray_tui.core.config import Settings
from castray_tui.core.wire_format import transfer_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray cancel``."""
    parser.add_argument("id", metavar="ID", help="the transfer; a prefix will do")


def run(arguments: argparse.Namespace) -> int:
    """Cancels, and prints how the transfer stands then."""
    return run_until_done(_cancel(arguments, settings_for(arguments).settings))


async def _cancel(arguments: argparse.Namespace, settings: Settings) -> int:
    async with engine_of(settings) as engine:
        known = await engine.transfer(arguments.id)
        transfer = await engine.cancel_transfer(known.id)
    if arguments.json:
        print_json(transfer_json(transfer))
    else:
        print_line(summary(transfer), ascii_only=settings.ui.ascii)
    return 0
