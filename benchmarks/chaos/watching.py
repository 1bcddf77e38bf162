"""Looks at the agents while a run goes on: how far their targets are, and when nothing moved."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil
from lab.hosts import Host

_LOOK_SECONDS = 0.03
_SEARCH_SECONDS = 0.3
_MOVED_BYTES = 4096


class Watch:
    """Follows what castray's agents write on some hosts; a context manager.

    Args:
        hosts: The hosts of the targets.
        castray: The command that runs.
    """

    def __init__(self, hosts: Sequence[Host], castray: subprocess.Popen[bytes]) -> None:
        self._inodes = {
            Path(f"/run/netns/{host.namespace}").stat().st_ino: host.name for host in hosts
        }
        self._castray = castray
        self._written: dict[int, int] = {}
        self._agents: dict[int, str] = {}
        self.bytes: dict[str, int] = dict.fromkeys(self._inodes.values(), 0)
        self.moved_at: dict[str, list[float]] = {name: [] for name in self.bytes}
        self.children: set[tuple[int, float]] = set()
        """What castray started on its own machine: process IDs and start times."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._search()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def longest_pause(self, hosts: Sequence[str], since: float) -> float:
        """The longest time in which a host that was served later got nothing.

        Args:
            hosts: The names of hosts that were served.
            since: Pauses before this time (monotonic) do not count.
        """
        longest = 0.0
        for host in hosts:
            times = [since, *(moment for moment in self.moved_at[host] if moment > since)]
            gaps = (after - before for before, after in itertools.pairwise(times))
            longest = max(longest, *gaps, 0.0)
        return longest

    def _look(self) -> None:
        searched_at = 0.0
        while not self._ended.wait(_LOOK_SECONDS):
            now = time.monotonic()
            if now - searched_at > _SEARCH_SECONDS:
                self._search()
                searched_at = now
            for pid, host in list(self._agents.items()):
                written = _written_bytes(pid)
                before = self._written.get(pid)
                if written is None or before is None:
                    continue
                if written - before >= _MOVED_BYTES:
                    self._written[pid] = written
                    self.bytes[host] += written - before
                    self.moved_at[host].append(now)

    def _search(self) -> None:
        """Finds agents that are new, and what castray has started."""
        for name in os.listdir("/proc"):  # noqa: PTH208  quicker, many times a second
            if not name.isdigit() or int(name) in self._agents:
                continue
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123
                    if not file.read(20).startswith(b"ray::CastrayAgent"):
                        continue
                host = self._inodes.get(os.stat(f"/proc/{name}/ns/net").st_ino)  # noqa: PTH116
                written = _written_bytes(int(name))
                if host is not None and written is not None:
                    self._agents[int(name)] = host
                    self._written[int(name)] = written
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._castray.pid).children(recursive=True):
                self.children.add((child.pid, child.create_time()))


def _written_bytes(pid: int) -> int | None:
    """What a process has written to files so far; None where it is gone."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:  # noqa: PTH123
            return int(file.read().split(b"wchar:")[1].split()[0])
    except (OSError, IndexError):
        return None
