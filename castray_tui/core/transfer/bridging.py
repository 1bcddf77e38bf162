"""Which nodes of the fleet may pass on what others cannot send to each other directly."""

from __future__ import annotations

from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Fleet, Node
from castray_tui.core.transfer.access import ClusterAccess
from castray_tui.core.transfer.addresses import local_node
from castray_tui.core.transfer.selection import Leg

_MOST_BRIDGES = 16


def bridge_nodes(leg: Leg, fleet: Fleet, access: ClusterAccess) -> list[Node]:
    """The nodes that may be asked, the likeliest first: the source's own cluster's, heads before
    others, then those of other clusters; castray's machine last. None of a cluster that is only
    looked at.
    """
    writable = {cluster.key for cluster in fleet.clusters if _may_run_agents(cluster.key, access)}
    nodes = [
        node
        for node in fleet.nodes
        if node.cluster_key in writable and node.status == "alive" and not node.is_local
    ]
    nodes.sort(key=lambda node: (not node.is_head, node.cluster_key != leg.node.cluster_key))
    return [*nodes[:_MOST_BRIDGES], local_node(fleet)]


def _may_run_agents(cluster_key: str, access: ClusterAccess) -> bool:
    try:
        return access.door(cluster_key).read_only_reason is None
    except CastrayError:
        return False
