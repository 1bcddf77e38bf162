"""``castray discover``: the clusters that can be found from here.

Discovery is called without the engine, and what only people need is imported only for them: this
command is asked for by scripts, many times.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from castray_tui.cli.arguments import comma_list, port_range, positive_seconds
from castray_tui.cli.settings import settings_for
from castray_tui.core.models import DiscoveredCluster, DiscoveryReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``castray discover``."""
    parser.add_argument(
        "--methods",
        metavar="LIST",
        type=comma_list,
        help="ways of finding clusters, with commas: ray_status, process_scan, dashboard_scan, "
        "temp_dir (default: as configured)",
    )
    parser.add_argument(
        "--ports", metavar="A-B", type=port_range, help="dashboard ports that are tried"
    )
    parser.add_argument(
        "--host",
        metavar="H",
        action="append",
        help="try the dashboard ports of this host too (repeatable)",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        help="seconds that the whole discovery may take",
    )


def run(arguments: argparse.Namespace) -> int:
    """Finds clusters and prints them; 0 also where there are none."""
    loaded = settings_for(arguments, _overrides(arguments))
    external = loaded.settings.external_cluster
    if external.enabled:
        from castray_tui.cli.running import run_until_done  # noqa: PLC0415  # imports asyncio

        reports: list[DiscoveryReport] = []

        async def discover_once() -> int:
            from castray_tui.core.discovery.run import (  # noqa: PLC0415
                DiscoveryRequest,
                discover,
            )

            request = DiscoveryRequest(
                methods=external.discovery_methods,
                ports=external.port_scan_range,
                hosts=external.hosts,
                timeout_seconds=external.discovery_timeout,
                known=loaded.settings.clusters,
                ray_address=os.environ.get("RAY_ADDRESS"),
            )
            reports.append(await discover(request))
            return 0

        code = run_until_done(discover_once())
        if code:
            return code
        report = reports[0]
    else:
        from castray_tui.cli.output import print_message  # noqa: PLC0415

        where = loaded.origins["external_cluster.enabled"]
        print_message(
            f"castray: external_cluster.enabled is false ({where}); nothing is looked for"
        )
        report = DiscoveryReport()
    _print(report, as_json=arguments.json, ascii_only=loaded.settings.ui.ascii)
    return 0


def _overrides(arguments: argparse.Namespace) -> Mapping[str, object]:
    return {
        "external_cluster.discovery_methods": arguments.methods,
        "external_cluster.port_scan_range": (
            None if arguments.ports is None else list(arguments.ports)
        ),
        "external_cluster.hosts": arguments.host,
        "external_cluster.discovery_timeout": arguments.timeout,
    }


def _print(report: DiscoveryReport, *, as_json: bool, ascii_only: bool) -> None:
    from castray_tui.cli.output import print_json, print_line, print_message  # noqa: PLC0415

    if as_json:
        from castray_tui.core.wire_format import discovery_json  # noqa: PLC0415

        print_json(discovery_json(report))
        return
    for outcome in report.methods:
        if outcome.error is not None:
            print_message(f"castray: {outcome.method}: {outcome.error}", ascii_only=ascii_only)
    for service in report.foreign:
        print_message(
            f"castray: {service.address} is no Ray dashboard: {service.what}",
            ascii_only=ascii_only,
        )
    if not report.clusters:
        print_message(
            "castray: No Ray cluster was found. `castray doctor` says where castray looked"
        )
        return
    _print_table(report.clusters, ascii_only)
    count = len(report.clusters)
    print_line(
        f"{count} cluster{'' if count == 1 else 's'} in {report.seconds * 1000:.0f} ms",
        ascii_only=ascii_only,
    )


def _print_table(clusters: tuple[DiscoveredCluster, ...], ascii_only: bool) -> None:
    from castray_tui.cli.output import Column, print_message, print_table  # noqa: PLC0415

    columns = [
        Column("CLUSTER"),
        Column("RAY"),
        Column("NODES", right=True),
        Column("DASHBOARD"),
        Column("GCS"),
        Column("FOUND BY"),
    ]
    rows = [
        [
            cluster.name,
            cluster.ray_version or "-",
            "-" if cluster.node_count is None else str(cluster.node_count),
            cluster.dashboard_url or "-",
            cluster.gcs_address or "-",
            ", ".join(cluster.sources),
        ]
        for cluster in clusters
    ]
    print_table(columns, rows, ascii_only=ascii_only)
    for cluster in clusters:
        notes = list(cluster.notes)
        if cluster.needs_token:
            notes.append("wants a token; `castray doctor` says whether there is one for it")
        if cluster.owned_by_me is False and cluster.owner is not None:
            notes.append(f"belongs to the user {cluster.owner}")
        for note in notes:
            print_message(f"castray: {cluster.name}: {note}", ascii_only=ascii_only)
