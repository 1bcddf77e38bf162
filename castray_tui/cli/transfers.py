"""``castray transfers``: what is sent and was sent, from the journal."""

from __future__ import annotations

import argparse
from typing import get_args

from castray_tui.cli.arguments import positive_count
from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.output import print_json, print_line, print_message, print_table
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.transfer_text import (
    TARGET_COLUMNS,
    TRANSFER_COLUMNS,
    summary,
    target_row,
    transfer_row,
)
from castray_tui.core.config import Settings
from castray_tui.core.models import Transfer, TransferState
from castray_tui.core.wire_format import transfer_json

_DEFAULT_LIMIT = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``castray transfers``."""
    parser.add_argument(
        "id", metavar="ID", nargs="?", help="show this one, with every target; a prefix will do"
    )
    parser.add_argument(
        "--state",
        metavar="STATE",
        choices=get_args(TransferState),
        help="only those in this state: " + ", ".join(get_args(TransferState)),
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=positive_count,
        default=_DEFAULT_LIMIT,
        help=f"the newest N (default: {_DEFAULT_LIMIT})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints transfers."""
    return run_until_done(_transfers(arguments, settings_for(arguments).settings))


async def _transfers(arguments: argparse.Namespace, settings: Settings) -> int:
    ascii_only = settings.ui.ascii
    async with engine_of(settings) as engine:
        await engine.find_out_about_left()
        if arguments.id is not None:
            _print_one(await engine.transfer(arguments.id), arguments.json, ascii_only)
            return 0
        found = await engine.past_transfers(limit=arguments.limit, state=arguments.state)
    if arguments.json:
        print_json({"transfers": [transfer_json(each) for each in found], "count": len(found)})
    elif found:
        print_table(TRANSFER_COLUMNS, [transfer_row(each) for each in found], ascii_only=ascii_only)
    else:
        print_message("castray: The journal holds no such transfer")
    return 0


def _print_one(transfer: Transfer, as_json: bool, ascii_only: bool) -> None:
    if as_json:
        print_json(transfer_json(transfer))
        return
    print_line(f"source  {transfer.source}", ascii_only=ascii_only)
    for hop in transfer.route:
        print_line(f"route   {hop}", ascii_only=ascii_only)
    print_table(
        TARGET_COLUMNS, [target_row(each) for each in transfer.targets], ascii_only=ascii_only
    )
    print_line(summary(transfer), ascii_only=ascii_only)
    if transfer.error is not None:
        print_message(f"castray: {transfer.error}", ascii_only=ascii_only)
