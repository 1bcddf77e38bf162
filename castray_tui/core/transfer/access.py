"""What the transfer floor has to be told about a cluster, and who tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from castray_tui.core.models import DiscoveredCluster

if TYPE_CHECKING:
    from castray_tui.core.ray_api.jobs import JobClient
    from castray_tui.core.ray_api.tokens import Token


@dataclass(frozen=True, slots=True)
class ClusterDoor:
    """How agents are put on one cluster.

    Attributes:
        key: The cluster's identity, as in ``models.Cluster``.
        name: The cluster's name.
        jobs: The dashboard's job API; None where no dashboard answers. Stays the caller's.
        python: The interpreter that the head's workers run under.
        control_hosts: Where the coordinator's control port may be reached: the head's address, the
            host of the dashboard's URL, ``127.0.0.1`` for a cluster on this host.
        gcs_address: ``host:port``.
        head_agent_url: ``http://<head>:<port>`` of the head node's agent, if known.
        read_only_reason: Why nothing may be started there; None where it may.
        found: The cluster as it was found, under the name that castray shows.
        entry_address: Address of the ``[[clusters]]`` entry that it goes by, or None.
    """

    key: str
    name: str
    jobs: JobClient | None = None
    python: str | None = None
    control_hosts: tuple[str, ...] = ()
    gcs_address: str | None = None
    head_agent_url: str | None = None
    ray_version: str | None = None
    token: Token | None = field(default=None, repr=False)
    read_only_reason: str | None = None
    found: DiscoveredCluster | None = None
    entry_address: str | None = None


class ClusterAccess(Protocol):
    """Implemented by the engine."""

    def door(self, cluster_key: str) -> ClusterDoor:
        """The way in to a connected cluster.

        Raises:
            NotFoundError: It is not connected.
        """
        ...
