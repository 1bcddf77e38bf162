"""Hosts with addresses of their own on one machine, and Ray clusters across them.

Each host is a network namespace on a bridge, its link shaped by a token bucket at both ends, with
castray (or whoever uses this) in the root namespace, which has an address on the bridge too. Needs
root on Linux, and ``ip`` and ``tc`` of iproute2; ``why_not`` says what is missing.

Used as ``with HostLab(4, rate_bits_per_second=400e6) as lab`` and, for clusters across the hosts,
``HostCluster.start(lab.hosts[:2])``. Names carry a random word, the subnet is one that the machine
does not use, and a keeper process takes everything away again, whichever way the user of the lab
ends: only what runs in the lab's own namespaces is ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

_BURST_BYTES = 256 * 1024
_LATENCY = "100ms"
_START_SECONDS = 180.0
_END_SECONDS = 5.0
_LOCK = Path("/run/castray-host-lab.lock")
_OBJECT_STORE_BYTES = 80_000_000  # Ray refuses less than 75 MB
GCS_PORT = 6379
DASHBOARD_PORT = 8265


def why_not() -> str | None:
    """Why hosts cannot be made here, as a sentence; None where they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"there is no `{tool}` (iproute2)"
    token = secrets.token_hex(3)
    try:
        _run("ip", "netns", "add", f"castray-{token}-try")
        try:
            _run("ip", "link", "add", f"cb{token}", "type", "bridge")
            try:
                _run("tc", "qdisc", "add", "dev", f"cb{token}", "root", *_shape(1e9))
            finally:
                _run("ip", "link", "del", f"cb{token}")
        finally:
            _run("ip", "netns", "del", f"castray-{token}-try")
    except subprocess.CalledProcessError as error:
        return f"namespaces, bridges or shaping are not permitted: {error.stderr.strip()}"
    return None


@dataclass(frozen=True)
class Host:
    """One host of a lab.

    Attributes:
        name: ``h1`` and so on.
        namespace: Its network namespace, as ``ip netns`` knows it.
        address: Its IPv4 address on the bridge.
        port: The bridge's end of its link, an interface of the root namespace.
    """

    name: str
    namespace: str
    address: str
    port: str

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs a program on this host."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def process_ids(self) -> list[int]:
        """What runs on this host now."""
        return [int(pid) for pid in _run("ip", "netns", "pids", self.namespace).split()]

    def cut(self) -> None:
        """Takes the link down at the bridge's end; the host itself notices nothing."""
        _run("ip", "link", "set", self.port, "nomaster")

    def mend(self) -> None:
        """Puts the link back."""
        _run("ip", "link", "set", self.port, "master", _bridge_of(self.namespace))

    def shape(self, rate_bits_per_second: float) -> None:
        """Limits the link to a rate, in each direction by itself."""
        _run("tc", "qdisc", "replace", "dev", self.port, "root", *_shape(rate_bits_per_second))
        inside = self.command("tc", "qdisc", "replace", "dev", "eth0", "root")
        _run(*inside, *_shape(rate_bits_per_second))


@dataclass
class HostLab:
    """Hosts on one bridge; a context manager.

    Args:
        count: How many hosts, at most 200.
        rate_bits_per_second: What each link carries each way; None for as much as it can.
    """

    count: int
    rate_bits_per_second: float | None = None
    hosts: list[Host] = field(default_factory=list)
    address: str = ""
    """The root namespace's own address on the bridge."""
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    _keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HostLab:
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, self.token],
            stdin=subprocess.PIPE,
            # Not a child's child of whatever is interrupted from the keyboard.
            start_new_session=True,
        )
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs on the hosts and takes the hosts away. May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            assert keeper.stdin is not None
            keeper.stdin.close()
            keeper.wait()

    def _build(self) -> None:
        bridge = f"cb{self.token}"
        with _LOCK.open("w") as lock:
            # Two labs that start at once must not choose the same subnet.
            fcntl.flock(lock, fcntl.LOCK_EX)
            subnet = _free_subnet()
            addresses = [str(address) for address in subnet.hosts()]
            self.address = addresses[0]
            _run("ip", "link", "add", bridge, "type", "bridge")
            _run("ip", "address", "add", f"{self.address}/24", "dev", bridge)
            _run("ip", "link", "set", bridge, "up")
        for number in range(1, self.count + 1):
            host = Host(
                name=f"h{number}",
                namespace=f"castray-{self.token}-{number}",
                address=addresses[9 + number],
                port=f"cv{self.token}{number}",
            )
            inside = f"cw{self.token}{number}"
            _run("ip", "netns", "add", host.namespace)
            _run("ip", "link", "add", host.port, "type", "veth", "peer", "name", inside)
            _run("ip", "link", "set", inside, "netns", host.namespace)
            _run(*host.command("ip", "link", "set", inside, "name", "eth0"))
            _run(*host.command("ip", "address", "add", f"{host.address}/24", "dev", "eth0"))
            _run(*host.command("ip", "link", "set", "lo", "up"))
            _run(*host.command("ip", "link", "set", "eth0", "up"))
            _run("ip", "link", "set", host.port, "master", bridge, "up")
            if self.rate_bits_per_second is not None:
                host.shape(self.rate_bits_per_second)
            self.hosts.append(host)


class HostCluster:
    """A Ray cluster across hosts of a lab, its head on the first of them.

    It ends with the lab, or before it by ``close`` or ``with``.
    """

    def __init__(
        self, hosts: Sequence[Host], python: str, environment: Mapping[str, str] | None
    ) -> None:
        self.hosts = list(hosts)
        self.python = python
        # Short: Ray puts sockets below it, and their paths may have 107 characters at most.
        self.temp_dir = Path(tempfile.mkdtemp(prefix=_folder_prefix(_token_of(hosts[0].namespace))))
        self._environment = dict(environment or {})

    @classmethod
    def start(
        cls,
        hosts: Sequence[Host],
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> HostCluster:
        """Starts a head on the first host and a worker on each of the others.

        Args:
            hosts: The hosts.
            python: An interpreter that has Ray.
            environment: Variables for Ray's processes, besides this process's own.

        Raises:
            RuntimeError: Ray could not be started; the message ends with Ray's own words.
        """
        cluster = cls(hosts, python, environment)
        try:
            cluster._start_ray(
                hosts[0],
                "--head",
                f"--port={GCS_PORT}",
                f"--dashboard-port={DASHBOARD_PORT}",
                f"--dashboard-host={hosts[0].address}",
                f"--temp-dir={cluster.temp_dir}",
            )
            for host in hosts[1:]:
                cluster.start_worker(host)
        except BaseException:
            cluster.close()
            raise
        return cluster

    @property
    def gcs_address(self) -> str:
        """``host:port`` of the GCS."""
        return f"{self.hosts[0].address}:{GCS_PORT}"

    @property
    def dashboard_address(self) -> str:
        """``host:port`` of the dashboard."""
        return f"{self.hosts[0].address}:{DASHBOARD_PORT}"

    def start_worker(self, host: Host) -> None:
        """Starts a raylet on a host, for the first time or again.

        Raises:
            RuntimeError: Ray could not be started, not at a second attempt either.
        """
        try:
            self._start_ray(host, f"--address={self.gcs_address}")
        except RuntimeError:
            # On a busy machine Ray's own time-outs are short now and then.
            _end(host.process_ids)
            self._start_ray(host, f"--address={self.gcs_address}")

    def raylet_pid(self, host: Host) -> int | None:
        """The raylet of a host; None where none runs."""
        for pid in host.process_ids():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/raylet/raylet"):
                    return pid
        return None

    def close(self) -> None:
        """Ends everything that runs on the cluster's hosts, and removes its folder."""
        _end(lambda: [pid for host in self.hosts for pid in host.process_ids()])
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def __enter__(self) -> HostCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_ray(self, host: Host, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            # Ray's 30 s do not do where many nodes start on a busy machine.
            "RAY_raylet_start_wait_time_s": "120",
            "TMPDIR": str(self.temp_dir),
            **self._environment,
        }
        # Into a file, not a pipe: the detached processes inherit it and would keep a pipe open.
        output_path = self.temp_dir / f"ray_start_{host.name}_{time.monotonic_ns()}.out"
        with output_path.open("wb") as output:
            done = subprocess.run(
                host.command(
                    self.python,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    f"--node-ip-address={host.address}",
                    "--num-cpus=1",
                    "--num-gpus=0",
                    f"--object-store-memory={_OBJECT_STORE_BYTES}",
                    "--disable-usage-stats",
                    *arguments,
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.temp_dir,
                timeout=_START_SECONDS,
                check=False,
                start_new_session=True,
            )
        if done.returncode != 0:
            words = output_path.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"ray start on {host.name} exited {done.returncode}: {words}")


def _shape(rate_bits_per_second: float) -> list[str]:
    rate = f"{int(rate_bits_per_second)}bit"
    return ["tbf", "rate", rate, "burst", str(_BURST_BYTES), "latency", _LATENCY]


def _token_of(namespace: str) -> str:
    return namespace.split("-")[1]


def _bridge_of(namespace: str) -> str:
    return f"cb{_token_of(namespace)}"


def _folder_prefix(token: str) -> str:
    return f"castray-hosts-{token}-"


def _free_subnet() -> ipaddress.IPv4Network:
    """A /24 that no interface and no route of this machine touches."""
    taken = []
    for route in json.loads(_run("ip", "-json", "route", "show", "table", "all") or "[]"):
        with contextlib.suppress(ValueError):
            taken.append(ipaddress.ip_network(route.get("dst", "default"), strict=False))
    for _ in range(200):
        second, third = random.randrange(200, 250), random.randrange(256)
        subnet = ipaddress.IPv4Network(f"10.{second}.{third}.0/24")
        if not any(other.version == 4 and subnet.overlaps(other) for other in taken):
            return subnet
    raise RuntimeError("No free subnet in 10.200.0.0 to 10.249.255.0")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def _end(alive: Callable[[], list[int]]) -> None:
    """Ends processes, those that do not listen with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _END_SECONDS
        for pid in alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
        while time.monotonic() < deadline:
            left = alive()
            if not left:
                return
            if number == signal.SIGKILL:
                for pid in left:  # what was started meanwhile
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.05)


def _keep(token: str) -> None:
    """Waits until the lab's user closes standard input or is gone, and takes the lab away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    prefix = f"castray-{token}-"
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.strip()]
    namespaces = [name for name in names if name.startswith(prefix)]

    def alive() -> list[int]:
        return [
            int(pid) for name in namespaces for pid in _run("ip", "netns", "pids", name).split()
        ]

    _end(alive)
    for name in namespaces:
        _run("ip", "netns", "del", name)
    for link in json.loads(_run("ip", "-json", "link", "show") or "[]"):
        if link.get("ifname", "").startswith((f"cb{token}", f"cv{token}", f"cw{token}")):
            # The other end of a pair goes with the first.
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "link", "del", link["ifname"])
    for folder in Path(tempfile.gettempdir()).glob(f"{_folder_prefix(token)}*"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1])
