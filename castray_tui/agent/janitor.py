"""Clearing away what has a name before it is whole, whatever becomes of this process.

While such a thing is there, a small shell waits beside it for its standard input to end, which it
does with this process, even by ``kill -9``. What the shell did not get to either (the machine
went down) is swept by the next transfer into the same folder: every writer holds a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import time
from typing import IO, List, Optional

from .manifest import is_part_name

# A line means that all is well. In the background, so that it is no child of this process: Ray
# kills the children of its workers. The second try is for folders that nobody may write to.
_SCRIPT = """exec 3<&0
{ read -r _ <&3 || {
if [ -n "$1" ] && ! rm -rf -- "$1"; then
[ -L "$1" ] || chmod -R u+rwx -- "$1"; rm -rf -- "$1"; fi
shift; for folder; do rmdir -- "$folder"; done; }; } &"""
# A new writer has its file for a moment before it has its lock.
_SWEEP_AFTER_SECONDS = 60.0


class Janitor:
    """Sees to it that a temporary thing goes if this process does.

    Args:
        path: The file or folder to be removed; "" for none.
        folders: Folders to be removed after it where they are empty, the innermost first.
    """

    def __init__(self, path: str, folders: List[str]) -> None:
        command = ["/bin/sh", "-c", _SCRIPT, "castray-janitor", path, *folders]
        self._orders: Optional[IO[bytes]] = None
        # Without a shell there is no janitor, and what a killed process leaves is swept later.
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            process.wait()
            self._orders = process.stdin

    def dismiss(self) -> None:
        """The thing is gone or has its real name."""
        orders, self._orders = self._orders, None
        if orders is not None:
            with contextlib.suppress(OSError):
                orders.write(b"\n")
                orders.flush()
            with contextlib.suppress(OSError):
                orders.close()


def make_folders(folder: str) -> List[str]:
    """Makes a folder and those above it; those that were made, the innermost first."""
    missing: List[str] = []
    made: List[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    for one in reversed(missing):
        try:
            os.mkdir(one)
            made.insert(0, one)
        except FileExistsError:
            continue  # Another target of the same host was quicker.
        except OSError:
            remove_folders(made)
            raise
    return made


def remove_folders(folders: List[str]) -> None:
    """Removes folders that were made, as long as they are empty."""
    for folder in folders:
        try:
            os.rmdir(folder)
        except OSError:
            return


def remove_tree(path: str) -> None:
    """Removes a folder and all that is in it, as far as it can; never through a link."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path) and not os.path.islink(path):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    with contextlib.suppress(OSError):
                        os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)


def lock(fd: int) -> None:
    """Says that the writer of a temporary thing lives, where the file system knows locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(folder: str) -> None:
    """Removes what writers left in a folder that no longer live."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if is_part_name(name):
                with contextlib.suppress(OSError):
                    _sweep_one(os.path.join(folder, name))


def _sweep_one(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if time.time() - status.st_mtime <= _SWEEP_AFTER_SECONDS:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Fails where the writer lives.
        if stat.S_ISDIR(status.st_mode):
            remove_tree(path)
        elif stat.S_ISREG(status.st_mode):
            os.unlink(path)
    finally:
        os.close(fd)
