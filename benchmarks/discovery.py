"""How long finding clusters takes, against what Ray's own command takes for one.

Starts three clusters of its own (one without a dashboard, one behind a token), ends exactly those,
and prints

- the whole process ``castray discover --json`` against ``ray status``, run in turn, medians
  (the goal: at most 0.35);
- the discovery itself (the goal: under 200 ms), and with one dashboard stopped (no more than the
  time-out of one question, 1.5 s, on top).

Usage: python benchmarks/discovery.py [--runs N] [--old-python PYTHON]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from castray_tui.core.discovery.surroundings import PROBE_SECONDS
from castray_tui.core.own_cluster import OwnCluster

GOAL_RATIO = 0.35
GOAL_SECONDS = 0.2

# Ray asks for a token by itself where the user has one in a file.
OPEN = {"RAY_AUTH_MODE": "disabled"}
TOKEN = "castray-benchmark-token-0123456789"
DISCOVERY = """
import asyncio, sys
from castray_tui.core.discovery.run import DiscoveryRequest, discover
port = int(sys.argv[1])
report = asyncio.run(discover(DiscoveryRequest(ports=(port, port + 10))))
print(report.seconds, *(cluster.temp_dir for cluster in report.clusters))
"""


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of each command")
    parser.add_argument("--old-python", help="an interpreter with an older Ray, for one cluster")
    arguments = parser.parse_args()
    async with AsyncExitStack() as stack:
        started = await asyncio.gather(
            OwnCluster.start(environment=OPEN),
            OwnCluster.start(
                python=arguments.old_python or sys.executable,
                include_dashboard=False,
                environment=OPEN,
            ),
            OwnCluster.start(environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}),
        )
        for cluster in started:
            await stack.enter_async_context(cluster)
        plain = started[0]
        ok = compare_processes(plain, arguments.runs)
        normal = measure_discovery(started, plain.ports.dashboard, arguments.runs)
        ok &= verdict("discovery itself, three clusters", normal, GOAL_SECONDS)
        stopped = await dashboards_of(plain)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            hung = measure_discovery(started, plain.ports.dashboard, min(arguments.runs, 3))
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        ok &= verdict("the same, one dashboard hung", hung, GOAL_SECONDS + PROBE_SECONDS)
    return 0 if ok else 1


def compare_processes(plain: OwnCluster, runs: int) -> bool:
    """Runs both commands in turn and prints the ratio of their medians."""
    # Bytecode is there for both, as after an ordinary installation.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= OPEN
    port = plain.ports.dashboard
    castray = [sys.executable, "-m", "castray_tui", "discover", "--json"]
    castray += ["--ports", f"{port}-{port + 10}"]
    ray = [str(Path(sys.executable).with_name("ray")), "status", f"--address={plain.gcs_address}"]
    seconds: dict[str, list[float]] = {"castray": [], "ray": []}
    for run in range(runs + 1):
        for name, command in (("castray", castray), ("ray", ray)):
            clock = time.monotonic()
            result = subprocess.run(command, env=environment, capture_output=True, check=False)
            spent = time.monotonic() - clock
            if result.returncode:
                print(result.stderr.decode(errors="replace"), file=sys.stderr)
                raise SystemExit(f"{' '.join(command)} failed")
            if run:  # the first is for the caches
                seconds[name].append(spent)
            elif name == "castray":
                json.loads(result.stdout)
    mine, theirs = (statistics.median(seconds[name]) for name in ("castray", "ray"))
    ratio = mine / theirs
    mark = "ok" if ratio <= GOAL_RATIO else "TOO SLOW"
    print(
        f"castray discover --json {mine * 1000:6.0f} ms   ray status {theirs * 1000:6.0f} ms   "
        f"ratio {ratio:.3f} (goal {GOAL_RATIO})  {mark}"
    )
    return ratio <= GOAL_RATIO


def measure_discovery(clusters: Sequence[OwnCluster], port: int, runs: int) -> list[float]:
    """The seconds that the discovery itself takes, each in a process of its own."""
    seconds = []
    for _ in range(runs):
        output = subprocess.run(
            [sys.executable, "-c", DISCOVERY, str(port)],
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        missing = {cluster.temp_dir for cluster in clusters} - set(output[1:])
        if missing or len(output[1:]) != len(set(output[1:])):
            raise SystemExit(f"not every cluster was found exactly once: {output[1:]}")
        seconds.append(float(output[0]))
    return seconds


def verdict(what: str, seconds: Sequence[float], goal: float) -> bool:
    """Prints a median and whether it keeps the goal."""
    median = statistics.median(seconds)
    mark = "ok" if median <= goal else "TOO SLOW"
    print(
        f"{what}: {median * 1000:.0f} ms (goal {goal * 1000:.0f})  {mark}   "
        f"[{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f}]"
    )
    return median <= goal


async def dashboards_of(cluster: OwnCluster) -> list[int]:
    """The processes of a cluster's dashboard."""
    return [
        pid
        for pid in await cluster.process_ids()
        if any("dashboard/dashboard.py" in part for part in psutil.Process(pid).cmdline())
    ]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
