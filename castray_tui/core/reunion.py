"""Clusters on which castray left agents a moment ago, taken up again without asking them first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from castray_tui.core.config import Settings
from castray_tui.core.errors import CastrayError
from castray_tui.core.models import Cluster, Node
from castray_tui.core.ray_api.node_names import node_names
from castray_tui.core.ray_api.node_records import NodeRow
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.access import ClusterDoor
from castray_tui.core.transfer.contacts import Contact, ContactBook
from castray_tui.core.transfer.service import TransferService


class Met(NamedTuple):
    """A cluster whose coordinator answered, and its nodes."""

    contact: Contact
    cluster: Cluster
    nodes: tuple[Node, ...]


class Reunion:
    """Goes to the coordinators that were noted.

    Args:
        settings: The settings of this run.
        state_dir: Where castrays of this user note where they left coordinators.
        service: The transfer service of this run, which gets the sessions.
    """

    def __init__(self, settings: Settings, state_dir: Path, service: TransferService) -> None:
        self._settings = settings
        self._book = ContactBook(state_dir, settings.transfer)
        self._service = service
        self._met: dict[str, Met] = {}

    async def meet(self, names: Collection[str]) -> Sequence[Met]:
        """Goes to the coordinators of these clusters, if every one of them has been noted.

        Returns:
            What was met just now.
        """
        contacts = [contact for name in names if (contact := self._usable(name)) is not None]
        if len(contacts) < len(names):
            return []
        results = await asyncio.gather(
            *(self._service.meet(contact) for contact in contacts), return_exceptions=True
        )
        met = []
        for contact, result in zip(contacts, results, strict=True):
            if isinstance(result, CastrayError):
                continue
            if isinstance(result, BaseException):
                raise result
            met.append(_met(contact, result))
        self._met.update({each.cluster.key: each for each in met})
        return met

    def has_met(self, names: Collection[str]) -> bool:
        """Whether the coordinators of all these clusters have been met."""
        return set(names) <= {met.cluster.name for met in self._met.values()}

    def knows(self, cluster_key: str) -> bool:
        """Whether a cluster's coordinator has been met."""
        return cluster_key in self._met

    def door(self, cluster_key: str) -> ClusterDoor | None:
        """The way in to a cluster that was met, until it is connected to; None for others."""
        met = self._met.get(cluster_key)
        if met is None:
            return None
        found = met.contact.found
        return ClusterDoor(
            key=found.key,
            name=found.name,
            python=found.python,
            control_hosts=met.contact.place.hosts,
            gcs_address=found.gcs_address,
            ray_version=found.ray_version,
        )

    def _usable(self, name: str) -> Contact | None:
        """The contact of that name, if the settings still mean that cluster, and it may be changed:
        what was noted was so then."""
        contact = self._book.named(name)
        if contact is None or self._settings.read_only:
            return None
        entry = next((each for each in self._settings.clusters if each.name == name), None)
        if contact.entry_address != (entry.address if entry else None):
            return None
        is_read_only = entry.read_only if entry else None
        if is_read_only is None:
            found = contact.found
            is_read_only = found.on_this_host and found.owned_by_me is False
        return None if is_read_only else contact


def _met(contact: Contact, listing: Sequence[Mapping[str, Any]]) -> Met:
    found = contact.found
    now = time.time()
    rows = [
        NodeRow(
            node_id=safe_text(told["node_id"]),
            alive=told["alive"] is True,
            address=safe_text(told["address"]) if told.get("address") else None,
            hostname=safe_text(told["hostname"]) if told.get("hostname") else None,
            is_head=told["is_head"] is True,
        )
        for told in listing
    ]
    rows.sort(key=lambda row: (not row.is_head, row.node_id))
    names = node_names(rows, {row.node_id: row.hostname for row in rows if row.hostname})
    nodes = tuple(
        Node(
            cluster_key=found.key,
            cluster=found.name,
            node_id=row.node_id,
            name=names[row.node_id],
            status="alive" if row.alive else "dead",
            address=row.address,
            hostname=row.hostname,
            is_head=row.is_head,
            last_seen=now if row.alive else None,
        )
        for row in rows
    )
    cluster = replace(
        found.as_cluster("connected"),
        connected_at=now,
        answered_at=now,
        node_count=len(nodes),
        alive_count=sum(row.alive for row in rows),
    )
    return Met(contact, cluster, nodes)
