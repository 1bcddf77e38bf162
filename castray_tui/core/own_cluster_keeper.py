"""Runs one Ray cluster of castray's own and ends exactly that one; a program, not a library.

``python -m castray_tui.core.own_cluster_keeper`` reads orders as JSON lines on standard input and
answers each with one JSON line. It stops its cluster when it is told to, when it gets SIGTERM, and
when standard input ends, so a cluster never outlives the castray that asked for it, however that
castray went.

On Linux the keeper is the reaper of all its descendants, so the processes that ``ray start``
detaches stay its children and are ended by their IDs. Elsewhere they are known by the folder that
all of them carry in their arguments, which nobody else uses. ``ray stop`` is never called: it ends
every cluster of the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_REAP_INTERVAL_SECONDS = 0.5
_TERMINATE_SECONDS = 2.0
_KILL_SECONDS = 10.0
_OUTPUT_CHARACTERS = 4_000


class Keeper:
    """The cluster's folder, its start-up commands, and its end."""

    def __init__(self) -> None:
        # Short: Ray puts sockets below it, and their paths may have 107 characters at most.
        self.temp_dir = Path(tempfile.mkdtemp(prefix="castray-ray-"))
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def ray_start(self, order: dict[str, Any]) -> dict[str, Any]:
        """Runs one ``ray start`` and waits for it.

        Args:
            order: ``python`` (interpreter), ``arguments`` (after ``ray start``), ``environment``
                (added to this process's, without Ray's own variables), ``timeout_seconds``, and
                ``head`` (whether the folder of the session is to be given).

        Returns:
            ``{"ok": true}`` or ``{"ok": false, "error": text}`` with the end of Ray's own output.
        """
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAY_")
        }
        environment.update(
            RAY_USAGE_STATS_ENABLED="0",
            # Ray's dashboard leaves folders of multiprocessing (pymp-…) behind when it is ended.
            TMPDIR=str(self.temp_dir),
            **order["environment"],
        )
        arguments = [order["python"], "-m", "ray.scripts.scripts", "start", *order["arguments"]]
        if order["head"]:
            arguments.append(f"--temp-dir={self.temp_dir}")
        # Into a file, not a pipe: the detached processes inherit it and would keep a pipe open.
        output_path = self.temp_dir / f"ray_start_{time.monotonic_ns()}.out"
        try:
            with output_path.open("wb") as output:
                done = subprocess.run(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self.temp_dir,
                    timeout=order["timeout_seconds"],
                    check=False,
                    start_new_session=True,
                )
        except subprocess.TimeoutExpired:
            return {"ok": False, "error": f"ray start took over {order['timeout_seconds']} s"}
        except OSError as error:
            return {"ok": False, "error": str(error)}
        if done.returncode != 0:
            text = output_path.read_text(errors="replace")[-_OUTPUT_CHARACTERS:]
            return {"ok": False, "error": f"ray start exited {done.returncode}: {text}"}
        return {"ok": True}

    def processes(self) -> list[psutil.Process]:
        """All processes of this cluster that are running now."""
        mine = psutil.Process()
        found = {process.pid: process for process in mine.children(recursive=True)}
        if sys.platform != "linux":
            marker = str(self.temp_dir)
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.pid != mine.pid and any(
                        marker in part for part in process.cmdline()
                    ):
                        found[process.pid] = process
        return [process for process in found.values() if _is_running(process)]

    def reap(self) -> None:
        """Takes the exit codes of descendants that ended; what is not taken stays a zombie."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def stop(self) -> int:
        """Ends every process of the cluster and removes its folder; returns how many are left."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        deadline = time.monotonic() + _TERMINATE_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.05)
        deadline = time.monotonic() + _KILL_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.reap()
            time.sleep(0.05)
        self.reap()
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        return len(left)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _answer(value: dict[str, Any]) -> None:
    # Whoever asked may be gone; the cluster is stopped all the same.
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


def _obey(keeper: Keeper, line: bytes) -> bool:
    """Carries out one order; returns whether to go on."""
    order = json.loads(line)
    if order["do"] == "ray_start":
        _answer(keeper.ray_start(order))
    elif order["do"] == "processes":
        _answer({"ok": True, "pids": [process.pid for process in keeper.processes()]})
    else:
        return False
    return True


def main() -> int:
    """Serves orders until told to stop, and stops the cluster."""
    # The terminal's ctrl-c is for castray, which then closes standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    keeper = Keeper()
    left = 0
    try:
        _answer({"ok": True, "temp_dir": str(keeper.temp_dir), "pid": os.getpid()})
        buffered = b""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            going = True
            while going:
                if not selector.select(_REAP_INTERVAL_SECONDS):
                    keeper.reap()
                    continue
                received = os.read(0, 65_536)
                if not received:
                    break
                *lines, buffered = (buffered + received).split(b"\n")
                going = all(_obey(keeper, line) for line in lines)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        left = keeper.stop()
        _answer({"ok": left == 0, "left": left})
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
