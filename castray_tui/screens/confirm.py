"""A question before something that cannot be taken back."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from castray_tui.screens.widgets.cells import drawable


class ConfirmDialog(ModalScreen[bool]):
    """Asks; the answer is False unless the user says yes.

    Args:
        question: What is asked.
        consequence: What will happen.
        yes: What the button that does it says.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding("n,escape,q", "answer(False)", "No", id="confirm.no", tooltip="Leave it as it is"),
        Binding("left,h", "app.focus_previous", "Left", show=False, id="confirm.left",
            tooltip="The button to the left",
        ),
        Binding("right,l", "app.focus_next", "Right", show=False, id="confirm.right",
            tooltip="The button to the right",
        ),
    ]  # fmt: skip

    def __init__(self, question: str, consequence: str, yes: str) -> None:
        super().__init__()
        self._question = drawable(question)
        self._consequence = drawable(consequence)
        self._yes = yes

    def compose(self) -> ComposeResult:
        """Lays out question and buttons."""
        with Vertical(classes="dialog small"):
            yield Static(self._question, markup=False, classes="heading")
            yield Static(self._consequence, markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no", compact=True)
                yield Button(f"{self._yes} (y)", id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        """Stands on the answer that changes nothing."""
        self.query_one("#no").focus()

    def action_answer(self, answer: bool) -> None:
        """Closes with an answer."""
        self.dismiss(answer)

    @on(Button.Pressed)
    def _pressed(self, message: Button.Pressed) -> None:
        message.stop()
        self.dismiss(message.button.id == "yes")
