"""``castray cp``: sends a file to nodes, gets one from a node, or moves one between nodes."""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import shutil
import sys
import time
from collections.abc import Sequence
from typing import get_args

from castray_tui.cli import failures as told
from castray_tui.cli.arguments import bytes_per_second, nearest
from castray_tui.cli.fleet_session import Failure, connect_to, engine_of, first_answers
from castray_tui.cli.output import print_json, print_line, print_message, print_table
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.transfer_text import (
    ENDED,
    EXIT_CODES,
    PLAN_COLUMNS,
    TARGET_COLUMNS,
    ProgressLine,
    plan_exit_code,
    plan_rows,
    summary,
    target_row,
)
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import CastrayError, UnreachableError, UsageError
from castray_tui.core.models import Overwrite, Transfer, TransferPlan, TransferRequest
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.wire_format import plan_json, transfer_json

_PROGRESS_INTERVAL_SECONDS = 0.2
_CANCEL_PATIENCE_SECONDS = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``castray cp``."""
    parser.add_argument(
        "addresses",
        metavar="SOURCE... TARGET",
        nargs="+",
        help="a path here, or CLUSTER/NODE:PATH; the last one is the target. Wildcards name "
        "several targets ('ml/*:/data/'); a path that ends in / is a folder to put the file into",
    )
    parser.add_argument(
        "--to", metavar="TARGET", action="append", default=[], help="one more target (repeatable)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would happen, and send nothing"
    )
    parser.add_argument(
        "--overwrite",
        choices=get_args(Overwrite),
        metavar="WHEN",
        help="never, if-different or always (default: as configured, if-different)",
    )
    parser.add_argument(
        "--rate-limit",
        metavar="RATE",
        type=bytes_per_second,
        help="send at most this many bytes a second, such as 10MB",
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the transfer; the exit code tells how it ended."""
    loaded = settings_for(arguments, {"transfer.overwrite": arguments.overwrite})
    sources, targets = _sources_and_targets(arguments.addresses, arguments.to)
    request = TransferRequest(
        sources=sources,
        targets=targets,
        overwrite=loaded.settings.transfer.overwrite,
        rate_limit_bytes_per_second=arguments.rate_limit,
    )
    return run_until_done(_cp(arguments, loaded, request))


def _sources_and_targets(
    addresses: Sequence[str], more_targets: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The last address is a target, unless it is the only one and ``--to`` names targets."""
    if len(addresses) == 1:
        if not more_targets:
            raise UsageError(
                f"{addresses[0]!r} stands alone, without a target",
                remedy="Write `castray cp SOURCE TARGET`, as in `castray cp ./file 'ml/*:/data/'`",
            )
        return (addresses[0],), tuple(more_targets)
    return tuple(addresses[:-1]), (addresses[-1], *more_targets)


async def _cp(
    arguments: argparse.Namespace, loaded: LoadedSettings, request: TransferRequest
) -> int:
    ascii_only = loaded.settings.ui.ascii
    async with engine_of(loaded.settings) as engine:
        await _connect_named(engine, loaded, request)
        if arguments.dry_run:
            plan = await engine.plan_transfer(request)
            _print_plan(plan, arguments.json, ascii_only)
            return plan_exit_code(plan)
        transfer = await engine.start_transfer(request)
        try:
            ended = await _until_ended(engine, transfer)
        except asyncio.CancelledError:
            print_message(f"castray: Interrupted; cancelling transfer {transfer.id}")
            await _cancel(engine, transfer, arguments.json, ascii_only)
            raise
    _print_transfer(ended, arguments.json, ascii_only)
    return EXIT_CODES[ended.state]


async def _cancel(engine: Engine, transfer: Transfer, as_json: bool, ascii_only: bool) -> None:
    """Cancels and prints how it ended; where no answer comes, closing the engine ends it anyway."""
    try:
        cancelled = await asyncio.wait_for(
            engine.cancel_transfer(transfer.id), _CANCEL_PATIENCE_SECONDS
        )
    except asyncio.TimeoutError:
        print_message(f"castray: No answer within {_CANCEL_PATIENCE_SECONDS:g} s")
    except CastrayError as error:
        print_message(f"castray: {error}")
    else:
        _print_transfer(cancelled, as_json, ascii_only)


async def _connect_named(engine: Engine, loaded: LoadedSettings, request: TransferRequest) -> None:
    """Connects to the clusters that the addresses name, and to no others.

    Raises:
        UnreachableError: No cluster is known by one of the names.
        ConnectError: A cluster that is named without wildcards cannot be connected to.
    """
    addresses = [parse_address(text) for text in (*request.sources, *request.targets)]
    patterns = dict.fromkeys(each.cluster_pattern for each in addresses if not each.is_local)
    if not patterns:
        return
    report = await engine.discover() if loaded.settings.external_cluster.enabled else None
    found = [cluster.name for cluster in report.clusters] if report is not None else []
    known = sorted({*found, *(cluster.name for cluster in loaded.settings.clusters)})
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        names = (
            [pattern]
            if pattern in known
            else [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        )
        if not names:
            raise UnreachableError(
                f"No cluster named {pattern!r} is found",
                remedy=nearest(pattern, known)
                + (f"Found are: {', '.join(known)}" if known else "See `castray doctor`"),
            )
        for name in names:
            chosen[name] = chosen.get(name, False) or name == pattern
    failed = await connect_to(engine, loaded, list(chosen))
    _refuse_if_needed(failed, chosen)
    await first_answers(engine, loaded.settings)


def _refuse_if_needed(failed: Sequence[Failure], chosen: dict[str, bool]) -> None:
    """A cluster named outright must answer; of those that a wildcard found, some must."""
    for failure in failed:
        if chosen[failure.address]:
            raise failure.error
    told.raise_if_nothing_is_left(failed, list(chosen))
    told.tell(failed)


async def _until_ended(engine: Engine, transfer: Transfer) -> Transfer:
    """Waits for the end, with a line of progress where standard error is a terminal."""
    if not sys.stderr.isatty():
        return await engine.wait_transfer(transfer.id)
    waiting = asyncio.ensure_future(engine.wait_transfer(transfer.id))
    showing = asyncio.ensure_future(_show_progress(engine, transfer.id))
    try:
        return await waiting
    finally:
        waiting.cancel()
        showing.cancel()
        await asyncio.gather(waiting, showing, return_exceptions=True)
        _write_over("")


async def _show_progress(engine: Engine, transfer_id: str) -> None:
    line = ProgressLine()
    while True:
        current = next((each for each in engine.fleet.transfers if each.id == transfer_id), None)
        if current is not None and current.state not in ENDED:
            width = shutil.get_terminal_size().columns - 1
            _write_over(line.text(current, time.monotonic(), width))
        await asyncio.sleep(_PROGRESS_INTERVAL_SECONDS)


def _write_over(text: str) -> None:
    """Replaces the progress line; spaces rather than escape sequences clear what was there."""
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write(f"\r{' ' * width}\r{text}")
    sys.stderr.flush()


def _print_transfer(transfer: Transfer, as_json: bool, ascii_only: bool) -> None:
    if as_json:
        print_json(transfer_json(transfer))
    else:
        print_table(
            TARGET_COLUMNS, [target_row(each) for each in transfer.targets], ascii_only=ascii_only
        )
        print_line(summary(transfer), ascii_only=ascii_only)
    if transfer.error is not None:
        print_message(f"castray: {transfer.error}", ascii_only=ascii_only)


def _print_plan(plan: TransferPlan, as_json: bool, ascii_only: bool) -> None:
    if as_json:
        print_json(plan_json(plan))
        return
    print_table(PLAN_COLUMNS, plan_rows(plan), ascii_only=ascii_only)
    for hop in plan.route:
        print_line(f"route {hop}", ascii_only=ascii_only)
