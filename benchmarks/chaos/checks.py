"""What must hold after a run, whatever happened in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.content import Snapshot, snapshot

SERVED = ("verified", "identical")
MARK = ".castray-"


@dataclass(frozen=True)
class Place:
    """One target of a run.

    Attributes:
        host: The name of its host; ``local`` for castray's machine.
        path: Where the source goes, under its real name.
        before: What was there.
    """

    host: str
    path: Path
    before: Snapshot


def violations_of(
    place: Place, verdict: str | None, digest: str | None, sources: Sequence[Snapshot]
) -> list[str]:
    """What is wrong at one target.

    Args:
        place: The target.
        verdict: What castray says of it.
        digest: The digest that castray says it has.
        sources: What the source was: first at the start, then what it was changed into.
    """
    now = snapshot(place.path)
    wrong = []
    if verdict is None:
        wrong.append("no verdict")
    elif verdict in SERVED:
        whole = [source for source in sources if _holds(now, source, place.before)]
        if not whole:
            wrong.append(f"{verdict}, and not what was sent")
        elif list(now) == [""] and digest != f"sha256:{now['']}":
            wrong.append(f"{verdict} with {digest}, and {now['']} is there")
    elif place.before and "" in place.before and place.before[""] != "folder":
        if now != place.before:
            wrong.append(f"{verdict}, and what was there before is not")
    elif not place.before and now:
        wrong.append(f"{verdict}, and something is there: {sorted(now)[:3]}")
    # Whatever castray says: nothing that is not whole stands under a real name.
    for name, what in now.items():
        known = {source.get(name) for source in sources} | {place.before.get(name)}
        if MARK not in name and what not in known:
            wrong.append(f"neither old nor new: {name or place.path.name}")
    wrong += [f"gone: {name}" for name in place.before if name not in now and MARK not in name]
    return wrong


def _holds(now: Snapshot, source: Snapshot, before: Snapshot) -> bool:
    """Whether all of a source is there, and nothing beyond what was there before."""
    return all(now.get(name) == what for name, what in source.items()) and all(
        name in source or name in before for name in now
    )


def left_behind(folder: Path) -> list[str]:
    """Temporary names below a folder, and folders that were made for nothing."""
    return [str(path.relative_to(folder)) for path in folder.rglob(f"{MARK}*")]


def told_of(transfer: dict[str, Any], path: Path) -> tuple[str | None, str | None, str | None]:
    """Verdict, digest and reason of the target that a path belongs to."""
    for target in transfer.get("targets", []):
        if str(path).startswith(target["path"].rstrip("/")):
            return target["verdict"], target["digest"], target["reason"]
    return None, None, None
