"""What the engine says has happened: finds and transfers, put into events."""

from __future__ import annotations

from castray_tui.core.models import DiscoveredCluster, EventDraft, EventType, Transfer


def discovered_event(cluster: DiscoveredCluster) -> EventDraft:
    """A cluster was found that this run had not seen before."""
    where = cluster.dashboard_url or cluster.gcs_address or "an unknown address"
    version = f"Ray {cluster.ray_version}, " if cluster.ray_version else ""
    return EventDraft(
        type="cluster_discovered",
        cluster=cluster.name,
        message=f"Found {cluster.name} ({version}{where})",
        data={
            "sources": list(cluster.sources),
            "dashboard_url": cluster.dashboard_url,
            "gcs_address": cluster.gcs_address,
            "ray_version": cluster.ray_version,
        },
    )


def transfer_event(kind: EventType, transfer: Transfer) -> EventDraft:
    """A transfer has started, got a step further, or ended.

    Args:
        kind: ``transfer_started``, ``transfer_progressed`` or ``transfer_finished``.
        transfer: As it is now.
    """
    verdicts = [target.verdict for target in transfer.targets]
    good = sum(verdict in ("verified", "identical") for verdict in verdicts)
    count = len(transfer.targets)
    targets = "1 target" if count == 1 else f"{count} targets"
    message = {
        "transfer_started": f"Sending {transfer.source} to {targets}",
        "transfer_progressed": f"Sending {transfer.source}: {_percent(transfer)}",
    }.get(kind, f"{transfer.source}: {good} of {targets} verified ({transfer.state})")
    return EventDraft(
        type=kind,
        message=message,
        data={
            "id": transfer.id,
            "state": transfer.state,
            "bytes_done": transfer.bytes_done,
            "bytes_total": transfer.bytes_total,
            "targets": count,
            "verified": good,
            "failed": verdicts.count("failed"),
        },
    )


def _percent(transfer: Transfer) -> str:
    total = transfer.bytes_wanted
    return f"{100 * transfer.bytes_done // total} %" if total else "under way"
