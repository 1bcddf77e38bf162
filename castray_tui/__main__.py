"""``castray`` and ``python -m castray_tui``: where the command line and the screen meet."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castray_tui.core.config import Settings
    from castray_tui.core.engine import Engine


def main() -> int:
    """Runs castray with the process's arguments and returns its exit code."""
    # What is imported is no garbage; looking through it for some takes a tenth of the time until a
    # transfer begins. Commands that run for longer switch collection on.
    gc.disable()
    from castray_tui.cli.command_line import run  # noqa: PLC0415

    return run(sys.argv[1:], open_screen=_open_screen)


async def _open_screen(settings: Settings, addresses: tuple[str, ...]) -> int:
    """Draws the screen until the user leaves it. Textual is imported for nothing else, and the
    engine only once the first frame is drawn."""
    # Nothing made before the first frame is garbage; the app switches collection on after it.
    gc.disable()
    from castray_tui.app import show  # noqa: PLC0415

    def new_engine() -> Engine:
        from castray_tui.core.engine import Engine  # noqa: PLC0415

        return Engine(settings)

    discovers = settings.external_cluster.enabled and settings.ray_cluster.external_discovery
    return await show(settings, new_engine, connect=addresses, discover=discovers)


if __name__ == "__main__":
    sys.exit(main())
