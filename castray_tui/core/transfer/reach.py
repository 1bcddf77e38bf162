"""Who takes part in a route, and what is known of who can connect to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouteMember:
    """A node that a route may lead over.

    Attributes:
        index: The target's number in the transfer; -1 for the source. A node that is only a
            candidate for bridging has a number that no target has.
        cluster: Its cluster's name.
        address: Members with the same address share a host and its link; None is a host by itself.
        node_label: ``CLUSTER/NODE`` or ``local``. Equal labels are one agent.
        can_be_dialed: Whether others may try to connect to its agent.
        is_local: Whether it is the machine that castray runs on: it always dials, and as a target
            it feeds nobody.
    """

    index: int
    cluster: str
    address: str | None
    node_label: str
    can_be_dialed: bool = True
    is_local: bool = False

    @property
    def host(self) -> str:
        """What members on one host have in common."""
        return self.node_label if self.address is None else self.address


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection to try: the agent that dials, and the one that should answer."""

    dialer: RouteMember
    listener: RouteMember


class Reach:
    """What was found out about who can connect to whom. Not probed is not known."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[str, str], str | None] = {}
        self._linked: dict[str, list[str]] = {}

    def note(self, dialer: RouteMember, listener: RouteMember, refusal: str | None) -> None:
        """Keeps what came of a probe.

        Args:
            refusal: Why it did not connect; None where it did.
        """
        pair = (dialer.node_label, listener.node_label)
        self._refusals[pair] = refusal
        if refusal is None:
            self._linked.setdefault(pair[0], []).append(pair[1])
            self._linked.setdefault(pair[1], []).append(pair[0])

    def can_dial(self, dialer: RouteMember, listener: RouteMember) -> bool | None:
        """Whether the one can connect to the other; None where nobody has tried."""
        if dialer.node_label == listener.node_label:
            return True
        if not listener.can_be_dialed:
            return False
        pair = (dialer.node_label, listener.node_label)
        return self._refusals[pair] is None if pair in self._refusals else None

    def can_link(self, one: RouteMember, other: RouteMember) -> bool | None:
        """Whether a connection between the two is possible, whoever dials. Bytes may then flow
        over it either way."""
        there, back = self.can_dial(one, other), self.can_dial(other, one)
        if there or back:
            return True
        return None if there is None or back is None else False

    def linked_to(self, member: RouteMember) -> Sequence[str]:
        """The labels of all that are known to have a connection with it."""
        return self._linked.get(member.node_label, ())

    def refusal(self, dialer: RouteMember, listener: RouteMember) -> str | None:
        """Why the one cannot connect to the other, where that was tried and failed."""
        return self._refusals.get((dialer.node_label, listener.node_label))

    def unknown(self, one: RouteMember, other: RouteMember) -> list[Probe]:
        """The probes that would tell more about the two; none where they are linked already."""
        if self.can_link(one, other) is not None:
            return []
        ways = (Probe(one, other), Probe(other, one))
        return [way for way in ways if self.can_dial(way.dialer, way.listener) is None]
