"""The folder of castray's own state: its journal and its logs."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from castray_tui.core.config import Settings


def state_path(settings: Settings) -> Path:
    """Where state lies: ``state_dir`` of the settings, else ``$XDG_STATE_HOME/castray``, else the
    platform's place. Nothing is made.
    """
    if settings.state_dir is not None:
        return settings.state_dir
    folder = Path(os.environ.get("XDG_STATE_HOME") or "")
    if folder.is_absolute():  # the XDG specification has relative ones ignored
        return folder / "castray"
    platform: str = sys.platform
    if platform.startswith("linux"):
        return Path(os.path.expanduser("~/.local/state/castray"))  # noqa: PTH111  never raises
    import platformdirs  # noqa: PLC0415  costs start-up time that Linux need not pay

    return platformdirs.user_state_path("castray", appauthor=False)


def state_dir(settings: Settings) -> Path:
    """The folder for state, made if it is not there, for this user's eyes only (mode 0700).

    Where it cannot be made, its path is returned all the same: castray goes on without, and what
    would have been written there says so.
    """
    path = state_path(settings)
    with suppress(OSError):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A folder that the user named may serve others too; castray's own may not.
        if settings.state_dir is None and os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o700)
    return path
