"""``castray nodes``: the nodes of the fleet, once or as they change."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass

from castray_tui.cli import failures as told
from castray_tui.cli.fleet_session import Failure, connect_to, engine_of, troubles
from castray_tui.cli.output import (
    Column,
    amount_text,
    percent_text,
    print_json,
    print_line,
    print_message,
    print_table,
    seconds_text,
)
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.models import Fleet, Node
from castray_tui.core.node_filter import NodeFilter, NodeOrder, parse_filter, parse_order
from castray_tui.core.wire_format import JsonObject, iso_time, nodes_json

_COLUMNS = [
    Column("NODE"),
    Column("STATE"),
    Column("ADDRESS"),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("DISK", right=True),
    Column("GPU", right=True),
    Column("CPUS", right=True),
    Column("GPUS", right=True),
    Column("SEEN", right=True),
    Column("REASON"),
]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which nodes are shown, and in which order."""

    nodes: NodeFilter
    order: NodeOrder

    def of(self, fleet: Fleet) -> list[Node]:
        return self.order.sort(self.nodes.select(fleet.nodes))


_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``castray nodes``."""
    parser.add_argument(
        "addresses",
        metavar="ADDR",
        nargs="*",
        help="addresses or names of clusters (default: all that are found and configured)",
    )
    parser.add_argument(
        "--watch", action="store_true", help="go on, and print again whenever something changed"
    )
    parser.add_argument(
        "--filter",
        metavar="TERMS",
        default="",
        help="only nodes for which all terms hold: text, !text, /regex/, state:dead, cluster:ml",
    )
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        default="cluster",
        help="cluster, node, state, address, host, cpu, memory, disk, free, gpu, net, store, cpus "
        "or seen; with - in front, in reverse",
    )


def run(arguments: argparse.Namespace) -> int:
    """Connects and prints the nodes."""
    choice = _Choice(parse_filter(arguments.filter), parse_order(arguments.sort))
    loaded = settings_for(arguments)
    return run_until_done(_nodes(arguments, loaded, choice))


async def _nodes(arguments: argparse.Namespace, loaded: LoadedSettings, choice: _Choice) -> int:
    ascii_only = loaded.settings.ui.ascii
    async with engine_of(loaded.settings) as engine:
        failed = await connect_to(engine, loaded, arguments.addresses)
        told.raise_if_nothing_is_left(failed, arguments.addresses)
        told.tell(failed)
        if arguments.watch:
            await _watch(engine, loaded, arguments, failed, choice)
        fleet = await engine.complete()
    for trouble in troubles(fleet.clusters):
        print_message(f"castray: {trouble}", ascii_only=ascii_only)
    nodes = choice.of(fleet)
    if arguments.json:
        print_json(_document(fleet, nodes, failed))
    else:
        _print_table(nodes, ascii_only)
    return told.exit_code_of(failed, arguments.addresses)


def _document(fleet: Fleet, nodes: list[Node], failed: list[Failure]) -> JsonObject:
    return {
        "nodes": list(nodes_json(nodes, fleet.clusters)),
        "count": len(nodes),
        "errors": told.failures_json(failed),
    }


async def _watch(
    engine: Engine,
    loaded: LoadedSettings,
    arguments: argparse.Namespace,
    failed: list[Failure],
    choice: _Choice,
) -> None:
    """Prints the nodes whenever they changed, at most once a poll; ends only by a signal."""
    settings = loaded.settings
    on_terminal = (
        sys.stdout.isatty() and not arguments.json and os.environ.get("TERM", "dumb") != "dumb"
    )
    discovering: asyncio.Task[object] | None = None
    interval = settings.external_cluster.discovery_interval
    next_discovery = time.monotonic() + interval
    last: list[Node] | None = None
    try:
        async for fleet in engine.changes():
            nodes = choice.of(fleet)
            if nodes != last:
                last = nodes
                if arguments.json:
                    print_json(
                        {"time": iso_time(fleet.time), **_document(fleet, nodes, failed)},
                        one_line=True,
                    )
                else:
                    print_line(
                        (_CLEAR_SCREEN if on_terminal else "") + (iso_time(fleet.time) or "")
                    )
                    _print_table(nodes, settings.ui.ascii)
                    print_line()
                    sys.stdout.flush()
            if not arguments.addresses and interval and time.monotonic() >= next_discovery:
                next_discovery = time.monotonic() + interval
                discovering = asyncio.ensure_future(engine.discover(connect=True))
            await asyncio.sleep(settings.external_cluster.poll_interval)
    finally:
        if discovering is not None:
            discovering.cancel()


def _print_table(nodes: list[Node], ascii_only: bool) -> None:
    rows = [_row(node) for node in nodes]
    # A column in which nothing is known takes room from those in which something is.
    shown = [
        index
        for index in range(len(_COLUMNS))
        if index < 3 or any(row[index] not in {"-", ""} for row in rows)
    ]
    print_table(
        [_COLUMNS[index] for index in shown],
        [[row[index] for index in shown] for row in rows],
        ascii_only=ascii_only,
    )


def _row(node: Node) -> list[str]:
    hardware = node.hardware
    disk = hardware.main_disk if hardware is not None else None
    disk_percent = (
        100.0 * disk.used_bytes / disk.total_bytes
        if disk is not None and disk.total_bytes and disk.used_bytes is not None
        else None
    )
    loads = [
        gpu.utilization_percent
        for gpu in (hardware.gpus if hardware is not None else ())
        if gpu.utilization_percent is not None
    ]
    age = None if node.last_seen is None else max(0.0, time.time() - node.last_seen)
    return [
        node.name if node.is_local else f"{node.cluster}/{node.name}",
        node.status,
        node.address or "-",
        percent_text(hardware.cpu_percent if hardware is not None else None),
        percent_text(hardware.memory_percent if hardware is not None else None),
        percent_text(disk_percent),
        percent_text(sum(loads) / len(loads) if loads else None),
        _used_of_total(node, "CPU"),
        _used_of_total(node, "GPU"),
        seconds_text(age),
        node.reason or "",
    ]


def _used_of_total(node: Node, resource: str) -> str:
    total = node.resources_total.get(resource)
    if total is None:
        return "-"
    if node.resources_used is None:
        return amount_text(total)
    return f"{amount_text(node.resources_used.get(resource, 0.0))}/{amount_text(total)}"
