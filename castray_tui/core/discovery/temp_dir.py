"""Method ``temp_dir``: Ray's session folders, the living told from what was left behind.

Looked at are Ray's default temp dirs, those that ``RAY_TMPDIR`` and ``TMPDIR`` name, and those of
running processes. A folder never says by itself that its session lives; the session's GCS does.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from castray_tui.core.discovery.addresses import split_host_port
from castray_tui.core.discovery.process_scan import claim_of
from castray_tui.core.discovery.ray_processes import LocalSession
from castray_tui.core.discovery.sightings import Claim, Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.verification import verify

_SESSION_FOLDER = re.compile(r"session_\d{4}-\d\d-\d\d_[A-Za-z0-9_-]{1,100}\Z")
# Ray leaves a folder behind for every session; the newest are looked into without a process's word.
_MOST_FOLDERS = 50


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """One session's folder.

    Attributes:
        real: The folder without symbolic links, to know it again under another name.
        gcs: The addresses that files beside and in it tell.
    """

    temp_dir: str
    session_name: str
    real: str
    gcs: tuple[tuple[str, int], ...] = ()

    @property
    def path(self) -> str:
        """The folder itself."""
        return str(Path(self.temp_dir) / self.session_name)


def default_temp_dirs(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where Ray puts its sessions when it is not told, by its own rules."""
    folders = []
    ray_tmpdir, tmpdir = environ.get("RAY_TMPDIR"), environ.get("TMPDIR")
    if ray_tmpdir:
        folders += [str(Path(ray_tmpdir) / "ray"), ray_tmpdir]
    if tmpdir:
        folders.append(str(Path(tmpdir) / "ray"))
    if sys.platform == "win32":
        import tempfile  # noqa: PLC0415 - 10 ms that only Windows needs

        folders.append(str(Path(tempfile.gettempdir()) / "ray"))
    else:
        folders.append("/tmp/ray")  # noqa: S108 - Ray's own default
    return tuple(dict.fromkeys(folders))


def current_cluster(temp_dir: str) -> tuple[str, int] | None:
    """The GCS address of the cluster last started there; it stays behind when that dies."""
    text = _read(Path(temp_dir) / "ray_current_cluster")
    return split_host_port(text) if text else None


def session_folders(temp_dir: str, wanted: Iterable[str] = ()) -> list[SessionFolder]:
    """The session folders of one temp dir, newest first.

    Args:
        temp_dir: Need not exist.
        wanted: Names of sessions that are looked at however old they are.
    """
    try:
        names = [
            entry.name
            for entry in os.scandir(temp_dir)
            if _SESSION_FOLDER.match(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    except OSError:
        return []
    names.sort(reverse=True)
    kept = names[:_MOST_FOLDERS]
    kept += [name for name in names[_MOST_FOLDERS:] if name in set(wanted)]
    current = current_cluster(temp_dir)
    latest = _latest(temp_dir)
    folders = []
    for name in kept:
        path = Path(temp_dir) / name
        places = [current] if current is not None and name == latest else []
        for port in _gcs_ports(path):
            # The head writes this file, so its GCS is on the machine whose folder this is.
            places += [(current[0], port)] if current and current[1] == port else []
            places.append(("127.0.0.1", port))
        folders.append(
            SessionFolder(temp_dir, name, os.path.realpath(path), tuple(dict.fromkeys(places)))
        )
    return folders


def _latest(temp_dir: str) -> str | None:
    try:
        return (Path(temp_dir) / "session_latest").readlink().name
    except OSError:
        return None


def _gcs_ports(folder: Path) -> list[int]:
    ports = []
    try:
        for entry in os.scandir(folder):
            if entry.name.startswith("gcs_server_port_"):
                text = _read(Path(entry.path)) or ""
                if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65_536:
                    ports.append(int(text))
    except OSError:
        return []
    return ports


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(300).strip()
    except OSError:
        return None


async def scan_temp_dirs(
    environ: Mapping[str, str], surroundings: Surroundings, found: Callable[[Sighting], None]
) -> None:
    """Reports every living cluster that has a session folder here.

    Args:
        environ: Where the names of temp dirs are read from.
        surroundings: Shared answers.
        found: Called with each as soon as it is verified.
    """
    try:
        sessions = await surroundings.sessions()
    # Without processes, the default places and the GCS's own word are still there.
    except Exception:
        sessions = ()
    by_name = {session.session_name: session for session in sessions if session.same_files}
    temp_dirs = dict.fromkeys(
        (
            *default_temp_dirs(environ),
            *(session.temp_dir for session in by_name.values() if session.temp_dir),
        )
    )
    listed = await asyncio.gather(
        *(asyncio.to_thread(session_folders, temp_dir, tuple(by_name)) for temp_dir in temp_dirs)
    )
    seen = set[str]()

    async def follow(folder: SessionFolder) -> None:
        sighting = await verify(_claim(folder, by_name.get(folder.session_name)), surroundings)
        if sighting is not None:
            found(sighting)

    wanted = []
    for folder in (folder for folders in listed for folder in folders):
        if folder.real not in seen and (folder.gcs or folder.session_name in by_name):
            seen.add(folder.real)
            wanted.append(folder)
    await asyncio.gather(*(follow(folder) for folder in wanted))


def _claim(folder: SessionFolder, session: LocalSession | None) -> Claim:
    if session is not None:
        return claim_of(session, ("temp_dir",))
    return Claim(
        sources=("temp_dir",),
        session_name=folder.session_name,
        gcs=folder.gcs,
        temp_dir=folder.temp_dir,
        session_dir=folder.path,
    )
