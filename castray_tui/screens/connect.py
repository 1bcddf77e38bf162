"""The question which cluster to connect to: an address, or one of those found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus
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
        chosen: The key of a found cluster to begin with; None begins with the first.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="connect.close", priority=True,
            tooltip="Close without connecting",
        ),
        Binding("down", "move(1)", "Down", show=False, id="connect.down", priority=True,
            tooltip="Next of the clusters that were found",
        ),
        Binding("up", "move(-1)", "Up", show=False, id="connect.up", priority=True,
            tooltip="The found cluster before; above the first, back to the address",
        ),
        Binding("tab", "app.focus_next", "Next", show=False, id="connect.next", priority=True,
            tooltip="Go to the next field",
        ),
        Binding("shift+tab", "app.focus_previous", "Before", show=False, id="connect.previous",
            priority=True, tooltip="Go to the field before",
        ),
    ]  # fmt: skip

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        glyphs: Glyphs,
        *,
        chosen: str | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._chosen = chosen
        self._answered = False
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
            dialog.border_subtitle = "enter connect  up/down choose  esc close"
            yield Static("Address or name", classes="label", markup=False)
            yield Input(
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
        self._address.focus()
        self.watch(self.app, "fleet", self._fleet_changed)
        if self._chosen is not None:
            self._found.move_cursor_to(self._chosen)

    @property
    def _address(self) -> Input:
        return self.query_one("#address", Input)

    def _fleet_changed(self, fleet: Fleet) -> None:
        rows = {key: row for key, row in cluster_rows(fleet).items() if row.cluster is None}
        self._found.set_rows(rows)
        self._say_what_enter_does()

    @on(VirtualTable.CursorMoved)
    @on(Input.Changed)
    def _choice_changed(self) -> None:
        if not self.query_one("#connect", Button).disabled:
            self._answered = False
        self._say_what_enter_does()

    @on(DescendantFocus)
    def _say_what_enter_does(self) -> None:
        """Names the cluster that enter would connect to, until there is an answer to show."""
        if self._answered:
            return
        row = self._found.cursor_row
        if row is None or (self._address.value.strip() and not self._found.has_focus):
            self._show("", failed=False)
        else:
            self._show(f"Enter connects to {row.name}.", failed=False)

    def action_move(self, rows: int) -> None:
        """Moves through what was found, from the address too."""
        found = self._found
        if not found.shown_keys:
            return
        if found.has_focus:
            if rows < 0 and found.cursor_key == found.shown_keys[0]:
                self._address.focus()
            else:
                found.action_move(rows)
            return
        if rows > 0 or not self._address.has_focus:
            # Where nothing is typed, the cursor's row is chosen already: the next one is meant.
            if not self._address.value.strip() and self._address.has_focus:
                found.action_move(rows)
            found.focus()

    def action_close(self) -> None:
        """Closes without connecting; a connection under way goes on."""
        self.dismiss()

    @on(VirtualTable.Chosen)
    def _found_chosen(self, message: VirtualTable.Chosen) -> None:
        message.stop()
        self._connect_found()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._connect_typed()

    @on(Button.Pressed)
    def _pressed(self, message: Button.Pressed) -> None:
        message.stop()
        if message.button.id == "close":
            self.dismiss()
        else:
            self._connect_typed()

    def _connect_typed(self) -> None:
        """Connects to the address; where none is typed, to the cluster under the cursor."""
        address = self._address.value.strip()
        if address:
            self._connect(address)
        else:
            self._connect_found()

    def _connect_found(self) -> None:
        row = self._found.cursor_row
        if row is None:
            self._answer("Nothing was found: type an address.", failed=True)
        else:
            self._connect(row.name)

    @work(name="connect", group="connect", exclusive=True)
    async def _connect(self, address: str) -> None:
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
        self._answered = True
        self._show(text, failed=failed)

    def _show(self, text: str, *, failed: bool) -> None:
        answer = self.query_one("#answer", Static)
        answer.set_classes("error" if failed else "hint")
        answer.update(drawable(text))
