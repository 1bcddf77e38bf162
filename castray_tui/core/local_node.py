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
        first = self._before is None
        counters = _read_counters()
        memory = psutil.virtual_memory()
        hardware = NodeHardware(
            measured_at=now,
            # The first call of cpu_percent has nothing to compare with and always says 0.
            cpu_percent=_first_is_unknown(psutil.cpu_percent(interval=None), first),
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

    def _rate(self, now: _Counters, name: str) -> float | None:
        before = self._before
        if before is None or now.at <= before.at:
            return None
        value_now: int | None = getattr(now, name)
        value_before: int | None = getattr(before, name)
        if value_now is None or value_before is None or value_now < value_before:
            return None
        return (value_now - value_before) / (now.at - before.at)


def _first_is_unknown(percent: float, first: bool) -> float | None:
    return None if first else percent


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
    return _Counters(
        at=time.monotonic(),
        disk_read_bytes=disk.read_bytes if disk else None,
        disk_written_bytes=disk.write_bytes if disk else None,
        network_sent_bytes=network.bytes_sent if network else None,
        network_received_bytes=network.bytes_recv if network else None,
    )
