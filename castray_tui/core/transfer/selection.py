"""Who takes part in a transfer: the source nodes, the targets, and what kind of transfer it is.

A *leg* is one source node with what is sent from it. An ordinary transfer has one. Where the source
addresses may name several nodes, each of them is a leg of its own, and what comes from it goes into
a folder of its own in every target folder: ``<cluster>-<node>``, as in ``./out/ml-10.0.0.7/``, and
``local`` for the machine that castray runs on. That holds whenever a source address has a wildcard,
also where only one node fits it, and whenever several nodes are named; so what a command writes
where depends on what was typed, and not on how many nodes were up. Characters other than letters,
digits, ``.``, ``_`` and ``-`` become ``_`` in the names of these folders.

Several sources, from one node or many, need a folder to go into; the target is one, with a slash at
its end or without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from castray_tui.core.errors import AddressError, UsageError
from castray_tui.core.models import (
    LOCAL,
    Fleet,
    Node,
    Transfer,
    TransferKind,
    TransferRequest,
)
from castray_tui.core.transfer.addresses import (
    FileAddress,
    format_address,
    local_node,
    parse_address,
    resolve_nodes,
)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """One path on one node."""

    node: Node
    path: str

    @property
    def label(self) -> str:
        """``CLUSTER/NODE``, or ``local``."""
        return node_label(self.node)

    def __str__(self) -> str:
        return format_address(self.node.cluster, self.node.name, self.path)


@dataclass(frozen=True, slots=True)
class Leg:
    """One source node, and the paths that are sent from it."""

    node: Node
    paths: tuple[str, ...]

    @property
    def label(self) -> str:
        """``CLUSTER/NODE``, or ``local``."""
        return node_label(self.node)

    def __str__(self) -> str:
        return ", ".join(str(Place(self.node, path)) for path in self.paths)


@dataclass(frozen=True, slots=True)
class SelectedTarget:
    """One row of a transfer: a place, and the number of the leg that sends to it."""

    place: Place
    leg: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """The source nodes and the targets of a transfer, which are numbered in their order."""

    legs: tuple[Leg, ...]
    targets: tuple[SelectedTarget, ...]
    kind: TransferKind

    @property
    def has_several_legs(self) -> bool:
        """Whether there are several source nodes."""
        return len(self.legs) > 1


def node_label(node: Node) -> str:
    """``CLUSTER/NODE``, or ``local``."""
    return node.name if node.is_local else f"{node.cluster}/{node.name}"


def select(request: TransferRequest, fleet: Fleet) -> Selection:
    """Finds out who is meant.

    Raises:
        UsageError, AddressError: The request makes no sense.
        NotFoundError: No such cluster or node.
    """
    if not request.sources or not request.targets:
        raise UsageError("A transfer needs a source and a target")
    addresses = [parse_address(text) for text in request.sources]
    legs = _legs(addresses, fleet)
    goes_apart = len(legs) > 1 or any(address.has_wildcard for address in addresses)
    needs_folder = goes_apart or len(legs[0].paths) > 1
    target_addresses = [parse_address(text) for text in request.targets]
    places = _places(target_addresses, fleet, needs_folder=needs_folder)
    if not needs_folder:
        _refuse_two_on_one_node(places, legs[0].paths[0])
    folders = _folders(legs) if goes_apart else [""] * len(legs)
    targets = tuple(
        SelectedTarget(replace(place, path=place.path + folder), number)
        for number, folder in enumerate(folders)
        for place in places
    )
    return Selection(legs, targets, _kind(target_addresses, places))


def select_again(transfer: Transfer, fleet: Fleet) -> Selection:
    """The same legs and targets as a transfer of the journal had, row by row.

    A node that is gone is looked for under its address; one that is not to be found is in the
    selection as a dead node, which says so.

    Raises:
        UsageError: The transfer is of an older castray, which did not keep enough of it.
    """
    if transfer.request is None or not transfer.legs:
        raise UsageError(
            f"Transfer {transfer.id} was made by an older castray, which did not note what it takes"
            " to go on with it",
            remedy="Send it again with `castray cp`: what is there already is not sent twice",
        )
    targets: list[SelectedTarget] = []
    taken = {target.node_id for target in transfer.targets if target.node_id}
    for target in transfer.targets:
        node = node_again(target.cluster, target.node_id, target.address, fleet, taken)
        if node is None:
            node = _lost_node(target.cluster, target.node, target.node_id)
        taken.add(node.node_id)
        path = target.asked_path if target.asked_path is not None else target.path
        targets.append(SelectedTarget(Place(node, path), target.leg))
    legs = []
    for leg in transfer.legs:
        node = node_again(leg.cluster, leg.node_id, leg.address, fleet)
        legs.append(Leg(node or _lost_node(leg.cluster, leg.node, leg.node_id), leg.paths))
    return Selection(tuple(legs), tuple(targets), transfer.kind)


def node_again(
    cluster: str,
    node_id: str | None,
    address: str | None,
    fleet: Fleet,
    taken_ids: Iterable[str] = (),
) -> Node | None:
    """A node that is not dead and is the one that was meant: the same by its ID, else another of
    the same cluster at the same address.

    Args:
        cluster: The name of its cluster.
        node_id: Ray's ID, None for the machine that castray runs on.
        address: Where it was, if that is known.
        taken_ids: Nodes that are meant otherwise already.
    """
    if cluster == LOCAL:
        return local_node(fleet)
    alive = [node for node in fleet.nodes if node.cluster == cluster and node.status != "dead"]
    for node in alive:
        if node.node_id == node_id:
            return node
    taken = set(taken_ids)
    for node in alive:
        if address is not None and node.address == address and node.node_id not in taken:
            return node
    return None


def node_again_or_lost(node: Node, fleet: Fleet, taken_ids: Iterable[str] = ()) -> Node:
    """As ``node_again``; where there is none, the node that was, as a dead one."""
    if node.is_local:
        return node
    again = node_again(node.cluster, node.node_id, node.address, fleet, taken_ids)
    if again is not None:
        return again
    told = next((one for one in fleet.nodes if one.key == node.key), None)
    if told is not None:
        return told  # With what Ray says of its death.
    return replace(node, status="dead", reason="it is not in the fleet any more")


def _lost_node(cluster: str, name: str, node_id: str | None) -> Node:
    return Node(
        cluster_key="",
        cluster=cluster,
        node_id=node_id or "",
        name=name,
        status="dead",
        reason="it is not in the fleet any more",
    )


def _legs(addresses: list[FileAddress], fleet: Fleet) -> tuple[Leg, ...]:
    """The source nodes, in the order in which they are named, each with its paths."""
    paths: dict[tuple[str, str], list[str]] = {}
    nodes: dict[tuple[str, str], Node] = {}
    for address in addresses:
        # A folder is sent as itself, with or without a slash at its end.
        path = address.path.rstrip("/") or "/"
        for node in resolve_nodes(address, fleet):
            nodes.setdefault(node.key, node)
            own = paths.setdefault(node.key, [])
            if path not in own:
                own.append(path)
    return tuple(Leg(node, tuple(paths[key])) for key, node in nodes.items())


def _places(addresses: list[FileAddress], fleet: Fleet, *, needs_folder: bool) -> list[Place]:
    places: dict[tuple[tuple[str, str], str], Place] = {}
    for address in addresses:
        path = address.path
        if needs_folder and not path.endswith("/"):
            path += "/"
        for node in resolve_nodes(address, fleet):
            places.setdefault((node.key, path), Place(node, path))
    return list(places.values())


def _folders(legs: tuple[Leg, ...]) -> list[str]:
    """The name of each leg's own folder, with a slash at its end."""
    names: dict[str, None] = {}
    for leg in legs:
        node = leg.node
        name = LOCAL if node.is_local else f"{node.cluster}-{node.name}"
        name = _UNSAFE.sub("_", name).lstrip(".") or "node"
        if name in names:
            name += f"-{node.node_id[:_ID_DIGITS]}"
        names[name] = None
    return [name + "/" for name in names]


def _refuse_two_on_one_node(places: list[Place], source_path: str) -> None:
    """``/x/`` and ``/x/name`` are the same file of a node; only one of them may be meant."""
    name = source_path.rsplit("/", 1)[-1]
    ends: set[tuple[tuple[str, str], str]] = set()
    for place in places:
        end = place.path + name if place.path.endswith("/") else place.path
        if (place.node.key, end) in ends:
            raise AddressError(f"{place} is named twice", remedy="Name every target once")
        ends.add((place.node.key, end))


def _kind(addresses: list[FileAddress], places: list[Place]) -> TransferKind:
    if len(places) == 1:
        return "unicast"
    everyone = all(address.node_pattern == "*" for address in addresses)
    return "broadcast" if everyone else "multicast"
