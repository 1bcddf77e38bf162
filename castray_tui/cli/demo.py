"""``castray demo``: two small real Ray clusters of castray's own, and castray over them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from castray_tui.cli.demo_walk import Narrator, walk
from castray_tui.cli.output import print_message
from castray_tui.cli.running import run_until_done
from castray_tui.cli.screen import OpenScreen, refuse_without_terminal
from castray_tui.cli.settings import settings_for
from castray_tui.core.config import KnownClusterSettings, Settings
from castray_tui.core.errors import CastrayError
from castray_tui.core.own_cluster import OwnCluster

_NAMES = ("demo-a", "demo-b")
_NODES_PER_CLUSTER = 2
_END_PATIENCE_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``castray demo``."""
    parser.add_argument(
        "--headless",
        action="store_true",
        help="without the screen: discover, connect, list, transfer, verify, and print what "
        "happened",
    )


def run(arguments: argparse.Namespace) -> int:
    """Starts the clusters, shows castray over them, and stops them whichever way it ends."""
    settings = settings_for(arguments, {"ui.theme": arguments.theme}).settings
    if not arguments.headless:
        refuse_without_terminal("`castray demo --headless`")
    open_screen: OpenScreen = arguments.open_screen
    return run_until_done(_demo(settings, open_screen, headless=arguments.headless))


async def _demo(settings: Settings, open_screen: OpenScreen, *, headless: bool) -> int:
    narrator = Narrator(to_standard_error=not headless, ascii_only=settings.ui.ascii)
    with tempfile.TemporaryDirectory(prefix="castray-demo-") as folder:
        async with _own_clusters(narrator) as clusters:
            own = _settings_over(settings, clusters, Path(folder))
            if headless:
                await walk(own, clusters, Path(folder), narrator)
                code = 0
            else:
                code = await open_screen(own, ())
    if headless:
        narrator.say("Done: everything worked, and nothing is left behind")
    return code


@contextlib.asynccontextmanager
async def _own_clusters(narrator: Narrator) -> AsyncIterator[list[OwnCluster]]:
    """Both clusters, started side by side, and stopped together; then nothing of them is left.

    Raises:
        CastrayError: One could not be started, or something of one is still there at the end.
    """
    total = _NODES_PER_CLUSTER * len(_NAMES)
    narrator.say(f"Starting {len(_NAMES)} Ray clusters with {total} nodes in all …")
    # Own clusters are for this demo only: a token of the user's has no business in them.
    starts = [
        asyncio.ensure_future(
            OwnCluster.start(
                node_count=_NODES_PER_CLUSTER, environment={"RAY_AUTH_MODE": "disabled"}
            )
        )
        for _ in _NAMES
    ]
    try:
        # Not gather: that would cancel the starts itself, and a second time below, in the middle of
        # their cleaning up.
        await asyncio.wait(starts, return_when=asyncio.FIRST_EXCEPTION)
        clusters = [start.result() for start in starts if start.done()]
        for name, cluster in zip(_NAMES, clusters, strict=True):
            narrator.say(
                f"  {name}: {cluster.node_count} nodes, dashboard {cluster.dashboard_address}, "
                f"GCS {cluster.gcs_address}, folder {cluster.temp_dir}"
            )
        yield clusters
    finally:
        # Shielded: an interruption while they are stopped must not leave one of them running.
        await asyncio.shield(asyncio.ensure_future(_stop(starts, narrator)))


async def _stop(starts: Sequence[asyncio.Future[OwnCluster]], narrator: Narrator) -> None:
    for start in starts:
        start.cancel()  # does nothing to one that is done; the others end what they started
    started = [
        each
        for each in await asyncio.gather(*starts, return_exceptions=True)
        if isinstance(each, OwnCluster)
    ]
    if not started:
        return
    narrator.say("Stopping the clusters …")
    pids: list[int] = []
    for cluster in started:
        # A keeper that has ended has stopped its cluster already.
        with contextlib.suppress(CastrayError):
            pids += [cluster.keeper_pid, *await cluster.process_ids()]
    await asyncio.gather(*(cluster.stop() for cluster in started))
    left = await _left_of(pids)
    folders = [cluster.temp_dir for cluster in started if _is_there(cluster.temp_dir)]
    if left or folders:
        print_message(
            f"castray: Still there of the demo's clusters: processes {left}, folders {folders}"
        )
        raise CastrayError("The demo's clusters could not be stopped wholly")
    narrator.say(f"  {len(pids)} processes ended, {len(started)} folders removed")


def _is_there(folder: str) -> bool:
    return Path(folder).exists()


async def _left_of(pids: list[int]) -> list[int]:
    """Which of the processes still run after a moment's patience."""
    import psutil  # noqa: PLC0415  # only the demo needs it here

    deadline = asyncio.get_running_loop().time() + _END_PATIENCE_SECONDS
    while True:
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        if not left or asyncio.get_running_loop().time() > deadline:
            return left
        await asyncio.sleep(0.1)


def _settings_over(settings: Settings, clusters: list[OwnCluster], folder: Path) -> Settings:
    """Settings that connect to the demo's clusters only, with a state folder of their own."""
    return replace(
        settings,
        clusters=tuple(
            KnownClusterSettings(name=name, address=cluster.dashboard_address, read_only=False)
            for name, cluster in zip(_NAMES, clusters, strict=True)
        ),
        ray_cluster=replace(settings.ray_cluster, address="auto", fallback_to_local=False),
        external_cluster=replace(settings.external_cluster, enabled=True, auto_discover=False),
        transfer=replace(settings.transfer, allowed_roots=()),
        state_dir=folder / "state",
    )
