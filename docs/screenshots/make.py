"""Makes the documentation's screenshots from real clusters.

    python docs/screenshots/make.py NAME=ADDRESS [NAME=ADDRESS ...]

for example ``train=127.0.0.1:8265 batch=127.0.0.1:8266``. Writes SVG files beside this one. Start
clusters first, ``castray demo`` for example; nothing here is made up.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from castray_tui.app import CastrayApp
from castray_tui.core.config import (
    ExternalClusterSettings,
    KnownClusterSettings,
    RayClusterSettings,
    Settings,
)
from castray_tui.core.engine import Engine
from castray_tui.core.models import TransferRequest
from castray_tui.screens.transfer import TransferDialog

SHOTS: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("fleet-120x40-dark", (120, 40), ()),
    ("fleet-80x24-dark", (80, 24), ()),
    ("details-dark", (100, 36), ("3", "enter")),
    ("transfer-dark", (100, 30), ("2", "g", "j", "space", "space", "t")),
)
WAIT_SECONDS = 30.0
SOURCE = Path(tempfile.gettempdir(), "models", "weights.bin")
FILE_BYTES = 48 * 1024**2


async def _filled(app: CastrayApp, pilot: Pilot[int], count: int) -> None:
    """Returns when so many clusters are connected and their nodes have figures."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            external = [node for node in app.fleet.nodes if not node.is_local]
            connected = sum(cluster.state == "connected" for cluster in app.fleet.clusters)
            if connected == count and all(node.hardware for node in external):
                return
            await pilot.pause(0.2)


async def _send_and_plan(app: CastrayApp, pilot: Pilot[int]) -> None:
    """Fills in the transfer dialog and waits for the plan."""
    app.screen.query_one("#source", Input).value = str(SOURCE)
    await pilot.press("enter")
    async with asyncio.timeout(WAIT_SECONDS):
        while not app.screen.query_one("#plan").rows:  # type: ignore[attr-defined]  # its table
            await pilot.pause(0.2)


async def _make(folder: Path, clusters: tuple[KnownClusterSettings, ...]) -> None:
    with tempfile.TemporaryDirectory() as state:
        settings = Settings(
            state_dir=Path(state, "state"),
            ray_cluster=RayClusterSettings(external_discovery=False),
            external_cluster=ExternalClusterSettings(auto_discover=False),
            clusters=clusters,
        )
        app = CastrayApp(lambda: Engine(settings), settings, discover=False)
        async with app.run_test(size=(120, 40)) as pilot:
            await _filled(app, pilot, len(clusters))
            engine = await app.engine_ready()
            await _transfers(engine, clusters)
            for name, size, keys in SHOTS:
                await pilot.resize_terminal(*size)
                await pilot.press(*keys)
                await pilot.pause(0.5)
                if isinstance(app.screen, TransferDialog):
                    await _send_and_plan(app, pilot)
                await pilot.pause(0.5)
                app.save_screenshot(f"{name}.svg", str(folder))
                while len(app.screen_stack) > 1:
                    await pilot.press("escape")
                    await pilot.pause()
        await app.close_engine()


async def _transfers(engine: Engine, clusters: tuple[KnownClusterSettings, ...]) -> None:
    """Sends a file to every node of each cluster, to have something to show."""
    for cluster in clusters:
        transfer = await engine.start_transfer(
            TransferRequest((str(SOURCE),), (f"{cluster.name}/*:/tmp/castray-example/",))
        )
        await engine.wait_transfer(transfer.id)


if __name__ == "__main__":
    known = tuple(
        KnownClusterSettings(name=name, address=address)
        for name, _, address in (word.partition("=") for word in sys.argv[1:])
    )
    here = Path(__file__).parent.resolve()
    SOURCE.parent.mkdir(exist_ok=True)
    SOURCE.write_bytes(os.urandom(FILE_BYTES))
    try:
        asyncio.run(_make(here, known))
    finally:
        SOURCE.unlink()
        SOURCE.parent.rmdir()
