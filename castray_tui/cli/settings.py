"""The settings of a command: what the command line said, over environment and file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from castray_tui.core.config_loading import LoadedSettings, load_settings


def settings_for(
    arguments: argparse.Namespace, overrides: Mapping[str, object] | None = None
) -> LoadedSettings:
    """Loads the settings of this run.

    Args:
        arguments: The parsed command line, with the options of every command.
        overrides: Further values by dotted key that the command's own options set; None is what
            was not given.

    Raises:
        ConfigError: Something in the file, the environment or the options is wrong.
    """
    return load_settings(
        config_path=Path(arguments.config) if arguments.config is not None else None,
        overrides={
            "read_only": True if arguments.read_only else None,
            "ui.ascii": True if arguments.ascii else None,
            **(overrides or {}),
        },
        environ=os.environ,
        working_dir=Path.cwd(),
    )
