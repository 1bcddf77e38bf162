"""The tree as it should be if everybody could connect to everybody: hosts and clusters are entered
once, and every node feeds the next ones while it is fed itself.

A host's link is what limits a relay: a node that feeds two others gives each of them half. A chain
therefore runs at the link's whole rate, however long it is, and each hop costs it only a moment at
the beginning. Where all these moments take longer than the bytes do (many targets, little content),
or where a chain would be too long to be robust, the tree is made wider.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from castray_tui.core.transfer.reach import RouteMember

_HOP_SECONDS = 0.05
"""Connecting to the next node, proving the secret, and setting its files up."""

_INSIDE_BYTES_PER_SECOND = 400e6
"""What a host's raylets give each other: two digests and two copies a byte on the same cores."""

ASSUMED_BYTES_PER_SECOND = 125e6
"""A link that nobody has measured counts as one of 1 Gbit/s."""

_MAX_DEPTH = 100
"""A longer chain is fed faster and breaks oftener: every node in it stands between all below it and
the source."""


class _Left:
    """What is not yet in the tree, by host and by cluster. Members are named by position."""

    def __init__(self, members: Sequence[RouteMember]) -> None:
        self.of_host: dict[str, deque[int]] = {}
        self.of_cluster: dict[str, deque[str]] = {}
        source = members[0]
        self._entered_hosts = {source.host}
        self._entered_clusters = {source.cluster}
        # Its own cluster's members of a host first, so that bytes leave a cluster once.
        order = sorted(
            range(1, len(members)), key=lambda position: members[position].cluster != source.cluster
        )
        for position in order:
            member = members[position]
            if member.is_local:
                continue
            at_host = self.of_host.setdefault(member.host, deque())
            at_host.append(position)
            hosts = self.of_cluster.setdefault(member.cluster, deque())
            if member.host not in self._entered_hosts and (not hosts or hosts[-1] != member.host):
                hosts.append(member.host)
        self._fresh = deque(name for name in self.of_cluster if name != source.cluster)

    def in_host(self, host: str) -> int | None:
        """The next member of an entered host."""
        waiting = self.of_host.get(host)
        return waiting.popleft() if waiting else None

    def in_cluster(self, cluster: str) -> int | None:
        """The entry to the cluster's next host."""
        hosts = self.of_cluster.get(cluster, deque())
        while hosts:
            host = hosts.popleft()
            if host not in self._entered_hosts:
                self._entered_hosts.add(host)
                return self.of_host[host].popleft()
        return None

    def elsewhere(self) -> int | None:
        """The entry to the next cluster that is not entered yet."""
        while self._fresh:
            name = self._fresh.popleft()
            if name not in self._entered_clusters:
                self._entered_clusters.add(name)
                entry = self.in_cluster(name)
                if entry is not None:
                    return entry
        return None

    def note_entered(self, member: RouteMember) -> None:
        """The member's cluster has bytes now, by whichever way."""
        self._entered_clusters.add(member.cluster)

    def anywhere(self) -> int | None:
        """An entry to whatever is left, where its cluster has nobody free to go on."""
        for cluster in self.of_cluster:
            entry = self.in_cluster(cluster)
            if entry is not None:
                return entry
        return None


def tree_of_width(members: Sequence[RouteMember], width: int) -> list[int]:
    """Who feeds whom, breadth first.

    Args:
        members: The source, then the targets.
        width: How many others one member feeds at most, and how many other hosts one host feeds.

    Returns:
        By position: the feeder's position; -1 for the source.
    """
    left = _Left(members)
    feeder = [-1] * len(members)
    children = [0] * len(members)
    outside: dict[str, int] = {}
    placed = [0]
    leaves = [position for position in range(1, len(members)) if members[position].is_local]
    wanted = len(members) - len(leaves)

    def place(child: int, parent: int) -> None:
        feeder[child] = parent
        children[parent] += 1
        if members[child].host != members[parent].host:
            outside[members[parent].host] = outside.get(members[parent].host, 0) + 1
        left.note_entered(members[child])
        placed.append(child)

    def next_outside(member: RouteMember) -> int | None:
        """The first way out of a host leads on in its cluster, the next to another cluster."""
        given = outside.get(member.host, 0)
        if given >= width:
            return None
        if given % 2 == 0:
            child = left.in_cluster(member.cluster)
            return left.elsewhere() if child is None else child
        child = left.elsewhere()
        return left.in_cluster(member.cluster) if child is None else child

    at = 0
    while len(placed) < wanted:
        if at == len(placed):
            # Only where a host is in two clusters: the branch that could go on has left one.
            parent = next(
                position
                for position in placed
                if children[position] < width and outside.get(members[position].host, 0) < width
            )
            child = left.anywhere()
            assert child is not None  # or all would be placed
            place(child, parent)
            continue
        parent = placed[at]
        at += 1
        member = members[parent]
        while children[parent] < width:
            # The first place goes to the own host, so that its other members are never cut off.
            found = left.in_host(member.host) if children[parent] == 0 else next_outside(member)
            if found is None:
                found = next_outside(member) if children[parent] == 0 else left.in_host(member.host)
            if found is None:
                break
            place(found, parent)
    for leaf in leaves:
        host = members[leaf].host
        parent = min(
            placed, key=lambda at: _cost_of_leaf(members[at], host, children[at], outside, width)
        )
        place(leaf, parent)
        placed.pop()  # It feeds nobody.
    return feeder


def _cost_of_leaf(
    feeder: RouteMember, host: str, children: int, outside: dict[str, int], width: int
) -> tuple[bool, int]:
    """Castray's machine is fed by its own host if that has a part in the transfer, else by the
    first member with a place free, else by the one that has least to do."""
    is_inside = feeder.host == host
    load = children if is_inside else max(children, outside.get(feeder.host, 0))
    return not is_inside, load if load >= width else 0


def best_tree(
    members: Sequence[RouteMember],
    *,
    size_bytes: int,
    chunk_bytes: int,
    link_bytes_per_second: float | None,
    source_bytes_per_second: float | None,
    streams: int,
) -> tuple[list[int], int]:
    """The feeders of the tree that should be through first, and its width.

    Args:
        source_bytes_per_second: What the source may send to all it feeds; None for no limit.
        streams: The greatest width.
    """
    rate = link_bytes_per_second or ASSUMED_BYTES_PER_SECOND
    found: list[tuple[tuple[int, float], list[int], int]] = []
    for width in range(1, max(streams, 1) + 1):
        feeders = tree_of_width(members, width)
        hops = [Hop(members[at].host, members[to].host) for to, at in enumerate(feeders) if to]
        depth = max(depths(feeders))
        seconds = seconds_of(hops, depth, size_bytes, chunk_bytes, rate)
        if source_bytes_per_second:
            seconds = max(seconds, feeders[1:].count(0) * size_bytes / source_bytes_per_second)
        found.append(((max(depth - _MAX_DEPTH, 0), seconds), feeders, width))
        if width >= len(members) - 1:
            break
    _, feeders, width = min(found, key=lambda tree: tree[0])
    return feeders, width


def depths(feeders: Sequence[int]) -> list[int]:
    """How many hops each member is from the source, by position."""
    found = [0] * len(feeders)
    for position in range(1, len(feeders)):
        path = []
        at = position
        while at > 0 and not found[at]:
            path.append(at)
            at = feeders[at]
        depth = found[at]
        for step in reversed(path):
            depth += 1
            found[step] = depth
    return found


class Hop(NamedTuple):
    """Bytes on their way from one host to another, or inside of one."""

    giver: str
    taker: str


def seconds_of(
    hops: Iterable[Hop],
    depth: int,
    size_bytes: int,
    chunk_bytes: int,
    link_bytes_per_second: float,
) -> float:
    """How long a tree takes: its busiest link sets the pace, and each hop waits for the first
    chunk."""
    across, inside = Counter[str](), Counter[str]()
    taken = Counter[str]()
    for hop in hops:
        if hop.giver == hop.taker:
            inside[hop.giver] += 1
        else:
            across[hop.giver] += 1
            taken[hop.taker] += 1
    pace = min(
        link_bytes_per_second / max([1, *across.values(), *taken.values()])
        if across
        else _INSIDE_BYTES_PER_SECOND,
        _INSIDE_BYTES_PER_SECOND / max([1, *inside.values()]),
    )
    return size_bytes / pace + depth * (_HOP_SECONDS + min(chunk_bytes, size_bytes) / pace)
