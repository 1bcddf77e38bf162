"""What happened between two views of one cluster."""

from __future__ import annotations

from collections.abc import Mapping

from castray_tui.core.models import Cluster, EventDraft, EventType, Node
from castray_tui.core.monitor.view import ClusterView

_GONE = frozenset({"unreachable", "refused", "lost"})


def view_events(before: ClusterView, after: ClusterView) -> list[EventDraft]:
    """The events that lead from one view to the next, the cluster's first, in the nodes' order.

    Args:
        before, after: Views of the same connection, one after the other. The nodes that a first
            answer brings are no news; ``cluster_connected`` counts them.
    """
    events = _cluster_events(before.cluster, after)
    if before.cluster.connected_at is None:
        return events
    known = {node.node_id: node for node in before.nodes}
    for node in after.nodes:
        events.extend(_node_events(known.get(node.node_id), node))
    return events


def restarted(before: Cluster, *, key: str, session_name: str | None) -> EventDraft:
    """Another cluster answers at a cluster's address.

    Args:
        before: The cluster that was there.
        key, session_name: Of the one that is there now.
    """
    return EventDraft(
        type="cluster_restarted",
        message=f"{before.name} was restarted: another cluster answers at {before.address} now",
        cluster=before.name,
        data={
            "cluster_address": before.address,
            "key": before.key,
            "new_key": key,
            "session_name": before.session_name,
            "new_session_name": session_name,
        },
    )


def _cluster_events(before: Cluster, view: ClusterView) -> list[EventDraft]:
    after = view.cluster
    data: dict[str, object] = {
        "cluster_address": after.address,
        "external_nodes_count": len(view.nodes),
        "key": after.key,
    }
    kind: EventType | None = None
    message = ""
    if before.connected_at is None and after.connected_at is not None:
        count = f"{len(view.nodes)} node{'' if len(view.nodes) == 1 else 's'}"
        kind, message = "cluster_connected", f"Connected to {after.name}: {count}"
        if after.ray_version:
            message += f", Ray {after.ray_version}"
    elif after.connected_at is not None and before.state not in _GONE and after.state in _GONE:
        kind, message = "cluster_lost", f"Lost {after.name}"
        if after.error:
            message += f": {after.error}"
            data["error"] = after.error
    elif before.connected_at is not None and before.state in _GONE and after.state not in _GONE:
        kind, message = "cluster_recovered", f"{after.name} answers again"
    if kind is None:
        return []
    return [EventDraft(type=kind, message=message, cluster=after.name, data=data)]


def _node_events(before: Node | None, after: Node) -> list[EventDraft]:
    was = None if before is None else before.status
    events: list[EventDraft] = []
    where = f"{after.cluster}/{after.name}"
    if was is None:
        events.append(_node_event("node_joined", f"{where} joined", after))
    if after.status == "dead" and was != "dead":
        words = f": {after.reason}" if after.reason else ""
        events.append(_node_event("node_died", f"{where} died{words}", after))
    if after.status == "draining" and was not in {"draining", "stale", "unreachable"}:
        events.append(_node_event("node_draining", f"{where} is draining", after))
    return events


def _node_event(kind: EventType, message: str, node: Node) -> EventDraft:
    data: Mapping[str, object] = {
        "node_id": node.node_id,
        "address": node.address,
        "reason": node.reason,
    }
    return EventDraft(type=kind, message=message, cluster=node.cluster, node=node.name, data=data)
