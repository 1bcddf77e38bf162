"""The file that takes the details of what went wrong, so that the screen shows no tracebacks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from castray_tui.core.config import Settings
from castray_tui.core.state_folder import state_dir

FILE_NAME = "castray.log"
_LOGGERS = ("castray_tui", "asyncio")  # asyncio tells of tasks whose failure nobody took
_MOST_BYTES = 1024 * 1024


def log_path(settings: Settings) -> Path:
    """Where the file is, or would be."""
    return state_dir(settings) / FILE_NAME


@contextlib.contextmanager
def logging_to_file(settings: Settings) -> Iterator[None]:
    """While this holds, castray's warnings and errors go to ``castray.log`` in the state folder.

    Nothing is written, not even the file, while all goes well. Where the file cannot be written,
    castray goes on without.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    handler: logging.Handler
    try:
        handler = RotatingFileHandler(
            log_path(settings),
            maxBytes=_MOST_BYTES,
            backupCount=1,
            encoding="utf-8",
            delay=True,
        )
    except OSError:
        handler = logging.NullHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not draw over the screen
    propagated = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, did_propagate in zip(loggers, propagated, strict=True):
            logger.propagate = did_propagate
            logger.removeHandler(handler)
        handler.close()
