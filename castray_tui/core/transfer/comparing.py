"""What the targets of a leg hold already, told by digests at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from castray_tui.agent.manifest import Manifest, ManifestError, TreeDigest
from castray_tui.core.errors import TransferError
from castray_tui.core.transfer.participants import (
    DIGEST_SECONDS,
    Preparation,
    PreparedTarget,
    Source,
    SourceLostError,
    ask_each,
)
from castray_tui.core.transfer.sessions import AgentRefusedError, call

Json = dict[str, Any]


async def compare(
    source: Source, targets: Sequence[PreparedTarget], *, deletes: bool = False
) -> Preparation:
    """Finds out which files the targets hold already, by their digests.

    Args:
        deletes: Whether what a folder holds besides is removed: then one that holds all of it is
            still to be seen to.

    Raises:
        SourceLostError: The source's agent does not answer.
        TransferError: The source cannot be read, or changed.
    """
    unsettled = [target for target in targets if target.candidates]
    if not unsettled:
        return Preparation(source, tuple(targets))
    try:
        # In a thread: a tree may have a million files.
        manifest = await asyncio.to_thread(Manifest.unpack, source.packed)
    except ManifestError as error:
        raise TransferError(f"{source.leg.label} sent an unreadable list of files") from error
    numbers = sorted({number for target in unsettled for number in target.candidates})
    by_source, by_target = await asyncio.gather(
        _digests_at_source(source, numbers),
        ask_each(
            unsettled,
            "existing",
            lambda target: {"path": target.path, "files": list(target.candidates)},
            DIGEST_SECONDS,
            {"manifest": source.packed},
        ),
    )
    whole = _whole_digest(manifest, by_source)
    settled = {}
    for target, answer in zip(unsettled, by_target, strict=True):
        there = {} if isinstance(answer, TransferError) else answer.get("digests", {})
        skip = {
            number: by_source[number]
            for number in target.candidates
            if number in by_source and there.get(str(number)) == by_source[number]
        }
        skipped_bytes = sum(manifest.files[number].size for number in skip)
        plan = replace(target.plan, send_bytes=source.size - skipped_bytes)
        has_all = len(skip) == len(manifest.files) and not target.lacks_entries
        if has_all and not (deletes and manifest.is_tree):
            plan = replace(plan, action="skip", reason="identical")
        settled[target.index] = replace(target, plan=plan, skip=skip)
    return Preparation(
        replace(source, digest=whole),
        tuple(settled.get(target.index, target) for target in targets),
    )


async def _digests_at_source(source: Source, numbers: Sequence[int]) -> dict[int, str]:
    try:
        answer = await call(
            source.session,
            source.leg.node.node_id,
            "digests",
            {"transfer": source.transfer, "files": list(numbers)},
            DIGEST_SECONDS,
        )
    except AgentRefusedError as refused:
        if refused.refusal == "changed":
            raise TransferError(f"{source.leg} changed while it was looked at") from refused
        if refused.refusal == "agent":
            raise SourceLostError(f"{source.leg.label}: {refused.message}") from refused
        raise
    except TransferError as error:
        raise SourceLostError(f"{source.leg.label} does not answer: {error.message}") from error
    return {int(number): str(digest) for number, digest in answer["digests"].items()}


def _whole_digest(manifest: Manifest, digests: Mapping[int, str]) -> str | None:
    """The digest of everything, where all files' digests are known."""
    if len(digests) < len(manifest.files):
        return None
    whole = TreeDigest(manifest)
    for number in range(len(manifest.files)):
        whole.add(number, digests[number])
    return whole.hexdigest()
