"""``castray config``: every setting, and where its value came from."""

from __future__ import annotations

import argparse
import json
from typing import cast

from castray_tui.cli.output import Column, print_json, print_message, print_table
from castray_tui.cli.settings import settings_for
from castray_tui.core.config_loading import effective_settings
from castray_tui.core.wire_format import JsonValue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``castray config`` has no options of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Prints all settings."""
    loaded = settings_for(arguments)
    rows = effective_settings(loaded)
    if arguments.json:
        print_json(
            {
                "file": None if loaded.file is None else str(loaded.file),
                "settings": {
                    key: {"value": cast(JsonValue, value), "origin": origin}
                    for key, value, origin in rows
                },
            }
        )
        return 0
    print_table(
        [Column("KEY"), Column("VALUE"), Column("FROM")],
        [[key, json.dumps(value, ensure_ascii=False), origin] for key, value, origin in rows],
        ascii_only=loaded.settings.ui.ascii,
    )
    if loaded.file is None:
        print_message("castray: No configuration file was read")
    return 0
