"""Connecting to the clusters that file addresses name, and to no others."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from castray_tui.cli import failures as told
from castray_tui.cli.arguments import nearest
from castray_tui.cli.fleet_session import (
    Failure,
    connect_each,
    first_answers,
    refuse_unless_enabled,
)
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.errors import UnreachableError
from castray_tui.core.transfer.addresses import parse_address

_WILDCARDS = frozenset("*?[")


async def connect_named(engine: Engine, loaded: LoadedSettings, addresses: Iterable[str]) -> None:
    """Connects to the clusters that file addresses name.

    Args:
        engine: The engine to connect.
        loaded: The settings of this run.
        addresses: ``CLUSTER/NODE:PATH`` with wildcards or without, or paths on this machine.

    Raises:
        AddressError: One of them is no address.
        UnreachableError: No cluster is known by one of the names.
        ConnectError: A cluster that is named without wildcards cannot be connected to.
    """
    parsed = [parse_address(text) for text in addresses]
    patterns = dict.fromkeys(each.cluster_pattern for each in parsed if not each.is_local)
    if any(each.is_local for each in parsed):
        await engine.expect_local_files()
    if not patterns:
        return
    chosen: dict[str, bool] = {}
    configured = {cluster.name for cluster in loaded.settings.clusters}
    if not any(_WILDCARDS & set(pattern) for pattern in patterns):
        if loaded.settings.external_cluster.enabled and await engine.meet_again(patterns):
            return
        if configured.issuperset(patterns):
            chosen = dict.fromkeys(patterns, True)
    if not chosen:
        chosen = _chosen(patterns, configured | await _found(engine, loaded))
    refuse_unless_enabled(loaded)
    failed = await connect_each(engine, list(chosen))
    _refuse_if_needed(failed, chosen)
    await first_answers(engine, loaded.settings)


async def _found(engine: Engine, loaded: LoadedSettings) -> set[str]:
    if not loaded.settings.external_cluster.enabled:
        return set()
    return {cluster.name for cluster in (await engine.discover()).clusters}


def _chosen(patterns: Iterable[str], known: set[str]) -> dict[str, bool]:
    """The clusters that are meant, and whether each is named outright."""
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        names = (
            [pattern]
            if pattern in known
            else [name for name in sorted(known) if fnmatch.fnmatchcase(name, pattern)]
        )
        if not names:
            shown = ", ".join(sorted(known))
            raise UnreachableError(
                f"No cluster named {pattern!r} is found",
                remedy=nearest(pattern, known)
                + (f"Found are: {shown}" if known else "See `castray doctor`"),
            )
        for name in names:
            chosen[name] = chosen.get(name, False) or name == pattern
    return chosen


def _refuse_if_needed(failed: Sequence[Failure], chosen: dict[str, bool]) -> None:
    """A cluster named outright must answer; of those that a wildcard found, some must."""
    for failure in failed:
        if chosen[failure.address]:
            raise failure.error
    told.raise_if_nothing_is_left(failed, list(chosen))
    told.tell(failed)
