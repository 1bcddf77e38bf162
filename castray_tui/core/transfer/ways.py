"""How the streams of one leg come about: who may, who can reach whom, and who dials.

Gives every agent that takes part the leg's secret, has the connections tried that the route would
rest on, and tells bridges and dialers what to do. Castray's own machine always dials, as nobody may
reach it through its NAT.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from castray_tui.agent.layout import fitting_chunk_bytes
from castray_tui.core.errors import CastrayError, TransferError
from castray_tui.core.models import Node
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.dialing import Dial
from castray_tui.core.transfer.options import SendOptions
from castray_tui.core.transfer.participants import (
    ORDER_SECONDS,
    Endpoints,
    Preparation,
    PreparedTarget,
    SourceLostError,
    endpoints_of,
)
from castray_tui.core.transfer.preparation import (
    AGENT_START_SECONDS,
    SessionFor,
)
from castray_tui.core.transfer.reach import Probe, Reach, RouteMember
from castray_tui.core.transfer.route import (
    Route,
    bridge_orders,
    dial_orders,
    plan_route,
    settle,
    to_tree,
)
from castray_tui.core.transfer.selection import node_label
from castray_tui.core.transfer.sessions import AgentRefusedError, Session, call, call_all

Json = dict[str, Any]

_REACH_SECONDS = 3.0
_FORGET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NoWay:
    """Why a target cannot be sent to.

    Attributes:
        is_lost: Whether it may be well again in a moment.
        is_unreached: Whether it answers its own cluster, and nobody else can reach it.
    """

    reason: str
    is_lost: bool
    is_unreached: bool = False


@dataclass(frozen=True, slots=True)
class Ways:
    """What the streams of a leg will be.

    Attributes:
        route: Who feeds whom.
        tree: The same as the source's agent is told it, feeders first.
        dials: What targets have to be told once the source's agent sends.
        none: The targets without a way, by number.
    """

    route: Route
    tree: list[Json]
    dials: tuple[Dial, ...]
    none: Mapping[int, NoWay]


@dataclass(slots=True)
class _Agent:
    """One agent that takes part, by whichever of its roles."""

    session: Session
    node_id: str
    endpoints: Endpoints
    targets: list[Json] = field(default_factory=list)


class WayFinder:
    """Finds the ways of one attempt at a leg.

    Args:
        preparation: Whom the leg has; those with the action ``send`` get a way.
        secret: The leg's, 32 bytes.
        session_for: Opens sessions of clusters whose nodes may be bridges.
        bridges: Nodes that are no targets and may pass bytes on, the best first.
    """

    def __init__(
        self,
        preparation: Preparation,
        *,
        secret: bytes,
        options: SendOptions,
        session_for: SessionFor,
        bridges: Sequence[Node] = (),
    ) -> None:
        self._preparation = preparation
        self._source = preparation.source
        self._transfer = preparation.source.transfer
        self._secret = secret
        self._options = options
        self._session_for = session_for
        self._sending = [one for one in preparation.targets if one.plan.action == "send"]
        self._none: dict[int, NoWay] = {}
        self._reach = Reach()
        self._rates: dict[tuple[str, str], float] = {}
        self._agents: dict[str, _Agent] = {}
        self._labels: dict[int, str] = {}
        used = {node_label(target.place.node) for target in preparation.targets}
        used.add(self._source.leg.label)
        first_free = max((target.index for target in preparation.targets), default=0) + 1
        self._bridges = [
            _member(first_free + number, node)
            for number, node in enumerate(each for each in bridges if node_label(each) not in used)
        ]
        self._bridge_nodes = {node_label(node): node for node in bridges}

    async def find(self, *, probe_bytes: int = 0) -> Ways:
        """Finds a way to every target that there is one to.

        Args:
            probe_bytes: How much is sent over each connection to measure its rate; 0 measures
                nothing.

        Raises:
            SourceLostError: The source's agent does not answer.
            TransferError: It refuses.
        """
        await self._allow()
        source = _member(-1, self._source.leg.node)
        targets = [
            _member(target.index, target.place.node)
            for target in self._sending
            if target.index not in self._none
        ]

        def plan(is_final: bool) -> Route:
            return plan_route(
                source,
                targets,
                size_bytes=self._source.size,
                chunk_bytes=fitting_chunk_bytes(self._source.size, self._options.chunk_bytes),
                link_bytes_per_second=self._link_rate(),
                source_bytes_per_second=self._options.rate_limit_bytes_per_second or None,
                streams=self._options.streams,
                reach=self._reach,
                bridges=self._bridges,
                is_final=is_final,
            )

        route = await settle(plan, lambda probes: self._probe(probes, probe_bytes))
        if probe_bytes:
            route = plan(True)  # What was measured tells how long it takes.
        for lost in route.unreached:
            self._none[lost.index] = NoWay(lost.reason, is_lost=True, is_unreached=True)
        self._labels = {member.index: member.node_label for member in route.members}
        bridge_ids = {
            edge.child: secrets.token_hex(16) for edge in route.edges if edge.bridge is not None
        }
        if not probe_bytes:
            await self._build_bridges(route, bridge_ids)
        route = self._without_lost(route)
        return Ways(
            route,
            to_tree(route, self._endpoints_of, bridge_ids),
            tuple(self._dial(*order) for order in dial_orders(route, self._endpoints_of)),
            dict(self._none),
        )

    def predicted_seconds(self, route: Route) -> float | None:
        """How long the route will take, by the rates that were measured; None where none were."""
        if not self._rates or not route.edges:
            return None
        fed_by_source = sum(edge.parent == -1 for edge in route.edges)
        size = self._source.size
        limits = (
            (self._options.rate_limit_bytes_per_second, size * fed_by_source),
            (self._options.link_rate_limit_bytes_per_second, size),
        )
        limited = [sent / limit for limit, sent in limits if limit]
        return max([route.predicted_seconds, *limited])

    async def forget(self) -> None:
        """Has every agent that was told the secret forget it."""
        await asyncio.gather(
            *(
                call_all(
                    agent.session,
                    [(agent.node_id, "forget", {"transfer": self._transfer})],
                    _FORGET_SECONDS,
                )
                for agent in self._agents.values()
            )
        )

    # --- the secret ---------------------------------------------------------------------------

    async def _allow(self) -> None:
        """Tells the source's and the targets' agents the secret, and what they may write."""
        source = self._source
        self._agents[source.leg.label] = _Agent(
            source.session, source.leg.node.node_id, source.endpoints
        )
        for target in self._sending:
            label = node_label(target.place.node)
            assert target.session is not None  # refused otherwise
            agent = self._agents.setdefault(
                label, _Agent(target.session, target.place.node.node_id, target.endpoints)
            )
            agent.targets.append(self._target_order(target))
        by_session: dict[int, list[_Agent]] = {}
        for agent in self._agents.values():
            by_session.setdefault(id(agent.session), []).append(agent)
        answers: dict[tuple[int, str], Json | TransferError] = {}

        async def allow(session: Session, agents: list[_Agent]) -> None:
            calls = [
                (agent.node_id, "allow", {"targets": agent.targets, **session.sealed(self._secret)})
                for agent in agents
            ]
            shared = {
                "transfer": self._transfer,
                "manifest": source.packed,
                "chunk_bytes": self._options.chunk_bytes,
            }
            results = await call_all(session, calls, ORDER_SECONDS, shared)
            for agent, result in zip(agents, results, strict=True):
                answers[id(session), agent.node_id] = result

        await asyncio.gather(*(allow(group[0].session, group) for group in by_session.values()))
        self._refuse_unless_source(answers[id(source.session), source.leg.node.node_id])
        for target in self._sending:
            answer = answers[id(target.session), target.place.node.node_id]
            if isinstance(answer, AgentRefusedError):
                self._none[target.index] = NoWay(answer.message, answer.refusal == "agent")
            elif isinstance(answer, TransferError):
                self._none[target.index] = NoWay(answer.message, is_lost=True)

    def _target_order(self, target: PreparedTarget) -> Json:
        return {
            "index": target.index,
            "path": target.path,
            "overwrite": self._options.overwrite,
            "roots": list(self._options.roots),
            "reserve_bytes": self._options.reserve_bytes,
            "part_id": f"{self._transfer[:12]}-{target.index}",
            "delete": self._options.delete,
            "include": list(self._options.include),
            "exclude": list(self._options.exclude),
            "skip": sorted(target.skip),
            "skip_digests": {str(number): digest for number, digest in target.skip.items()},
        }

    def _refuse_unless_source(self, answer: Json | TransferError) -> None:
        label = self._source.leg.label
        if isinstance(answer, AgentRefusedError) and answer.refusal != "agent":
            raise TransferError(f"{label} refuses to send: {answer.message}")
        if isinstance(answer, TransferError):
            raise SourceLostError(f"{label} does not answer: {answer.message}")

    async def _admit_bridge(self, label: str) -> str | None:
        """Has a bridge's agent started and told the secret; why not, where it cannot be."""
        if label in self._agents:
            return None
        node = self._bridge_nodes[label]
        try:
            session = await self._session_for(node.cluster_key)
            arguments = {
                "transfer": self._transfer,
                "targets": [],
                **session.sealed(self._secret),
            }
            hello = await call(session, node.node_id, "allow", arguments, AGENT_START_SECONDS)
        except CastrayError as error:
            return error.message
        self._agents[label] = _Agent(session, node.node_id, endpoints_of(hello))
        return None

    # --- who reaches whom ---------------------------------------------------------------------

    async def _probe(self, probes: Sequence[Probe], probe_bytes: int) -> None:
        """Has connections tried, and notes what came of each."""
        ends = {end.node_label for probe in probes for end in (probe.dialer, probe.listener)}
        new = [label for label in ends if label not in self._agents]
        admitted = await asyncio.gather(*(self._admit_bridge(label) for label in new))
        refusals = dict(zip(new, admitted, strict=True))
        by_dialer: dict[str, list[Probe]] = {}
        for probe in probes:
            refusal = refusals.get(probe.dialer.node_label) or refusals.get(
                probe.listener.node_label
            )
            if refusal is not None:
                self._reach.note(probe.dialer, probe.listener, refusal)
            else:
                by_dialer.setdefault(probe.dialer.node_label, []).append(probe)
        await asyncio.gather(
            *(self._probe_from(label, group, probe_bytes) for label, group in by_dialer.items())
        )

    async def _probe_from(self, label: str, probes: list[Probe], probe_bytes: int) -> None:
        agent = self._agents[label]
        arguments: Json = {
            "transfer": self._transfer,
            "agents": [
                [list(end) for end in self._agents[probe.listener.node_label].endpoints]
                for probe in probes
            ],
            "timeout_seconds": _REACH_SECONDS,
        }
        if probe_bytes:
            arguments["probe_bytes"] = probe_bytes
        try:
            answer = await call(agent.session, agent.node_id, "reach", arguments, ORDER_SECONDS)
        except TransferError as error:
            for probe in probes:
                self._reach.note(probe.dialer, probe.listener, error.message)
            return
        rates = answer.get("rates") or [None] * len(probes)
        for probe, refusal, rate in zip(probes, answer["results"], rates, strict=True):
            reason = None if refusal is None else safe_text(refusal, limit=300)
            self._reach.note(probe.dialer, probe.listener, reason)
            if isinstance(rate, int | float) and rate > 0 and refusal is None:
                self._rates[label, probe.listener.node_label] = float(rate)

    def _link_rate(self) -> float | None:
        """The slowest of what was measured or asked for."""
        known = list(self._rates.values())
        if self._options.link_rate_limit_bytes_per_second:
            known.append(float(self._options.link_rate_limit_bytes_per_second))
        return min(known, default=None)

    # --- what everybody is told ---------------------------------------------------------------

    async def _build_bridges(self, route: Route, bridge_ids: Mapping[int, str]) -> None:
        """Tells the nodes that pass bytes on what to do."""

        async def build(bridge: int, order: Json) -> None:
            agent = self._agents[self._labels[bridge]]
            arguments = {"transfer": self._transfer, **order}
            try:
                await call(agent.session, agent.node_id, "bridge", arguments, ORDER_SECONDS)
            except TransferError as error:
                reason = f"{self._labels[bridge]} does not pass on what it gets: {error.message}"
                self._none[order["index"]] = NoWay(reason, is_lost=True)

        orders = bridge_orders(route, self._endpoints_of, bridge_ids)
        await asyncio.gather(*(build(bridge, order) for bridge, order in orders))

    def _without_lost(self, route: Route) -> Route:
        """The route without those whose bridge failed, and without whom they would feed."""
        edges = []
        for edge in route.edges:
            if edge.parent in self._none:
                self._none[edge.child] = self._none[edge.parent]
            if edge.child not in self._none:
                edges.append(edge)
        return replace(route, edges=tuple(edges))

    def _endpoints_of(self, index: int) -> Endpoints:
        return self._agents[self._labels[index]].endpoints

    def _dial(self, index: int, endpoints: Sequence[tuple[str, int]]) -> Dial:
        agent = self._agents[self._labels[index]]
        return Dial(agent.session, agent.node_id, index, endpoints)


def _member(index: int, node: Node) -> RouteMember:
    return RouteMember(
        index=index,
        cluster=node.cluster,
        address=None if node.is_local else node.address,
        node_label=node_label(node),
        can_be_dialed=not node.is_local,
        is_local=node.is_local,
    )
