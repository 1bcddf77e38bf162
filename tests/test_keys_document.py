"""``docs/keys.md`` says what the bindings say: ``python tests/test_keys_document.py`` writes it."""

from __future__ import annotations

from pathlib import Path

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import format_key

from castray_tui.app import CastrayApp
from castray_tui.keymap import binding_ids
from castray_tui.screens.confirm import ConfirmDialog
from castray_tui.screens.connect import ConnectDialog
from castray_tui.screens.details import ClusterDetails, NodeDetails
from castray_tui.screens.events import EventsScreen
from castray_tui.screens.filter_line import FilterLine
from castray_tui.screens.fleet import FleetScreen
from castray_tui.screens.help import HelpScreen
from castray_tui.screens.logs import LogsScreen, LogTailScreen
from castray_tui.screens.transfer import TransferDialog
from castray_tui.screens.transfer_details import TransferDetails
from castray_tui.screens.widgets.virtual_table import VirtualTable

DOCUMENT = Path(__file__).parent.parent / "docs" / "keys.md"
PLACES: tuple[tuple[str, tuple[type[DOMNode], ...]], ...] = (
    ("The fleet", (FleetScreen,)),
    ("In every table", (VirtualTable,)),
    ("Everywhere", (CastrayApp,)),
    ("Typing a filter", (FilterLine,)),
    ("Connect", (ConnectDialog,)),
    ("Transfer", (TransferDialog,)),
    ("Questions", (ConfirmDialog,)),
    ("Details", (ClusterDetails, NodeDetails, TransferDetails)),
    ("Events", (EventsScreen,)),
    ("Logs", (LogsScreen, LogTailScreen)),
    ("Help", (HelpScreen,)),
)
HEAD = """# Keys

Made from the bindings by `python tests/test_keys_document.py`; a test keeps it true. `?` shows the
keys that work where you are. Every key can be changed by the id of its binding:

```toml
[ui.keymap]
"fleet.discover" = "d,f5"
```

`x` disconnects a cluster in the panes of clusters and nodes, and cancels a transfer in the pane of
transfers. A filter is any number of terms that must all hold: `text`, `!text`, `/regular
expression/`, `state:dead`, `cluster:ml`, and for nodes also `node:`, `address:`, `host:`, `id:`,
`type:`, `reason:`, `label:`, `resource:`, `gpu:`.
"""


def own_bindings(owner: type[DOMNode]) -> list[Binding]:
    """The bindings that castray's classes declare, those of their own base classes included."""
    found: list[Binding] = []
    for one in owner.__mro__:
        if one.__module__.startswith("castray_tui"):
            found += [b for b in vars(one).get("BINDINGS", ()) if isinstance(b, Binding)]
    return found


def document() -> str:
    """The whole file."""
    parts = [HEAD]
    for title, owners in PLACES:
        rows: dict[str, str] = {}
        for binding in (one for owner in owners for one in own_bindings(owner)):
            keys = " ".join(f"`{format_key(key.strip())}`" for key in binding.key.split(","))
            assert binding.id is not None, f"{binding} has no id for the keymap"
            assert binding.tooltip, f"{binding.id} does not say what it does"
            rows[binding.id] = f"| {keys} | {binding.tooltip} | `{binding.id}` |"
        lines = "\n".join(rows.values())
        parts.append(f"\n## {title}\n\n| key | does | id |\n|---|---|---|\n{lines}\n")
    return "".join(parts)


def test_document_is_true() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_the_keymap_may_name_every_binding_that_is_documented_and_no_other() -> None:
    documented = {
        binding.id for _, owners in PLACES for owner in owners for binding in own_bindings(owner)
    }
    assert binding_ids() == documented


def test_ids_are_unique_save_where_one_key_is_the_same_in_several_places() -> None:
    shared = {"screen.back"}
    seen: dict[str, type[DOMNode]] = {}
    for _, owners in PLACES:
        for owner in owners:
            for binding in own_bindings(owner):
                assert binding.id is not None
                other = seen.setdefault(binding.id, owner)
                if other is not owner and binding.id not in shared:
                    assert issubclass(owner, other.__mro__[1]), binding.id


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
