"""Makes the documentation's screenshots from the clusters that are found on this host.

    python docs/screenshots/make.py [FOLDER]

Writes SVG files. Start clusters first, ``castray demo`` for example; nothing here is made up.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from textual.pilot import Pilot

from castray_tui.app import CastrayApp
from castray_tui.core.config import Settings, UiSettings
from castray_tui.core.engine import Engine

SHOTS: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("fleet-80x24", (80, 24), ()),
    ("fleet-120x40", (120, 40), ()),
    ("fleet-220x60", (220, 60), ()),
    ("transfer", (120, 40), ("j", "space", "space", "t")),
    ("connect", (100, 30), ("c",)),
    ("details", (100, 36), ("j", "enter")),
    ("help", (100, 36), ("question_mark",)),
)
WAIT_SECONDS = 20.0


async def _filled(app: CastrayApp, pilot: Pilot[int]) -> None:
    """Returns when every connected cluster's nodes have figures."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            external = [node for node in app.fleet.nodes if not node.is_local]
            if external and all(node.hardware for node in external if node.status == "alive"):
                return
            await pilot.pause(0.2)


async def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        for theme in ("castray-dark", "castray-light"):
            settings = Settings(state_dir=Path(state), ui=UiSettings(theme=theme))
            app = CastrayApp(lambda settings=settings: Engine(settings), settings)  # type: ignore[misc]
            async with app.run_test(size=(120, 40)) as pilot:
                await _filled(app, pilot)
                for name, size, keys in SHOTS:
                    await pilot.resize_terminal(*size)
                    await pilot.press(*keys)
                    await pilot.pause(0.5)
                    app.save_screenshot(f"{name}-{theme.removeprefix('castray-')}.svg", str(folder))
                    while len(app.screen_stack) > 1:
                        await pilot.press("escape")
                        await pilot.pause()
                    app.screen_stack[0].query_one("#nodes").clear_marks()  # type: ignore[attr-defined]
            await app.close_engine()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(_make(target))
