"""The machine that castray runs on, as a node like any other: always there, named ``local``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from castray_tui.core.models import LOCAL, Disk, Node, NodeHardware
from castray_tui.core.text_safety import safe_text


@dataclass(frozen=True, slots=True)
class _Counters:
    """Totals since boot, of which two make a rate."""

    at: float
    cpu_busy_seconds: float
    cpu_all_seconds: float
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    network_sent_bytes: int | None
    network_received_bytes: int | None


class LocalNode:
    """Measures this machine again and again.

    Args:
        interval_seconds: Time between two measurements.
        on_node: Called on the event loop with every new state of the node.
    """

    def __init__(self, *, interval_seconds: float, on_node: Callable[[Node], None]) -> None:
        self._interval_seconds = interval_seconds
        self._on_node = on_node
        self._before: _Counters | None = None
        self._started_at = time.time()

    async def run(self) -> None:
        """Measures until cancelled; the measuring itself runs in a thread."""
        while True:
            self._on_node(await asyncio.to_thread(self.measure))
            await asyncio.sleep(self._interval_seconds)

    def measure(self) -> Node:
        """One measurement. Rates are None in the first; what the platform does not tell is None."""
        import psutil  # noqa: PLC0415 - the first frame does not need it

        now = time.time()
        counters = _read_counters()
        memory = psutil.virtual_memory()
        hardware = NodeHardware(
            measured_at=now,
            cpu_percent=self._cpu_percent(counters),
            cpu_logical_count=psutil.cpu_count(),
            cpu_physical_count=psutil.cpu_count(logical=False),
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            load_average_1m=_load_average_1m(),
            disks=_disks(),
            disk_read_bytes_per_second=self._rate(counters, "disk_read_bytes"),
            disk_write_bytes_per_second=self._rate(counters, "disk_written_bytes"),
            network_sent_bytes_per_second=self._rate(counters, "network_sent_bytes"),
            network_received_bytes_per_second=self._rate(counters, "network_received_bytes"),
            boot_time=psutil.boot_time(),
        )
        self._before = counters
        hostname = safe_text(socket.gethostname(), limit=255)
        return Node(
            cluster_key=LOCAL,
            cluster=LOCAL,
            node_id=LOCAL,
            name=LOCAL,
            status="alive",
            address=hostname,
            hostname=hostname,
            hardware=hardware,
            last_seen=now,
            started_at=hardware.boot_time,
        )

    def _cpu_percent(self, now: _Counters) -> float | None:
        # Not psutil.cpu_percent: what it compares with belongs to the thread that asked last.
        if self._before is None:
            return None
        passed = now.cpu_all_seconds - self._before.cpu_all_seconds
        busy = now.cpu_busy_seconds - self._before.cpu_busy_seconds
        return max(0.0, min(100.0, 100.0 * busy / passed)) if passed > 0 else None

    def _rate(self, now: _Counters, name: str) -> float | None:
        before = self._before
        if before is None or now.at <= before.at:
            return None
        value_now: int | None = getattr(now, name)
        value_before: int | None = getattr(before, name)
        if value_now is None or value_before is None or value_now < value_before:
            return None
        return (value_now - value_before) / (now.at - before.at)


def _load_average_1m() -> float | None:
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: Windows
        return os.getloadavg()[0]
    return None


def _disks() -> tuple[Disk, ...]:
    import psutil  # noqa: PLC0415

    disks: dict[str, Disk] = {}
    mounts = [partition.mountpoint for partition in psutil.disk_partitions(all=False)]
    for mount in dict.fromkeys(["/", *mounts] if os.name == "posix" else mounts):
        with contextlib.suppress(OSError):
            usage = psutil.disk_usage(mount)
            disks[mount] = Disk(mount, usage.total, usage.used, usage.free)
    return tuple(disks.values())


def _read_counters() -> _Counters:
    import psutil  # noqa: PLC0415

    disk = None
    # Containers may hide the disks or their statistics.
    with contextlib.suppress(OSError, RuntimeError, NotImplementedError):
        disk = psutil.disk_io_counters()
    network = None
    with contextlib.suppress(OSError, RuntimeError):
        network = psutil.net_io_counters()
    cpu = psutil.cpu_times()
    # Linux counts guests' time in user and nice as well.
    guests = getattr(cpu, "guest", 0.0) + getattr(cpu, "guest_nice", 0.0)
    everything = sum(cpu) - guests
    return _Counters(
        at=time.monotonic(),
        cpu_busy_seconds=everything - cpu.idle - getattr(cpu, "iowait", 0.0),
        cpu_all_seconds=everything,
        disk_read_bytes=disk.read_bytes if disk else None,
        disk_written_bytes=disk.write_bytes if disk else None,
        network_sent_bytes=network.bytes_sent if network else None,
        network_received_bytes=network.bytes_recv if network else None,
    )
