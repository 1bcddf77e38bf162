"""Bringing the agent to a cluster: castray's key, and the one command that starts a coordinator."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shlex
from pathlib import Path

from castray_tui.agent import bundle, keys
from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import TransferError

JOB_PREFIX = "castray-"
_KEY_FILE = "transfer.key"


class CastrayKey:
    """The private key by which a coordinator knows the castray that started it.

    It lies in the state folder, for this user's eyes only, so that the next castray can take up
    what the last one left running.

    Args:
        state_dir: Made if it is not there.

    Raises:
        TransferError: The file can be neither read nor made.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / _KEY_FILE
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                _write_once(path, f"{keys.new_private_key():x}\n")
            self.private = int(path.read_text(encoding="ascii"), 16)
        except (OSError, ValueError) as error:
            raise TransferError(
                f"castray's key for transfers cannot be read or made at {path}: {error}",
                remedy="Make the folder writable, or remove a damaged key",
            ) from error
        self.public = keys.public_key(self.private)
        self.fingerprint = keys.fingerprint(self.public)


def _write_once(path: Path, text: str) -> None:
    """Makes the file whole and private, and leaves alone one that another castray just made."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def source_hash() -> str:
    """Eight hex digits that change with the agent's source: only equals take each other up."""
    return hashlib.sha256(bundle.pack().encode()).hexdigest()[:8]


def own_prefix(key: CastrayKey) -> str:
    """What the submission IDs of this castray's coordinators begin with."""
    return f"{JOB_PREFIX}{key.fingerprint}-"


def settings_mark(settings: TransferSettings) -> str:
    """Four hex digits that change with the settings that a coordinator and its agents keep for
    life: new transfers go only to those that were started with the settings of now."""
    kept = (settings.agent_idle_seconds, settings.port_range, settings.niceness)
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:4]


def new_submission_id(key: CastrayKey, settings: TransferSettings) -> str:
    """A fresh submission ID that tells whose coordinator it is, of which source and settings."""
    mark = settings_mark(settings)
    return f"{own_prefix(key)}{source_hash()}-{mark}-{secrets.token_hex(4)}"


def coordinator_config(key: CastrayKey, settings: TransferSettings) -> dict[str, object]:
    """What a coordinator has to know; nothing in it is secret."""
    return {
        "public_key": f"{key.public:x}",
        "idle_seconds": settings.agent_idle_seconds,
        "port_range": list(settings.port_range),
        "niceness": settings.niceness,
    }


def entrypoint(python: str | None, config: dict[str, object]) -> str:
    """The shell command of a coordinator's job; everything it needs is in it."""
    statement = (
        f"from castray_agent import coordinator\ncoordinator.main({json.dumps(json.dumps(config))})"
    )
    return f"{shlex.quote(python or 'python')} -c {shlex.quote(bundle.program(statement))}"
