"""Which clusters are watched: connecting, disconnecting, and what a restart makes of a connection.

A cluster is watched under its identity. An address that was named and does not answer yet is
watched as well, under ``address:…``, and tried again until it does.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from castray_tui.core.config import KnownClusterSettings, Settings
from castray_tui.core.discovery.identify import identify
from castray_tui.core.errors import (
    AuthError,
    CastrayError,
    ConfigError,
    NotFoundError,
    NotRayError,
)
from castray_tui.core.models import LOCAL, Cluster, DiscoveredCluster, EventDraft
from castray_tui.core.monitor import ClusterMonitor, ClusterView
from castray_tui.core.monitor.reading import host_of
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.tokens import Token, read_token_file, token_for, users_token
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer.access import ClusterDoor

_FIRST_RETRY_SECONDS = 2.0
_LAST_RETRY_SECONDS = 30.0
_NAME_CHARACTERS = 120


@dataclass(slots=True)
class _Connection:
    key: str
    name: str
    found: DiscoveredCluster
    address: str
    entry: KnownClusterSettings | None
    named_by_user: bool
    token: Token | None
    monitor: ClusterMonitor
    task: asyncio.Task[None]


@dataclass(slots=True)
class _Waiting:
    """An address that was named and does not answer yet."""

    name: str
    task: asyncio.Task[None]


class Connections:
    """All clusters that castray is connected to, or tries to be, each with a monitor of its own.

    Args:
        settings: The run's settings.
        on_view: Called with every new view of a cluster.
        on_gone: Called with the key of a cluster that is no longer watched.
        on_event: Called with what happened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_view: Callable[[ClusterView], None],
        on_gone: Callable[[str], None],
        on_event: Callable[[EventDraft], None],
    ) -> None:
        self._settings = settings
        self._gcs = GcsProcesses()
        self._on_view = on_view
        self._on_gone = on_gone
        self._on_event = on_event
        self._by_key: dict[str, _Connection] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._ending: set[asyncio.Task[None]] = set()

    # --- orders -------------------------------------------------------------------------------

    async def connect(self, address: str, *, discovered: Sequence[DiscoveredCluster]) -> Cluster:
        """Connects to what the user named and waits for the first answer.

        Args:
            address: A discovered cluster's name, a configured name, or any form of address.
            discovered: What the last discovery found.

        Returns:
            The cluster with its first answer in it; the one already watched if it is the same.

        Raises:
            ConnectError: Nothing usable stands there.
            AddressError: The address cannot be read.
        """
        entry = self._entry_named(address)
        found = next((cluster for cluster in discovered if cluster.name == address), None)
        # A name out of the list of what was found is no address: it opens nobody's token.
        named_by_user = entry is not None or found is None
        if entry is not None or found is None:
            found = await self._identify(entry.address if entry else address, entry)
        known = self._watching(found)
        if known is not None and (named_by_user <= known.named_by_user or _is_well(known)):
            return (await known.monitor.first_view()).cluster
        if known is not None:
            await self._drop(known)
        known = self._open(found, address=address, entry=entry, named_by_user=named_by_user)
        try:
            return (await known.monitor.first_view()).cluster
        except BaseException:
            await self._drop(known)
            raise

    def watch(self, found: DiscoveredCluster) -> None:
        """Watches a cluster that a discovery found, unless it already is watched.

        One that was refused is tried again with what the discovery knows of it: whose processes
        they are decides about the token.
        """
        known = self._watching(found)
        if known is None:
            try:
                self._open(found, address=found.address, entry=None, named_by_user=False)
            except ConfigError as error:
                self._on_view(ClusterView(_refused(found, error), ()))
        elif known.named_by_user or known.entry is not None:
            return
        elif self._entry_of(found) is not None:
            # It was found before by an address that its entry does not name.
            self._retire(known)
            self._open(found, address=found.address, entry=None, named_by_user=False)
        elif (
            known.monitor.view.cluster.state == "refused"
            and known.found.owned_by_me is not found.owned_by_me
        ):
            self._replace(known, found)

    def watch_address(self, address: str, *, name: str | None) -> None:
        """Watches what stands at a named address, now or as soon as something does."""
        key = f"address:{address}"
        if key not in self._waiting:
            shown = safe_text(name or address, limit=_NAME_CHARACTERS)
            task = asyncio.create_task(
                self._await_address(key, address, shown), name=f"waiting for {address}"
            )
            self._waiting[key] = _Waiting(shown, task)

    async def disconnect(self, name: str) -> None:
        """Stops watching a cluster, or waiting for one.

        Raises:
            NotFoundError: No such cluster is connected.
        """
        key = self.key_of(name)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.task.cancel()
            await asyncio.gather(waiting.task, return_exceptions=True)
            self._on_gone(key)
        if key in self._by_key:
            await self._drop(self._by_key[key])
        message = f"Disconnected from {name}"
        self._on_event(
            EventDraft(
                type="cluster_disconnected",
                cluster=name,
                message=message,
                data={"message": message},
            )
        )

    def refresh(self, name: str | None) -> None:
        """Polls one cluster, or all, now."""
        for connection in list(self._by_key.values()):
            if name in (None, connection.name):
                connection.monitor.poll_now()

    async def complete(self, timeout_seconds: float) -> None:
        """Returns when every cluster has told all that one look can tell, or had its time."""
        views = [c.monitor.complete_view(timeout_seconds) for c in self._by_key.values()]
        # What failed shows in the clusters' own states.
        await asyncio.gather(*views, return_exceptions=True)

    async def close(self) -> None:
        """Ends all monitors and the child processes behind them."""
        tasks = [waiting.task for waiting in self._waiting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._by_key.values()):
            await self._drop(connection)
        await asyncio.gather(*self._ending)
        await self._gcs.close()

    # --- what is watched ----------------------------------------------------------------------

    def keys(self) -> frozenset[str]:
        """The identities of all clusters that are watched."""
        return frozenset(self._by_key)

    def key_of(self, name: str) -> str:
        """The key of the cluster of that name; NotFoundError where none is connected."""
        for connection in self._by_key.values():
            if connection.name == name:
                return connection.key
        for key, waiting in self._waiting.items():
            if waiting.name == name:
                return key
        names = sorted(connection.name for connection in self._by_key.values())
        raise NotFoundError(
            f"No connected cluster is named {name!r}",
            remedy=f"Connected are: {', '.join(names) or 'none'}",
        )

    def monitor(self, key: str) -> ClusterMonitor:
        """The monitor of a cluster; NotFoundError where it is not connected any more."""
        try:
            return self._by_key[key].monitor
        except KeyError:
            raise NotFoundError("That cluster is not connected any more") from None

    def dashboard_of(self, name: str) -> DashboardClient:
        """The dashboard of a connected cluster; NotFoundError where it has none."""
        dashboard = self.monitor(self.key_of(name)).dashboard
        if dashboard is None:
            raise NotFoundError(
                f"{name} has no dashboard, and Ray gives out logs only there",
                remedy="Read them on the node, below its session folder's logs/",
            )
        return dashboard

    def door(self, cluster_key: str) -> ClusterDoor:
        """How agents are put on a connected cluster; NotFoundError where it is not connected."""
        monitor = self.monitor(cluster_key)
        connection = self._by_key[cluster_key]
        cluster, nodes = monitor.view.cluster, monitor.view.nodes
        head = next((node for node in nodes if node.is_head and node.status != "dead"), None)
        hosts = [
            head.address if head else None,
            host_of(cluster.dashboard_url),
            host_of(cluster.gcs_address),
            "127.0.0.1" if connection.found.on_this_host else None,
        ]
        agent_url = None
        if head is not None and head.address and head.agent_port:
            agent_url = f"http://{head.address}:{head.agent_port}"
        return ClusterDoor(
            key=cluster_key,
            name=connection.name,
            jobs=monitor.jobs if monitor.dashboard is not None else None,
            python=(head.python if head else None) or connection.found.python,
            control_hosts=tuple(dict.fromkeys(host for host in hosts if host)),
            gcs_address=cluster.gcs_address,
            head_agent_url=agent_url,
            ray_version=cluster.ray_version,
            token=connection.token,
            read_only_reason=(cluster.read_only_reason or "it is read-only")
            if cluster.read_only
            else None,
            found=replace(
                connection.found,
                name=connection.name,
                gcs_address=cluster.gcs_address,
                dashboard_url=cluster.dashboard_url,
                ray_version=cluster.ray_version,
            ),
            entry_address=connection.entry.address if connection.entry else None,
        )

    # --- inside -------------------------------------------------------------------------------

    def _watching(self, found: DiscoveredCluster) -> _Connection | None:
        """The connection to a cluster, if there is one, by whichever part of its identity is known:
        a head that is just starting may tell its session's name before its cluster ID."""
        if found.key in self._by_key:
            return self._by_key[found.key]
        for connection in self._by_key.values():
            cluster = connection.monitor.view.cluster
            if found.cluster_id is not None and cluster.cluster_id is not None:
                if found.cluster_id == cluster.cluster_id:
                    return connection
            elif found.session_name is not None and found.session_name == cluster.session_name:
                return connection
        return None

    def _entry_named(self, name: str) -> KnownClusterSettings | None:
        return next((entry for entry in self._settings.clusters if entry.name == name), None)

    def _entry_of(self, found: DiscoveredCluster) -> KnownClusterSettings | None:
        """The configuration's entry for a found cluster, which discovery named after it."""
        return self._entry_named(found.name)

    async def _identify(
        self, address: str, entry: KnownClusterSettings | None
    ) -> DiscoveredCluster:
        # Whoever names an address means the token to go there.
        token = await asyncio.to_thread(_token_of_named, entry)
        found = await identify(
            address,
            timeout_seconds=self._settings.external_cluster.connection_timeout,
            token=None if token is None else token.reveal(),
        )
        return replace(found, name=entry.name) if entry else found

    async def _await_address(self, key: str, address: str, name: str) -> None:
        entry = self._entry_named(name)
        pause_seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                found = await self._identify(address, entry)
                break
            except CastrayError as error:
                self._show_waiting(key, name, address, error, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LAST_RETRY_SECONDS)
        self._waiting.pop(key, None)
        self._on_gone(key)
        if self._watching(found) is None:
            self._open(found, address=address, entry=entry, named_by_user=True)

    def _show_waiting(
        self, key: str, name: str, address: str, error: CastrayError, pause_seconds: float
    ) -> None:
        answers = isinstance(error, (AuthError, NotRayError))
        cluster = Cluster(
            key=key,
            name=name,
            address=address,
            state="refused" if answers else "unreachable",
            error=str(error),
            next_poll_at=time.time() + pause_seconds,
        )
        self._on_view(ClusterView(cluster=cluster, nodes=()))

    def _open(
        self,
        found: DiscoveredCluster,
        *,
        address: str,
        entry: KnownClusterSettings | None,
        named_by_user: bool,
    ) -> _Connection:
        entry = entry or self._entry_of(found)
        name = self._free_name(entry.name if entry else found.name)
        read_only, reason = self._read_only(found, entry)
        token = token_for(found, entry=entry, named_by_user=named_by_user)
        monitor = ClusterMonitor(
            found,
            name=name,
            address=address,
            settings=self._settings,
            token=token,
            read_only=read_only,
            read_only_reason=reason,
            on_view=self._on_view,
            on_event=self._on_event,
            gcs=self._gcs,
            on_restart=lambda new: self._restarted(found.key, new),
        )
        task = asyncio.create_task(monitor.run(), name=f"monitor of {name}")
        connection = _Connection(
            found.key, name, found, address, entry, named_by_user, token, monitor, task
        )
        self._by_key[found.key] = connection
        self._on_view(monitor.view)
        return connection

    async def _drop(self, connection: _Connection) -> None:
        self._by_key.pop(connection.key, None)
        await self._end(connection)

    async def _end(self, connection: _Connection) -> None:
        connection.task.cancel()
        await asyncio.gather(connection.task, return_exceptions=True)
        if connection.key not in self._by_key:
            self._on_gone(connection.key)

    def _restarted(self, old_key: str, new: DiscoveredCluster) -> None:
        """Another cluster stands where one was watched: watch that one, under the same name."""
        old = self._by_key.get(old_key)
        if old is None:
            return
        if not old.named_by_user:
            # Whose processes these are is for the next discovery to say.
            new = replace(new, on_this_host=False, owner=None, owned_by_me=None)
        self._replace(old, new)

    def _replace(self, old: _Connection, new: DiscoveredCluster) -> None:
        """Watches another cluster, or the same anew, with all that the user said of the old one."""
        self._retire(old)
        opened = self._watching(new)
        if opened is not None:
            if old.entry is None and not old.named_by_user:
                return
            # A discovery was quicker, and did not know what the user says of this cluster.
            self._retire(opened)
        self._open(
            replace(new, name=old.name),
            address=old.address,
            entry=old.entry,
            named_by_user=old.named_by_user,
        )

    def _retire(self, connection: _Connection) -> None:
        """Stops watching without waiting for it."""
        self._by_key.pop(connection.key, None)
        ending = asyncio.create_task(self._end(connection), name=f"end of {connection.name}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _free_name(self, wanted: str) -> str:
        taken = {connection.name for connection in self._by_key.values()} | {LOCAL}
        if wanted not in taken:
            return wanted
        return next(n for i in itertools.count(2) if (n := f"{wanted}-{i}") not in taken)

    def _read_only(
        self, found: DiscoveredCluster, entry: KnownClusterSettings | None
    ) -> tuple[bool, str | None]:
        if self._settings.read_only:
            return True, "castray runs read-only (read_only in the settings, or --read-only)"
        if entry is not None and entry.read_only is not None:
            return entry.read_only, "its configuration entry says so" if entry.read_only else None
        if found.on_this_host and found.owned_by_me is False:
            owner = found.owner or "another user"
            return True, f"its processes belong to {owner}; set read_only = false in its entry"
        return False, None


def _token_of_named(entry: KnownClusterSettings | None) -> Token | None:
    if entry is not None and entry.token_file is not None:
        return read_token_file(entry.token_file.expanduser(), str(entry.token_file))
    return users_token()


def _is_well(connection: _Connection) -> bool:
    return connection.monitor.view.cluster.state == "connected"


def _refused(found: DiscoveredCluster, error: ConfigError) -> Cluster:
    """How a cluster is shown whose token cannot be read; the next discovery tries again."""
    return Cluster(
        key=found.key,
        name=found.name,
        address=found.address,
        state="refused",
        sources=found.sources,
        dashboard_url=found.dashboard_url,
        gcs_address=found.gcs_address,
        error=str(error),
        discovered=found,
    )
