"""How long a folder of many small files takes to three nodes, against rsync and tar over ssh.

    python benchmarks/transfer_small_files.py [--files N] [--bytes N] [--rounds N] [--json FILE]

One host, four raylets, a folder of 10,000 files of 4 KiB in a hundred folders, in the page cache,
everything in turn in every round: castray to three nodes (agents running), ``rsync -a`` over ssh
to three folders one after the other, and ``tar | ssh tar`` to one. castray's time is from the order
to the last verdict; its files are hashed at both ends and synced then. Exits 1 where a goal was
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from lab import ssh_server
from lab.castray_runs import connected_engine, nodes_of, place, timed
from lab.ending import end_on_signals
from lab.figures import Figures
from lab.processes import castray_processes, cpu_seconds

from castray_tui.core.own_cluster import OwnCluster

FOLDERS = 100
TARGETS = 3
RSYNC_GOAL = 5.0
TAR_GOAL = 1.0


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=4096, help="size of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files lie (default: temporary)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="castray-", dir=arguments.folder) as folder:
        source = Path(folder) / "tree"
        make_tree(source, arguments.files, arguments.bytes)
        async with await OwnCluster.start(node_count=TARGETS + 1) as cluster:
            with contextlib.ExitStack() as stack:
                return await measure(arguments, stack, cluster, source)


def make_tree(folder: Path, files: int, size_bytes: int) -> None:
    """Many small files, evenly in some folders."""
    for number in range(FOLDERS):
        (folder / f"folder-{number}").mkdir(parents=True)
    for number in range(files):
        (folder / f"folder-{number % FOLDERS}" / f"file-{number}").write_bytes(
            os.urandom(size_bytes)
        )


async def measure(
    arguments: argparse.Namespace,
    stack: contextlib.ExitStack,
    cluster: OwnCluster,
    source: Path,
) -> int:
    """All rounds, and what they come to."""
    figures = Figures()
    targets = [source.with_name(f"target-{number}") for number in range(TARGETS)]
    cpu: list[float] = []
    async with connected_engine(
        {"lab": cluster.dashboard_address}, source.parent / "state"
    ) as engine:
        head, *others = nodes_of(engine, "lab")

        def castray_to(count: int) -> Callable[[], Awaitable[float]]:
            async def send() -> float:
                before = await cpu_of(cluster)
                addresses = [
                    place(node, f"{target}/")
                    for node, target in zip(others[:count], targets, strict=False)
                ]
                run = await timed(engine, place(head, source), *addresses)
                if count == TARGETS:
                    cpu.append(await cpu_of(cluster) - before)
                return run.seconds

            return send

        ways = {"castray to three": castray_to(TARGETS), "castray to one": castray_to(1)}
        reason = ssh_server.why_not("rsync", "tar")
        if reason is not None:
            print(f"without rsync and tar: {reason}")
        else:
            server = stack.enter_context(ssh_server.SshServer())
            ways["rsync to three in turn"] = rsync_to(server, source, targets)
            ways["tar | ssh tar to one"] = tar_to(server, source, targets[0])
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(arguments.rounds + 1):
            for name, way in ways.items():
                for target in targets:
                    target.mkdir()
                seconds = await way()
                made = sum(1 for target in targets if (target / source.name).exists())
                if made != (1 if name.endswith("one") else TARGETS):
                    raise RuntimeError(f"{name} made {made} trees")
                for target in targets:
                    if (target / source.name).exists():
                        same(source, target / source.name)
                    shutil.rmtree(target)
                if round_number:  # the first is for the caches, and for agents to start
                    times[name].append(seconds)
    medians = {name: figures.seconds(name, spent) for name, spent in times.items()}
    figures.tell("castray's CPU time to three, all processes", sum(cpu[1:]) / len(cpu[1:]), "s")
    mine = medians["castray to three"]
    if "rsync to three in turn" in medians:
        rsync, tar = medians["rsync to three in turn"], medians["tar | ssh tar to one"]
        figures.goal("rsync in turn / castray", rsync / mine, at_least=RSYNC_GOAL)
        figures.goal("tar to one / castray to three", tar / mine, at_least=TAR_GOAL)
        figures.tell("tar to one / castray to one", tar / medians["castray to one"])
    return figures.end(arguments.json)


def same(source: Path, target: Path) -> None:
    """Holds two trees against each other, contents, modes and times included."""
    done = subprocess.run(
        ["diff", "--recursive", "--no-dereference", str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{target} differs: {done.stdout[:300]}")


async def cpu_of(cluster: OwnCluster) -> float:
    """What castray's processes on the cluster have used so far, in seconds."""
    found = castray_processes(await cluster.process_ids())
    return sum(cpu_seconds(process.pid) for process in found)


def rsync_to(
    server: ssh_server.SshServer, source: Path, targets: list[Path]
) -> Callable[[], Awaitable[float]]:
    """The folder to each target, one after the other."""

    async def run() -> float:
        clock = time.monotonic()
        for target in targets:
            command = [*server.rsync(), str(source), f"{server.address}:{target}/"]
            await asyncio.to_thread(subprocess.run, command, check=True)
        return time.monotonic() - clock

    return run


def tar_to(
    server: ssh_server.SshServer, source: Path, target: Path
) -> Callable[[], Awaitable[float]]:
    """The folder to one target."""
    remote = shlex.join([*server.ssh(), server.address, f"tar -C {shlex.quote(str(target))} -xf -"])
    local = shlex.join(["tar", "-C", str(source.parent), "-cf", "-", source.name])

    async def run() -> float:
        clock = time.monotonic()
        await asyncio.to_thread(subprocess.run, ["sh", "-c", f"{local} | {remote}"], check=True)
        return time.monotonic() - clock

    return run


if __name__ == "__main__":
    end_on_signals()
    sys.exit(asyncio.run(main()))
