"""The local node tells what the machine does, and None where it cannot know yet."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from castray_tui.core.local_node import LocalNode
from castray_tui.core.models import Node


def test_rates_are_unknown_at_first_and_real_afterwards() -> None:
    local = LocalNode(interval_seconds=1.0, on_node=lambda node: None)
    first = local.measure()
    assert first.hardware is not None
    assert first.hardware.cpu_percent is None
    assert first.hardware.network_sent_bytes_per_second is None
    # As much as a kernel tick or two, so that there is something to compare.
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        pass
    with ThreadPoolExecutor(1) as elsewhere:
        second = elsewhere.submit(local.measure).result()
    assert second.hardware is not None
    assert second.hardware.cpu_percent is not None
    assert 0 < second.hardware.cpu_percent <= 100, "this thread alone was busy all the time"
    assert second.hardware.network_sent_bytes_per_second is not None


def test_memory_and_disk_are_those_of_this_machine() -> None:
    node = LocalNode(interval_seconds=1.0, on_node=lambda node: None).measure()
    assert node.is_local
    assert node.hardware is not None
    assert node.hardware.memory_total_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf(
        "SC_PHYS_PAGES"
    )
    disk = node.hardware.main_disk
    assert disk is not None
    assert disk.mount == "/"
    stat = os.statvfs("/")
    assert disk.total_bytes == stat.f_blocks * stat.f_frsize


async def test_it_measures_again_and_again() -> None:
    seen: list[Node] = []
    twice = asyncio.Event()

    def on_node(node: Node) -> None:
        seen.append(node)
        if len(seen) == 2:
            twice.set()

    task = asyncio.create_task(LocalNode(interval_seconds=0.01, on_node=on_node).run())
    await asyncio.wait_for(twice.wait(), 5)
    task.cancel()
    assert seen[0].last_seen is not None
    assert seen[1].last_seen is not None
    assert seen[1].last_seen > seen[0].last_seen
