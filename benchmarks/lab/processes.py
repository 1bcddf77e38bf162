"""What castray runs on a cluster, and what it costs: found below the cluster's own raylets."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_NODE_ID = re.compile(rb"--node_id=([0-9a-f]+)")


@dataclass(frozen=True)
class CastrayProcess:
    """One of castray's processes on a cluster.

    Attributes:
        node_id: The node that it is the agent of; None for a coordinator.
    """

    pid: int
    node_id: str | None


def castray_processes(pids: Iterable[int]) -> list[CastrayProcess]:
    """The agents and coordinators among some processes.

    Args:
        pids: The processes of one cluster.
    """
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            words = _command_line(pid)
            if words.startswith(b"ray::CastrayAgent"):
                found.append(CastrayProcess(pid, _node_of(pid)))
            elif b"castray_agent" in words and b"python" in words.split(b"\0")[0]:
                found.append(CastrayProcess(pid, None))
    return found


def with_descendants(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _node_of(pid: int) -> str | None:
    """The node of the raylet that started a worker."""
    while pid > 1:
        pid = int(_stat(pid)[1])
        words = _command_line(pid)
        if words.split(b"\0")[0].endswith(b"raylet"):
            told = _NODE_ID.search(words)
            return told.group(1).decode() if told else None
    return None


def cpu_seconds(pid: int) -> float:
    """What a process has used of processors so far, its threads' use included."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def own_memory_bytes(pid: int) -> int:
    """A process's resident memory without pages of files.

    ``RssAnon`` of ``/proc/PID/status``: what the process itself has written. Left out are pages of
    files, which the kernel takes back when it likes, and ``RssShmem``, which for Ray's workers is
    the node's object store.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name: state, parent's ID, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
