"""One answered question to a cluster, whichever of its doors was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from castray_tui.core.errors import RayAnswerError
from castray_tui.core.models import Access
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.gcs_process import GcsSnapshot
from castray_tui.core.ray_api.node_records import (
    NodeRecord,
    NodeRow,
    read_logical,
    read_record,
    read_row,
    read_usage,
)

_THREAD_ROWS = 500
_THREAD_RECORDS = 50
"""More than these are turned into castray's terms off the event loop."""


class FrozenError(RayAnswerError):
    """The dashboard answers, but its GCS does not: what it shows is what once was."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a cluster from the next one at the same address; None where Ray does not tell."""

    cluster_id: str | None = None
    session_name: str | None = None

    def contradicts(self, other: Identity) -> bool:
        """Whether the two cannot be the same cluster."""
        if self.cluster_id and other.cluster_id:
            return self.cluster_id != other.cluster_id
        if self.session_name and other.session_name:
            return self.session_name != other.session_name
        return False

    def confirms(self, other: Identity) -> bool:
        """Whether the two are the same cluster for certain."""
        if self.contradicts(other):
            return False
        return bool(
            (self.cluster_id and self.cluster_id == other.cluster_id)
            or (self.session_name and self.session_name == other.session_name)
        )

    def completed_by(self, other: Identity) -> Identity:
        """This identity, with what the other knows besides."""
        return Identity(
            self.cluster_id or other.cluster_id, self.session_name or other.session_name
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """Ray's own listing of a cluster's nodes, with what came along."""

    access: Access
    rows: tuple[NodeRow, ...]
    identity: Identity
    ray_version: str | None
    extra: GcsExtra | None = None
    dashboard: str | None = None
    """The dashboard's address as the GCS has it; it may lie."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The machines' figures by node ID, and the logical use in Ray's rounded text."""

    records: Mapping[str, NodeRecord]
    used: Mapping[str, Mapping[str, float]]
    identity: Identity
    gcs_port: int | None


@dataclass(frozen=True, slots=True)
class GcsExtra:
    """What only the GCS tells: draining, exact logical use, agents' ports."""

    identity: Identity
    used: Mapping[str, Mapping[str, float]]
    draining: Mapping[str, float | None]


async def read_dashboard(client: DashboardClient) -> Listing:
    """The listing over HTTP: three small requests at once, 10 ms in all.

    Raises:
        FrozenError: The GCS behind it does not answer.
        CastrayError: As DashboardClient's methods.
    """

    async def check_gcs() -> None:
        if not await client.gcs_healthy():
            raise FrozenError(
                f"{client.url} answers, but its GCS does not: what it shows is old",
                remedy="Look at the head node's logs; the cluster may be going down",
            )

    version, raw_rows, _ = await _together(client.version(), client.state_nodes(), check_gcs())
    large = len(raw_rows) > _THREAD_ROWS
    return Listing(
        access="dashboard",
        rows=await asyncio.to_thread(_rows, raw_rows) if large else _rows(raw_rows),
        identity=Identity(session_name=version.session_name),
        ray_version=version.ray_version,
    )


async def read_summary(client: DashboardClient) -> Summary:
    """The summary over HTTP, turned into castray's terms off the event loop where it is large."""
    raw = await client.nodes_summary()

    def read() -> Summary:
        records = {record.node_id: record for one in raw.records if (record := read_record(one))}
        used = {
            node_id: amounts
            for node_id, text in raw.logical_resources.items()
            if (amounts := read_logical(text)) is not None
        }
        told = list(records.values())
        return Summary(
            records=records,
            used=used,
            identity=Identity(
                next((one.cluster_id for one in told if one.cluster_id), None),
                next((one.session_name for one in told if one.session_name), None),
            ),
            gcs_port=next((port for one in told if (port := port_of(one.gcs_address))), None),
        )

    return await asyncio.to_thread(read) if len(raw.records) > _THREAD_RECORDS else read()


def gcs_listing(snapshot: GcsSnapshot) -> Listing:
    """The listing as the GCS gave it."""
    extra = read_gcs_extra(snapshot)
    return Listing(
        access="gcs",
        rows=_rows(snapshot.rows),
        identity=extra.identity,
        ray_version=snapshot.ray_version,
        extra=extra,
        dashboard=snapshot.dashboard,
    )


def read_gcs_extra(snapshot: GcsSnapshot) -> GcsExtra:
    """What a GCS tells beyond the dashboard."""
    return GcsExtra(
        identity=Identity(snapshot.cluster_id, snapshot.session_name),
        used={
            node_id: amounts
            for node_id, raw in snapshot.usage.items()
            if (amounts := read_usage(raw)) is not None
        },
        draining=snapshot.draining,
    )


def port_of(address: str | None) -> int | None:
    """The port of ``host:port`` or of a URL; None where there is none."""
    if not address:
        return None
    try:
        return urlsplit(address if "//" in address else f"//{address}").port
    except ValueError:
        return None


def host_of(address: str | None) -> str | None:
    """The host of ``host:port`` or of a URL; None where there is none."""
    if not address:
        return None
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname
    except ValueError:
        return None


def _rows(raw_rows: tuple[Mapping[str, object], ...]) -> tuple[NodeRow, ...]:
    return tuple(row for raw in raw_rows if (row := read_row(raw)) is not None)


async def _together(*coroutines: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Runs all at once; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
