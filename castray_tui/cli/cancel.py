"""``castray cancel``: ends a transfer; targets without a verdict keep nothing of it."""

from __future__ import annotations

import argparse

from castray_tui.cli.transfer_orders import add_id, run_order
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray cancel``."""
    add_id(parser)


def run(arguments: argparse.Namespace) -> int:
    """Cancels; 0 once every target has its verdict, also where the transfer had ended before."""
    return run_order(arguments, _cancel)


async def _cancel(engine: Engine, transfer_id: str) -> Transfer:
    return await engine.cancel_transfer(transfer_id)
