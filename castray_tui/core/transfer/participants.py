"""Who takes part in one leg of a transfer, once they were asked: the source and the targets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from castray_tui.core.errors import TransferError
from castray_tui.core.models import PlannedTarget
from castray_tui.core.transfer.selection import Leg, Place
from castray_tui.core.transfer.sessions import Session, call_all

Json = dict[str, Any]
Endpoints = tuple[tuple[str, int], ...]

ORDER_SECONDS = 60.0
DIGEST_SECONDS = 6 * 3600.0


class SourceLostError(TransferError):
    """Nobody answers for the source just now; it may come back."""


@dataclass(frozen=True, slots=True)
class Source:
    """One leg's source after its agent has looked at it.

    Attributes:
        transfer: The leg's name on the wire, under which the agent remembers the scan.
        packed: The manifest as it travels.
        token: The same as long as nothing in the source changes.
        identity: ``machine``, ``device`` and ``inode`` of a single source, so that no target
            writes over it.
        digest: ``sha256:…`` where a comparison needed it.
    """

    leg: Leg
    transfer: str
    session: Session
    endpoints: Endpoints
    packed: str
    token: str
    size: int
    files: int
    path: str
    identity: Json = field(default_factory=dict)
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedTarget:
    """One target after it was looked at.

    Attributes:
        index: Its number in the transfer.
        plan: What would happen to it.
        session: Of its cluster; None where there is none, and the plan refuses.
        endpoints: Where its agent listens.
        path: The real one on its node, as its agent worked it out; ``plan.path`` is for eyes.
        code: Short word for why it is refused.
        is_lost: Whether it is refused only because nobody answers for it just now.
        candidates: Numbers of files that may be there already.
        lacks_entries: Whether anything is missing besides those files.
        skip: Numbers and hex digests of the files that are there already.
        published: The digest that its agent vouches for: it has published this very transfer.
    """

    index: int
    place: Place
    plan: PlannedTarget
    session: Session | None = None
    endpoints: Endpoints = ()
    path: str = ""
    code: str | None = None
    is_lost: bool = False
    candidates: tuple[int, ...] = ()
    lacks_entries: bool = False
    skip: Mapping[int, str] = field(default_factory=dict)
    published: str | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """A leg after everybody was asked."""

    source: Source
    targets: tuple[PreparedTarget, ...]

    def skipped_by_all(self, indexes: Collection[int]) -> dict[str, str]:
        """Numbers and digests of the files that none of some targets needs."""
        skips = [target.skip for target in self.targets if target.index in indexes]
        if not skips:
            return {}
        common = set(skips[0]).intersection(*skips[1:])
        return {str(number): skips[0][number] for number in sorted(common)}


def endpoints_of(hello: Json) -> Endpoints:
    """Where an agent says that it listens."""
    return tuple((str(host), int(port)) for host, port in hello["endpoints"])


async def ask_each(
    targets: Sequence[PreparedTarget],
    order: str,
    arguments: Callable[[PreparedTarget], Json],
    timeout_seconds: float,
    shared: Json,
) -> list[Json | TransferError]:
    """One order to each of the targets' agents, session by session, all side by side.

    Args:
        targets: Those with a session.
        arguments: What is for one of them alone.
        shared: What is for all.

    Returns:
        An answer or an error for each.
    """
    by_session: dict[int, list[PreparedTarget]] = {}
    for target in targets:
        by_session.setdefault(id(target.session), []).append(target)
    answers: dict[int, Json | TransferError] = {}

    async def ask(group: list[PreparedTarget]) -> None:
        session = group[0].session
        assert session is not None  # those without were refused
        calls = [(target.place.node.node_id, order, arguments(target)) for target in group]
        results = await call_all(session, calls, timeout_seconds, shared)
        answers.update(zip((target.index for target in group), results, strict=True))

    await asyncio.gather(*(ask(group) for group in by_session.values()))
    return [answers[target.index] for target in targets]
