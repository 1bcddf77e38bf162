"""Where the coordinators are that castray left running: the next castray goes straight to them.

Finding out about a cluster, listing its jobs and reading a log takes several times as long as a
small file. A coordinator that still runs proves by its key that it is the one that was noted, and
knows its cluster's nodes; where none answers any more, all goes the ordinary way. Nothing noted is
secret, and nothing is believed that the coordinator itself does not confirm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castray_tui.agent import bundle
from castray_tui.core.config import TransferSettings
from castray_tui.core.models import DiscoveredCluster
from castray_tui.core.transfer.shipping import settings_mark

Json = dict[str, Any]

_FOLDER = "contacts"
_MOST_CONTACTS = 256
_TUPLES = frozenset({"sources", "notes"})


@dataclass(frozen=True, slots=True)
class ControlPlace:
    """Where a coordinator's control port is.

    Attributes:
        hosts: Where it may be reached, in the order in which that is tried.
        public_key: The coordinator's own, made for this run of it.
    """

    hosts: tuple[str, ...]
    port: int
    public_key: int


@dataclass(frozen=True, slots=True)
class Contact:
    """One coordinator that may still run.

    Attributes:
        found: The cluster, as discovery found it; its name is the one that castray shows.
        entry_address: Address of the ``[[clusters]]`` entry that gave it its name, or None.
    """

    found: DiscoveredCluster
    entry_address: str | None
    place: ControlPlace


class ContactBook:
    """The contacts that castrays of one state folder noted.

    Args:
        state_dir: Their state folder.
        settings: Of this run: coordinators that were started with others are not gone back to.
    """

    def __init__(self, state_dir: Path, settings: TransferSettings) -> None:
        self._folder = state_dir / _FOLDER
        self._settings = settings

    def note(self, contact: Contact) -> None:
        """Keeps a contact in place of an earlier one of its cluster, if the folder can be used."""
        found = {
            field.name: value
            for field in dataclasses.fields(contact.found)
            if (value := getattr(contact.found, field.name)) is not None
        }
        if contact.found.resources is not None:
            found["resources"] = dict(contact.found.resources)
        document = {
            "made_of": self._made_of(),
            "found": found,
            "entry_address": contact.entry_address,
            "hosts": contact.place.hosts,
            "port": contact.place.port,
            "public_key": f"{contact.place.public_key:x}",
        }
        path = self._path(contact.found.key)
        written = path.with_name(f".{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(document, file)
            written.replace(path)

    def named(self, name: str) -> Contact | None:
        """The contact of a cluster by its name; None where there is none or it is not to be used:
        an agent of another source, or two clusters of one name."""
        found = [contact for contact in self._all() if contact.found.name == name]
        return found[0] if len(found) == 1 else None

    def forget(self, cluster_key: str) -> None:
        """Drops a contact that is no more."""
        with contextlib.suppress(OSError):
            self._path(cluster_key).unlink()

    def _made_of(self) -> str:
        """Changes with the agent's files and with what its settings are for life."""
        return f"{_source_stamp()}-{settings_mark(self._settings)}"

    def _path(self, cluster_key: str) -> Path:
        return self._folder / f"{hashlib.sha256(cluster_key.encode()).hexdigest()[:32]}.json"

    def _all(self) -> Iterable[Contact]:
        made_of = self._made_of()
        try:
            paths = sorted(self._folder.glob("*.json"))[:_MOST_CONTACTS]
        except OSError:
            return
        for path in paths:
            # Whatever is unreadable or of another castray is as good as none.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_text(encoding="ascii"))
                if told["made_of"] == made_of:
                    yield _contact(told)


def _contact(told: Mapping[str, Any]) -> Contact:
    found: dict[str, Any] = {
        name: tuple(value) if name in _TUPLES else value for name, value in told["found"].items()
    }
    return Contact(
        found=DiscoveredCluster(**found),
        entry_address=told["entry_address"],
        place=ControlPlace(
            hosts=tuple(str(host) for host in told["hosts"]),
            port=int(told["port"]),
            public_key=int(told["public_key"], 16),
        ),
    )


def _source_stamp() -> str:
    """Changes with the agent's files: only a coordinator of the same source takes all orders. Its
    hash, as job names have it, would take longer than the rest of a reunion."""
    folder = Path(bundle.__file__).parent
    told = [
        (entry.name, status.st_size, status.st_mtime_ns)
        for entry in sorted(folder.iterdir())
        if entry.suffix == ".py"
        for status in (entry.stat(),)
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
