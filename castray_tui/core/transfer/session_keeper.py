"""The sessions that a castray holds: its own agent process, and a coordinator for each cluster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import CastrayError, NotFoundError, TransferError
from castray_tui.core.models import LOCAL
from castray_tui.core.transfer import shipping
from castray_tui.core.transfer.access import ClusterAccess, ClusterDoor
from castray_tui.core.transfer.adoption import collect_ended
from castray_tui.core.transfer.clearing import LeftJob, delete_when_ended, hand_over
from castray_tui.core.transfer.contacts import Contact, ContactBook
from castray_tui.core.transfer.coordinators import Coordinator, CoordinatorStarter
from castray_tui.core.transfer.sessions import LocalSession, Session

Json = dict[str, Any]

_LIST_SECONDS = 5.0


class SessionKeeper:
    """Opens sessions when they are first needed, and clears up after them.

    Args:
        state_dir: Where castray's key and the logs of coordinators beside it lie.
        access: Gives the way in to each cluster.
        on_event: Told every event of every session.
        on_closed: Told the key of a cluster, or ``local``, whose session ended by itself; returns
            whether what it left behind is still needed.
        lingers: Whether coordinators and agents are left, at the end, to whoever comes within
            their idle time.
    """

    def __init__(
        self,
        *,
        settings: TransferSettings,
        state_dir: Path,
        access: ClusterAccess,
        on_event: Callable[[Json], None],
        on_closed: Callable[[str], bool],
        lingers: bool = False,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._access = access
        self._on_event = on_event
        self._on_closed = on_closed
        self._coordinators: dict[str, asyncio.Task[Coordinator]] = {}
        # Left by castrays with other settings; new transfers go by the one above.
        self._besides: dict[str, list[Coordinator]] = {}
        self._local: asyncio.Task[LocalSession] | None = None
        self._starter_made: CoordinatorStarter | None = None
        self._key_made: shipping.CastrayKey | None = None
        self._clearing: dict[asyncio.Task[None], LeftJob] = {}
        self._is_closing = False
        self._lingers = lingers
        self._contacts = ContactBook(state_dir, settings)
        self._noted: dict[str, Coordinator] = {}

    async def session(self, cluster_key: str) -> Session:
        """The session of a cluster, or of this machine for ``local``; opened if there is none.

        Raises:
            CastrayError: It cannot be; the message says why.
        """
        if cluster_key == LOCAL:
            return await self._local_session()
        task = self._coordinators.get(cluster_key)
        if task is None or (task.done() and not _is_usable(task)):
            door = self._access.door(cluster_key)
            task = self._coordinators[cluster_key] = asyncio.create_task(self._starter().get(door))
        coordinator = await asyncio.shield(task)
        self._listen(cluster_key, coordinator)
        if coordinator is not self._noted.get(cluster_key):
            self._noted[cluster_key] = coordinator
            self._note(cluster_key, coordinator)
        return coordinator.session

    def _note(self, cluster_key: str, coordinator: Coordinator) -> None:
        with contextlib.suppress(NotFoundError):  # let go meanwhile
            door = self._access.door(cluster_key)
            if door.found is not None:
                self._contacts.note(Contact(door.found, door.entry_address, coordinator.place))

    async def meet(self, contact: Contact) -> list[Json]:
        """Goes to the coordinator that was noted for a cluster.

        Returns:
            The cluster's nodes, as the coordinator lists them.

        Raises:
            TransferError: It does not run any more, or cannot be reached.
        """
        key = contact.found.key
        try:
            coordinator = await self._starter().meet(contact.place)
        except TransferError:
            self._contacts.forget(key)
            raise
        try:
            nodes = await coordinator.session.request({"nodes": 1}, _LIST_SECONDS)
        except BaseException:
            await coordinator.session.close()
            raise
        if key in self._coordinators:  # opened meanwhile
            await coordinator.session.close()
        else:
            self._coordinators[key] = asyncio.create_task(_ready(coordinator))
            self._noted[key] = coordinator
            self._listen(key, coordinator)
        return nodes

    async def collect_ended(self, door: ClusterDoor) -> list[Json]:
        """The results that ended coordinators left on a cluster; their records are removed."""
        return await collect_ended(door, self._key(), self._state_dir)

    async def take_up(self, door: ClusterDoor) -> list[Session]:
        """Sessions with all coordinators of this castray's key that run on a cluster: the one that
        is held, if there is one, and those that earlier castrays left.

        Raises:
            CastrayError: There is one that cannot be talked to.
        """
        held = await self._held(door.key)
        keys = {one.place.public_key for one in held}
        for one in await self._starter().find_all_running(door, keys):
            if door.key not in self._coordinators:
                self._coordinators[door.key] = asyncio.create_task(_ready(one))
            else:
                self._besides.setdefault(door.key, []).append(one)
            self._listen(door.key, one)
            held.append(one)
        return [one.session for one in held]

    async def _held(self, cluster_key: str) -> list[Coordinator]:
        held = [one for one in self._besides.get(cluster_key, ()) if one.session.is_open]
        task = self._coordinators.get(cluster_key)
        if task is not None:
            with contextlib.suppress(CastrayError):  # whoever wanted it is told why
                held.append(await asyncio.shield(task))
        return [one for one in held if one.session.is_open]

    def use_local(self, session: LocalSession) -> None:
        """Takes this machine's agent process that was started already."""
        self._local = asyncio.create_task(_started(session))

    def holds(self, cluster_key: str) -> bool:
        """Whether there is a session with a cluster, or one on its way."""
        return cluster_key in self._coordinators

    def forget(self, cluster_key: str) -> None:
        """Holds a broken session no longer."""
        self._coordinators.pop(cluster_key, None)

    async def release(self, cluster_key: str) -> None:
        """Leaves a cluster: its coordinator and agents end, unless a transfer still runs there."""
        for left in await self._release(cluster_key):
            self._clear_later(left)

    async def close(self) -> None:
        """Leaves all clusters and ends the agent process of this machine."""
        self._is_closing = True
        keys = {*self._coordinators, *self._besides}
        left = await asyncio.gather(*(self._release(key) for key in keys))
        waiting = list(self._clearing.items())
        for task, _ in waiting:
            task.cancel()
        # Nobody who quits should wait for Ray to notice that a job has ended.
        hand_over([*itertools.chain(*left), *(job for _, job in waiting)])
        if self._local is not None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await (await self._local).close()
            self._local = None

    async def _release(self, cluster_key: str) -> list[LeftJob]:
        task = self._coordinators.pop(cluster_key, None)
        leaving = self._besides.pop(cluster_key, [])
        if task is not None:
            if not task.done():
                task.cancel()
            with contextlib.suppress(CastrayError, asyncio.CancelledError):
                leaving.append(await task)
        left: list[LeftJob | None] = []
        for coordinator in leaving:
            coordinator.session.on_closed = lambda: None
            with contextlib.suppress(CastrayError):
                if self._lingers and self._is_closing:
                    left.append(await coordinator.leave_running())
                    continue
                left.append(await coordinator.release())
                if left[-1] is not None or coordinator.driver is not None:
                    self._contacts.forget(cluster_key)
        return [job for job in left if job is not None]

    async def _local_session(self) -> LocalSession:
        task = self._local
        if task is None or (task.done() and (task.exception() or not task.result().is_open)):
            task = self._local = asyncio.create_task(LocalSession.start(self._settings.niceness))
        session = await asyncio.shield(task)
        session.on_event = self._on_event
        session.on_closed = lambda: self._note_closed(LOCAL, None)
        return session

    def _listen(self, cluster_key: str, coordinator: Coordinator) -> None:
        coordinator.session.on_event = self._on_event
        coordinator.session.on_closed = lambda: self._note_closed(cluster_key, coordinator)

    def _note_closed(self, cluster_key: str, coordinator: Coordinator | None) -> None:
        if self._is_closing or self._on_closed(cluster_key) or coordinator is None:
            return
        left = coordinator.left_job()
        if left is not None:
            self._clear_later(left)
        elif coordinator.driver is not None and not coordinator.driver.is_alive():
            coordinator.driver.remove_log()

    def _clear_later(self, left: LeftJob) -> None:
        task = asyncio.create_task(_clear_up(left))
        self._clearing[task] = left
        task.add_done_callback(lambda done: self._clearing.pop(done, None))

    def _key(self) -> shipping.CastrayKey:
        if self._key_made is None:
            self._key_made = shipping.CastrayKey(self._state_dir)
        return self._key_made

    def _starter(self) -> CoordinatorStarter:
        if self._starter_made is None:
            self._starter_made = CoordinatorStarter(self._key(), self._settings, self._state_dir)
        return self._starter_made


async def _clear_up(left: LeftJob) -> None:
    """Removes what a coordinator leaves behind; what stays is for the next castray there."""
    with contextlib.suppress(CastrayError):
        await delete_when_ended(left)


async def _started(session: LocalSession) -> LocalSession:
    return session


async def _ready(coordinator: Coordinator) -> Coordinator:
    return coordinator


def _is_usable(task: asyncio.Task[Coordinator]) -> bool:
    if task.cancelled() or task.exception() is not None:
        return False
    return task.result().session.is_open
