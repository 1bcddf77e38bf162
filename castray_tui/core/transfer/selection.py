"""Who takes part in a transfer: the source, the targets, and what kind of transfer that makes."""

from __future__ import annotations

from dataclasses import dataclass

from castray_tui.core.errors import AddressError, TransferError, UsageError
from castray_tui.core.models import Fleet, Node, TransferKind, TransferRequest
from castray_tui.core.transfer.addresses import (
    FileAddress,
    format_address,
    parse_address,
    resolve_nodes,
)


@dataclass(frozen=True, slots=True)
class Place:
    """One path on one node."""

    node: Node
    path: str

    @property
    def label(self) -> str:
        """``CLUSTER/NODE``, or ``local``."""
        return self.node.name if self.node.is_local else f"{self.node.cluster}/{self.node.name}"

    def __str__(self) -> str:
        return format_address(self.node.cluster, self.node.name, self.path)


@dataclass(frozen=True, slots=True)
class Selection:
    """The one source and the targets of a transfer."""

    source: Place
    targets: tuple[Place, ...]
    kind: TransferKind


def select(request: TransferRequest, fleet: Fleet) -> Selection:
    """Finds out who is meant.

    Raises:
        UsageError, AddressError: The request makes no sense, or names several sources.
        NotFoundError: No such cluster or node.
        TransferError: It asks for what castray cannot do yet.
    """
    if not request.sources or not request.targets:
        raise UsageError("A transfer needs a source and a target")
    sources = [
        Place(node, address.path)
        for address in map(parse_address, request.sources)
        for node in resolve_nodes(address, fleet)
    ]
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} sources were named, and castray sends one file at a time so far",
            remedy="Send them one after the other",
        )
    if sources[0].path.endswith("/"):
        raise TransferError(
            f"{sources[0]} is a folder, and castray sends single files so far",
            remedy="Send its files one after the other, or an archive of it",
        )
    addresses = [parse_address(text) for text in request.targets]
    targets: list[Place] = []
    seen: set[tuple[tuple[str, str], str]] = set()
    for address in addresses:
        for node in resolve_nodes(address, fleet):
            mark = (node.key, address.path)
            if mark in seen:
                continue
            seen.add(mark)
            targets.append(Place(node, address.path))
    if len({node_key for node_key, _ in seen}) < len(targets):
        _refuse_two_on_one_node(targets, sources[0].path)
    return Selection(sources[0], tuple(targets), _kind(addresses, targets))


def _refuse_two_on_one_node(targets: list[Place], source_path: str) -> None:
    """``/x/`` and ``/x/name`` are the same file of a node; only one of them may be meant."""
    name = source_path.rsplit("/", 1)[-1]
    ends: set[tuple[tuple[str, str], str]] = set()
    for target in targets:
        end = target.path + name if target.path.endswith("/") else target.path
        if (target.node.key, end) in ends:
            raise AddressError(f"{target} is named twice", remedy="Name every target once")
        ends.add((target.node.key, end))


def _kind(addresses: list[FileAddress], targets: list[Place]) -> TransferKind:
    if len(targets) == 1:
        return "unicast"
    everyone = all(address.node_pattern == "*" for address in addresses)
    return "broadcast" if everyone else "multicast"
