"""The models as JSON: one shape for the command line, REST and WebSocket.

Pure functions from a model to what ``json.dumps`` takes. Field names are the documented ones of
``docs/cli.md``; times become ISO 8601 in UTC with milliseconds, unknown stays null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from castray_tui.core.models import (
    Cluster,
    DiscoveredCluster,
    DiscoveryReport,
    Event,
    Fleet,
    Node,
    NodeHardware,
    PlannedTarget,
    Transfer,
    TransferLeg,
    TransferPlan,
    TransferRequest,
    TransferTarget,
)

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = dict[str, JsonValue]


def iso_time(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as ``2026-01-02T03:04:05.678Z``; None stays None.

    A time that no calendar holds is None as well: some come from clocks of other machines.
    """
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: float | None) -> float | None:
    """JSON knows no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _amounts(resources: Mapping[str, float] | None) -> JsonObject | None:
    if resources is None:
        return None
    return {name: _number(amount) for name, amount in resources.items()}


# --- clusters ---------------------------------------------------------------------------------


def discovered_cluster_json(cluster: DiscoveredCluster) -> JsonObject:
    """One found cluster, as an entry of ``discovered_clusters``."""
    return {
        "name": cluster.name,
        "nodes": cluster.node_count,
        "dashboard_url": cluster.dashboard_url,
        "gcs_address": cluster.gcs_address,
        "ray_version": cluster.ray_version,
        "resources": _amounts(cluster.resources),
        "sources": list(cluster.sources),
        "session_name": cluster.session_name,
        "cluster_id": cluster.cluster_id,
        "needs_token": cluster.needs_token,
        "on_this_host": cluster.on_this_host,
        "owner": cluster.owner,
        "temp_dir": cluster.temp_dir,
        "python": cluster.python,
        "notes": list(cluster.notes),
    }


def discovery_json(report: DiscoveryReport) -> JsonObject:
    """A whole discovery: the clusters, how each method fared, and what was no Ray."""
    return {
        "clusters": [discovered_cluster_json(cluster) for cluster in report.clusters],
        "methods": [
            {
                "method": outcome.method,
                "found": outcome.found,
                "seconds": round(outcome.seconds, 6),
                "error": outcome.error,
            }
            for outcome in report.methods
        ],
        "foreign": [
            {"address": service.address, "what": service.what} for service in report.foreign
        ],
        "started": iso_time(report.started),
        "seconds": round(report.seconds, 6),
    }


def cluster_json(cluster: Cluster) -> JsonObject:
    """One connected cluster."""
    return {
        "name": cluster.name,
        "state": cluster.state,
        "address": cluster.address,
        "access": cluster.access,
        "nodes": cluster.node_count,
        "nodes_alive": cluster.alive_count,
        "dashboard_url": cluster.dashboard_url,
        "gcs_address": cluster.gcs_address,
        "ray_version": cluster.ray_version,
        "session_name": cluster.session_name,
        "cluster_id": cluster.cluster_id,
        "sources": list(cluster.sources),
        "resources": _amounts(cluster.resources_total),
        "resources_used": _amounts(cluster.resources_used),
        "jobs_running": cluster.jobs_running,
        "read_only": cluster.read_only,
        "read_only_reason": cluster.read_only_reason,
        "error": cluster.error,
        "connected_at": iso_time(cluster.connected_at),
        "answered_at": iso_time(cluster.answered_at),
        "latency_seconds": _number(cluster.latency_seconds),
    }


# --- nodes ------------------------------------------------------------------------------------


def _hardware_json(hardware: NodeHardware) -> JsonObject:
    return {
        "measured_at": iso_time(hardware.measured_at),
        "cpu_percent": _number(hardware.cpu_percent),
        "cpu_logical_count": hardware.cpu_logical_count,
        "cpu_physical_count": hardware.cpu_physical_count,
        "load_average_1m": _number(hardware.load_average_1m),
        "memory_total_bytes": hardware.memory_total_bytes,
        "memory_used_bytes": hardware.memory_used_bytes,
        "memory_percent": _number(hardware.memory_percent),
        "disks": [
            {
                "mount": disk.mount,
                "total_bytes": disk.total_bytes,
                "used_bytes": disk.used_bytes,
                "free_bytes": disk.free_bytes,
            }
            for disk in hardware.disks
        ],
        "disk_read_bytes_per_second": _number(hardware.disk_read_bytes_per_second),
        "disk_write_bytes_per_second": _number(hardware.disk_write_bytes_per_second),
        "network_sent_bytes_per_second": _number(hardware.network_sent_bytes_per_second),
        "network_received_bytes_per_second": _number(hardware.network_received_bytes_per_second),
        "object_store_used_bytes": hardware.object_store_used_bytes,
        "object_store_total_bytes": hardware.object_store_total_bytes,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "utilization_percent": _number(gpu.utilization_percent),
                "memory_used_bytes": gpu.memory_used_bytes,
                "memory_total_bytes": gpu.memory_total_bytes,
                "temperature_celsius": _number(gpu.temperature_celsius),
                "power_watts": _number(gpu.power_watts),
                "process_pids": list(gpu.process_pids),
            }
            for gpu in hardware.gpus
        ],
        "boot_time": iso_time(hardware.boot_time),
    }


def node_json(node: Node, cluster: Cluster | None) -> JsonObject:
    """One node of the fleet.

    Args:
        node: The node.
        cluster: Its cluster; None for the local node, or where it is not known any more.

    Returns:
        The fields of ``/api/nodes/external``; the local node has ``type`` ``local``.
    """
    sources = cluster.sources if cluster is not None else ()
    return {
        "id": node.node_id,
        "name": node.name,
        "address": node.address,
        "hostname": node.hostname,
        "status": node.status,
        "type": "local" if node.is_local else "external",
        "cluster": node.cluster,
        "cluster_source": sources[0] if sources else None,
        "is_head": node.is_head,
        "reason": node.reason,
        "last_seen": iso_time(node.last_seen),
        "started_at": iso_time(node.started_at),
        "ended_at": iso_time(node.ended_at),
        "resources": _amounts(node.resources_total),
        "resources_used": _amounts(node.resources_used),
        "labels": dict(node.labels),
        "worker_count": node.worker_count,
        "hardware": _hardware_json(node.hardware) if node.hardware is not None else None,
    }


def nodes_json(nodes: Iterable[Node], clusters: Iterable[Cluster]) -> list[JsonValue]:
    """The nodes, each with what is known from its cluster."""
    by_key = {cluster.key: cluster for cluster in clusters}
    return [node_json(node, by_key.get(node.cluster_key)) for node in nodes]


def totals_json(fleet: Fleet) -> JsonObject:
    """Sums over the connected clusters; the local node is not in them."""
    total: dict[str, float] = {}
    used: dict[str, float] = {}
    for cluster in fleet.clusters:
        for name, amount in cluster.resources_total.items():
            total[name] = total.get(name, 0.0) + amount
        for name, amount in (cluster.resources_used or {}).items():
            used[name] = used.get(name, 0.0) + amount
    external = [node for node in fleet.nodes if not node.is_local]
    return {
        "clusters": len(fleet.clusters),
        "clusters_connected": sum(cluster.state == "connected" for cluster in fleet.clusters),
        "nodes": len(external),
        "nodes_alive": sum(node.status == "alive" for node in external),
        "resources": _amounts(total),
        "resources_used": _amounts(used),
    }


# --- transfers --------------------------------------------------------------------------------


def _target_json(target: TransferTarget) -> JsonObject:
    return {
        "cluster": target.cluster,
        "node": target.node,
        "path": target.path,
        "verdict": target.verdict,
        "reason": target.reason,
        "digest": target.digest,
        "bytes": target.bytes,
        "seconds": _number(target.seconds),
        "attempts": target.attempts,
        "node_id": target.node_id,
        "via": list(target.via),
        "source": target.source,
        "bytes_total": target.bytes_total,
        "sent_bytes": target.sent_bytes,
        "bytes_per_second": _number(target.bytes_per_second),
        "started": iso_time(target.started),
        "ended": iso_time(target.ended),
    }


def _leg_json(leg: TransferLeg) -> JsonObject:
    return {
        "cluster": leg.cluster,
        "node": leg.node,
        "node_id": leg.node_id,
        "paths": list(leg.paths),
        "bytes_total": leg.bytes_total,
        "files": leg.files,
        "digest": leg.digest,
    }


def _request_json(request: TransferRequest) -> JsonObject:
    return {
        "sources": list(request.sources),
        "targets": list(request.targets),
        "overwrite": request.overwrite,
        "include": list(request.include),
        "exclude": list(request.exclude),
        "links": request.links,
        "rate_limit": request.rate_limit_bytes_per_second,
        "link_rate_limit": request.link_rate_limit_bytes_per_second,
        "patience": _number(request.patience_seconds),
        "streams": request.streams,
        "delete": request.delete,
    }


def _bytes_done(transfer: Transfer) -> int:
    """Of ``bytes_total``, what the targets have, on the average; equal to it when all have all."""
    if not transfer.bytes_total or not transfer.bytes_wanted:
        return transfer.bytes_done
    return transfer.bytes_done * transfer.bytes_total // transfer.bytes_wanted


def transfer_json(transfer: Transfer) -> JsonObject:
    """One transfer with the verdict of every target."""
    return {
        "id": transfer.id,
        "kind": transfer.kind,
        "state": transfer.state,
        "source": transfer.source,
        "bytes_total": transfer.bytes_total,
        "bytes_done": _bytes_done(transfer),
        "started": iso_time(transfer.started),
        "ended": iso_time(transfer.ended),
        "digest": transfer.digest,
        "error": transfer.error,
        "targets": [_target_json(target) for target in transfer.targets],
        "route": list(transfer.route),
        "overwrite": transfer.overwrite,
        "rate_limit": transfer.rate_limit_bytes_per_second,
        "files": transfer.files,
        "user": transfer.user,
        "sources": [_leg_json(leg) for leg in transfer.legs],
        "request": _request_json(transfer.request) if transfer.request is not None else None,
    }


def _planned_target_json(target: PlannedTarget) -> JsonObject:
    return {
        "cluster": target.cluster,
        "node": target.node,
        "path": target.path,
        "action": target.action,
        "reason": target.reason,
        "free_bytes": target.free_bytes,
        "existing_bytes": target.existing_bytes,
        "node_id": target.node_id,
        "source": target.source,
        "send_bytes": target.send_bytes,
        "held_bytes": target.held_bytes,
    }


def plan_json(plan: TransferPlan) -> JsonObject:
    """A transfer as it would be made."""
    return {
        "dry_run": True,
        "kind": plan.kind,
        "source": plan.source,
        "bytes_total": plan.bytes_total,
        "digest": plan.digest,
        "targets": [_planned_target_json(target) for target in plan.targets],
        "route": list(plan.route),
        "predicted_seconds": _number(plan.predicted_seconds),
        "files": plan.files,
    }


# --- events and errors ------------------------------------------------------------------------


def event_json(event: Event) -> JsonObject:
    """One event as it goes over the WebSocket."""
    return {
        "id": event.id,
        "type": event.type,
        "time": iso_time(event.time),
        "message": event.message,
        "cluster": event.cluster,
        "node": event.node,
        "data": {key: _plain(value) for key, value in event.data.items()},
    }


def error_json(code: str, message: str) -> JsonObject:
    """An error, in the one form that errors have."""
    return {"success": False, "error": {"code": code, "message": message}}


def _plain(value: object) -> JsonValue:
    """What JSON can hold of any value; other types as their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    return str(value)
