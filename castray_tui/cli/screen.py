"""``castray`` without a command: the screen, where there is a terminal to draw it on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from castray_tui.cli.running import run_until_done
from castray_tui.cli.settings import settings_for
from castray_tui.core.config import Settings
from castray_tui.core.errors import ConfigError, TerminalError, UsageError

_SCREEN_KEYS = ("ui.theme", "ui.keymap")

OpenScreen = Callable[[Settings, tuple[str, ...]], Coroutine[Any, Any, int]]
"""Draws the screen with these settings, connects to these addresses, and returns the exit code
when the user has left it. The command line gets it passed, as faces do not import each other."""


def run(arguments: argparse.Namespace) -> int:
    """Opens the screen."""
    if arguments.json:
        raise UsageError(
            "The screen prints no JSON",
            remedy="Run `castray status --json` or `castray nodes --json`",
        )
    loaded = settings_for(
        arguments,
        {
            "ui.theme": arguments.theme,
            "external_cluster.auto_discover": False if arguments.no_discover else None,
            "ray_cluster.external_discovery": False if arguments.no_discover else None,
        },
    )
    refuse_without_terminal()
    open_screen: OpenScreen = arguments.open_screen
    try:
        return run_until_done(open_screen(loaded.settings, tuple(arguments.connect)))
    except ConfigError as error:
        # Only the screen knows its themes and keys; where they were set is known here.
        key = next((key for key in _SCREEN_KEYS if f"({key})" in error.message), None)
        if key is None:
            raise
        message = f"{loaded.origins.get(key, key)}: {error.message}"
        raise ConfigError(message, remedy=error.remedy) from error


def refuse_without_terminal(
    instead: str = "`castray status`, `castray nodes` or `castray discover`",
) -> None:
    """Raises TerminalError where no screen could be drawn or no key be read.

    Args:
        instead: What works without a terminal.
    """
    problem = terminal_problem()
    if problem is not None:
        raise TerminalError(problem, remedy=f"Run {instead} instead")


def terminal_problem() -> str | None:
    """Why no screen can be drawn here, as a sentence; None where it can."""
    if not sys.stdin.isatty():
        return "The screen needs a terminal, and standard input is none"
    if not sys.stdout.isatty():
        return "The screen needs a terminal, and standard output is none"
    if os.environ.get("TERM", "") in {"", "dumb", "unknown"} and os.name == "posix":
        return f"The screen cannot be drawn on a terminal with TERM={os.environ.get('TERM', '')!r}"
    return None
