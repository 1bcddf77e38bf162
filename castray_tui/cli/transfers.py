"""``castray transfers``: what is sent and was sent, from the journal."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import get_args

from castray_tui.cli.arguments import complete_files, positive_count
from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.following import print_transfer
from castray_tui.cli.output import print_json, print_line, print_message, print_table
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.times import past_time
from castray_tui.cli.transfer_text import TRANSFER_COLUMNS, detail_lines, transfer_row
from castray_tui.core.config import Settings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import CastrayError, UsageError
from castray_tui.core.ledger import LedgerFilter
from castray_tui.core.models import Transfer, TransferState
from castray_tui.core.text_safety import safe_text
from castray_tui.core.wire_format import JsonObject, transfer_json

_DEFAULT_LIMIT = 50
_FILTERS = ("state", "cluster", "node", "since", "source", "limit")


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
        "--cluster",
        metavar="NAME",
        help="only those in which this cluster takes part; may hold wildcards",
    )
    parser.add_argument(
        "--node",
        metavar="NAME",
        help="only those in which a node of this name takes part; may hold wildcards",
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=past_time,
        help="only those that started since: 2h (ago), 3d, or 2026-01-31T18:00",
    )
    parser.add_argument(
        "--source", metavar="TEXT", help="only those whose source contains this text"
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=positive_count,
        help=f"the newest N (default: {_DEFAULT_LIMIT}, with --export all)",
    )
    export = parser.add_argument(
        "--export", metavar="FILE", help="write them as JSON to this file, - for standard output"
    )
    complete_files(export)


def run(arguments: argparse.Namespace) -> int:
    """Prints or exports transfers."""
    given = [f"--{name}" for name in _FILTERS if getattr(arguments, name) is not None]
    if arguments.id is not None and given:
        raise UsageError(
            f"{', '.join(given)} cannot be combined with the ID of one transfer",
            remedy="Leave out the one or the other",
        )
    return run_until_done(_transfers(arguments, settings_for(arguments).settings))


async def _transfers(arguments: argparse.Namespace, settings: Settings) -> int:
    ascii_only = settings.ui.ascii
    async with engine_of(settings) as engine:
        await engine.find_out_about_left()
        one = None if arguments.id is None else await engine.transfer(arguments.id)
        found = [] if one is not None else await _found(engine, arguments)
    if engine.journal_problem is not None:
        print_message(f"castray: {engine.journal_problem}", ascii_only=ascii_only)
    if arguments.export is not None:
        document = _list_json(found) if one is None else transfer_json(one)
        _export(document, arguments.export)
        count = len(found) if one is None else 1
        if arguments.export != "-":
            what = "1 transfer" if count == 1 else f"{count} transfers"
            print_message(f"castray: {what} written to {arguments.export}", ascii_only=ascii_only)
    elif one is not None:
        if not arguments.json:
            for line in detail_lines(one):
                print_line(safe_text(line), ascii_only=ascii_only)
        print_transfer(one, as_json=arguments.json, ascii_only=ascii_only, in_full=True)
    elif arguments.json:
        print_json(_list_json(found))
    elif found:
        print_table(TRANSFER_COLUMNS, [transfer_row(each) for each in found], ascii_only=ascii_only)
    else:
        print_message("castray: The journal holds no such transfer")
    return 0


async def _found(engine: Engine, arguments: argparse.Namespace) -> list[Transfer]:
    limit = arguments.limit
    if limit is None:
        limit = _DEFAULT_LIMIT if arguments.export is None else None
    return await engine.ledger(
        LedgerFilter(
            state=arguments.state,
            cluster=arguments.cluster,
            node=arguments.node,
            since=arguments.since,
            source=arguments.source,
        ),
        limit=limit,
    )


def _list_json(transfers: list[Transfer]) -> JsonObject:
    return {"transfers": [transfer_json(each) for each in transfers], "count": len(transfers)}


def _export(document: JsonObject, file: str) -> None:
    """Writes the document, whole or not at all.

    Raises:
        CastrayError: The file cannot be written.
    """
    if file == "-":
        print_json(document)
        return
    path = Path(file)
    # Names such as /dev/stderr or a pipe are written to; a file is replaced when all is there.
    replaces = not path.exists() or path.is_file()
    written = path.with_name(f".{path.name}.{os.getpid()}") if replaces else path
    try:
        try:
            with written.open("w", encoding="utf-8") as handle:
                json.dump(document, handle, indent=2, allow_nan=False)
                handle.write("\n")
            if replaces:
                written.replace(path)
        except BaseException:
            if replaces:
                written.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CastrayError(
            f"{file} cannot be written: {error.strerror or error}",
            remedy="Name a file in a folder that you may write to, or - for standard output",
        ) from error
