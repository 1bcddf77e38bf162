"""Works out what stands at an address that a user named, and which cluster that is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from castray_tui.core.discovery.addresses import (
    DEFAULT_DASHBOARD_PORT,
    DEFAULT_GCS_PORT,
    Address,
    host_port,
    is_any_address,
    is_loopback,
    parse_address,
    split_host_port,
)
from castray_tui.core.discovery.gcs_wire import GcsAnswer, ask_gcs
from castray_tui.core.discovery.merging import merge
from castray_tui.core.discovery.probing import Standing, probe, probe_dashboard
from castray_tui.core.discovery.process_scan import claim_of
from castray_tui.core.discovery.ray_processes import LocalSession
from castray_tui.core.discovery.ray_status import ask_ray_records, sighting_behind_client_server
from castray_tui.core.discovery.sightings import Claim, Sighting
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.verification import (
    sighting_of_dashboard,
    verify,
)
from castray_tui.core.errors import (
    AddressError,
    AuthError,
    ConnectError,
    NotRayError,
    UnreachableError,
)
from castray_tui.core.models import DiscoveredCluster, Source

TokenSource = Callable[[str], str | None] | str | None

_DASHBOARD_PORTS = range(DEFAULT_DASHBOARD_PORT, DEFAULT_DASHBOARD_PORT + 11)
_MANUAL: tuple[Source, ...] = ("manual",)
_FURTHER_LOOKS = 3
_LOOK_AGAIN_SECONDS = 0.5


async def identify(
    address: str, *, timeout_seconds: float = 10.0, token: TokenSource = None
) -> DiscoveredCluster:
    """Finds the cluster at an address of any form.

    Args:
        address: As a user wrote it; see ``addresses.parse_address``.
        timeout_seconds: For everything together.
        token: Ray's token for this address, or what gives it for a dashboard's URL or a GCS's
            ``host:port``. It is sent to the host named in ``address`` and to no other.

    Returns:
        The cluster, with ``manual`` as its source.

    Raises:
        AddressError: The address cannot be read, or means several clusters.
        UnreachableError: Nothing answers there, or not in time.
        NotRayError: Something else answers there.
        AuthError: The cluster wants a token that is missing or wrong.
    """
    parsed = parse_address(address)
    # A server that hangs must leave time to ask the others that an address may mean.
    surroundings = Surroundings(probe_seconds=min(3.0, timeout_seconds / 3))
    search = _Search(parsed, surroundings, token)
    try:
        sighting = await asyncio.wait_for(search.run(), timeout_seconds)
    except (asyncio.TimeoutError, TimeoutError):
        raise UnreachableError(
            f"{parsed} did not answer within {timeout_seconds:g} s",
            remedy="Check the address and the network, or raise "
            "external_cluster.connection_timeout.",
        ) from None
    finally:
        await surroundings.close()
    return merge([sighting])[0]


class _Search:
    def __init__(self, address: Address, surroundings: Surroundings, token: TokenSource) -> None:
        self._address = address
        self._surroundings = surroundings
        self._token_source = token
        # Client servers are no answer while the clusters of a host are counted because of one.
        self._is_scanning = False

    async def run(self) -> Sighting:
        address = self._address
        if address.form == "auto":
            return await self._auto()
        if address.form == "client":
            return await self._behind_client_server(address)
        if address.form == "http":
            port = address.port or DEFAULT_DASHBOARD_PORT
            standing = await self._dashboard(address.host, port, address.tls, address.path)
            return await self._of_standing(standing)
        if address.port is None:
            return await self._on_host(address.host)
        return await self._at(address.host, address.port)

    def _token(self, place: str) -> str | None:
        source = self._token_source
        token = source(place) if callable(source) else source
        return token.strip() or None if token is not None else None

    async def _dashboard(self, host: str, port: int, tls: bool = False, path: str = "") -> Standing:
        url = f"{'https' if tls else 'http'}://{host_port(host, port)}{path}"
        seconds = self._surroundings.probe_seconds
        standing = await probe_dashboard(
            host, port, timeout_seconds=seconds, tls=tls, path=path, with_nodes=True
        )
        token = self._token(url) if standing.needs_token else None
        if token is None:
            return standing
        return await probe_dashboard(
            host,
            port,
            timeout_seconds=seconds,
            tls=tls,
            path=path,
            token=token,
            with_nodes=True,
        )

    async def _at(self, host: str, port: int) -> Sighting:
        standing = await probe(host, port, timeout_seconds=self._surroundings.probe_seconds)
        self._surroundings.remember(standing)
        if standing.kind == "dashboard" and standing.needs_token:
            standing = await self._dashboard(host, port)
        return await self._of_standing(standing)

    async def _of_standing(self, standing: Standing) -> Sighting:
        if standing.kind == "dashboard":
            return await self._of_dashboard(standing)
        if standing.kind == "gcs" and standing.gcs is not None:
            return await self._of_gcs(standing.host, standing.port, standing.gcs)
        if standing.kind == "client_server" and not self._is_scanning:
            return await self._behind_client_server(
                replace(self._address, form="client", host=standing.host, port=standing.port)
            )
        if standing.kind == "silent":
            return await self._hung(standing)
        place = host_port(standing.host, standing.port)
        if standing.kind == "nothing":
            raise UnreachableError(
                f"{self._address}: {standing.what}",
                remedy=f"Check that the cluster runs and that {place} can be reached from here; "
                "castray discover lists what it finds.",
            )
        raise NotRayError(
            f"{place} is no Ray cluster: {standing.what} answers there",
            remedy="Name the dashboard (usually port 8265), the GCS (6379) or the Ray client "
            "server (10001) of a cluster.",
        )

    async def _of_dashboard(self, standing: Standing) -> Sighting:
        if standing.needs_token and standing.ray_version is None:
            raise self._no_entry(f"The Ray dashboard at {standing.url}", standing.token_refused)
        sighting = await sighting_of_dashboard(standing, _MANUAL, self._surroundings)
        for _ in range(_FURTHER_LOOKS):
            if sighting is not None or standing.kind != "dashboard" or self._is_scanning:
                break
            # A head that has just started, or is busy, may well say so the next time.
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            standing = await self._dashboard(
                standing.host, standing.port, self._address.tls, self._address.path
            )
            sighting = await sighting_of_dashboard(standing, _MANUAL, self._surroundings)
        if sighting is None:
            raise UnreachableError(
                f"The Ray dashboard at {standing.url} answers, but its GCS does not",
                remedy="Its head is dying or dead; restart it, or wait if it is starting.",
            )
        return replace(sighting, needs_token=standing.needs_token)

    def _no_entry(self, who: str, refused: bool) -> AuthError:
        if refused:
            return AuthError(
                f"{who} refused the token",
                remedy="Check RAY_AUTH_TOKEN, or the token_file of the cluster's [[clusters]] "
                "entry, against the token that the cluster was started with.",
            )
        return AuthError(
            f"{who} wants a token and there is none for it",
            remedy="Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or token_file in a [[clusters]] "
            "entry with this address.",
        )

    async def _of_gcs(self, host: str, port: int, gcs: GcsAnswer) -> Sighting:
        token = self._token(host_port(host, port)) if gcs.state == "wants_token" else None
        if token is not None:
            gcs = await ask_gcs(
                host, port, timeout_seconds=self._surroundings.probe_seconds, token=token
            )
        if gcs.state == "wants_token":
            raise self._no_entry(f"The GCS at {host_port(host, port)}", token is not None)
        claim = Claim(sources=_MANUAL, gcs=((host, port),))
        sighting = await verify(claim, self._surroundings)
        if sighting is None:
            raise UnreachableError(
                f"The GCS at {host_port(host, port)} stopped answering",
                remedy="Its head is dying or dead; restart it, or wait if it is starting.",
            )
        if token is None:
            return sighting
        sighting = _with_gcs_answer(sighting, gcs)
        # The GCS says where its dashboard is; the token goes there only if that is the same host.
        stored = split_host_port(gcs.dashboard or "")
        if stored is None or sighting.dashboard_url is not None:
            return sighting
        is_here = await self._surroundings.is_here(host)
        if is_any_address(stored[0]) or (is_here and await self._surroundings.is_here(stored[0])):
            stored = (host if is_any_address(stored[0]) else stored[0], stored[1])
        elif stored[0] != host or is_loopback(stored[0]):
            return sighting
        standing = await self._dashboard(*stored)
        if standing.kind == "dashboard" and standing.cluster_id in (None, sighting.cluster_id):
            return replace(sighting, dashboard_url=standing.url)
        return sighting

    async def _behind_client_server(self, address: Address) -> Sighting:
        """A client server does not say which cluster is behind it: on this machine the processes
        do, elsewhere the one cluster on that host must be it."""
        surroundings = self._surroundings
        sighting = await sighting_behind_client_server(address, _MANUAL, surroundings)
        if sighting is not None:
            return sighting
        port = address.port or 0
        standing = await probe(address.host, port, timeout_seconds=surroundings.probe_seconds)
        if standing.kind != "client_server":
            if standing.kind in ("dashboard", "gcs"):
                raise NotRayError(
                    f"{host_port(address.host, port)} is a {standing.what}, no Ray client server",
                    remedy=f"Leave out ray:// and name {host_port(address.host, port)}.",
                )
            return await self._of_standing(standing)
        found = await self._all_on_host(address.host)
        if len(found) == 1:
            note = "Taken for the cluster of the client server: it is the only one on that host."
            return replace(found[0], notes=(*found[0].notes, note))
        raise UnreachableError(
            f"A Ray client server answers at {host_port(address.host, port)}, but which cluster it "
            f"belongs to cannot be told: {_count_words(found)} on that host",
            remedy="Name the cluster's dashboard (usually port 8265) or GCS (6379) instead.",
        )

    async def _on_host(self, host: str) -> Sighting:
        found = await self._all_on_host(host)
        if len(found) == 1:
            return found[0]
        if not found:
            raise UnreachableError(
                f"No Ray cluster answers on {host} (dashboard ports {_DASHBOARD_PORTS[0]} to "
                f"{_DASHBOARD_PORTS[-1]}, GCS port {DEFAULT_GCS_PORT})",
                remedy="Name the port as well, HOST:PORT.",
            )
        raise AddressError(
            f"{host} has {_count_words(found)}: "
            + ", ".join(one.dashboard_url or one.gcs_address or "?" for one in found),
            remedy="Name one of them.",
        )

    async def _all_on_host(self, host: str) -> list[Sighting]:
        """Every cluster at the usual ports of a host."""
        # Without the token: the user named the host, and whatever answers on its ports must not
        # get one for that.
        search = _Search(self._address, self._surroundings, None)
        search._is_scanning = True
        ports = (DEFAULT_GCS_PORT, *_DASHBOARD_PORTS)
        attempts = [self._quietly(search._at(host, port)) for port in ports]
        found: dict[str, Sighting] = {}
        locked: AuthError | None = None
        for sighting in await asyncio.gather(*attempts):
            if isinstance(sighting, AuthError):
                locked = sighting
            if isinstance(sighting, Sighting):
                key = sighting.cluster_id or sighting.session_name or str(sorted(sighting.places))
                kept = found.setdefault(key, sighting)
                if kept.dashboard_url is None:
                    found[key] = sighting
        if locked is not None:
            # Also where another was found: which of them is meant cannot be told.
            raise AuthError(
                locked.message,
                remedy="Name its port as well, HOST:PORT: a token is sent to no port that was "
                "not named.",
            )
        return list(found.values())

    async def _quietly(self, attempt: Coroutine[Any, Any, Sighting]) -> Sighting | ConnectError:
        try:
            return await attempt
        except ConnectError as error:
            return error

    async def _hung(self, standing: Standing) -> Sighting:
        """Something accepts and is silent: this machine's processes may know whose it is."""
        place = await self._surroundings.place(standing.host, standing.port)
        for session in await self._local_sessions():
            theirs = {
                await self._surroundings.place(*one) for one in (*session.dashboards, *session.gcs)
            }
            if place in theirs:
                sighting = await verify(claim_of(session, _MANUAL), self._surroundings)
                if sighting is not None:
                    return sighting
        raise UnreachableError(
            f"{host_port(standing.host, standing.port)} accepts connections and does not answer",
            remedy="Its server hangs or is overloaded; look at dashboard.log on the head, "
            "or name its GCS (HOST:6379) instead.",
        )

    async def _local_sessions(self) -> tuple[LocalSession, ...]:
        if not await self._surroundings.is_here(self._address.host):
            return ()
        return await self._surroundings.sessions()

    async def _auto(self) -> Sighting:
        found: list[Sighting] = []
        await ask_ray_records(
            os.environ.get("RAY_ADDRESS"), os.environ, self._surroundings, found.append
        )
        if not found:
            raise UnreachableError(
                "auto: no Ray cluster is recorded or runs on this machine",
                remedy="Name an address, or set RAY_ADDRESS.",
            )
        return found[0]


def _with_gcs_answer(sighting: Sighting, gcs: GcsAnswer) -> Sighting:
    return replace(
        sighting,
        cluster_id=gcs.cluster_id or sighting.cluster_id,
        session_name=gcs.session_name or sighting.session_name,
        ray_version=gcs.ray_version or sighting.ray_version,
        node_count=gcs.node_count,
        resources=gcs.resources,
        needs_token=True,
    )


def _count_words(found: list[Sighting]) -> str:
    return f"{len(found)} Ray clusters" if found else "no cluster at the usual ports"
