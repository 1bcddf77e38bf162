"""``castray cp --detach``: the foreground, which waits until the background has planned."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from castray_tui.core.errors import CastrayError

INTERRUPTED = 130


def detach(arguments: argparse.Namespace, log_file: Path) -> int:
    """Has a castray in a session of its own make the transfer, and waits until it is planned.

    The background writes to this process's standard streams until then: what it says looks as if it
    had been said here. Whatever becomes of this process, the background goes on; only an interrupt
    before the end of planning is passed on to it.

    Args:
        arguments: The parsed command line of ``castray cp``.
        log_file: Where the background writes afterwards, for the message that it failed.

    Returns:
        The exit code that the background gave.

    Raises:
        CastrayError: It ended without a word.
    """
    reading, writing = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "castray_tui.cli.detached"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            # Not where the user is, whose modules would be taken for Python's own.
            cwd="/",
            pass_fds=(writing,),
        )
    finally:
        os.close(writing)
    told = {
        "working_dir": str(Path.cwd()),
        "report": writing,
        "arguments": {
            name: value
            for name, value in vars(arguments).items()
            if value is None or isinstance(value, str | int | float | list)
        },
    }
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # one that could not even start is told of below
        child.stdin.write(json.dumps(told).encode())
        child.stdin.close()
    code = _told_code(reading, child.pid)
    # It outlives this process on purpose; nobody here waits for it.
    child.returncode = 0
    if code is None:
        raise CastrayError(
            "The background process ended before the transfer was planned",
            remedy=f"See {log_file}, or try without --detach",
        )
    return code


def _told_code(reading: int, pid: int) -> int | None:
    """The exit code on the pipe; None where the pipe was closed without one."""
    with os.fdopen(reading, "rb") as report:
        while True:
            try:
                line = report.readline()
            except KeyboardInterrupt:
                # The background cancels what it has begun, says so, and gives its code.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
                continue
            return int(line) if line.strip() else None
