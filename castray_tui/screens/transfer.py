"""The question what to send where: source, targets, and the plan before the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import (
    Fleet,
    Node,
    Overwrite,
    PlannedTarget,
    TransferPlan,
    TransferRequest,
)
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Role, drawable, text_width
from castray_tui.screens.widgets.columns import Column
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine

_POLICIES: tuple[Overwrite, ...] = ("if-different", "never", "always")
_POLICY_WORDS = {
    "if-different": "if different",
    "never": "never",
    "always": "always",
}
_ACTION_ROLES: dict[str, Role] = {"send": "ok", "skip": "dim", "refuse": "bad"}

_PLAN_COLUMNS: tuple[Column[PlannedTarget], ...] = (
    Column(
        "action",
        "PLAN",
        lambda target, _: ((target.action, _ACTION_ROLES[target.action]),),
        6,
    ),
    Column(
        "node",
        "NODE",
        lambda target, _: ((f"{target.cluster}/{target.node}", "strong"),),
        14,
        34,
        content=lambda target: text_width(target.cluster) + 1 + text_width(target.node),
    ),
    Column("free", "FREE", lambda target, _: ((figures.size(target.free_bytes), ""),), 5,
        right=True),
    Column(
        "why",
        "PATH OR REASON",
        lambda target, _: (
            (
                target.reason or target.path,
                "bad" if target.action == "refuse" else "dim",
            ),
        ),
        16,
        200,
    ),
)  # fmt: skip


def target_words(chosen: Sequence[Node], fleet: Fleet) -> str:
    """Nodes as addresses without a path; a whole cluster is ``CLUSTER/*``."""
    words: list[str] = []
    by_cluster: dict[str, list[Node]] = {}
    for node in chosen:
        by_cluster.setdefault(node.cluster, []).append(node)
    for cluster, nodes in by_cluster.items():
        living = {
            node.key for node in fleet.nodes if node.cluster == cluster and node.status != "dead"
        }
        if len(nodes) > 1 and {node.key for node in nodes} == living:
            words.append(f"{cluster}/*")
        else:
            words += [node.name if node.is_local else f"{cluster}/{node.name}" for node in nodes]
    return " ".join(words)


def target_addresses(words: str, path: str) -> tuple[str, ...]:
    """Addresses from what was typed: a word with a path of its own keeps it."""
    return tuple(
        word if ":" in word else f"{word}:{path}" for word in words.replace(",", " ").split()
    )


class TransferDialog(ModalScreen[None]):
    """Asks for source and targets, shows the plan, starts the transfer.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        fleet: The fleet as it is.
        chosen: The nodes to begin with.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="transfer.close", priority=True,
            tooltip="Close without sending",
        ),
        Binding("ctrl+o", "policy", "Overwrite", id="transfer.policy", priority=True,
            tooltip="What to do where a file is already: if different, never, always",
        ),
        Binding("ctrl+r", "swap", "Swap", id="transfer.swap", priority=True,
            tooltip="Source and targets change places: fetch from the node instead",
        ),
        Binding("ctrl+s", "start", "Start", id="transfer.start", priority=True,
            tooltip="Start the transfer",
        ),
        Binding("tab", "app.focus_next", "Next", show=False, id="transfer.next", priority=True,
            tooltip="Go to the next field",
        ),
        Binding("shift+tab", "app.focus_previous", "Before", show=False, id="transfer.previous",
            priority=True, tooltip="Go to the field before",
        ),
    ]  # fmt: skip

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        glyphs: Glyphs,
        fleet: Fleet,
        chosen: Sequence[Node],
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._targets = target_words([node for node in chosen if not node.is_local], fleet)
        self._policy: Overwrite = "if-different"
        self._planned: TransferRequest | None = None
        self._plan_table: VirtualTable[int, PlannedTarget] = VirtualTable(
            _PLAN_COLUMNS,
            glyphs,
            natural=lambda target: (target.cluster, target.node, target.path),
            empty=("Enter shows the plan: what each target would get,", "before a byte is sent."),
            id="plan",
        )

    def compose(self) -> ComposeResult:
        """Lays out the fields."""
        here = str(Path.cwd())
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Transfer"
            dialog.border_subtitle = "enter plan  ctrl+s start  ctrl+r fetch instead  esc close"
            yield Static("Source: a path here, or CLUSTER/NODE:PATH", classes="label", markup=False)
            yield Input(
                here if here.endswith("/") else f"{here}/", id="source", select_on_focus=False
            )
            yield Static("Targets: CLUSTER/NODE ..., wildcards work", classes="label", markup=False)
            yield Input(
                self._targets, placeholder="ml/head  ml/*  */*", id="targets", select_on_focus=False
            )
            yield Static("Path on the targets; a folder ends in /", classes="label", markup=False)
            yield Input("/tmp/", id="path", select_on_focus=False)  # noqa: S108 - a proposal to edit
            yield Static("", id="policy", classes="hint", markup=False)
            yield self._plan_table
            yield Static("", id="answer", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Close", id="close", compact=True)
                yield Button("Plan", id="plan-button", compact=True)
                yield Button("Start", id="start", variant="primary", compact=True)  # fmt: skip

    def on_mount(self) -> None:
        """Begins at the source."""
        source = self.query_one("#source", Input)
        source.focus()
        source.cursor_position = len(source.value)
        self._show_policy()

    def _show_policy(self) -> None:
        words = "   ".join(
            f"[{'x' if policy == self._policy else ' '}] {_POLICY_WORDS[policy]}"
            for policy in _POLICIES
        )
        self.query_one("#policy", Static).update(f"Overwrite (ctrl+o)   {words}")

    def action_policy(self) -> None:
        """Chooses the next way to treat files that are there already."""
        self._policy = _POLICIES[(_POLICIES.index(self._policy) + 1) % len(_POLICIES)]
        self._show_policy()
        self._planned = None

    def action_swap(self) -> None:
        """Fetches instead: the first target becomes the source, this machine the target."""
        source = self.query_one("#source", Input)
        targets = self.query_one("#targets", Input)
        path = self.query_one("#path", Input)
        addresses = target_addresses(targets.value, path.value)
        if not addresses:
            self._answer("There is no target to fetch from.", failed=True)
            return
        node, _, target_path = source.value.partition(":")
        if not target_path:
            node, target_path = "local", source.value
        source.value, targets.value, path.value = addresses[0], node, target_path
        # What comes next is the file's name.
        source.focus()
        source.cursor_position = len(source.value)

    def action_close(self) -> None:
        """Closes without sending."""
        self.dismiss()

    def _request(self) -> TransferRequest | None:
        source = self.query_one("#source", Input).value.strip()
        path = self.query_one("#path", Input).value.strip()
        targets = target_addresses(self.query_one("#targets", Input).value, path)
        if not source:
            self._answer("Say what to send.", failed=True)
        elif not targets:
            self._answer("Say where to: name nodes, or close and mark some.", failed=True)
        elif any(target.endswith(":") for target in targets):
            self._answer("Say the path on the targets.", failed=True)
        else:
            return TransferRequest(sources=(source,), targets=targets, overwrite=self._policy)
        return None

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()
        self._planned = None

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._plan()

    @on(Button.Pressed)
    def _pressed(self, message: Button.Pressed) -> None:
        message.stop()
        if message.button.id == "close":
            self.dismiss()
        elif message.button.id == "start":
            self.action_start()
        else:
            self._plan()

    @work(name="plan", group="plan", exclusive=True)
    async def _plan(self) -> None:
        request = self._request()
        if request is None:
            return
        self._answer("Asking the nodes ...", failed=False)
        try:
            plan = await (await self._engine()).plan_transfer(request)
        except CastrayError as error:
            self._plan_table.set_rows({})
            self._answer(str(error), failed=True)
            return
        except Exception as error:
            self._answer(f"{type(error).__name__}: {error}", failed=True)
            return
        self._show_plan(plan)
        self._planned = request
        if any(target.action == "send" for target in plan.targets):
            self.query_one("#start", Button).focus()

    def _show_plan(self, plan: TransferPlan) -> None:
        self._plan_table.set_rows(dict(enumerate(plan.targets)))
        counts = {
            action: sum(target.action == action for target in plan.targets)
            for action in ("send", "skip", "refuse")
        }
        words = [f"{figures.size(plan.bytes_total)} to {counts['send']} of {len(plan.targets)}"]
        if counts["skip"]:
            words.append(f"{counts['skip']} skipped")
        if counts["refuse"]:
            words.append(f"{counts['refuse']} refused")
        if plan.predicted_seconds is not None:
            words.append(f"about {figures.duration(plan.predicted_seconds)}")
        self._answer(", ".join(words), failed=counts["refuse"] > 0)

    @work(name="start transfer", group="start", exclusive=True)
    async def action_start(self) -> None:
        """Starts the transfer and closes."""
        request = self._request()
        if request is None:
            return
        button = self.query_one("#start", Button)
        button.disabled = True
        self._answer("Starting ...", failed=False)
        try:
            transfer = await (await self._engine()).start_transfer(request)
        except CastrayError as error:
            self._answer(str(error), failed=True)
        except Exception as error:
            self._answer(f"{type(error).__name__}: {error}", failed=True)
        else:
            count = len(transfer.targets)
            self.app.notify(
                f"Sending to {count} target{'' if count == 1 else 's'}: started.",
                timeout=2,
                markup=False,
            )
            if self.is_current:
                self.dismiss()
        finally:
            button.disabled = False

    def _answer(self, text: str, *, failed: bool) -> None:
        answer = self.query_one("#answer", Static)
        answer.set_classes("error" if failed else "hint")
        answer.update(drawable(text))
