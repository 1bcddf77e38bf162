"""The scene of the runs: hosts, a cluster across them, and castray's command line beside them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from lab.hosts import Host, HostCluster, HostLab
from lab.processes import CastrayProcess, castray_processes

DATA_PORTS = range(30_000, 31_000)
"""Neither Ray's workers nor outgoing connections use these, so what passes there is castray's."""
IDLE_SECONDS = 30
PATIENCE_SECONDS = 20
SMALL_DISK_MIB = 80
RUN_SECONDS = 150.0
_NODE_SECONDS = 240.0


class Scene:
    """Hosts on shaped links, one Ray cluster across them, folders, and a configuration of castray.

    A context manager. ``h1`` has the cluster's head, and with it castray's coordinator.

    Args:
        count: How many hosts.
        rate_bits_per_second: What their links carry; slow, so that faults fall amid transfers.
    """

    def __init__(self, count: int, rate_bits_per_second: float) -> None:
        self._stack = contextlib.ExitStack()
        self._count = count
        self._rate = rate_bits_per_second

    def __enter__(self) -> Scene:
        with contextlib.ExitStack() as stack:
            self.folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="castray-chaos-"))
            )
            self.small_disk = self.folder / "small"
            self.small_disk.mkdir()
            # Mounted before the hosts start, whose processes see the mounts of this moment.
            size = f"size={SMALL_DISK_MIB}m"
            _run("mount", "-t", "tmpfs", "-o", size, "castray-chaos", str(self.small_disk))
            stack.callback(_run, "umount", "-l", str(self.small_disk))
            self.lab = stack.enter_context(HostLab(self._count, self._rate))
            self.cluster = stack.enter_context(HostCluster.start(self.lab.hosts))
            self.config = self.folder / "castray.toml"
            self.config.write_text(
                f'state_dir = "{self.folder / "state"}"\n'
                "[external_cluster]\n"
                'discovery_methods = ["temp_dir"]\n'
                "[transfer]\n"
                f"patience = {PATIENCE_SECONDS}\n"
                f"agent_idle_time = {IDLE_SECONDS}\n"
                f"data_port_range = [{DATA_PORTS.start}, {DATA_PORTS.stop - 1}]\n"
                "disk_reserve = 0\n"
                # Small, so that a source is still being read when something happens to it.
                'chunk_size = "1MiB"\n'
                f'[[clusters]]\nname = "chaos"\naddress = "{self.cluster.dashboard_address}"\n'
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def hosts(self) -> list[Host]:
        """All hosts, the head's first."""
        return self.lab.hosts

    def host(self, name: str) -> Host:
        """A host by its name."""
        return next(host for host in self.hosts if host.name == name)

    def castray(self, *arguments: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts castray's command line; standard output goes to a file, as does what it says."""
        unwanted = ("CASTRAY_", "RAY_", "PYTHONDONTWRITEBYTECODE")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        with contextlib.ExitStack() as stack:
            streams: list[Any] = [subprocess.DEVNULL, subprocess.DEVNULL]
            if output is not None:
                streams = [
                    stack.enter_context(output.with_suffix(suffix).open("wb"))
                    for suffix in (".out", ".err")
                ]
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "castray_tui", "--config", str(self.config), "--json"),
                    *arguments,
                ],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
            )

    def answer(self, *arguments: str) -> dict[str, Any]:
        """What a castray command prints."""
        output = self.folder / f"answer-{time.monotonic_ns()}"
        self.castray(*arguments, output=output).wait(RUN_SECONDS)
        try:
            text = output.with_suffix(".out").read_text()
            told: dict[str, Any] = json.loads(text)
        except ValueError as error:
            words = output.with_suffix(".err").read_text()
            raise RuntimeError(f"castray {' '.join(arguments)}: {text} {words}") from error
        finally:
            for suffix in (".out", ".err"):
                output.with_suffix(suffix).unlink()
        return told

    def agents(self, host: Host) -> list[CastrayProcess]:
        """castray's agents on a host."""
        found = castray_processes(host.process_ids())
        return [each for each in found if each.node_id is not None]

    def coordinators(self) -> list[CastrayProcess]:
        """castray's coordinators on the cluster."""
        found = castray_processes(self.hosts[0].process_ids())
        return [each for each in found if each.node_id is None]

    def all_processes(self) -> list[CastrayProcess]:
        """Everything of castray's on the cluster."""
        return [each for host in self.hosts for each in castray_processes(host.process_ids())]

    def node_ids(self) -> dict[str, str]:
        """The living nodes' IDs by the names of their hosts, all hosts' nodes started again first.

        Raises:
            RuntimeError: They do not come up.
        """
        deadline = time.monotonic() + _NODE_SECONDS
        for host in self.hosts:
            host.mend()
        names = {host.address: host.name for host in self.hosts}
        while True:
            running = {host.name: self._running_node(host) for host in self.hosts}
            for host in self.hosts[1:]:
                # A node that Ray took for dead ends when its link is back; not always at once.
                if running[host.name] is None and self.cluster.raylet_pid(host) is None:
                    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                        self.cluster.start_worker(host)
                    running[host.name] = self._running_node(host)
            alive = {names[row["node_ip"]]: row["node_id"] for row in self._alive_nodes()}
            if alive and alive == running:
                return alive
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all nodes are up: {alive} of {running}")
            time.sleep(0.5)

    def _running_node(self, host: Host) -> str | None:
        pid = self.cluster.raylet_pid(host)
        if pid is None:
            return None
        with contextlib.suppress(psutil.Error):
            for word in psutil.Process(pid).cmdline():
                if word.startswith("--node_id="):
                    return word.partition("=")[2]
        return None

    def _alive_nodes(self) -> Iterator[dict[str, Any]]:
        url = f"http://{self.cluster.dashboard_address}/api/v0/nodes?limit=1000"
        with contextlib.suppress(OSError, ValueError, KeyError):
            with urllib.request.urlopen(url, timeout=5) as answer:
                told = json.load(answer)
            yield from (row for row in told["data"]["result"]["result"] if row["state"] == "ALIVE")

    def jobs(self) -> list[str]:
        """castray's jobs that the cluster remembers."""
        url = f"http://{self.cluster.dashboard_address}/api/jobs/"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told: Sequence[dict[str, Any]] = json.load(answer)
        ids = [str(job["submission_id"]) for job in told]
        return [each for each in ids if each.startswith("castray-")]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
