"""``castray resume``: goes on with a transfer that was paused, interrupted or not finished."""

from __future__ import annotations

import argparse

from castray_tui.cli.transfer_orders import add_id, run_again
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray resume``."""
    add_id(parser)


def run(arguments: argparse.Namespace) -> int:
    """Goes on and follows the transfer to its end; the exit code tells how it ended."""
    return run_again(arguments, _resume)


async def _resume(engine: Engine, transfer_id: str) -> Transfer:
    return await engine.resume_transfer(transfer_id)
