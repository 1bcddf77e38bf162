"""``castray status``: the clusters in reach and what they add up to."""

from __future__ import annotations

import argparse

from castray_tui.cli import failures as told
from castray_tui.cli.fleet_session import Failure, connect_to, engine_of, found_nothing, troubles
from castray_tui.cli.output import (
    Column,
    amount_text,
    bytes_text,
    print_json,
    print_line,
    print_message,
    print_table,
)
from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.models import Cluster, Fleet
from castray_tui.core.wire_format import cluster_json, totals_json

_COLUMNS = [
    Column("CLUSTER"),
    Column("STATE"),
    Column("RAY"),
    Column("NODES", right=True),
    Column("CPU", right=True),
    Column("GPU", right=True),
    Column("MEMORY", right=True),
    Column("OBJECT STORE", right=True),
    Column("ADDRESS"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``castray status``."""
    parser.add_argument(
        "addresses",
        metavar="ADDR",
        nargs="*",
        help="addresses or names of clusters (default: all that are found and configured)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Connects, prints clusters and totals, and disconnects."""
    return run_until_done(_status(arguments, settings_for(arguments)))


async def _status(arguments: argparse.Namespace, loaded: LoadedSettings) -> int:
    async with engine_of(loaded.settings) as engine:
        failed = await connect_to(engine, loaded, arguments.addresses)
        told.raise_if_nothing_is_left(failed, arguments.addresses)
        fleet = await engine.complete()
    if arguments.json:
        print_json(
            {
                "clusters": [cluster_json(cluster) for cluster in fleet.clusters],
                "totals": totals_json(fleet),
                "errors": told.failures_json(failed),
            }
        )
    else:
        _print(fleet, failed, loaded.settings.ui.ascii)
    return told.exit_code_of(failed, arguments.addresses)


def _print(fleet: Fleet, failed: list[Failure], ascii_only: bool) -> None:
    told.tell(failed)
    for trouble in troubles(fleet.clusters):
        print_message(f"castray: {trouble}", ascii_only=ascii_only)
    if not fleet.clusters:
        if not failed and found_nothing(fleet.last_report):
            print_message(
                "castray: No Ray cluster was found. `castray doctor` says where castray looked"
            )
        return
    print_table(_COLUMNS, [_row(cluster) for cluster in fleet.clusters], ascii_only=ascii_only)
    totals = totals_json(fleet)
    print_line(
        f"{_count(totals['clusters'], 'cluster')}, {totals['nodes_alive']} of "
        f"{_count(totals['nodes'], 'node')} alive",
        ascii_only=ascii_only,
    )


def _row(cluster: Cluster) -> list[str]:
    alive, known = cluster.alive_count, cluster.node_count
    nodes = "-" if known is None else str(known) if alive == known else f"{alive}/{known}"
    address = cluster.dashboard_url or cluster.gcs_address or cluster.address
    return [
        cluster.name,
        cluster.state,
        cluster.ray_version or "-",
        nodes,
        _used_of_total(cluster, "CPU"),
        _used_of_total(cluster, "GPU"),
        _bytes_of_total(cluster, "memory"),
        _bytes_of_total(cluster, "object_store_memory"),
        address,
    ]


def _used_of_total(cluster: Cluster, resource: str) -> str:
    total = cluster.resources_total.get(resource)
    if total is None:
        return "-"
    if cluster.resources_used is None:
        return amount_text(total)
    return f"{amount_text(cluster.resources_used.get(resource, 0.0))}/{amount_text(total)}"


def _bytes_of_total(cluster: Cluster, resource: str) -> str:
    total = cluster.resources_total.get(resource)
    if total is None:
        return "-"
    if cluster.resources_used is None:
        return bytes_text(total)
    return f"{bytes_text(cluster.resources_used.get(resource, 0.0))}/{bytes_text(total)}"


def _count(number: object, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
