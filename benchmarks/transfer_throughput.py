"""How fast one file gets from a node to another node of the same host, against what else does it.

    python benchmarks/transfer_throughput.py [--mib N] [--rounds N] [--folder F] [--json FILE]

One cluster of two raylets, a file in the page cache, everything in turn in every round: castray
with its agents running, ``cp``, ``cp`` and ``sha256sum`` of both files, ``scp`` and ``rsync``
through an SSH server of this script's own, and actors that move the file through Ray's object store
with the same digests. castray's time is from the order to the last verdict; the target is synced
then, which ``cp``, ``scp`` and ``rsync`` leave out. Prints medians, castray's throughput as a
multiple of each, and the CPU time that castray's processes took; exits 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from lab import ssh_server
from lab.castray_runs import connected_engine, nodes_of, place, timed
from lab.ending import end_on_signals
from lab.figures import GIB, MIB, Figures, write_random
from lab.processes import castray_processes, cpu_seconds

from castray_tui.core.models import Node
from castray_tui.core.own_cluster import OwnCluster

GOALS = {"cp": 0.6, "scp": 3.0, "cp, sha256sum of both": 3.0, "Ray's object store": 2.0}


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files lie (default: temporary)")
    parser.add_argument(
        "--rest",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="wait before each, so that each gets equally fresh memory (see docs/benchmarks.md)",
    )
    parser.add_argument("--only-castray", action="store_true", help="no rivals but cp")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="castray-", dir=arguments.folder) as folder:
        source = Path(folder) / "source.bin"
        write_random(source, arguments.mib * MIB)
        async with await OwnCluster.start(node_count=2) as cluster:
            # The rivals end before the cluster does.
            with contextlib.ExitStack() as stack:
                return await measure(arguments, stack, cluster, source)


async def measure(
    arguments: argparse.Namespace,
    stack: contextlib.ExitStack,
    cluster: OwnCluster,
    source: Path,
) -> int:
    """All rounds, and what they come to."""
    figures = Figures()
    target = source.with_name("target.bin")
    size_bytes = arguments.mib * MIB
    digest = await asyncio.to_thread(sha256_of, source)
    rows: list[float] = []
    cpu: dict[str, list[float]] = {"source": [], "target": [], "coordinator": []}
    async with connected_engine(
        {"lab": cluster.dashboard_address}, source.parent / "state"
    ) as engine:
        head, worker = nodes_of(engine, "lab")

        async def castray() -> float:
            agents = castray_processes(await cluster.process_ids())
            before = {agent: cpu_seconds(agent.pid) for agent in agents}
            run = await timed(engine, place(head, source), place(worker, target))
            if before:
                roles = {head.node_id: "source", worker.node_id: "target", None: "coordinator"}
                for agent, spent in before.items():
                    cpu[roles[agent.node_id]].append(cpu_seconds(agent.pid) - spent)
                rows.append(run.row_seconds[0])
            if run.transfer.targets[0].digest != f"sha256:{digest}":
                raise RuntimeError(f"a wrong digest: {run.transfer.targets[0].digest}")
            return run.seconds

        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "castray": castray,
            "cp": command(["cp", str(source), str(target)]),
        }
        if not arguments.only_castray:
            ways |= rivals(stack, cluster, source, target, (head, worker))
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(arguments.rounds + 1):
            for name, way in ways.items():
                await asyncio.sleep(arguments.rest)
                seconds = await way()
                if round_number == 0 and await asyncio.to_thread(sha256_of, target) != digest:
                    raise RuntimeError(f"{name} did not make the same file")
                await asyncio.to_thread(target.unlink)
                if round_number:  # the first is for the caches, and for agents to start
                    times[name].append(seconds)
    medians = {
        name: figures.seconds(name, spent, size_bytes=size_bytes) for name, spent in times.items()
    }
    figures.seconds("castray, the target's row", rows, size_bytes=size_bytes)
    for role, spent in cpu.items():
        seconds = statistics.median(spent) * GIB / size_bytes
        figures.tell(f"CPU time a GiB, {role}", seconds, "s")
    for name, goal in GOALS.items():
        if name in medians:
            figures.goal(f"throughput / {name}", medians[name] / medians["castray"], at_least=goal)
    if "rsync" in medians:
        figures.tell("throughput / rsync", medians["rsync"] / medians["castray"])
    return figures.end(arguments.json)


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(16 * MIB):
            digest.update(block)
        return digest.hexdigest()


def rivals(
    stack: contextlib.ExitStack,
    cluster: OwnCluster,
    source: Path,
    target: Path,
    nodes: tuple[Node, Node],
) -> dict[str, Callable[[], Awaitable[float]]]:
    """What else moves the file, as far as it is there."""
    both = f"cp {source} {target} && sha256sum {source} {target}"
    ways = {"cp, sha256sum of both": command(["sh", "-c", both])}
    mover = stack.enter_context(object_store_mover(cluster, nodes))

    async def through_object_store() -> float:
        return await asyncio.to_thread(mover, source, target)

    ways["Ray's object store"] = through_object_store
    reason = ssh_server.why_not("scp")
    if reason is not None:
        print(f"without scp and rsync: {reason}")
        return ways
    server = stack.enter_context(ssh_server.SshServer())
    there = f"{server.address}:{target}"
    ways["scp"] = command([*server.scp(), str(source), there])
    if ssh_server.why_not("rsync") is None:
        ways["rsync"] = command([*server.rsync(), str(source), there])
    return ways


def command(words: list[str]) -> Callable[[], Awaitable[float]]:
    """A way to move the file: a program, and how long it takes."""

    async def run() -> float:
        clock = time.monotonic()
        await asyncio.to_thread(subprocess.run, words, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - clock

    return run


@contextlib.contextmanager
def object_store_mover(
    cluster: OwnCluster, nodes: tuple[Node, Node]
) -> Iterator[Callable[[Path, Path], float]]:
    """Moves files through Ray's object store, from the first node to the second."""
    program = Path(__file__).with_name("lab") / "object_store_mover.py"
    process = subprocess.Popen(
        [cluster.python, str(program), cluster.gcs_address, *(node.node_id for node in nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    feed, answers = process.stdin, process.stdout

    def move(source: Path, target: Path) -> float:
        feed.write(json.dumps([str(source), str(target)]) + "\n")
        feed.flush()
        answer = json.loads(answers.readline())
        if not answer["is_same"]:
            raise RuntimeError("the object store's digests differ")
        return float(answer["seconds"])

    try:
        yield move
    finally:
        feed.close()
        process.wait(30)
        answers.close()


if __name__ == "__main__":
    end_on_signals()
    sys.exit(asyncio.run(main()))
