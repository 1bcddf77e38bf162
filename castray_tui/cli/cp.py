"""``castray cp``: sends files and folders to nodes, gets them, or moves them between nodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from castray_tui.cli.arguments import bytes_per_second, complete_files, positive_count
from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.following import follow_or_cancel, print_route, print_transfer
from castray_tui.cli.output import print_json, print_line, print_table
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.cli.transfer_clusters import connect_named
from castray_tui.cli.transfer_text import (
    EXIT_CODES,
    PLAN_COLUMNS,
    plan_exit_code,
    plan_rows,
    plan_summary,
)
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.errors import UsageError
from castray_tui.core.models import LinkPolicy, Overwrite, TransferPlan, TransferRequest
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.wire_format import plan_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``castray cp``."""
    addresses = parser.add_argument(
        "addresses",
        metavar="SOURCE... TARGET",
        nargs="+",
        help="a path here, or CLUSTER/NODE:PATH; the last one is the target. Wildcards name "
        "several nodes ('ml/*:/data/'); a path that ends in / is a folder to put the source into",
    )
    complete_files(addresses)
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
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave this out of folders, such as '*.log' or '.git/' (repeatable)",
    )
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="send this even where --exclude leaves it out (repeatable)",
    )
    parser.add_argument(
        "--links",
        choices=get_args(LinkPolicy),
        metavar="HOW",
        default="keep",
        help="symbolic links in folders: keep (default), follow or refuse",
    )
    parser.add_argument(
        "--delete",
        action="store_true",
        help="remove from folders what their source does not have, once all is there",
    )
    parser.add_argument(
        "--rate-limit",
        metavar="RATE",
        type=bytes_per_second,
        help="send at most this many bytes a second in all, such as 10MB; 0 for no limit",
    )
    parser.add_argument(
        "--link-rate-limit",
        metavar="RATE",
        type=bytes_per_second,
        help="send at most this many bytes a second from one node to another; 0 for no limit",
    )
    parser.add_argument(
        "--streams",
        metavar="N",
        type=positive_count,
        help="nodes that one node may send to at the same time (default: as configured, 4)",
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="go on in the background once it is planned, also without this terminal",
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the transfer; the exit code tells how it ended."""
    loaded = settings_of(arguments)
    request = request_of(arguments, loaded)
    if arguments.detach and not arguments.dry_run:
        # Only where it is asked for.
        from castray_tui.cli.detaching import detach  # noqa: PLC0415
        from castray_tui.log_file import log_path  # noqa: PLC0415

        return detach(arguments, log_path(loaded.settings))
    return run_until_done(_cp(arguments, loaded, request))


def settings_of(arguments: argparse.Namespace) -> LoadedSettings:
    """The settings with what the options of ``castray cp`` say."""
    return settings_for(
        arguments,
        {
            "transfer.overwrite": arguments.overwrite,
            "transfer.rate_limit": _text(arguments.rate_limit),
            "transfer.link_rate_limit": _text(arguments.link_rate_limit),
            "transfer.streams": _text(arguments.streams),
        },
    )


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def request_of(arguments: argparse.Namespace, loaded: LoadedSettings) -> TransferRequest:
    """What is asked for.

    Raises:
        UsageError: There is no target.
        AddressError: Something among the addresses is none.
    """
    sources, targets = _sources_and_targets(arguments.addresses, arguments.to)
    for address in (*sources, *targets):
        parse_address(address)
    return TransferRequest(
        sources=sources,
        targets=targets,
        overwrite=loaded.settings.transfer.overwrite,
        rate_limit_bytes_per_second=arguments.rate_limit,
        include=tuple(arguments.include),
        exclude=tuple(arguments.exclude),
        links=arguments.links,
        link_rate_limit_bytes_per_second=arguments.link_rate_limit,
        streams=arguments.streams,
        delete=arguments.delete,
    )


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
    ui = loaded.settings.ui
    async with engine_of(loaded.settings, for_transfer=True) as engine:
        await connect_named(engine, loaded, (*request.sources, *request.targets))
        if arguments.dry_run:
            plan = await engine.plan_transfer(request)
            _print_plan(plan, arguments.json, ui.ascii)
            return plan_exit_code(plan)
        transfer = await engine.start_transfer(request)
        ended = await follow_or_cancel(engine, transfer.id, ui, as_json=arguments.json)
    print_transfer(ended, as_json=arguments.json, ascii_only=ui.ascii)
    return EXIT_CODES[ended.state]


def _print_plan(plan: TransferPlan, as_json: bool, ascii_only: bool) -> None:
    if as_json:
        print_json(plan_json(plan))
        return
    print_route(plan.route, None, ascii_only)
    print_table(PLAN_COLUMNS, plan_rows(plan), ascii_only=ascii_only)
    print_line(f"dry run: {plan_summary(plan)}", ascii_only=ascii_only)
