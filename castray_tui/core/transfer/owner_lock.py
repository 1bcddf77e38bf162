"""Telling whether the castray that runs a transfer still lives: a lock that dies with it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_FOLDER = "running"


class OwnerLock:
    """A locked file named after a transfer; the kernel gives the lock back when castray ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, state_dir: Path, transfer_id: str) -> OwnerLock | None:
        """Marks a transfer as run by this process; None where the state folder cannot be used.

        Raises:
            BlockingIOError: Another process runs it.
        """
        path = state_dir / _FOLDER / transfer_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def release(self) -> None:
        """The transfer has ended."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def is_owner_alive(state_dir: Path, transfer_id: str) -> bool:
    """Whether a castray runs this transfer now. What a dead one left behind is removed."""
    path = state_dir / _FOLDER / transfer_id
    try:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
