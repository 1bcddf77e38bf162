"""Runs a command's coroutine until it is done or a signal ends it, cleanly either way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_SIGNALS_UNTIL_FORCED = 3


def run_until_done(command: Coroutine[Any, Any, int], *, ends_with_terminal: bool = True) -> int:
    """Runs the coroutine in an event loop of its own.

    The first SIGINT, SIGTERM or SIGHUP cancels it, so that its ``finally`` clauses clean up; while
    they do, a second signal is ignored, and a third one ends the process as it would any other.

    Args:
        command: What to run; returns an exit code.
        ends_with_terminal: Whether SIGHUP ends it too.

    Returns:
        Its exit code, or 128 and the number of the signal that ended it (130 for SIGINT).
    """
    signals = tuple(
        number
        for number in SIGNALS
        if ends_with_terminal or number != getattr(signal, "SIGHUP", None)
    )
    # Off since the start of the process; what was made until now is there to stay.
    gc.freeze()
    gc.enable()
    return asyncio.run(_until_done(command, signals))


async def _until_done(command: Coroutine[Any, Any, int], signals: Sequence[int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(command)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()
        elif len(received) == _SIGNALS_UNTIL_FORCED - 1:
            for each in signals:
                loop.remove_signal_handler(each)

    for number in signals:
        with contextlib.suppress(NotImplementedError):  # Windows has no handlers of loops
            loop.add_signal_handler(number, stop, number)
    try:
        code = await task
    except asyncio.CancelledError:
        if not received:
            # asyncio.run cancels this task itself where the loop has no signal handlers.
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise
        return 128 + received[0]
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
    return 128 + received[0] if received else code
