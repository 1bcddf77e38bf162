"""From what was read to what is shown: nodes with a status each, in an order that holds still."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Literal

from castray_tui.core.models import Cluster, Node, NodeHardware, NodeStatus
from castray_tui.core.ray_api.node_names import node_names
from castray_tui.core.ray_api.node_records import NodeRecord, NodeRow

Health = Literal["fresh", "stale", "unreachable"]
"""What the age of a cluster's last answer says of all its nodes."""

_NO_LONGER_LISTED = "Ray no longer lists it and did not say why"


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One cluster and its nodes at one moment, the head first, then by start."""

    cluster: Cluster
    nodes: tuple[Node, ...]


@dataclass(slots=True)
class NodeBook:
    """What is known of one cluster's nodes, from whichever source told it last.

    Attributes:
        rows: Ray's own listing; nodes that Ray forgot stay, as dead.
        records: The machines' figures, which come less often.
        used: Logical resources in use by node ID.
        draining: Nodes that are draining, and until when.
        frozen: Nodes whose figures do not change any more although Ray lists them as alive.
        seen_at: When a node was last listed as alive.
        dismissed: Dead nodes that the user does not want to see.
    """

    rows: dict[str, NodeRow] = field(default_factory=dict)
    records: dict[str, NodeRecord] = field(default_factory=dict)
    used: dict[str, Mapping[str, float]] = field(default_factory=dict)
    draining: dict[str, float | None] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    seen_at: dict[str, float] = field(default_factory=dict)
    dismissed: set[str] = field(default_factory=set)

    def listed(self, rows: Iterable[NodeRow], now: float) -> None:
        """Takes in Ray's listing. Nodes that died stay, also after Ray forgot them."""
        told = {row.node_id: row for row in rows}
        for node_id, row in self.rows.items():
            if node_id not in told:
                told[node_id] = (
                    replace(row, alive=False, reason=_NO_LONGER_LISTED, ended_at=now)
                    if row.alive
                    else row
                )
            elif not told[node_id].alive and told[node_id].reason is None and not row.alive:
                # Some Rays tell the reason in one place only; a reason once known stays.
                told[node_id] = replace(told[node_id], reason=row.reason)
        for node_id, row in told.items():
            if row.alive:
                self.seen_at[node_id] = now
                self.dismissed.discard(node_id)
        self.rows = {node_id: row for node_id, row in told.items() if node_id not in self.dismissed}

    def dismiss(self, node_id: str) -> None:
        """Takes a dead node off the list, and does not put it back while it stays dead."""
        row = self.rows.get(node_id)
        if row is not None and not row.alive:
            self.dismissed.add(node_id)
            for by_id in (self.rows, self.records, self.used, self.seen_at):
                by_id.pop(node_id, None)

    def nodes(self, cluster: Cluster, health: Health) -> tuple[Node, ...]:
        """The nodes as they are shown, with the given health of their cluster."""
        rows = sorted(self.rows.values(), key=_place)
        hostnames = {
            row.node_id: hostname for row in rows if (hostname := self._hostname(row)) is not None
        }
        names = node_names(rows, hostnames)
        return tuple(
            self._node(row, cluster, names[row.node_id], hostnames.get(row.node_id), health)
            for row in rows
        )

    def _hostname(self, row: NodeRow) -> str | None:
        record = self.records.get(row.node_id)
        return row.hostname or (record.hostname if record else None)

    def _node(
        self, row: NodeRow, cluster: Cluster, name: str, hostname: str | None, health: Health
    ) -> Node:
        record = self.records.get(row.node_id)
        status = self._status(row, health)
        reason = row.reason
        if not row.alive:
            reason = reason or (record.reason if record else None)
        elif status == "draining":
            reason = _draining_words(self.draining.get(row.node_id))
        return Node(
            cluster_key=cluster.key,
            cluster=cluster.name,
            node_id=row.node_id,
            name=name,
            status=status,
            address=row.address,
            hostname=hostname,
            is_head=row.is_head,
            reason=reason,
            resources_total=row.resources_total,
            resources_used=self.used.get(row.node_id) if row.alive else None,
            labels=row.labels,
            hardware=self._hardware(row, record, cluster),
            last_seen=self.seen_at.get(row.node_id),
            started_at=row.started_at,
            ended_at=row.ended_at,
            worker_count=record.worker_count if record else None,
            python=record.python if record else None,
            agent_port=row.agent_port or (record.agent_port if record else None),
        )

    def _hardware(
        self, row: NodeRow, record: NodeRecord | None, cluster: Cluster
    ) -> NodeHardware | None:
        """The figures, as long as new ones may come. Ray goes on showing a dead node's last ones,
        and through the GCS none come at all."""
        if record is None or not row.alive or cluster.access == "gcs":
            return None
        return record.hardware

    def _status(self, row: NodeRow, health: Health) -> NodeStatus:
        if not row.alive:
            return "dead"
        if health != "fresh":
            return health
        if row.node_id in self.draining:
            return "draining"
        return "stale" if row.node_id in self.frozen else "alive"


def totals(nodes: Collection[Node]) -> tuple[dict[str, float], dict[str, float] | None]:
    """Logical resources of all nodes that are not dead, and what is used of them; None where no
    node's use is known. Resources that name one node (``node:…``) are left out."""
    total: dict[str, float] = {}
    used: dict[str, float] = {}
    for node in nodes:
        if node.status == "dead":
            continue
        _add(total, node.resources_total)
        _add(used, node.resources_used or {})
    known = any(node.resources_used is not None for node in nodes if node.status != "dead")
    return total, used if known else None


def _add(sums: dict[str, float], amounts: Mapping[str, float]) -> None:
    for name, amount in amounts.items():
        if not name.startswith("node:"):
            sums[name] = sums.get(name, 0.0) + amount


def _place(row: NodeRow) -> tuple[bool, float, str]:
    return (not row.is_head, row.started_at or float("inf"), row.node_id)


def _draining_words(deadline: float | None) -> str:
    if deadline is None:
        return "Draining, without a deadline"
    until = datetime.fromtimestamp(deadline, timezone.utc)
    return f"Draining until {until:%Y-%m-%d %H:%M:%S} UTC"
