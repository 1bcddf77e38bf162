"""What goes wrong in a run: each fault as a function that lets it happen, and what undoes it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from lab.hosts import Host

from chaos.scene import Scene
from chaos.wire_tap import WireTap

LONG_SECONDS = 45.0


@dataclass
class Happening:
    """What a fault may touch, and what it did.

    Attributes:
        source: The source's host; None where the source is on castray's machine.
        targets: The hosts of the targets, ``relays`` those of them that feed others.
        castray: The process ID of the command.
        victim: The host that it was done to; None where it was no single one.
        happened: Whether the fault took place; False where there was nothing left to do it to.
        undo: Called when castray has ended, the last first.
    """

    scene: Scene
    chance: random.Random
    source: Host | None
    source_path: Path
    targets: list[Host]
    relays: list[Host]
    castray: int
    tap: WireTap | None = None
    victim: Host | None = None
    happened: bool = False
    undo: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        strike: Lets it happen.
        hits: ``source``, ``relay``, ``leaf`` or ``target``: what it is done to; ``none``: to no
            node of the transfer.
        spares_victim: Whether its victim has to be served as well.
        spares_all: False where nobody can be expected to be served.
        source_is_node: Whether the source has to be a node, and one without the cluster's head.
    """

    strike: Callable[[Happening], None]
    hits: str = "none"
    spares_victim: bool = True
    spares_all: bool = True
    source_is_node: bool = False


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _nothing(happening: Happening) -> None:
    happening.happened = True


def _kill_agent(happening: Happening) -> None:
    for pid in _agents_of_victim(happening):
        happening.happened |= _kill(pid)


def _kill_coordinator(happening: Happening) -> None:
    for process in happening.scene.coordinators():
        happening.happened |= _kill(process.pid)


def _kill_castray(happening: Happening) -> None:
    happening.happened = _kill(happening.castray)


def _kill_raylet(happening: Happening) -> None:
    assert happening.victim is not None
    pid = happening.scene.cluster.raylet_pid(happening.victim)
    happening.happened = pid is not None and _kill(pid)


def _stop_agent(happening: Happening) -> None:
    pids = _agents_of_victim(happening)
    for pid in pids:
        happening.happened |= _kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            _kill(pid, signal.SIGCONT)

    _for_a_while(happening, go_on)


def _cut_link(happening: Happening) -> None:
    assert happening.victim is not None
    happening.victim.cut()
    happening.happened = True
    _for_a_while(happening, happening.victim.mend)


def _fill_disk(happening: Happening) -> None:
    ballast = happening.scene.small_disk / "ballast"
    happening.undo.append(lambda: ballast.unlink(missing_ok=True))
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(256 * 1024))
    happening.happened = True


def _flip_byte(happening: Happening) -> None:
    tap = happening.tap
    assert tap is not None
    tap.flip(happening.chance.randint(1, 3))
    deadline = time.monotonic() + 3.0
    while not tap.flipped and time.monotonic() < deadline and psutil.pid_exists(happening.castray):
        time.sleep(0.01)
    happening.happened = tap.flipped > 0


def _truncate_source(happening: Happening) -> None:
    path = _a_source_file(happening)
    os.truncate(path, path.stat().st_size // 2)
    happening.happened = True


def _change_source(happening: Happening) -> None:
    path = _a_source_file(happening)
    with path.open("r+b") as file:
        file.seek(happening.chance.randrange(path.stat().st_size))
        file.write(b"changed")
    happening.happened = True


def _a_source_file(happening: Happening) -> Path:
    path = happening.source_path
    return path / "large 2.bin" if path.is_dir() else path


def _agents_of_victim(happening: Happening) -> list[int]:
    if happening.victim is not None:
        return [each.pid for each in happening.scene.agents(happening.victim)]
    with contextlib.suppress(psutil.Error):  # the source is on castray's own machine
        children = psutil.Process(happening.castray).children(recursive=True)
        return [child.pid for child in children if "local_process" in " ".join(child.cmdline())]
    return []


def _for_a_while(happening: Happening, undo: Callable[[], None]) -> None:
    """Undoes a fault after some seconds: few where the source is hit, else maybe many."""
    is_source = happening.victim is None or happening.victim == happening.source
    seconds = happening.chance.uniform(2.0, 8.0)
    if not is_source and happening.chance.random() < 0.5:
        seconds = LONG_SECONDS
    timer = threading.Timer(seconds, undo)
    timer.start()

    def now() -> None:
        timer.cancel()
        timer.join()
        undo()

    happening.undo.append(now)


FAULTS = {
    "none": Fault(_nothing),
    "kill -9 source agent": Fault(_kill_agent, "source"),
    "kill -9 relay agent": Fault(_kill_agent, "relay", spares_victim=False),
    "kill -9 leaf agent": Fault(_kill_agent, "leaf", spares_victim=False),
    "kill -9 coordinator": Fault(_kill_coordinator),
    "kill -9 castray": Fault(_kill_castray),
    "kill -9 target raylet": Fault(_kill_raylet, "target", spares_victim=False),
    "kill -9 source raylet": Fault(_kill_raylet, "source", spares_all=False, source_is_node=True),
    "kill -STOP source agent": Fault(_stop_agent, "source"),
    "kill -STOP target agent": Fault(_stop_agent, "target", spares_victim=False),
    "cut link of source": Fault(_cut_link, "source", source_is_node=True),
    "cut link of target": Fault(_cut_link, "target", spares_victim=False),
    "full disk": Fault(_fill_disk, "target", spares_victim=False),
    "flipped byte": Fault(_flip_byte, "target"),
    "truncated source": Fault(_truncate_source, spares_all=False),
    "changed source": Fault(_change_source, spares_all=False),
}
