"""What agents cost: memory while files pass, processor time when idle, time to the first byte.

    python benchmarks/agent_footprint.py [--gib N ...] [--idle-seconds N] [--json FILE]

One cluster of three raylets, the first the source, the others its targets, in a chain.

- Memory above idle: ``RssAnon`` of ``/proc/PID/status`` of every agent and of the coordinator,
  every 20 ms while a file passes, less what it was before the first transfer. That leaves out pages
  of files, which belong to the kernel's cache, and the shared memory of Ray's object store. The
  files: one of random bytes, and one that is sparse (a hole with data at both ends).
- Idle: processor time of every process over 30 s after a transfer, with castray connected. An actor
  that does nothing is measured beside it, as Ray's own part.
- Gone: how long after the idle time of 3 s the processes are there, castray having been killed.
- First byte: from the order to the first byte in the target's file, by looking at the agent's open
  files every few ms; with no agent anywhere, and with agents running; by the engine, as a key press
  does, and by ``castray cp`` from the start of its process (once with no castray about, once beside
  one that runs, whose agents it takes up).

Exits 1 where a goal was missed. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from lab.castray_runs import connected_engine, nodes_of, place, timed
from lab.ending import end_on_signals
from lab.figures import GIB, MIB, Figures, write_random
from lab.processes import (
    CastrayProcess,
    castray_processes,
    cpu_seconds,
    own_memory_bytes,
    with_descendants,
)

from castray_tui.core.engine import Engine
from castray_tui.core.models import Node, TransferRequest
from castray_tui.core.own_cluster import OwnCluster

MEMORY_GOAL_MIB = 64.0
IDLE_GOAL_PERCENT = 0.5
COLD_GOAL_SECONDS = 4.0
WARM_GOAL_SECONDS = 0.3
IDLE_TIME_SECONDS = 3.0
LOOK_SECONDS = 0.002
SAMPLE_SECONDS = 0.02
FIRST_BYTE_MIB = 512
GONE_GOAL_SECONDS = 15.0
"""After the idle time: Ray looks after ended drivers once a second, and takes its time."""

IDLE_ACTOR = """
import os, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
@ray.remote(num_cpus=0)
class Idle:
    def pid(self):
        return os.getpid()
actor = Idle.remote()
print(ray.get(actor.pid.remote()), flush=True)
sys.stdin.read()
"""


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="size of the file of random bytes")
    parser.add_argument("--sparse-gib", type=float, default=4.0, help="size of the sparse file")
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=5, help="of what is timed with agents running")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        print("skipped: it reads Linux's /proc")
        return 0
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="castray-") as name:
        folder = Path(name)
        async with await OwnCluster.start(node_count=3) as cluster:
            await measure_first_bytes(arguments, figures, cluster, folder)
            address = {"lab": cluster.dashboard_address}
            async with connected_engine(address, folder / "state") as engine:
                await measure_memory(arguments, figures, cluster, engine, folder)
                await measure_idle(arguments, figures, cluster)
            await until_gone(cluster, 60.0)
            await measure_going(figures, cluster, folder)
    return figures.end(arguments.json)


# --- memory -----------------------------------------------------------------------------------


class Memory:
    """The highest own memory of some processes, by looking often; a context manager."""

    def __init__(self, processes: Sequence[CastrayProcess]) -> None:
        self.peaks = {process.pid: 0 for process in processes}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for pid in self.peaks:
                with contextlib.suppress(OSError):
                    now = sum(own_memory_bytes(each) for each in with_descendants(pid))
                    self.peaks[pid] = max(self.peaks[pid], now)


async def measure_memory(
    arguments: argparse.Namespace,
    figures: Figures,
    cluster: OwnCluster,
    engine: Engine,
    folder: Path,
) -> None:
    """Sends large files and looks at what every process needs meanwhile."""
    head, *others = nodes_of(engine, "lab")
    large, sparse = folder / "large.bin", folder / "sparse.bin"
    write_random(large, int(arguments.gib * GIB))
    make_sparse(sparse, int(arguments.sparse_gib * GIB))
    targets = [folder / f"target-{number}" for number in range(len(others))]
    addresses = [place(node, f"{path}/") for node, path in zip(others, targets, strict=True)]
    # Planned, not sent: the agents are there and have moved nothing yet.
    await engine.plan_transfer(TransferRequest((place(head, large),), tuple(addresses)))
    processes = castray_processes(await cluster.process_ids())
    idle = {process.pid: own_memory_bytes(process.pid) for process in processes}
    for source in (large, sparse):
        with Memory(processes) as memory:
            run = await timed(engine, place(head, source), *addresses)
        size_gib = source.stat().st_size / GIB
        for process in processes:
            above = (memory.peaks[process.pid] - idle[process.pid]) / MIB
            what = "coordinator" if process.node_id is None else "relay or target"
            if process.node_id == head.node_id:
                what = "source"
            name = f"{source.stem} {size_gib:g} GiB, {what} {process.pid}: above idle"
            figures.goal(name, above, at_most=MEMORY_GOAL_MIB, unit="MiB")
        figures.tell(f"{source.stem} {size_gib:g} GiB: transfer", run.seconds, "s")
        for target in targets:
            made = target / source.name
            figures.tell(
                f"{source.stem}: disk use of a target", made.stat().st_blocks / 2048, "MiB"
            )
            made.unlink()
        source.unlink()
    for process in processes:
        figures.tell(f"idle size of {process.pid}", idle[process.pid] / MIB, "MiB")


def make_sparse(path: Path, size_bytes: int) -> None:
    """A file that is a hole with a MiB of data at both ends."""
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(size_bytes - MIB)
        file.write(os.urandom(MIB))


# --- idle -------------------------------------------------------------------------------------


async def measure_idle(
    arguments: argparse.Namespace, figures: Figures, cluster: OwnCluster
) -> None:
    """Looks at processor time while nothing is to be done."""
    bare = subprocess.Popen(
        [cluster.python, "-c", IDLE_ACTOR, cluster.gcs_address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare_pid = int(bare.stdout.readline())
    processes = castray_processes(await cluster.process_ids())
    before = {pid: cpu_seconds(pid) for pid in (bare_pid, *(each.pid for each in processes))}
    await asyncio.sleep(arguments.idle_seconds)
    percent = {
        pid: 100 * (cpu_seconds(pid) - spent) / arguments.idle_seconds
        for pid, spent in before.items()
    }
    figures.tell("an actor of Ray's that does nothing", percent[bare_pid], "% of a core")
    for process in processes:
        what = "coordinator" if process.node_id is None else "agent"
        if process.node_id is None:
            figures.tell(f"idle {what} {process.pid}", percent[process.pid], "% of a core")
        else:
            name = f"idle {what} {process.pid}"
            figures.goal(name, percent[process.pid], at_most=IDLE_GOAL_PERCENT, unit="% of a core")
    bare.stdin.close()
    bare.wait()
    bare.stdout.close()


async def measure_going(figures: Figures, cluster: OwnCluster, folder: Path) -> None:
    """Kills a castray that has agents, and waits until they are gone."""
    source = folder / "small.bin"
    write_random(source, MIB)
    command, environment = castray_command(cluster, folder)
    environment["CASTRAY_TRANSFER_AGENT_IDLE_TIME"] = f"{IDLE_TIME_SECONDS:g}"
    # At this rate it would take a minute: castray is killed amid it, and the transfer goes on.
    source_node = (await node_ids(cluster, folder))[0]
    castray = subprocess.Popen(
        [*command, f"lab/{source_node}:{source}", f"lab/*:{folder}/gone/", "--rate-limit", "100kB"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not castray_processes(await cluster.process_ids()):
        if time.monotonic() > deadline:
            raise RuntimeError("no agent appeared")
        await asyncio.sleep(0.1)
    await asyncio.sleep(2.0)  # until all agents are there and bytes flow
    castray.send_signal(signal.SIGKILL)
    castray.wait()
    await until_bytes_stop(cluster, folder / "gone" / source.name)
    clock = time.monotonic()
    await until_gone(cluster, 60.0)
    after = time.monotonic() - clock - IDLE_TIME_SECONDS
    figures.goal("agents gone after the idle time", after, at_most=GONE_GOAL_SECONDS, unit="s")


async def until_bytes_stop(cluster: OwnCluster, target: Path) -> None:
    """Waits until the transfer that nobody watches has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not target.exists():
        if not castray_processes(await cluster.process_ids()):
            return
        await asyncio.sleep(0.1)


async def until_gone(cluster: OwnCluster, seconds: float) -> None:
    """Waits until no process of castray's runs on the cluster."""
    deadline = time.monotonic() + seconds
    while left := castray_processes(await cluster.process_ids()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still there after {seconds:g} s: {left}")
        await asyncio.sleep(0.05)


# --- the first byte ---------------------------------------------------------------------------


class FirstByte:
    """Looks for the first byte in a file of a folder, through what agents have open."""

    def __init__(self, cluster: OwnCluster, folder: Path) -> None:
        self._keeper = psutil.Process(cluster.keeper_pid)
        self._folder = f"{folder}/"
        self.seconds: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> FirstByte:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        agents: list[int] = []
        looked_at = 0.0
        while not self._ended.is_set():
            if time.monotonic() - looked_at > (0.1 if agents else 0.02):
                pids = [child.pid for child in self._keeper.children(recursive=True)]
                agents = [each.pid for each in castray_processes(pids)]
                looked_at = time.monotonic()
            if any(self._is_writing(pid) for pid in agents):
                self.seconds = time.monotonic() - self._started
                return
            time.sleep(LOOK_SECONDS)

    def _is_writing(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                path = Path(f"/proc/{pid}/fd/{name}")
                with contextlib.suppress(OSError):
                    if str(path.readlink()).startswith(self._folder) and path.stat().st_blocks:
                        return True
        return False


async def measure_first_bytes(
    arguments: argparse.Namespace, figures: Figures, cluster: OwnCluster, folder: Path
) -> None:
    """Times the first byte of transfers that are ended then."""
    source = folder / "first.bin"
    write_random(source, FIRST_BYTE_MIB * MIB)
    address = {"lab": cluster.dashboard_address}
    await measure_by_command(figures, cluster, folder, source, "cold", COLD_GOAL_SECONDS, runs=1)
    await until_gone(cluster, 90.0)
    async with connected_engine(address, folder / "state") as engine:
        head, worker, *_ = nodes_of(engine, "lab")
        cold = await first_byte_by_engine(engine, cluster, head, worker, source, folder / "key")
        warm = [
            await first_byte_by_engine(engine, cluster, head, worker, source, folder / f"key{run}")
            for run in range(arguments.runs)
        ]
        seconds = figures.seconds("first byte, key press, no agents", [cold])
        figures.goal("first byte, key press, no agents", seconds, at_most=COLD_GOAL_SECONDS)
        seconds = figures.seconds("first byte, key press, agents running", warm)
        figures.goal("first byte, key press, agents running", seconds, at_most=WARM_GOAL_SECONDS)
        await measure_by_command(
            figures, cluster, folder, source, "warm", WARM_GOAL_SECONDS, runs=arguments.runs
        )
    await until_gone(cluster, 90.0)
    source.unlink()


async def first_byte_by_engine(
    engine: Engine, cluster: OwnCluster, head: Node, worker: Node, source: Path, target: Path
) -> float:
    """Seconds from the order to the engine until the first byte is there."""
    with FirstByte(cluster, target) as first:
        request = TransferRequest((place(head, source),), (place(worker, f"{target}/"),))
        transfer = await engine.start_transfer(request)
        await engine.wait_transfer(transfer.id)
    if first.seconds is None:
        raise RuntimeError("the transfer ended before its first byte was seen")
    return first.seconds


async def measure_by_command(
    figures: Figures,
    cluster: OwnCluster,
    folder: Path,
    source: Path,
    state: str,
    goal: float,
    *,
    runs: int,
) -> None:
    """Times ``castray cp`` from the start of its process."""
    command, environment = castray_command(cluster, folder)
    head, worker, *_ = await node_ids(cluster, folder)
    times = []
    for run in range(runs):
        target = folder / f"command-{state}-{run}"
        with FirstByte(cluster, target) as first:
            await asyncio.to_thread(
                subprocess.run,
                [*command, f"lab/{head}:{source}", f"lab/{worker}:{target}/"],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        if first.seconds is None:
            raise RuntimeError("the transfer ended before its first byte was seen")
        times.append(first.seconds)
    name = f"first byte, castray cp, {'no agents' if state == 'cold' else 'agents running'}"
    figures.goal(name, figures.seconds(name, times), at_most=goal, unit="s")


def castray_command(cluster: OwnCluster, folder: Path) -> tuple[list[str], dict[str, str]]:
    """``castray cp`` with a configuration of its own, and the environment for it."""
    config = folder / "castray.toml"
    config.write_text(
        f'state_dir = "{folder / "state"}"\n'
        '[external_cluster]\ndiscovery_methods = ["process_scan"]\n'
        f'[[clusters]]\nname = "lab"\naddress = "{cluster.dashboard_address}"\n'
    )
    unwanted = ("CASTRAY_", "RAY_", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    return [sys.executable, "-m", "castray_tui", "--config", str(config), "cp"], environment


async def node_ids(cluster: OwnCluster, folder: Path) -> list[str]:
    """The cluster's nodes, its head first."""
    command, environment = castray_command(cluster, folder)
    command = [*command[:-1], "nodes", "--json", cluster.dashboard_address]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, check=True, capture_output=True
    )
    nodes = [node for node in json.loads(done.stdout)["nodes"] if node["type"] == "external"]
    return [node["id"] for node in sorted(nodes, key=lambda node: not node["is_head"])]


if __name__ == "__main__":
    end_on_signals()
    sys.exit(asyncio.run(main()))
