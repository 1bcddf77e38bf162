"""How long one file takes to one, three and seven hosts, over links of 400 Mbit/s each way.

    python benchmarks/transfer_hosts.py [--mib N] [--rounds N] [--mbit N] [--json FILE]

Eight hosts (network namespaces on a bridge, links shaped by token buckets at both ends), first as
one cluster of eight, then as two of four; castray runs beside them and is a hop of nothing. Against
it, ``scp`` from the source's host to each of the seven in turn. Times are from the order to the
last verdict. Prints each target's share of the link; exits 1 where a goal was missed. Needs root on
Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lab import hosts, ssh_server
from lab.castray_runs import Timed, connected_engine, nodes_of, place, timed
from lab.ending import end_on_signals
from lab.figures import MIB, Figures, write_random
from lab.hosts import Host, HostCluster, HostLab
from lab.processes import castray_processes, cpu_seconds

from castray_tui.core.engine import Engine
from castray_tui.core.models import Node

COUNTS = (1, 3, 7)
SHARE_GOAL = 0.9
RATIO_GOAL = 1.15


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512, help="size of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbit", type=float, default=400.0, help="what a link carries each way")
    parser.add_argument("--layout", choices=("one", "two", "both"), default="both")
    parser.add_argument("--no-scp", action="store_true", help="castray alone")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    reason = hosts.why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    figures = Figures()
    layouts = {"one": {"one": 8}, "two": {"left": 4, "right": 4}}
    with (
        tempfile.TemporaryDirectory(prefix="castray-") as folder,
        HostLab(8, arguments.mbit * 1e6) as lab,
    ):
        source = Path(folder) / "source.bin"
        write_random(source, arguments.mib * MIB)
        for name, clusters in layouts.items():
            if arguments.layout in (name, "both"):
                print(f"{len(clusters)} clusters, {8 // len(clusters)} hosts each")
                await measure_layout(arguments, figures, lab, clusters, source)
        if not arguments.no_scp:
            scp_in_turn(figures, lab.hosts, source)
    return figures.end(arguments.json)


async def measure_layout(
    arguments: argparse.Namespace,
    figures: Figures,
    lab: HostLab,
    sizes: dict[str, int],
    source: Path,
) -> None:
    """All rounds over clusters of some sizes."""
    with contextlib.ExitStack() as stack:
        clusters: dict[str, HostCluster] = {}
        left = list(lab.hosts)
        for name, size in sizes.items():
            cluster = await asyncio.to_thread(HostCluster.start, left[:size])
            clusters[name] = stack.enter_context(cluster)
            left = left[size:]
        addresses = {name: cluster.dashboard_address for name, cluster in clusters.items()}
        async with connected_engine(addresses, source.parent / "state") as engine:
            nodes = [nodes_of(engine, name) for name in clusters]
            first = nodes[0].pop(0)
            # From each cluster in turn, so that few targets are spread over both too.
            targets = [node for row in zip(*nodes, strict=False) for node in row]
            targets += [node for row in nodes for node in row if node not in targets]
            if len(targets) != max(COUNTS):
                raise RuntimeError(f"{len(targets)} targets where {max(COUNTS)} were started")
            await measure_counts(arguments, figures, engine, lab, first, targets, source)


async def measure_counts(
    arguments: argparse.Namespace,
    figures: Figures,
    engine: Engine,
    lab: HostLab,
    first: Node,
    targets: Sequence[Node],
    source: Path,
) -> None:
    """All rounds over some targets."""
    size_bytes = arguments.mib * MIB
    link_bytes_per_second = arguments.mbit * 1e6 / 8
    runs: dict[int, list[Timed]] = {count: [] for count in COUNTS}
    cpu: dict[int, list[float]] = {count: [] for count in COUNTS}
    await send(engine, first, targets, source)  # agents start
    for _ in range(arguments.rounds):
        for count in COUNTS:
            before = cpu_of(lab.hosts)
            runs[count].append(await send(engine, first, targets[:count], source))
            cpu[count].append(cpu_of(lab.hosts) - before)
    label = f"{len({node.cluster for node in (first, *targets)})} clusters"
    medians = {}
    for count, done in runs.items():
        name = f"{label}, to {count}"
        medians[count] = figures.seconds(name, [run.seconds for run in done], size_bytes=size_bytes)
        share = statistics.median(size_bytes / run.seconds / link_bytes_per_second for run in done)
        figures.goal(f"{name}: share of the link", share, at_least=SHARE_GOAL)
        worst = max(
            statistics.median(row) for row in zip(*(r.row_seconds for r in done), strict=True)
        )
        figures.tell(f"{name}: slowest row's share", size_bytes / worst / link_bytes_per_second)
        figures.tell(f"{name}: CPU time of agents", statistics.median(cpu[count]), "s")
        for hop in done[-1].transfer.route:
            print(f"  {hop}")
    figures.goal(f"{label}: time for 7 / time for 1", medians[7] / medians[1], at_most=RATIO_GOAL)


async def send(engine: Engine, first: Node, targets: Sequence[Node], source: Path) -> Timed:
    """Sends the file to some nodes, looks at what came, and removes it."""
    folders = [source.parent / f"target-{number}" for number in range(len(targets))]
    addresses = [place(node, f"{folder}/") for node, folder in zip(targets, folders, strict=True)]
    run = await timed(engine, place(first, source), *addresses)
    for folder in folders:
        subprocess.run(["cmp", str(source), str(folder / source.name)], check=True)
        (folder / source.name).unlink()
    return run


def cpu_of(places: Sequence[Host]) -> float:
    """What castray's processes on some hosts have used so far, in seconds."""
    pids = [pid for host in places for pid in host.process_ids()]
    return sum(cpu_seconds(process.pid) for process in castray_processes(pids))


def scp_in_turn(figures: Figures, places: Sequence[Host], source: Path) -> None:
    """What one has without castray: the first host sends to each of the others, one by one."""
    reason = ssh_server.why_not("scp")
    if reason is not None:
        print(f"without scp: {reason}")
        return
    first, *others = places
    clock = 0.0
    for number, host in enumerate(others, start=1):
        target = source.with_name("scp.bin")
        with ssh_server.SshServer(host.address, host.command()) as server:
            command = [*server.scp(), str(source), f"{host.address}:{target}"]
            started = time.monotonic()
            subprocess.run(first.command(*command), check=True)
            clock += time.monotonic() - started
        target.unlink()
        if number in COUNTS:
            figures.tell(f"scp to {number} in turn", clock, "s")
            key = f"1 clusters, to {number}"
            if key in figures.values:
                figures.tell(f"scp / castray, to {number}", clock / figures.values[key]["seconds"])


if __name__ == "__main__":
    end_on_signals()
    sys.exit(asyncio.run(main()))
