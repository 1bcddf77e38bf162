"""``castray`` and ``python -m castray_tui``: where the command line and the screen meet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castray_tui.core.config import Settings


def main() -> int:
    """Runs castray with the process's arguments and returns its exit code."""
    from castray_tui.cli.command_line import run  # noqa: PLC0415

    return run(sys.argv[1:], open_screen=_open_screen)


async def _open_screen(settings: Settings, addresses: tuple[str, ...]) -> int:
    """Draws the screen until the user leaves it. Textual is imported for nothing else."""
    from castray_tui.app import CastrayApp  # noqa: PLC0415

    app = CastrayApp(settings, connect=addresses)
    await app.run_async(mouse=settings.ui.mouse)
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
