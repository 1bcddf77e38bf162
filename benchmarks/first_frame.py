"""How long until castray's first frame, beside a bare Textual app with a table, in turn.

    python benchmarks/first_frame.py [--runs N] [--json]

Each program runs in a pseudo-terminal of 120x40, from the start of the process until the marker of
its first frame has come out of the terminal. The programs take turns, so that a busy machine slows
both. Prints both medians and their ratio; exits 1 where the ratio is above 1.3.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time

LIMIT = 1.3
DEADLINE_SECONDS = 30.0
BARE = """
from textual.app import App
from textual.widgets import DataTable
class Bare(App):
    def compose(self):
        yield DataTable()
    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns("NODE", "CPU", "MEM")
        for n in range(100):
            table.add_row(f"bare-{n}", "1%", "2%")
Bare().run()
"""


def first_frame_seconds(argv: list[str], marker: bytes, environment: dict[str, str]) -> float:
    """Seconds from the start of a program until ``marker`` came out of its terminal."""
    start = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    received = b""
    try:
        while marker not in received:
            left = DEADLINE_SECONDS - (time.perf_counter() - start)
            ready, _, _ = select.select([terminal], [], [], max(left, 0))
            if not ready:
                raise TimeoutError(f"No first frame of {argv}: {received[-500:]!r}")
            received += os.read(terminal, 65536)
        return time.perf_counter() - start
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "XDG_STATE_HOME": folder,
            "XDG_CONFIG_HOME": folder,
            # Both start from compiled modules, as installed programs do.
            "PYTHONPYCACHEPREFIX": folder,
        }
        unwanted_names = ("NO_COLOR", "CASTRAY_CONFIG", "RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")
        for unwanted in unwanted_names:
            environment.pop(unwanted, None)
        programs = {
            "bare": ([sys.executable, "-c", BARE], b"bare-0"),
            "castray": ([sys.executable, "-m", "castray_tui"], b"Transfers"),
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for run in range(arguments.runs + 1):
            for name, (argv, marker) in programs.items():
                seconds = first_frame_seconds(argv, marker, environment)
                if run:  # the first turn warms the file system's cache
                    times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["castray"] / medians["bare"]
    result = {
        "bare_seconds": round(medians["bare"], 3),
        "castray_seconds": round(medians["castray"], 3),
        "ratio": round(ratio, 3),
        "limit": LIMIT,
        "runs": arguments.runs,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"bare Textual app with a table  {medians['bare'] * 1000:6.0f} ms")
        print(f"castray                        {medians['castray'] * 1000:6.0f} ms")
        print(f"ratio                          {ratio:6.2f}  (at most {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
