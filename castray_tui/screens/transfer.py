"""The question what to send where: source, targets, and the plan before the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import (
    Fleet,
    LinkPolicy,
    Node,
    Overwrite,
    PlannedTarget,
    TransferPlan,
    TransferRequest,
)
from castray_tui.screens.transfer_request import (
    quoted,
    request_of,
    target_addresses,
    target_words,
    words_of,
)
from castray_tui.screens.widgets import figures
from castray_tui.screens.widgets.cells import Role, drawable, text_width
from castray_tui.screens.widgets.columns import Column
from castray_tui.screens.widgets.glyphs import Glyphs
from castray_tui.screens.widgets.place_text import row_label
from castray_tui.screens.widgets.route_text import route_text
from castray_tui.screens.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from castray_tui.core.engine import Engine

_POLICIES: tuple[Overwrite, ...] = ("if-different", "never", "always")
_LINK_POLICIES: tuple[LinkPolicy, ...] = ("keep", "follow", "refuse")
_FIELDS: dict[str, tuple[str, str]] = {
    "source": (
        "Source",
        "Files or folders here, or CLUSTER/NODE:PATH; quote names with spaces.",
    ),
    "targets": ("Targets", "CLUSTER/NODE ..., wildcards work; NODE:PATH keeps its own path."),
    "path": ("Path", "Where on the targets; a folder to put the source into ends in /"),
    "exclude": ("Exclude", "Patterns of what stays behind in folders: *.log .git/ data/tmp"),
    "include": ("Include", "Patterns of what is sent even where it is excluded."),
    "limit": ("Limit", "Bytes a second of all together, such as 10MB; empty: as configured."),
    "link-limit": ("One link", "Bytes a second from one node to another; empty: as configured."),
}
"""By a field's id: its label, and what is said while it has the focus."""
_ACTION_ROLES: dict[str, Role] = {"send": "ok", "skip": "dim", "refuse": "bad"}


def _label(target: PlannedTarget, arrow: str) -> str:
    return row_label(target.cluster, target.node, target.source, arrow)


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
        lambda target, paint: ((_label(target, paint.glyphs.arrow), "strong"),),
        14,
        34,
        content=lambda target: text_width(_label(target, "->")),
    ),
    Column("send", "SEND", lambda target, _: ((figures.size(target.send_bytes), ""),), 5,
        priority=2, right=True),
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


class TransferDialog(ModalScreen[None]):
    """Asks for source and targets, shows the plan, starts the transfer.

    Args:
        engine: Gives the engine as soon as it runs.
        glyphs: The signs to draw with.
        fleet: The fleet as it is.
        chosen: The nodes to begin with.
        overwrite: What to do where a file is already, to begin with.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="transfer.close", priority=True,
            tooltip="Close without sending",
        ),
        Binding("ctrl+o", "policy", "Overwrite", id="transfer.policy", priority=True,
            tooltip="What to do where a file is already: if different, never, always",
        ),
        Binding("ctrl+l", "links", "Links", id="transfer.links", priority=True,
            tooltip="What becomes of symbolic links in folders: keep, follow, refuse",
        ),
        Binding("ctrl+r", "swap", "Swap", id="transfer.swap", priority=True,
            tooltip="Source and targets change places: fetch from the nodes instead",
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
        *,
        overwrite: Overwrite = "if-different",
    ) -> None:
        super().__init__()
        self._engine = engine
        self._glyphs = glyphs
        self._targets = target_words([node for node in chosen if not node.is_local], fleet)
        self._policy: Overwrite = overwrite
        self._links: LinkPolicy = "keep"
        self._plan_table: VirtualTable[int, PlannedTarget] = VirtualTable(
            _PLAN_COLUMNS,
            glyphs,
            natural=lambda one: (one.cluster, one.node, one.source or "", one.path),
            empty=("Enter shows the plan: what each target would get,", "before a byte is sent."),
            id="plan",
        )

    def compose(self) -> ComposeResult:
        """Lays out the fields."""
        here = str(Path.cwd())
        source = quoted([here if here.endswith("/") else f"{here}/"])
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Transfer"
            dialog.border_subtitle = "enter plan  ctrl+s start  ctrl+r fetch instead  esc close"
            with Horizontal(classes="fields"):
                yield from _field("source", source)
            with Horizontal(classes="fields"):
                yield from _field("targets", self._targets, "ml/head  ml/*  */*")
            with Horizontal(classes="fields"):
                yield from _field("path", "/tmp/")  # noqa: S108 - a proposal to edit
            with Horizontal(classes="fields"):
                yield from _field("exclude")
                yield from _field("include")
            with Horizontal(classes="fields"):
                yield from _field("limit", placeholder="none")
                yield from _field("link-limit", placeholder="none")
            yield Static("", id="policy", classes="hint", markup=False)
            yield Static("", id="links", classes="hint", markup=False)
            yield Static("", id="field-hint", classes="label", markup=False)
            yield self._plan_table
            yield Static("", id="route", classes="hint", markup=False)
            yield Static("", id="answer", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Close", id="close", compact=True)
                yield Button("Plan", id="plan-button", compact=True)
                yield Button("Start", id="start", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Begins at the source."""
        source = self._input("source")
        source.focus()
        source.cursor_position = len(source.value)
        self.query_one("#route").display = False
        self._show_choices()

    def _input(self, field: str) -> Input:
        return self.query_one(f"#{field}", Input)

    @on(DescendantFocus)
    def _focus_moved(self, message: DescendantFocus) -> None:
        _, hint = _FIELDS.get(message.widget.id or "", ("", ""))
        self.query_one("#field-hint", Static).update(hint)

    def _show_choices(self) -> None:
        words = {"if-different": "if different"}
        policies = [(words.get(each, each), each == self._policy) for each in _POLICIES]
        links = [(each, each == self._links) for each in _LINK_POLICIES]
        self.query_one("#policy", Static).update(_choice("Overwrite (ctrl+o)", policies))
        self.query_one("#links", Static).update(_choice("Links (ctrl+l)", links))

    def action_policy(self) -> None:
        """Chooses the next way to treat files that are there already."""
        self._policy = _POLICIES[(_POLICIES.index(self._policy) + 1) % len(_POLICIES)]
        self._show_choices()

    def action_links(self) -> None:
        """Chooses the next way to treat symbolic links."""
        self._links = _LINK_POLICIES[(_LINK_POLICIES.index(self._links) + 1) % len(_LINK_POLICIES)]
        self._show_choices()

    def action_swap(self) -> None:
        """Fetches instead: the targets become the sources, where the source was the target."""
        source, targets, path = map(self._input, ("source", "targets", "path"))
        try:
            addresses = target_addresses(targets.value, path.value)
            sources = words_of(source.value)
        except CastrayError as error:
            self._answer(str(error), failed=True)
            return
        if not addresses:
            self._answer("There is no target to fetch from.", failed=True)
            return
        node, _, target_path = (sources[0] if sources else f"{Path.cwd()}/").partition(":")
        if not target_path:
            node, target_path = "local", node
        source.value, targets.value, path.value = quoted(addresses), node, target_path
        # What comes next is the file's name.
        source.focus()
        source.cursor_position = len(source.value)

    def action_close(self) -> None:
        """Closes without sending."""
        self.dismiss()

    def _request(self) -> TransferRequest | None:
        try:
            return request_of(
                sources=self._input("source").value,
                targets=self._input("targets").value,
                path=self._input("path").value,
                exclude=self._input("exclude").value,
                include=self._input("include").value,
                limit=self._input("limit").value,
                link_limit=self._input("link-limit").value,
                overwrite=self._policy,
                links=self._links,
            )
        except CastrayError as error:
            self._answer(str(error), failed=True)
        return None

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()

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
            self._show_route(())
            self._answer(str(error), failed=True)
            return
        except Exception as error:
            self._answer(f"{type(error).__name__}: {error}", failed=True)
            return
        self._show_plan(plan)
        if any(target.action == "send" for target in plan.targets):
            self.query_one("#start", Button).focus()

    def _show_plan(self, plan: TransferPlan) -> None:
        self._plan_table.set_rows(dict(enumerate(plan.targets)))
        counts = {
            action: sum(target.action == action for target in plan.targets)
            for action in ("send", "skip", "refuse")
        }
        self._show_route(plan.route)
        what = figures.size(plan.bytes_total)
        if plan.files is not None and plan.files != 1:
            what = f"{plan.files} files, {what}"
        words = [f"{what} to {counts['send']} of {len(plan.targets)}"]
        if counts["skip"]:
            words.append(f"{counts['skip']} skipped")
        if counts["refuse"]:
            words.append(f"{counts['refuse']} refused")
        if plan.predicted_seconds is not None:
            words.append(f"about {figures.duration(plan.predicted_seconds)}")
        self._answer(", ".join(words), failed=counts["refuse"] > 0)

    def _show_route(self, hops: Sequence[str]) -> None:
        route = self.query_one("#route", Static)
        route.display = bool(hops)
        route.update(drawable(route_text(hops)))

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


def _field(name: str, value: str = "", placeholder: str = "") -> Iterator[Widget]:
    label, _ = _FIELDS[name]
    yield Static(label, classes="label", markup=False)
    yield Input(value, placeholder=placeholder, id=name, select_on_focus=False)


def _choice(label: str, options: Sequence[tuple[str, bool]]) -> str:
    boxes = "   ".join(f"[{'x' if is_chosen else ' '}] {word}" for word, is_chosen in options)
    return f"{label:<20} {boxes}"
