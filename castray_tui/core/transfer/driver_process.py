"""A coordinator as a process beside castray, for clusters whose dashboard is not there."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from castray_tui.agent.coordinator import read_lines
from castray_tui.core.errors import TransferError
from castray_tui.core.ray_api.tokens import Token
from castray_tui.core.text_safety import safe_text

_FOLDER = "coordinators"
_LOOK_SECONDS = 0.1


class DriverProcess:
    """One coordinator process and its log; it outlives the castray that started it.

    The process holds a lock on its log for as long as it lives, which tells the next castray more
    surely than a process ID would.
    """

    def __init__(self, log_path: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.log_path = log_path
        self._process = process

    @classmethod
    async def start(
        cls, state_dir: Path, cluster_key: str, config: dict[str, object], token: Token | None
    ) -> DriverProcess:
        """Starts a coordinator for a cluster.

        Args:
            token: Goes over standard input, so that no process list and no environment shows it.
        """
        folder = state_dir / _FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log_path = folder / f"{_file_prefix(cluster_key)}{secrets.token_hex(4)}.log"
        descriptor = os.open(log_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        environment: dict[str, str] = {"RAY_USAGE_STATS_ENABLED": "0"}
        if token is not None:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token.reveal()}
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Not asyncio's: this process must not end with castray's event loop. It starts at once.
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "castray_tui.agent.coordinator"],
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.write(json.dumps({**config, "environment": environment}).encode() + b"\n")
            process.stdin.close()
        return cls(log_path, process)

    def log(self) -> str:
        """What it printed so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            with self.log_path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def ready_log(self, timeout_seconds: float) -> str:
        """The log, once the coordinator said that it is ready.

        Raises:
            TransferError: It ended, or said nothing in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            log = self.log()
            if read_lines(log):
                return log
            if not self.is_alive():
                words = [line for line in log.splitlines() if line.strip()]
                raise TransferError(
                    "The coordinator beside castray ended at once: "
                    + safe_text(words[-1] if words else "it said nothing", limit=500)
                )
            await asyncio.sleep(_LOOK_SECONDS)
        raise TransferError(
            f"The coordinator beside castray was not ready within {timeout_seconds:.0f} s"
        )

    async def wait_gone(self, timeout_seconds: float) -> None:
        """Waits for its end and removes its log; leaves one that goes on alone."""
        deadline = time.monotonic() + timeout_seconds
        while self.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(_LOOK_SECONDS)
        if not self.is_alive():
            self.remove_log()

    async def end(self) -> None:
        """Ends a process that this castray started."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self.remove_log()

    def remove_log(self) -> None:
        """Removes the log of a coordinator that has ended."""
        self.log_path.unlink(missing_ok=True)


def _file_prefix(cluster_key: str) -> str:
    return hashlib.sha256(cluster_key.encode()).hexdigest()[:16] + "-"


def left_drivers(state_dir: Path, cluster_key: str) -> list[DriverProcess]:
    """The coordinators of a cluster that this or an earlier castray started beside itself."""
    folder = state_dir / _FOLDER
    if not folder.is_dir():
        return []
    return [DriverProcess(path) for path in sorted(folder.glob(_file_prefix(cluster_key) + "*"))]
