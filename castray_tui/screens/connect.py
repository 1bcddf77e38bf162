"""The question which cluster to connect to: an address, or one of those found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Fleet
from castray_tui.screens.widgets.cells import drawable
from castray_tui.screens.widgets.cluster_columns import (
    CLUSTER_COLUMNS,
    ClusterRow,
    cluster_rows,
    natural_cluster_order,
)
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine


class ConnectDialog(ModalScreen[None]):
    """Stays open until a connection stands or the user leaves it.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        chosen: The name of a found cluster to begin with.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="connect.close", priority=True,
            tooltip="Close without connecting",
        ),
        Binding("tab", "app.focus_next", "Next", show=False, id="connect.next",
            tooltip="Go to the next field",
        ),
        Binding("shift+tab", "app.focus_previous", "Before", show=False, id="connect.previous",
            tooltip="Go to the field before",
        ),
    ]  # fmt: skip

    def __init__(
        self, engine: Callable[[], Awaitable[Engine]], glyphs: Glyphs, *, chosen: str = ""
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._chosen = chosen
        columns = [one for one in CLUSTER_COLUMNS if one.key not in {"jobs", "latency", "age"}]
        self._found: VirtualTable[str, ClusterRow] = VirtualTable(
            columns,
            glyphs,
            natural=natural_cluster_order,
            empty=("Nothing found that castray is not connected to.",),
            id="found",
        )

    def compose(self) -> ComposeResult:
        """Lays out the fields."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Connect to a cluster"
            dialog.border_subtitle = "enter connect  tab list  esc close"
            yield Static("Address or name", classes="label", markup=False)
            yield Input(
                self._chosen,
                placeholder="host:8265  http(s)://host:8265  host:6379  ray://host:10001",
                id="address",
            )
            yield Static("Found and not connected", classes="label", markup=False)
            yield self._found
            yield Static("", id="answer", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Close", id="close", compact=True)
                yield Button("Connect", id="connect", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Follows what is found."""
        self.query_one("#address").focus()
        self.watch(self.app, "fleet", self._fleet_changed)

    def _fleet_changed(self, fleet: Fleet) -> None:
        rows = {key: row for key, row in cluster_rows(fleet).items() if row.cluster is None}
        self._found.set_rows(rows)

    def action_close(self) -> None:
        """Closes without connecting; a connection under way goes on."""
        self.dismiss()

    @on(VirtualTable.Chosen)
    def _found_chosen(self, message: VirtualTable.Chosen) -> None:
        message.stop()
        row = self._found.cursor_row
        if row is not None:
            self.query_one("#address", Input).value = row.name
            self._connect()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._connect()

    @on(Button.Pressed)
    def _pressed(self, message: Button.Pressed) -> None:
        message.stop()
        if message.button.id == "close":
            self.dismiss()
        else:
            self._connect()

    @work(name="connect", group="connect", exclusive=True)
    async def _connect(self) -> None:
        address = self.query_one("#address", Input).value.strip()
        if not address:
            self._answer("Type an address, or choose a cluster from the list.", failed=True)
            return
        self._answer(f"Connecting to {address} ...", failed=False)
        button = self.query_one("#connect", Button)
        button.disabled = True
        try:
            cluster = await (await self._engine()).connect(address)
        except CastrayError as error:
            self._answer(str(error), failed=True)
        except Exception as error:
            self._answer(f"{type(error).__name__}: {error}", failed=True)
            self.log.error(error)
        else:
            self.app.notify(drawable(f"Connected to {cluster.name}."), timeout=3, markup=False)
            if self.is_current:
                self.dismiss()
        finally:
            button.disabled = False

    def _answer(self, text: str, *, failed: bool) -> None:
        answer = self.query_one("#answer", Static)
        answer.set_classes("error" if failed else "hint")
        answer.update(drawable(text))
