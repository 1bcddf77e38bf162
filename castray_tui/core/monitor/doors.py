"""The ways into one cluster, and which of them is used: its dashboard, else its GCS."""

from __future__ import annotations

import time
from collections.abc import Mapping

from castray_tui.core.errors import AuthError, CastrayError, UnreachableError
from castray_tui.core.models import Access, DiscoveredCluster
from castray_tui.core.monitor.reading import (
    GcsExtra,
    Identity,
    Listing,
    gcs_listing,
    host_of,
    port_of,
    read_dashboard,
    read_gcs_extra,
    read_summary,
)
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.http import RefusedError
from castray_tui.core.ray_api.jobs import JobClient
from castray_tui.core.ray_api.tokens import Token

_OTHER_DOOR_SECONDS = 10.0
"""How often the dashboard is looked for again while the GCS is used in its place."""
_LOOK_TIMEOUT_SECONDS = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_ANY_HOST = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound to


class Doors:
    """Asks one cluster through whichever door is open.

    Args:
        found: What discovery knows of it.
        token: Its token, if it may have one.
        gcs: The processes that ask GCS servers.
        timeout_seconds: For one request.
    """

    def __init__(
        self,
        found: DiscoveredCluster,
        *,
        token: Token | None,
        gcs: GcsProcesses,
        timeout_seconds: float,
    ) -> None:
        self._token = token
        self._gcs = gcs
        self._timeout_seconds = timeout_seconds
        self._on_this_host = found.on_this_host
        self.gcs_address = found.gcs_address
        self.dashboard: DashboardClient | None = None
        self.access: Access | None = None
        """The door that the last listing came through."""
        self._look_again_at = 0.0
        self._agent_jobs: tuple[str, JobClient] | None = None
        self._dashboard_jobs: JobClient | None = None
        if found.dashboard_url:
            self._use_dashboard(found.dashboard_url)

    async def listing(self, identity: Identity) -> Listing:
        """Ray's listing of the nodes.

        Args:
            identity: What the cluster is known as: a dashboard that the GCS names is believed only
                if it says the same.

        Raises:
            CastrayError: Neither door gave an answer; the dashboard's error where it has one.
        """
        looking = self.access == "gcs" and time.monotonic() < self._look_again_at
        failure: CastrayError | None = None
        if self.dashboard is not None and not looking:
            try:
                listing = await read_dashboard(self.dashboard)
            except RefusedError as error:
                # Only where nobody listens: one that is silent has hung, and is to be seen so.
                failure = error
                self._look_again_at = time.monotonic() + _OTHER_DOOR_SECONDS
            else:
                self.access = "dashboard"
                return listing
        if self.gcs_address is None:
            raise failure or UnreachableError("Neither a dashboard nor a GCS address is known")
        try:
            listing = gcs_listing(
                await self._gcs.poll(
                    self.gcs_address, token=self._token, timeout_seconds=self._timeout_seconds
                )
            )
        except AuthError:
            raise
        except CastrayError as error:
            raise failure or error from error
        self.access = "gcs"
        if self.dashboard is None:
            await self._look_for_dashboard(listing, identity.completed_by(listing.identity))
        return listing

    async def gcs_extra(self, gcs_port: int | None, identity: Identity) -> GcsExtra | None:
        """What only the GCS tells of a cluster that is read through its dashboard; None where the
        GCS cannot be asked or turns out to be another cluster's.

        Args:
            gcs_port: As the raylets name it, where discovery did not find the address.
        """
        address = self.gcs_address
        host = host_of(self.dashboard.url) if self.dashboard else None
        if address is None and host and gcs_port:
            # The dashboard's own host only: an address out of an answer is not to be followed.
            address = f"[{host}]:{gcs_port}" if ":" in host else f"{host}:{gcs_port}"
        if address is None:
            return None
        try:
            snapshot = await self._gcs.poll(
                address,
                token=self._token if self._may_share_token(address) else None,
                timeout_seconds=self._timeout_seconds,
            )
        except CastrayError:
            # An extra: without it draining is not seen, and all else is as before.
            return None
        told = read_gcs_extra(snapshot)
        if not identity.confirms(told.identity):
            return None
        self.gcs_address = address
        return told

    def jobs(self, agent_addresses: Mapping[str, str]) -> JobClient | None:
        """Ray's job API through the door in use.

        Args:
            agent_addresses: ``host:port`` of the agents on nodes that live, by node ID, the head's
                first.
        """
        if self.access == "dashboard" or self.access is None:
            return self._dashboard_jobs
        if self.gcs_address is None:
            return None
        address = next(iter(agent_addresses.values()), None)
        if address is None:
            return None
        if self._agent_jobs is None or self._agent_jobs[0] != address:
            gcs_address = self.gcs_address
            client = JobClient(
                f"http://{address}",
                token=self._token if self._may_share_token(address) else None,
                timeout_seconds=self._timeout_seconds,
                agent=True,
                record_reader=lambda submission_id: self._gcs.job_record(
                    gcs_address, submission_id, token=self._token
                ),
            )
            self._agent_jobs = (address, client)
        return self._agent_jobs[1]

    async def close(self) -> None:
        """Closes all connections."""
        if self.dashboard is not None:
            await self.dashboard.aclose()
        if self._dashboard_jobs is not None:
            await self._dashboard_jobs.aclose()
        if self._agent_jobs is not None:
            await self._agent_jobs[1].aclose()

    def _use_dashboard(self, url: str) -> None:
        self.dashboard = DashboardClient(
            url, token=self._token, timeout_seconds=self._timeout_seconds
        )
        self._dashboard_jobs = JobClient(
            url, token=self._token, timeout_seconds=self._timeout_seconds
        )

    def _may_share_token(self, address: str) -> bool:
        """Whether an address that an answer named is on the same host as one that was given."""
        given = {host_of(self.gcs_address), host_of(self.dashboard.url if self.dashboard else None)}
        return self._on_this_host or host_of(address) in given

    async def _look_for_dashboard(self, listing: Listing, identity: Identity) -> None:
        """Finds out whether the dashboard that the GCS names is there; often it is not.

        Without a token only: which program listens at that port nobody vouches for.
        """
        port = port_of(listing.dashboard)
        if port is None or self._token is not None or time.monotonic() < self._look_again_at:
            return
        self._look_again_at = time.monotonic() + _OTHER_DOOR_SECONDS
        gcs_host = host_of(self.gcs_address) or ""
        named = host_of(listing.dashboard) or ""
        # The head's own loopback is not ours, unless the head is here.
        host = named if named in _LOOPBACK and self._on_this_host else gcs_host
        if named in _ANY_HOST:
            host = gcs_host
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        client = DashboardClient(url, timeout_seconds=_LOOK_TIMEOUT_SECONDS)
        try:
            version = await client.version()
            told = Identity(session_name=version.session_name)
            if not identity.confirms(told):
                told = Identity(cluster_id=await client.cluster_id())
            if not identity.confirms(told) and not identity.contradicts(told):
                # Rays before 2.38 tell who they are on their raylets' command lines only.
                told = (await read_summary(client)).identity
        except CastrayError:
            return
        finally:
            await client.aclose()
        if identity.confirms(told):
            self._use_dashboard(url)
            self._look_again_at = 0.0
