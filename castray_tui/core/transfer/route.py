"""The way that bytes take: from one source over the targets themselves, and where two parts of the
fleet cannot see each other, over a node that both can.

The planner is pure. It starts from the tree as it should be (``route_shape``), and takes what is
not yet known of the network as possible. ``Route.probes`` says what should be tried before the
route is relied on; planning again with the answers changes only what has to change. ``settle`` does
these rounds.

A connection carries bytes either way, whoever dialed. So a part of the tree whose entry cannot be
reached is entered elsewhere, and keeps the connections that it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from castray_tui.core.transfer.reach import Probe, Reach, RouteMember
from castray_tui.core.transfer.route_parts import Joint, Parts
from castray_tui.core.transfer.route_shape import (
    ASSUMED_BYTES_PER_SECOND,
    Hop,
    best_tree,
    seconds_of,
)

Json = dict[str, Any]
Endpoints = Sequence[tuple[str, int]]
EdgeMode = Literal["dial", "await", "tunnel"]

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class RouteEdge:
    """One target and who feeds it.

    Attributes:
        parent: The feeder's index, -1 for the source.
        child: The target's index.
        mode: What the feeder does: ``dial`` the target, ``await`` that the target or the bridge
            dials it, or dial the bridge (``tunnel``).
        bridge: Index of the node that passes the bytes on, None where there is none between.
        child_dials: Whether the target dials: its feeder, or the bridge where there is one.
    """

    parent: int
    child: int
    mode: EdgeMode
    bridge: int | None = None
    child_dials: bool = False


@dataclass(frozen=True, slots=True)
class Unreached:
    """A target to which there is no way, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Route:
    """Who feeds whom.

    Attributes:
        members: The source, the targets in their order, then the candidates for bridging.
        edges: One for each target that is reached, feeders before those that they feed.
        unreached: The targets that are not.
        depth: The longest way, in hops.
        width: The most targets that one member feeds.
        predicted_seconds: From the first byte to the last target's verdict.
        probes: What should be tried before this route is relied on; empty once nothing in it is a
            guess.
    """

    members: tuple[RouteMember, ...]
    edges: tuple[RouteEdge, ...]
    unreached: tuple[Unreached, ...] = ()
    depth: int = 0
    width: int = 0
    predicted_seconds: float = 0.0
    probes: tuple[Probe, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """One line a hop, for eyes: ``A/head → B/10.0.0.2 (by C/head)``."""
        labels = self._labels()
        return tuple(
            f"{labels[edge.parent]} → {labels[edge.child]}"
            + (f" (by {labels[edge.bridge]})" if edge.bridge is not None else "")
            for edge in self.edges
        )

    def ways(self) -> dict[int, tuple[str, ...]]:
        """By target: the labels of all that its bytes pass, the source first, itself last."""
        labels = self._labels()
        found: dict[int, tuple[str, ...]] = {-1: (labels[-1],)}
        for edge in self.edges:
            bridge = () if edge.bridge is None else (labels[edge.bridge],)
            found[edge.child] = (*found[edge.parent], *bridge, labels[edge.child])
        del found[-1]
        return found

    def _labels(self) -> dict[int, str]:
        return {member.index: member.node_label for member in self.members}


def plan_route(
    source: RouteMember,
    targets: Sequence[RouteMember],
    *,
    size_bytes: int,
    chunk_bytes: int,
    link_bytes_per_second: float | None,
    source_bytes_per_second: float | None = None,
    streams: int,
    reach: Reach,
    bridges: Sequence[RouteMember] = (),
    is_final: bool = False,
) -> Route:
    """Plans who feeds whom.

    Args:
        source: Its index is -1.
        targets: Several may be on one node.
        size_bytes: Of the whole content.
        link_bytes_per_second: What a host's network gives each way, or the limit that was asked
            for if that is less; None where nobody knows.
        source_bytes_per_second: What the source may send in all; None for no limit.
        streams: How many others one member may feed. More only where a target has no other way.
        reach: What is known of the network so far.
        bridges: Nodes that are no targets and may pass bytes on, the best first; castray's machine
            is taken last wherever it stands.
        is_final: Whether what is not known counts as impossible.

    Returns:
        A route in which nothing contradicts ``reach``, with an edge for every target that can be
        reached over targets and at most one bridge between two of them.
    """
    members = (source, *targets)
    feeders, width = best_tree(
        members,
        size_bytes=size_bytes,
        chunk_bytes=chunk_bytes,
        link_bytes_per_second=link_bytes_per_second,
        source_bytes_per_second=source_bytes_per_second,
        streams=streams,
    )
    ordered = sorted(bridges, key=lambda bridge: bridge.is_local)
    parts = Parts(members, feeders, width, reach, ordered, is_final=is_final)
    parts.join()
    joints = parts.oriented()
    edges = tuple(_edge(joint, reach) for joint in joints)
    reached = {joint.child.index for joint in joints}
    lost = [
        position for position in range(1, len(members)) if members[position].index not in reached
    ]
    depth, hops, fed = _measure(joints)
    return Route(
        members=(*members, *ordered),
        edges=edges,
        unreached=tuple(
            Unreached(members[at].index, _why_not(source, members[feeders[at]], members[at], reach))
            for at in lost
        ),
        depth=depth,
        width=fed,
        predicted_seconds=seconds_of(
            hops,
            depth,
            size_bytes,
            chunk_bytes,
            link_bytes_per_second or ASSUMED_BYTES_PER_SECOND,
        ),
        probes=() if is_final else _probes(joints, parts.doubts, reach),
    )


async def settle(
    plan: Callable[[bool], Route],
    probe: Callable[[Sequence[Probe]], Awaitable[None]],
) -> Route:
    """Plans and probes in rounds until the route rests on nothing but what was tried.

    Args:
        plan: ``plan_route`` with everything but ``is_final``, which it is called with.
        probe: Tries all that it is given and notes every answer in the same ``Reach``.
    """
    for _ in range(_ROUNDS):
        route = plan(False)
        if not route.probes:
            return route
        await probe(route.probes)
    return plan(True)


def to_tree(
    route: Route,
    endpoints_of: Callable[[int], Endpoints],
    bridge_ids: Mapping[int, str] | None = None,
) -> list[Json]:
    """The ``tree`` of the order to the source's agent: feeders before those that they feed.

    Args:
        endpoints_of: Where the agent of a target or a bridge listens, by its index. Those of
            castray's machine are told only to itself.
        bridge_ids: For every target that is fed over a bridge: the name of that passage.
    """
    positions = {-1: -1}
    silent = {member.index for member in route.members if not member.can_be_dialed}
    tree: list[Json] = []
    for edge in route.edges:
        positions[edge.child] = len(tree)
        dialed = edge.bridge if edge.mode == "tunnel" and edge.bridge is not None else edge.child
        # Who cannot be dialed by others is dialed by nobody but itself.
        is_dialed = edge.mode != "await" or dialed not in silent
        row: Json = {
            "index": edge.child,
            "parent": positions[edge.parent],
            "mode": edge.mode,
            "endpoints": [list(end) for end in endpoints_of(dialed)] if is_dialed else [],
        }
        if edge.mode == "tunnel":
            row["bridge"] = (bridge_ids or {})[edge.child]
        tree.append(row)
    return tree


def dial_orders(
    route: Route, endpoints_of: Callable[[int], Endpoints]
) -> list[tuple[int, Endpoints]]:
    """Which targets have to dial, and where: their feeder, or the bridge before it.

    Args:
        endpoints_of: As for ``to_tree``; asked for the source too, which is -1.
    """
    return [
        (edge.child, endpoints_of(edge.parent if edge.bridge is None else edge.bridge))
        for edge in route.edges
        if edge.child_dials
    ]


def bridge_orders(
    route: Route,
    endpoints_of: Callable[[int], Endpoints],
    bridge_ids: Mapping[int, str],
) -> list[tuple[int, Json]]:
    """What the bridges are told: by whose agent, and the order without the transfer's ID.

    A side that dials the bridge is None there, and waited for.
    """
    orders: list[tuple[int, Json]] = []
    for edge in route.edges:
        if edge.bridge is None:
            continue
        feeder = None if edge.mode == "tunnel" else endpoints_of(edge.parent)
        taker = None if edge.child_dials else endpoints_of(edge.child)
        orders.append(
            (
                edge.bridge,
                {
                    "bridge": bridge_ids[edge.child],
                    "feeder": None if feeder is None else [list(end) for end in feeder],
                    "taker": None if taker is None else [list(end) for end in taker],
                    "index": edge.child,
                },
            )
        )
    return orders


def _edge(joint: Joint, reach: Reach) -> RouteEdge:
    parent, child, bridge = joint
    if bridge is None:
        dials = _dials(parent, child, reach)
        return RouteEdge(
            parent.index, child.index, "dial" if dials else "await", child_dials=not dials
        )
    return RouteEdge(
        parent.index,
        child.index,
        "tunnel" if _dials(parent, bridge, reach) else "await",
        bridge.index,
        child_dials=not _dials(bridge, child, reach),
    )


def _dials(giver: RouteMember, taker: RouteMember, reach: Reach) -> bool:
    """Whether the giver dials: it does if it can, castray's machine does in any case."""
    there = reach.can_dial(giver, taker)
    return bool(there) or (there is None and not reach.can_dial(taker, giver))


def _measure(joints: Sequence[Joint]) -> tuple[int, list[Hop], int]:
    """Depth, hops from host to host, and the most targets that one member feeds."""
    depth = {-1: 0}
    fed: dict[int, int] = {}
    hops = []
    for parent, child, bridge in joints:
        fed[parent.index] = fed.get(parent.index, 0) + 1
        depth[child.index] = depth[parent.index] + (1 if bridge is None else 2)
        if bridge is None:
            hops.append(Hop(parent.host, child.host))
        else:
            hops += [Hop(parent.host, bridge.host), Hop(bridge.host, child.host)]
    return max(depth.values()), hops, max(fed.values(), default=0)


def _probes(
    joints: Sequence[Joint], doubts: Sequence[tuple[RouteMember, RouteMember]], reach: Reach
) -> tuple[Probe, ...]:
    """What the edges rest on, one direction at a time; and both of what could stand in for them."""
    found: dict[tuple[str, str], Probe] = {}

    def add(probes: Sequence[Probe]) -> None:
        for probe in probes:
            found.setdefault((probe.dialer.node_label, probe.listener.node_label), probe)

    for parent, child, bridge in joints:
        if bridge is None:
            add(reach.unknown(parent, child)[:1])
        else:
            add(reach.unknown(parent, bridge)[:1])
            add(reach.unknown(bridge, child)[:1])
    for one, other in doubts:
        add(reach.unknown(one, other))
    return tuple(found.values())


def _why_not(source: RouteMember, feeder: RouteMember, target: RouteMember, reach: Reach) -> str:
    """Why there is no way, by what was tried nearest to the source."""
    for giver in (source, feeder):
        there, back = reach.refusal(giver, target), reach.refusal(target, giver)
        if there or back:
            told = [there] if there else []
            told += [f"and back: {back}"] if back else []
            return f"no route from {giver.node_label} to {target.node_label}: {'; '.join(told)}"
    return f"no route from {source.node_label} to {target.node_label}"
