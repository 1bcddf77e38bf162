"""``castray retry``: sends again to the targets that a transfer failed for, and to no others."""

from __future__ import annotations

import argparse

from castray_tui.cli.transfer_orders import add_id, run_again
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray retry``."""
    add_id(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sends again and follows the transfer to its end; the exit code tells how it ended."""
    return run_again(arguments, _retry)


async def _retry(engine: Engine, transfer_id: str) -> Transfer:
    return await engine.retry_transfer(transfer_id)
