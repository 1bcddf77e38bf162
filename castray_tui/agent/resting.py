"""Keeping an idle agent as good as free.

The main thread of a Ray worker looks for signals a hundred times a second, whether the worker has
anything to do or not: three quarters of the 0.8 % of a core that an idle actor costs. A signal
handler runs in just that look. So while the agent is idle, a handler sleeps there: for a second at
a time, as orders come in through the main thread, and shorter as soon as anybody dials, which is
what the coordinator does before it gives an order to an agent that may be resting.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Callable

REST_AFTER_SECONDS = 1.0
_REST_SECONDS = 1.0
_PAUSE_SECONDS = 0.02


class Resting:
    """Lets a worker's main thread sleep while there is nothing to do. To be made in that thread.

    Args:
        idle_seconds: For how long nothing has happened, 0 while something does.

    Raises:
        ValueError: This is not the main thread.
    """

    def __init__(self, idle_seconds: Callable[[], float]) -> None:
        self._idle_seconds = idle_seconds
        self._woken = threading.Event()
        self._rested = threading.Event()
        self._main = threading.get_ident()
        signal.signal(signal.SIGUSR2, self._rest)
        threading.Thread(target=self._run, name="castray-rest", daemon=True).start()

    def wake(self) -> None:
        """Somebody dialed, so an order may be on its way."""
        self._woken.set()

    def _rest(self, *_: Any) -> None:
        self._woken.wait(_REST_SECONDS)
        self._rested.set()

    def _run(self) -> None:
        while True:
            if self._woken.is_set() or self._idle_seconds() < REST_AFTER_SECONDS:
                time.sleep(REST_AFTER_SECONDS / 2)
                self._woken.clear()
                continue
            self._rested.clear()
            signal.pthread_kill(self._main, signal.SIGUSR2)
            self._rested.wait(2 * _REST_SECONDS)
            # What came meanwhile is taken up now.
            time.sleep(_PAUSE_SECONDS)
