"""What is sent in a run, and what lies in places before and after it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

MIB = 1024 * 1024
Snapshot = dict[str, str]
"""Relative path (empty for the place itself) by what is there: a digest, a link, ``folder``."""


def make_file(path: Path, chance: random.Random) -> None:
    """One file of 20 to 48 MiB."""
    path.write_bytes(chance.randbytes(chance.randint(20 * MIB, 48 * MIB)))


def make_tree(path: Path, chance: random.Random) -> None:
    """Some large files, many small ones, an empty folder, an empty file and a link."""
    path.mkdir()
    for number in range(3):
        (path / f"large {number}.bin").write_bytes(chance.randbytes(chance.randint(3, 8) * MIB))
    for number in range(150):
        folder = path / f"folder-{number % 10}"
        folder.mkdir(exist_ok=True)
        (folder / f"file-{number}").write_bytes(chance.randbytes(chance.randint(0, 20_000)))
    (path / "empty folder").mkdir()
    (path / "empty file").touch()
    (path / "a link").symlink_to("large 0.bin")


def make_old(source: Path, place: Path, chance: random.Random) -> None:
    """Other content under the names of a source, and something of its own beside it."""
    if source.is_file():
        place.write_bytes(chance.randbytes(chance.randint(1, MIB)))
        return
    place.mkdir()
    (place / "of its own").write_bytes(chance.randbytes(1000))
    (place / "folder-3").mkdir()
    for name in ("large 1.bin", "folder-3/file-13", "folder-3/file-23"):
        (place / name).write_bytes(chance.randbytes(5000))


def snapshot(place: Path) -> Snapshot:
    """What is at a place, everything below it included; nothing where there is nothing."""
    if not place.is_symlink() and not place.exists():
        return {}
    found = {"": _what(place)}
    if place.is_dir() and not place.is_symlink():
        for path in place.rglob("*"):
            found[str(path.relative_to(place))] = _what(path)
    return found


def _what(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "folder"
    return hashlib.sha256(path.read_bytes()).hexdigest()
