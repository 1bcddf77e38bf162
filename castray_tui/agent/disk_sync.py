"""Bringing many files to the disk at once."""

from __future__ import annotations

import functools
import os
import platform
import re
from typing import Any, Callable, Optional


def sync_file_system(fd: int) -> bool:
    """Returns when all that was written to a descriptor's file system is on the disk.

    Returns:
        Whether that could be had, and errors were told; where not, files are to be synced singly.

    Raises:
        OSError: The disk failed.
    """
    syncfs = _syncfs()
    if syncfs is None:
        return False
    import ctypes

    if syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return _tells_errors()


@functools.lru_cache(maxsize=1)
def _syncfs() -> Optional[Callable[[int], Any]]:
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        return None


@functools.lru_cache(maxsize=1)
def _tells_errors() -> bool:
    """Linux tells of what failed behind the writer since 5.8."""
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    return version is not None and (int(version[1]), int(version[2])) >= (5, 8)
