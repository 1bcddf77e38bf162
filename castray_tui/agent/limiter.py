"""Keeping what is sent below a rate."""

from __future__ import annotations

import threading
import time
from typing import Callable


class Limiter:
    """Keeps the sum of what several streams send below a rate. 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def wait_for(
        self, length: int, is_stopped: Callable[[], bool], meanwhile: Callable[[], None]
    ) -> None:
        """Returns when that many more bytes may be sent, or when it is stopped."""
        if not self._rate:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + length / self._rate
        while not is_stopped():
            left = turn - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))
            meanwhile()
