"""Putting a tree together again where some of its connections are impossible."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from castray_tui.core.transfer.reach import Reach, RouteMember

_TRIES = 64
"""Connections between two parts that are thought of before a bridge is."""

_SPARE_TRIES = 6
"""How many of them are probed at once, where the first failed."""

_LIKELY_BRIDGES = 3
_NEAR = 8

_Found = tuple[int, int, "RouteMember | None"]
"""Who feeds whom, by position, and over which bridge."""


class Joint(NamedTuple):
    """A feeder, whom it feeds, and what stands between them."""

    parent: RouteMember
    child: RouteMember
    bridge: RouteMember | None


class Parts:
    """A tree that has fallen apart, and what joins its parts to the source's.

    Args:
        members: The source first.
        feeders: The tree as it should be, by position.
        width: Whom else a member may feed before another one is preferred.
        bridges: In the order of preference.
        is_final: Whether what is not known counts as impossible.
    """

    def __init__(
        self,
        members: Sequence[RouteMember],
        feeders: Sequence[int],
        width: int,
        reach: Reach,
        bridges: Sequence[RouteMember],
        *,
        is_final: bool,
    ) -> None:
        self._members = members
        self._feeders = feeders
        self._width = width
        self._reach = reach
        self._bridges = bridges
        self._linked_bridges = [bridge for bridge in bridges if reach.linked_to(bridge)]
        self._is_final = is_final
        self._next_to: list[dict[int, RouteMember | None]] = [{} for _ in members]
        self._pending: list[list[int]] = []
        self.doubts: list[tuple[RouteMember, RouteMember]] = []
        """Connections that are worth a probe, as something failed where they could stand in."""
        self._at_label: dict[str, list[int]] = {}
        self._main: set[int] = set()
        self._main_of_host: dict[str, list[int]] = {}
        self._main_of_cluster: dict[str, list[int]] = {}
        self._free_of_cluster: dict[str, deque[int]] = {}
        for position, member in enumerate(members):
            self._at_label.setdefault(member.node_label, []).append(position)
        self._take_apart()

    def join(self) -> None:
        """Joins to the source's part whatever can be joined: first by what is known, then by what
        may be, and over a bridge only where nothing else does."""
        steps: list[Callable[[list[int]], _Found | None]] = [
            self._known_free_link,
            self._possible_free_link,
            self._known_link,
            self._possible_link,
            self._known_bridge,
            self._possible_bridge,
        ]
        if self._is_final:
            steps = [self._known_link, self._known_bridge]
        # After each success from the beginning: who was joined may feed what had no way before.
        while self._pending and any(self._join_all(step) for step in steps):
            pass

    def oriented(self) -> list[Joint]:
        """What the source's part consists of, feeders before those that they feed."""
        found: list[Joint] = []
        seen = {0}
        queue = deque([0])
        while queue:
            at = queue.popleft()
            for child, bridge in sorted(self._next_to[at].items(), key=lambda item: item[0]):
                if child not in seen:
                    seen.add(child)
                    queue.append(child)
                    found.append(Joint(self._members[at], self._members[child], bridge))
        return found

    # --- taking apart -------------------------------------------------------------------------

    def _take_apart(self) -> None:
        roots = []
        for child, parent in enumerate(self._feeders):
            if child == 0:
                continue
            if self._is_possible(parent, child) and not self._has_failed(parent, child):
                self._connect(parent, child, None)
            else:
                roots.append(child)
        self._absorb(self._part_of(0))
        self._pending = [self._part_of(root) for root in roots]
        for part in self._pending if not self._is_final else ():
            self._doubt(part)

    def _has_failed(self, parent: int, child: int) -> bool:
        """Whether only the other direction is left to try, so that something else may be better."""
        one, other = self._members[parent], self._members[child]
        return self._reach.can_link(one, other) is None and bool(
            self._reach.refusal(one, other) or self._reach.refusal(other, one)
        )

    def _is_possible(self, one: int, other: int) -> bool:
        linked = self._reach.can_link(self._members[one], self._members[other])
        return bool(linked) or (linked is None and not self._is_final)

    def _connect(self, one: int, other: int, bridge: RouteMember | None) -> None:
        self._next_to[one][other] = bridge
        self._next_to[other][one] = bridge

    def _part_of(self, root: int) -> list[int]:
        part = [root]
        seen = {root}
        for at in part:
            for near in self._next_to[at]:
                if near not in seen:
                    seen.add(near)
                    part.append(near)
        return part

    def _absorb(self, part: Sequence[int]) -> None:
        for position in part:
            self._main.add(position)
            member = self._members[position]
            if self._feeds(position):
                self._main_of_host.setdefault(member.host, []).append(position)
                self._main_of_cluster.setdefault(member.cluster, []).append(position)
                self._free_of_cluster.setdefault(member.cluster, deque()).append(position)

    def _feeds(self, position: int) -> bool:
        """Castray's machine feeds others only as the source."""
        return position == 0 or not self._members[position].is_local

    def _entries(self, part: Sequence[int]) -> list[int]:
        """Where a part may be entered; castray's machine only if it is all of it."""
        return [at for at in part if self._feeds(at)] or list(part[:1])

    # --- joining ------------------------------------------------------------------------------

    def _join_all(self, find: Callable[[list[int]], _Found | None]) -> bool:
        """Joins every part for which something is found; whether there was one."""
        left = []
        for part in self._pending:
            found = find(part)
            if found is None:
                left.append(part)
            else:
                self._connect(*found)
                self._absorb(part)
        joined = len(left) < len(self._pending)
        self._pending = left
        return joined

    def _known_free_link(self, part: list[int]) -> _Found | None:
        found = self._known_link(part)
        return None if found is None or self._is_busy(found[0]) else found

    def _possible_free_link(self, part: list[int]) -> _Found | None:
        return self._possible_link(part, free_only=True)

    def _known_link(self, part: list[int]) -> _Found | None:
        found = [
            (self._cost(giver, taker), giver, taker)
            for taker in self._entries(part)
            for giver in self._givers_linked_to(self._members[taker], with_itself=True)
        ]
        if not found:
            return None
        _, giver, taker = min(found)
        return giver, taker, None

    def _possible_link(self, part: list[int], *, free_only: bool = False) -> _Found | None:
        for giver, taker in self._pairs(part):
            if self._is_possible(giver, taker) and not (free_only and self._is_busy(giver)):
                return giver, taker, None
        return None

    def _known_bridge(self, part: list[int]) -> _Found | None:
        for bridge in self._linked_bridges:
            labels = set(self._reach.linked_to(bridge)) - {bridge.node_label}
            takers = [at for at in self._entries(part) if self._members[at].node_label in labels]
            givers = self._givers_linked_to(bridge)
            if takers and givers:
                giver = min(givers, key=lambda at: self._cost(at, takers[0]))
                return giver, takers[0], bridge
        return None

    def _possible_bridge(self, part: list[int]) -> _Found | None:
        for bridge in self._likely_bridges():
            for giver, taker in self._pairs(part):
                if self._may_stand_between(bridge, giver, taker):
                    return giver, taker, bridge
        return None

    def _givers_linked_to(self, member: RouteMember, *, with_itself: bool = False) -> list[int]:
        labels = set(self._reach.linked_to(member)) - {member.node_label}
        if with_itself:  # Several paths on one node: its agent feeds itself.
            labels.add(member.node_label)
        return [
            at
            for label in labels
            for at in self._at_label.get(label, ())
            if at in self._main and self._feeds(at)
        ]

    def _may_stand_between(self, bridge: RouteMember, giver: int, taker: int) -> bool:
        ends = (self._members[giver], self._members[taker])
        return all(
            end.node_label != bridge.node_label and self._reach.can_link(end, bridge) is not False
            for end in ends
        )

    def _likely_bridges(self) -> list[RouteMember]:
        """The first few, and castray's machine."""
        others = [bridge for bridge in self._bridges if not bridge.is_local]
        return others[:_LIKELY_BRIDGES] + [bridge for bridge in self._bridges if bridge.is_local]

    def _cost(self, giver: int, taker: int) -> tuple[bool, bool, bool, int]:
        one, other = self._members[giver], self._members[taker]
        return self._is_busy(giver), one.host != other.host, one.cluster != other.cluster, giver

    def _is_busy(self, position: int) -> bool:
        fed_by_others = 0 if position == 0 else 1
        return len(self._next_to[position]) - fed_by_others >= self._width

    def _free_in(self, cluster: str) -> list[int]:
        """The first members of a cluster that may feed another one."""
        free = self._free_of_cluster.get(cluster, deque())
        while free and self._is_busy(free[0]):
            free.popleft()
        return list(islice(free, _NEAR))

    def _pairs(self, part: list[int]) -> Iterator[tuple[int, int]]:
        """Who might feed whom of a part, the likeliest first, both sides varied in turn: what is
        in the way of one is often in the way of its neighbours."""
        root = part[0]
        member = self._members[root]
        at_host = self._main_of_host.get(member.host, [])
        in_cluster = self._main_of_cluster.get(member.cluster, [])
        others = [at[0] for at in islice(self._main_of_host.values(), _NEAR)]
        free = self._free_in(member.cluster)
        givers = list(dict.fromkeys([*at_host[:_NEAR], *free, *in_cluster[:_NEAR], 0, *others]))
        givers.sort(key=self._is_busy)
        planned = self._feeders[root]
        if planned in self._main:
            givers = [planned, *(at for at in givers if at != planned)]
        by_host = {self._members[at].host: at for at in reversed(self._entries(part))}
        takers = list(reversed(by_host.values()))[:_NEAR]
        tries = 0
        for distance in range(len(givers) + len(takers) - 1):
            for step in range(min(distance + 1, len(givers))):
                if distance - step < len(takers):
                    yield givers[step], takers[distance - step]
                    tries += 1
                    if tries == _TRIES:
                        return

    def _doubt(self, part: list[int]) -> None:
        """Notes what could stand in for the connection that a part has lost."""
        members = self._members
        spare = [
            (members[giver], members[taker])
            for giver, taker in self._pairs(part)
            if self._reach.can_link(members[giver], members[taker]) is None
        ]
        self.doubts += spare[:_SPARE_TRIES]
        parent = self._feeders[part[0]]
        ends = [members[parent if parent in self._main else 0], members[part[0]]]
        for bridge in self._likely_bridges():
            if all(
                end.node_label != bridge.node_label
                and self._reach.can_link(end, bridge) is not False
                for end in ends
            ):
                self.doubts += [(ends[0], bridge), (bridge, ends[1])]
