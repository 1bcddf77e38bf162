"""Which bindings a keymap may name, and the refusal of one that names others.

Imports every screen, so that only a castray whose settings have a keymap pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from textual.binding import Binding

from castray_tui import app
from castray_tui.core.errors import ConfigError
from castray_tui.screens import (
    confirm,
    connect,
    details,
    events,
    filter_line,
    fleet,
    help,  # noqa: A004 - the screen's name
    logs,
    transfer,
    transfer_details,
)
from castray_tui.screens.widgets import virtual_table

_MODULES = (
    app, confirm, connect, details, events, filter_line, fleet, help, logs, transfer,
    transfer_details, virtual_table,
)  # fmt: skip


def binding_ids() -> frozenset[str]:
    """The ids of all bindings that castray's app, screens and tables declare."""
    return frozenset(
        binding.id
        for module in _MODULES
        for owner in vars(module).values()
        if isinstance(owner, type)
        for binding in vars(owner).get("BINDINGS", ())
        if isinstance(binding, Binding) and binding.id is not None
    )


def check_keymap(keymap: Mapping[str, str]) -> None:
    """Refuses a keymap that would do nothing.

    Args:
        keymap: Keys by the id of a binding, as ``ui.keymap`` has them.

    Raises:
        ConfigError: It names a binding that does not exist, or gives one no key.
    """
    known = binding_ids()
    for name, keys in keymap.items():
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            # ``discover`` for ``fleet.discover`` is the likeliest slip.
            near = sorted(one for one in known if one.partition(".")[2] == name) or near
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"No key belongs to {name!r} (ui.keymap)",
                remedy=f"{meant}All ids are in docs/keys.md",
            )
        if not all(key.strip() for key in keys.split(",")):
            raise ConfigError(
                f"ui.keymap gives {name!r} an empty key: {keys!r}",
                remedy="Name keys with commas between them, 'd,f5' for example",
            )
