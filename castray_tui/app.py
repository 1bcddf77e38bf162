"""The Textual app: one screen over one engine, wired together.

The first frame is drawn before the engine is imported. Then the engine runs in a worker; its
snapshots come in as messages and go on to the screen through one reactive attribute, and orders
go the other way, each in a worker of its own, so that no key waits for the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.filter import ANSIToTruecolor, LineFilter, Monochrome, NoColor
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Input

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError
from castray_tui.core.models import EMPTY_FLEET, LOCAL, Fleet, Transfer
from castray_tui.log_file import logging_to_file
from castray_tui.messages import (
    CancelTransfer,
    ConnectCluster,
    DisconnectCluster,
    DiscoverClusters,
    DismissDeadNode,
    FleetChanged,
    PauseTransfer,
    RefreshClusters,
    ResumeTransfer,
    RetryTransfer,
    UnpauseTransfer,
)
from castray_tui.screens.fleet import FleetScreen
from castray_tui.screens.widgets.cells import drawable
from castray_tui.screens.widgets.glyphs import AsciiFilter, glyphs_for
from castray_tui.screens.widgets.key_bar import types_into_focus
from castray_tui.screens.widgets.transfer_rates import ENDED
from castray_tui.themes import OWN_THEMES, check_theme

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine

_log = logging.getLogger("castray_tui.app")
_CLOSE_SECONDS = 10.0
_ENGINE_DELAY_SECONDS = 0.03
"""Lets the first frame out of the terminal's writer thread before imports take the processor."""
_NO_ANSI_THEME = "castray-ansi"


def _palette() -> type[Provider]:
    from castray_tui.screens.palette import ActionProvider  # noqa: PLC0415 - when it is opened

    return ActionProvider


class CastrayApp(App[int]):
    """castray's terminal screen.

    Args:
        engine_factory: Makes the engine; called once, after the first frame.
        settings: The effective settings.
        connect: Addresses to connect to at the start.
        discover: Whether the engine will look for clusters at the start.
        clock: Seconds since the epoch; tests freeze it.
    """

    TITLE = "castray"
    CSS_PATH = "screens/fleet.tcss"
    COMMANDS: ClassVar[set[Any]] = {_palette}
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("colon", "command_palette", "Commands", key_display=":", show=False,
            id="app.commands", tooltip="Find an action by its name and do it",
        ),
        Binding("ctrl+p", "command_palette", "Commands", show=False, priority=True,
            id="app.palette", tooltip="Find an action by its name and do it",
        ),
        Binding("question_mark,f1", "help", "Help", key_display="?", id="app.help",
            tooltip="The keys that work where you are",
        ),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, id="app.suspend",
            tooltip="Back to the shell; fg returns",
        ),
        Binding("ctrl+q,ctrl+c", "leave", "Quit", show=False, id="app.quit",
            tooltip="Leave castray",
        ),
    ]  # fmt: skip

    # repaint=False: what changed draws itself; the whole screen would cost 20 KB a snapshot.
    fleet: reactive[Fleet] = reactive(EMPTY_FLEET, repaint=False)

    def __init__(
        self,
        engine_factory: Callable[[], Engine],
        settings: Settings,
        *,
        connect: Sequence[str] = (),
        discover: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._engine_factory = engine_factory
        self._settings = settings
        self._connect_at_start = tuple(connect)
        self._discovers = discover
        self._clock = clock
        self._engine: asyncio.Future[Engine] | None = None
        self._running_engine: Engine | None = None
        self._glyphs = glyphs_for(settings.ui.ascii)
        self._no_color_filter = NoColor()
        self._ascii_filter = AsciiFilter(enabled=settings.ui.ascii)
        self.animation_level = "none"
        for theme in OWN_THEMES:
            self.register_theme(theme)
        theme_name = settings.ui.theme
        check_theme(theme_name, self.available_themes)
        if settings.ui.keymap:
            # Importing every screen takes longer than the first frame may.
            from castray_tui.keymap import check_keymap  # noqa: PLC0415

            check_keymap(settings.ui.keymap)
        colorless = self.no_color or not settings.ui.color
        if colorless:
            # Only the theme of the terminal's own colours has none of its own to send.
            self.no_color = True
            theme_name = _NO_ANSI_THEME
        self.set_reactive(App.theme, theme_name)
        self.set_class(settings.ui.ascii, "-ascii", update=False)
        self.set_class(colorless, "-no-color", update=False)
        self.stylesheet.set_variables(self.get_css_variables())

    # --- drawing --------------------------------------------------------------------------------

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What castray's styles need and Textual's own themes do not have."""
        return {"row-cursor": "#24405f", "row-cursor-blurred": "#1c2530"}

    def get_line_filters(self) -> Sequence[LineFilter]:
        """With ``--ascii``, nothing but ASCII passes; with ``NO_COLOR``, no colour."""
        filters = list(super().get_line_filters())
        if self.no_color:
            # Textual chose greys before the theme was known; no colour means none.
            filters = [one for one in filters if not isinstance(one, Monochrome | ANSIToTruecolor)]
            filters.append(self._no_color_filter)
        return [*filters, self._ascii_filter] if self._settings.ui.ascii else filters

    def get_default_screen(self) -> Screen[None]:
        """The one screen that tells all."""
        return FleetScreen(
            self.engine_ready,
            self._glyphs,
            read_only=self._settings.read_only,
            discovers=self._discovers,
            refresh_seconds=self._settings.ui.refresh_interval,
            overwrite=self._settings.transfer.overwrite,
            clock=self._clock,
        )

    def on_mount(self) -> None:
        """Draws first, then starts the engine."""
        self._engine = asyncio.get_running_loop().create_future()
        if self._settings.ui.keymap:
            self.set_keymap(dict(self._settings.ui.keymap))
        # The shell wrote over the screen meanwhile, and only what changes is drawn by itself.
        self.app_resume_signal.subscribe(self, lambda _app: self.refresh())
        self.call_after_refresh(self.set_timer, _ENGINE_DELAY_SECONDS, self._run_engine)

    # --- the engine -----------------------------------------------------------------------------

    async def engine_ready(self) -> Engine:
        """The engine, as soon as it runs; CastrayError if it cannot start."""
        assert self._engine is not None, "asked for before the app was mounted"
        return await asyncio.shield(self._engine)

    @work(name="engine", group="engine", exit_on_error=False)
    async def _run_engine(self) -> None:
        assert self._engine is not None
        # What stands now stays; later collections need not look at it.
        gc.freeze()
        gc.enable()
        try:
            # Imported in a thread, so that keys are answered meanwhile.
            await asyncio.to_thread(importlib.import_module, "castray_tui.core.engine")
            engine = self._running_engine = self._engine_factory()
            await engine.start(background=True)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._engine.set_exception(error)
            self._engine.exception()  # retrieved: the toast tells of it
            self.report(error, "The engine does not start")
            return
        self._engine.set_result(engine)
        for address in self._connect_at_start:
            self.post_message(ConnectCluster(address))
        async for fleet in engine.changes():
            self.post_message(FleetChanged(fleet))
            # At most so many redraws a second; what comes meanwhile is in the next snapshot.
            await asyncio.sleep(self._settings.ui.refresh_interval)

    @on(FleetChanged)
    def _fleet_changed(self, message: FleetChanged) -> None:
        self.fleet = message.fleet

    async def close_engine(self) -> None:
        """Ends the engine, after the terminal has been given back."""
        engine, self._running_engine = self._running_engine, None
        if engine is not None:
            await asyncio.wait_for(engine.close(), _CLOSE_SECONDS)

    # --- orders ---------------------------------------------------------------------------------

    @on(DiscoverClusters)
    def _discover(self) -> None:
        self.notify("Looking for clusters ...", timeout=2, markup=False)

        connects = self._discovers and self._settings.external_cluster.auto_discover

        async def discover() -> str:
            report = await (await self.engine_ready()).discover(connect=connects)
            found = len(report.clusters)
            failed = [outcome.method for outcome in report.methods if outcome.error]
            words = f"{found} cluster{'' if found == 1 else 's'} found in {report.seconds:.1f} s"
            if failed:
                words += f"; did not answer in time or failed: {', '.join(failed)}"
            return f"{words}."

        self._order(discover(), "discover", "Discovery failed")

    @on(ConnectCluster)
    def _connect(self, message: ConnectCluster) -> None:
        async def connect() -> str:
            cluster = await (await self.engine_ready()).connect(message.address)
            return f"Connected to {cluster.name}."

        self._order(connect(), f"connect {message.address}", f"No connection to {message.address}")

    @on(DisconnectCluster)
    def _disconnect(self, message: DisconnectCluster) -> None:
        async def disconnect() -> str:
            await (await self.engine_ready()).disconnect(message.name)
            return f"Disconnected from {message.name}."

        self._order(disconnect(), f"disconnect {message.name}", "Not disconnected")

    @on(RefreshClusters)
    def _refresh_clusters(self) -> None:
        async def refresh() -> str:
            (await self.engine_ready()).refresh()
            return "Asking all clusters now."

        self._order(refresh(), "refresh", "Refresh failed")

    @on(DismissDeadNode)
    def _dismiss(self, message: DismissDeadNode) -> None:
        async def dismiss() -> str:
            (await self.engine_ready()).dismiss_dead(message.cluster_key, message.node_id)
            return f"{message.name} dismissed."

        self._order(dismiss(), "dismiss", "Not dismissed")

    @on(CancelTransfer)
    def _cancel_transfer(self, message: CancelTransfer) -> None:
        async def cancel() -> str:
            transfer = await (await self.engine_ready()).cancel_transfer(message.transfer_id)
            return f"The transfer is {transfer.state}."

        self._order(cancel(), f"cancel {message.transfer_id}", "Not cancelled")

    @on(PauseTransfer)
    def _pause_transfer(self, message: PauseTransfer) -> None:
        async def pause() -> str:
            transfer = await (await self.engine_ready()).pause_transfer(message.transfer_id)
            return f"The transfer is {transfer.state}."

        self._order(pause(), f"pause {message.transfer_id}", "Not paused")

    @on(UnpauseTransfer)
    def _unpause_transfer(self, message: UnpauseTransfer) -> None:
        async def unpause() -> str:
            transfer = await (await self.engine_ready()).unpause_transfer(message.transfer_id)
            return f"The transfer is {transfer.state}."

        self._order(unpause(), f"unpause {message.transfer_id}", "It does not go on")

    @on(ResumeTransfer)
    def _resume_transfer(self, message: ResumeTransfer) -> None:
        async def resume() -> str:
            return _again(await (await self.engine_ready()).resume_transfer(message.transfer_id))

        self._order(resume(), f"resume {message.transfer_id}", "Not resumed")

    @on(RetryTransfer)
    def _retry_transfer(self, message: RetryTransfer) -> None:
        async def retry() -> str:
            return _again(await (await self.engine_ready()).retry_transfer(message.transfer_id))

        self._order(retry(), f"retry {message.transfer_id}", "Not tried again")

    def _order(self, order: Coroutine[Any, Any, str], name: str, failure: str) -> None:
        """Runs an order in a worker of its own and tells how it went."""

        async def run() -> None:
            try:
                answer = await order
            except Exception as error:
                self.report(error, failure)
                return
            self._take_newest()
            self.notify(drawable(answer), timeout=3, markup=False)

        self.run_worker(run(), name=name, group="orders", exit_on_error=False)

    def end(self, code: int) -> None:
        """Leaves without a question."""
        if self.is_running:
            self.exit(code)

    def _take_newest(self) -> None:
        if self._running_engine is not None:
            self.fleet = self._running_engine.fleet

    def report(self, error: Exception, what: str) -> None:
        """Tells of an error: what went wrong and what to do, or where the details are."""
        if isinstance(error, CastrayError):
            text = f"{what}: {error}"
        else:
            _log.error("%s", what, exc_info=error)
            text = f"{what}: {type(error).__name__}: {error}. Details are in castray's log."
        self.notify(drawable(text), severity="error", timeout=8, markup=False)

    # --- keys -----------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Hands text to the field that has the focus by now.

        A slow line delivers ``/`` and what is typed after it in one go, and Textual passes all of
        it to the pane that had the focus then. What a field takes itself never gets here.
        """
        if isinstance(self.focused, Input) and event.is_printable and event.character:
            self.focused.insert_text_at_cursor(event.character)
            event.stop()

    def action_help(self) -> None:
        """Shows the keys that work here."""
        from castray_tui.screens.help import HelpScreen  # noqa: PLC0415 - when it is asked for

        if not isinstance(self.screen, HelpScreen):
            active = self.screen.active_bindings
            typed = [key for key in active if types_into_focus(self.screen, key)]
            self.push_screen(HelpScreen(list(active.values()), self._glyphs, typed=typed))

    @work(name="leave", group="leave", exclusive=True)
    async def action_leave(self) -> None:
        """Quits; asks first where a transfer from or to this machine would be cut off."""
        cut_off = [
            transfer
            for transfer in self.fleet.transfers
            if transfer.state not in ENDED and _needs_this_machine(transfer)
        ]
        if cut_off:
            from castray_tui.screens.confirm import ConfirmDialog  # noqa: PLC0415 - see above

            if isinstance(self.screen, ConfirmDialog):
                return
            dialog = ConfirmDialog(
                "Quit while files are being sent?",
                f"{len(cut_off)} transfer(s) from or to this machine would be cut off.",
                "Quit",
            )
            if not await self.push_screen_wait(dialog):
                return
        self.exit(0)


def _again(transfer: Transfer) -> str:
    left = sum(target.verdict is None for target in transfer.targets)
    return f"Sending again to {left} target{'' if left == 1 else 's'}."


def _needs_this_machine(transfer: Transfer) -> bool:
    """Whether it reads from the machine that castray runs on, or writes to it."""
    clusters = {leg.cluster for leg in transfer.legs}
    clusters |= {target.cluster for target in transfer.targets}
    return LOCAL in clusters or transfer.source.startswith(f"{LOCAL}:")


@contextlib.contextmanager
def _ended_by_signals(app: CastrayApp) -> Iterator[None]:
    """While this holds, SIGTERM and SIGHUP end the app as quitting does."""
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        # Windows' event loops have no signal handlers; Textual restores its console by itself.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, app.end, 128 + number)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def show(
    settings: Settings,
    engine_factory: Callable[[], Engine],
    *,
    connect: Sequence[str] = (),
    discover: bool = True,
) -> int:
    """Draws the screen until the user leaves it or a signal ends it.

    The terminal is given back before the engine is closed.

    Args:
        settings: The effective settings.
        engine_factory: Makes the engine, with the same settings.
        connect: Addresses to connect to at the start.
        discover: Whether the engine will look for clusters at the start, so that an empty
            screen says the right thing.

    Returns:
        The process's exit code.

    Raises:
        ConfigError: A theme or an id of a binding in the settings does not exist.
    """
    app = CastrayApp(engine_factory, settings, connect=connect, discover=discover)
    with logging_to_file(settings), _ended_by_signals(app):
        try:
            code = await app.run_async(mouse=settings.ui.mouse)
        finally:
            try:
                await app.close_engine()
            except asyncio.TimeoutError:
                _log.error("The engine did not end within %s s", _CLOSE_SECONDS)
    return app.return_code or code or 0


def run_app(
    settings: Settings,
    engine_factory: Callable[[], Engine],
    *,
    connect: Sequence[str] = (),
    discover: bool = True,
) -> int:
    """As ``show``, in an event loop of its own."""
    return asyncio.run(show(settings, engine_factory, connect=connect, discover=discover))
