"""The log files of one node, and the end of one of them."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Log

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import LogFile, Node
from castray_tui.core.text_safety import safe_text
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Cell, drawable, text_width
from castray_tui.screens.widgets.columns import Column
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.key_bar import KeyBar
from castray_tui.screens.widgets.line import Line
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine

_TAIL_LINES = 1000

_COLUMNS: tuple[Column[LogFile], ...] = (
    Column("name", "FILE", lambda file, _: ((file.name, "strong"),), 30, 100,
        value=lambda file: (file.name,), content=lambda file: text_width(file.name),
    ),
    Column("group", "OF", lambda file, _: ((file.group or figures.UNKNOWN, "dim"),), 12, 24,
        priority=1, value=lambda file: (file.group or "",),
    ),
    Column("size", "SIZE", lambda file, _: ((figures.size(file.size_bytes), ""),), 6,
        priority=2, right=True, descends=True,
        value=lambda file: None if file.size_bytes is None else (float(file.size_bytes),),
    ),
)  # fmt: skip


class LogsScreen(Screen[None]):
    """Lists the log files of a node; enter opens the end of one.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        node: The node.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,l", "app.pop_screen", "Back", id="screen.back", tooltip="Back"),
        Binding("r", "read", "Refresh", id="logs.refresh", tooltip="List the files again"),
        Binding("s", "sort", "Sort", id="logs.sort", tooltip="Sort by the next column"),
    ]

    def __init__(self, engine: Callable[[], Awaitable[Engine]], glyphs: Glyphs, node: Node) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._node = node
        self._answer = Line(glyphs)
        self.table: VirtualTable[str, LogFile] = VirtualTable(
            _COLUMNS,
            glyphs,
            natural=lambda file: (file.group or "", file.name),
            empty=("Asking the node ...",),
            id="log-files",
        )

    def compose(self) -> ComposeResult:
        """Lays out the table."""
        yield self.table
        yield self._answer
        yield KeyBar(self._glyphs)

    def on_mount(self) -> None:
        """Asks for the files."""
        title = Content(drawable(f"Logs of {self._node.cluster}/{self._node.name}"))
        self.table.border_title = title
        self.table.focus()
        self.action_read()

    def action_sort(self) -> None:
        """Sorts by the next column."""
        self.table.sort_next()

    @work(name="list logs", group="logs", exclusive=True)
    async def action_read(self) -> None:
        """Lists the files."""
        self._answer.show((("Asking the node ...", "dim"),))
        try:
            engine = await self._engine()
            files = await engine.log_files(self._node.cluster, self._node.node_id)
        except CastrayError as error:
            self._failed(str(error))
            return
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            return
        self.table.say_when_empty("The node offers no log files.")
        self.table.set_rows({file.name: file for file in files})
        self._answer.show(((f"{len(files)} files; enter opens the end of one.", "dim"),))

    def _failed(self, why: str) -> None:
        self._answer.show((("The files cannot be listed; r asks again.", "bad"),))
        self.table.say_when_empty(*textwrap.wrap(drawable(why), max(self.size.width - 6, 20)))

    @on(VirtualTable.Chosen)
    def _chosen(self, message: VirtualTable.Chosen) -> None:
        message.stop()
        file = self.table.cursor_row
        if file is not None:
            self.app.push_screen(LogTailScreen(self._engine, self._glyphs, self._node, file))


class LogTailScreen(Screen[None]):
    """Shows the end of one log file.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        node: The node.
        file: Its file.
    """

    DEFAULT_CSS = """
    LogTailScreen Log { border: round $border-blurred; background: $background; }
    LogTailScreen Log:focus { border: round $primary; }
    .-ascii LogTailScreen Log, .-ascii LogTailScreen Log:focus { border: ascii $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back", id="screen.back", tooltip="Back"),
        Binding("r", "read", "Refresh", id="log.refresh", tooltip="Read the end again"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="log.down", tooltip="Next line"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="log.up", tooltip="Line before"),
        Binding("g,home", "top", "Top", show=False, id="log.top", tooltip="To the first line"),
        Binding("G,end", "bottom", "End", show=False, id="log.end", tooltip="To the last line"),
    ]

    def __init__(
        self, engine: Callable[[], Awaitable[Engine]], glyphs: Glyphs, node: Node, file: LogFile
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._node = node
        self._file = file
        self._log_view = Log(highlight=False, auto_scroll=True)
        self._answer = Line(glyphs)

    def compose(self) -> ComposeResult:
        """Lays out the text."""
        yield self._log_view
        yield self._answer
        yield KeyBar(self._glyphs)

    def on_mount(self) -> None:
        """Reads the end of the file."""
        title = drawable(f"{self._node.cluster}/{self._node.name}: {self._file.name}")
        self._log_view.border_title = Content(title)
        self._log_view.focus()
        self.action_read()

    @work(name="read log", group="logs", exclusive=True)
    async def action_read(self) -> None:
        """Reads the end of the file."""
        self._answer.show((("Reading ...", "dim"),))
        try:
            engine = await self._engine()
            text = await engine.read_log(
                self._node.cluster, self._node.node_id, self._file.name, lines=_TAIL_LINES
            )
        except CastrayError as error:
            self._answer.show(((str(error), "bad"),))
            return
        except Exception as error:
            self._answer.show(((f"{type(error).__name__}: {error}", "bad"),))
            return
        lines = [safe_text(line) for line in text.splitlines()]
        self._log_view.clear()
        self._log_view.write_lines(lines)
        words: Cell = ((f"The last {len(lines)} lines; r reads again.", "dim"),)
        self._answer.show(words if lines else (("The file is empty.", "dim"),))

    def action_scroll(self, lines: int) -> None:
        """Scrolls by lines."""
        self._log_view.scroll_relative(y=lines, animate=False)

    def action_top(self) -> None:
        """Scrolls to the first line."""
        self._log_view.scroll_home(animate=False)

    def action_bottom(self) -> None:
        """Scrolls to the last line."""
        self._log_view.scroll_end(animate=False)
