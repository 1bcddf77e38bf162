"""The line into which a filter is typed; the table follows while it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from castray_tui.core.errors import UsageError
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.screens.fleet import FleetScreen


class FilterLine(Input):
    """Filters one pane as it is typed into.

    Args:
        text: The filter that holds already.
        pane: The pane to filter.
    """

    DEFAULT_CSS = """
    FilterLine { height: 1; border: none; padding: 0 1; }
    FilterLine:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_filter", "Clear", id="filter.clear", tooltip="No filter"),
        Binding("enter", "keep", "Keep", key_display="enter", id="filter.keep",
            tooltip="Keep the filter and go back to the rows",
        ),
        Binding("tab,down", "keep", "Keep", show=False, id="filter.rows",
            tooltip="Keep the filter and go back to the rows",
        ),
    ]  # fmt: skip

    def __init__(self, text: str, *, pane: VirtualTable[Any, Any]) -> None:
        super().__init__(
            text,
            placeholder="text  !text  /regex/  state:dead  cluster:ml",
            select_on_focus=False,
            id="filter",
        )
        self._pane = pane

    @property
    def _fleet_screen(self) -> FleetScreen:
        return cast("FleetScreen", self.screen)

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()
        try:
            self._fleet_screen.apply_filter(self._pane, message.value)
        except UsageError as error:
            self._pane.border_subtitle = _subtitle(f"{error.message}")
        else:
            self._pane.border_subtitle = None

    def action_keep(self) -> None:
        """Goes back to the rows."""
        self._leave()

    def action_clear_filter(self) -> None:
        """Takes the filter off and goes back to the rows."""
        self._fleet_screen.apply_filter(self._pane, "")
        self._leave()

    def _leave(self) -> None:
        self._pane.border_subtitle = None
        # At once: the next key is one of the pane's.
        self.screen.set_focus(self._pane)
        self.remove()


def _subtitle(text: str) -> Content:
    return Content(f" {text} ").stylize("$error")
