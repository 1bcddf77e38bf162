"""``castray pause``: holds a transfer until it is resumed."""

from __future__ import annotations

import argparse

from castray_tui.cli.transfer_orders import add_id, run_order
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray pause``."""
    add_id(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pauses; 0 once no more bytes flow."""
    return run_order(arguments, _pause)


async def _pause(engine: Engine, transfer_id: str) -> Transfer:
    return await engine.pause_transfer(transfer_id)
