"""Starting coordinators on clusters, finding those that run already, and clearing up after them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castray_tui.agent import keys
from castray_tui.agent.control import CONTROL_CONTEXT
from castray_tui.agent.coordinator import read_lines
from castray_tui.core.config import TransferSettings
from castray_tui.core.errors import (
    CastrayError,
    ConnectError,
    NotFoundError,
    RayAnswerError,
    RayMismatchError,
    ReadOnlyError,
    TransferError,
)
from castray_tui.core.ray_api.tokens import Token
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer import shipping
from castray_tui.core.transfer.access import ClusterDoor
from castray_tui.core.transfer.clearing import LeftJob, hand_over
from castray_tui.core.transfer.contacts import ControlPlace
from castray_tui.core.transfer.control_connection import connect_to_coordinator
from castray_tui.core.transfer.driver_process import DriverProcess, left_drivers
from castray_tui.core.transfer.sessions import ClusterSession

if TYPE_CHECKING:
    from castray_tui.core.ray_api.jobs import JobClient

Json = dict[str, Any]

START_SECONDS = 60.0
_LOG_INTERVAL_SECONDS = 0.1
_INFO_INTERVAL_SECONDS = 1.0
_END_SECONDS = 8.0
_SECOND_START_SECONDS = 1.0
_MEET_SECONDS = 2.0
_AGENT_JOBS_SINCE = (2, 49)


class _EndedAtOnceError(TransferError):
    """A coordinator's job ended before it was ready."""


@dataclass(slots=True)
class Coordinator:
    """One coordinator that castray talks to.

    Attributes:
        submission_id: Of its job; None where it is a process beside castray.
        place: Where its control port is.
    """

    session: ClusterSession
    place: ControlPlace
    jobs: JobClient | None = None
    submission_id: str | None = None
    driver: DriverProcess | None = None
    owns_client: bool = False
    token: Token | None = None

    async def release(self) -> LeftJob | None:
        """Leaves. Where nobody else needs the coordinator it ends, and what is returned is the job
        whose record has to be removed then."""
        is_stopping = await self.session.leave()
        await self.session.close()
        left = None
        if is_stopping and self.driver is not None:
            await self.driver.wait_gone(_END_SECONDS)
        elif is_stopping:
            left = self.left_job()
        if self.owns_client and self.jobs is not None:
            await self.jobs.aclose()
        return left

    async def leave_running(self) -> LeftJob | None:
        """Hangs up, and leaves the coordinator to whoever comes within its idle time; what is
        returned is the job whose record has to be removed when that is over."""
        await self.session.close()
        left = self.left_job()
        if self.owns_client and self.jobs is not None:
            await self.jobs.aclose()
        return None if left is None else replace(left, lingers=True)

    def left_job(self) -> LeftJob | None:
        """The job whose record stays when the coordinator ends; None where it is no job."""
        if self.jobs is None or self.submission_id is None:
            return None
        return LeftJob(
            self.jobs.http.base_url, self.submission_id, agent=self.jobs.agent, token=self.token
        )


def results_in(log: str) -> list[Json]:
    """The results of transfers that a coordinator's log tells."""
    return [line["result"] for line in read_lines(log) if line.get("castray") == "result"]


class CoordinatorStarter:
    """Gets a coordinator for a cluster: one that runs already, else a new one.

    Args:
        key: Castray's key, which the coordinator is made for.
        state_dir: Where the logs of coordinators beside castray lie.
    """

    def __init__(
        self, key: shipping.CastrayKey, settings: TransferSettings, state_dir: Path
    ) -> None:
        self._key = key
        self._settings = settings
        self._state_dir = state_dir

    async def get(self, door: ClusterDoor) -> Coordinator:
        """A coordinator of the cluster, connected.

        Raises:
            ReadOnlyError: Nothing may be started there.
            RayMismatchError: There is no dashboard, and castray's own Ray cannot drive that one.
            TransferError, ConnectError: It could not be started or reached; the message says why.
        """
        if door.read_only_reason is not None:
            raise ReadOnlyError(
                f"{door.name} is only looked at: {door.read_only_reason}",
                remedy="Set read_only = false in the cluster's [[clusters]] entry to transfer",
            )
        found = await self.find_running(door)
        if found is not None:
            return found
        if door.jobs is not None:
            try:
                return await self._start_job(door, door.jobs)
            except _EndedAtOnceError:
                # Ray may have sent it to a node that was dying; the next one goes elsewhere.
                await asyncio.sleep(_SECOND_START_SECONDS)
                return await self._start_job(door, door.jobs)
        return await self._start_without_dashboard(door)

    async def find_running(self, door: ClusterDoor) -> Coordinator | None:
        """A coordinator of this castray's key, source and settings that runs there already, or
        None."""
        prefix = f"{shipping.own_prefix(self._key)}{shipping.source_hash()}-"
        prefix += f"{shipping.settings_mark(self._settings)}-"
        if door.jobs is None:
            for driver in left_drivers(self._state_dir, door.key):
                if driver.is_alive():
                    with contextlib.suppress(TransferError):
                        session, place = await self._connect(driver.log(), ["127.0.0.1"])
                        return Coordinator(session, place, driver=driver)
            return None
        for job in await door.jobs.list():
            if (job.submission_id or "").startswith(prefix) and job.status == "RUNNING":
                with contextlib.suppress(TransferError, NotFoundError, RayAnswerError):
                    return await self._connect_to_job(door, door.jobs, str(job.submission_id))
        return None

    async def find_all_running(
        self, door: ClusterDoor, held_keys: Collection[int]
    ) -> list[Coordinator]:
        """Every coordinator of this castray's key that runs there, whatever its settings.

        Args:
            held_keys: Public keys of those that are connected already, and left out.

        Raises:
            TransferError: There is one that does not answer, or that another version started.
        """
        found: list[Coordinator] = []
        try:
            if door.jobs is None:
                for driver in left_drivers(self._state_dir, door.key):
                    if driver.is_alive() and not _is_held(driver.log(), held_keys):
                        session, place = await self._connect(driver.log(), ["127.0.0.1"])
                        found.append(Coordinator(session, place, driver=driver))
                return found
            own = shipping.own_prefix(self._key)
            for job in await door.jobs.list():
                submission_id = job.submission_id or ""
                if not submission_id.startswith(own) or job.status != "RUNNING":
                    continue
                if not submission_id.startswith(f"{own}{shipping.source_hash()}-"):
                    raise TransferError("another version of castray started it")
                if not _is_held(await door.jobs.logs(submission_id), held_keys):
                    found.append(await self._connect_to_job(door, door.jobs, submission_id))
        except BaseException as error:
            for coordinator in found:
                await coordinator.session.close()
            if isinstance(error, TransferError):
                raise TransferError(
                    f"A coordinator runs on {door.name} and cannot be talked to: {error.message}"
                ) from error
            raise
        return found

    async def _connect_to_job(
        self, door: ClusterDoor, jobs: JobClient, submission_id: str
    ) -> Coordinator:
        session, place = await self._connect(await jobs.logs(submission_id), door.control_hosts)
        return Coordinator(session, place, jobs=jobs, submission_id=submission_id, token=door.token)

    async def _start_job(
        self, door: ClusterDoor, jobs: JobClient, *, owns_client: bool = False
    ) -> Coordinator:
        submission_id = await jobs.submit(
            shipping.entrypoint(
                door.python, shipping.coordinator_config(self._key, self._settings)
            ),
            submission_id=shipping.new_submission_id(self._key, self._settings),
            metadata={"castray": _version_of("castray-tui")},
            # Ray asks a random node for a lease on what needs nothing, and until its health check
            # has noticed, that may be one that has just died. This resource only the head has.
            entrypoint_resources=None if jobs.agent else {"node:__internal_head__": 0.001},
        )
        try:
            log = await self._ready_log(door, jobs, submission_id)
            session, place = await self._connect(log, door.control_hosts)
        except BaseException:
            with contextlib.suppress(CastrayError):
                await jobs.stop(submission_id)
            hand_over([LeftJob(jobs.http.base_url, submission_id, jobs.agent, door.token)])
            raise
        return Coordinator(
            session,
            place,
            jobs=jobs,
            submission_id=submission_id,
            owns_client=owns_client,
            token=door.token,
        )

    async def _ready_log(self, door: ClusterDoor, jobs: JobClient, submission_id: str) -> str:
        """The job's log, once the coordinator said that it is ready."""
        deadline = time.monotonic() + START_SECONDS
        next_info = time.monotonic() + _INFO_INTERVAL_SECONDS
        status = "submitted"
        while time.monotonic() < deadline:
            log = ""
            with contextlib.suppress(NotFoundError, RayAnswerError):
                log = await jobs.logs(submission_id)
            if read_lines(log):
                return log
            if time.monotonic() > next_info and not jobs.agent:
                info = await jobs.info(submission_id)
                status = info.status
                if info.finished:
                    raise _EndedAtOnceError(
                        f"The coordinator on {door.name} ended at once: "
                        + _last_words(log or info.message or status),
                        remedy="Look at the cluster's jobs, and try again",
                    )
                next_info = time.monotonic() + _INFO_INTERVAL_SECONDS
            await asyncio.sleep(_LOG_INTERVAL_SECONDS)
        raise TransferError(
            f"The coordinator on {door.name} did not start within {START_SECONDS:.0f} s "
            f"(its job is {status})",
            remedy="Look at the cluster's jobs: its head may have no room for another driver",
        )

    async def meet(self, place: ControlPlace) -> Coordinator:
        """The coordinator that was noted to be at a place.

        Raises:
            TransferError: It is not there any more.
        """
        try:
            key = keys.agree(self._key.private, place.public_key, CONTROL_CONTEXT)
        except ValueError as error:
            raise TransferError(f"A noted coordinator has no usable key: {error}") from None
        connection = await connect_to_coordinator(place.hosts, place.port, key, _MEET_SECONDS)
        return Coordinator(ClusterSession(connection, key), place)

    async def _connect(self, log: str, hosts: Sequence[str]) -> tuple[ClusterSession, ControlPlace]:
        ready = next((line for line in read_lines(log) if line["castray"] == "ready"), None)
        try:
            if ready is None:
                raise ValueError("no line that says so")
            place = ControlPlace(tuple(hosts), int(ready["port"]), int(ready["key"], 16))
            key = keys.agree(self._key.private, place.public_key, CONTROL_CONTEXT)
        except (KeyError, TypeError, ValueError) as error:
            raise TransferError(f"A coordinator's log does not say where it is: {error}") from None
        return ClusterSession(await connect_to_coordinator(hosts, place.port, key), key), place

    async def _start_without_dashboard(self, door: ClusterDoor) -> Coordinator:
        own_version = _version_of("ray")
        if door.gcs_address is not None and door.ray_version in (None, own_version):
            config = shipping.coordinator_config(self._key, self._settings)
            driver = await DriverProcess.start(
                self._state_dir, door.key, {**config, "gcs_address": door.gcs_address}, door.token
            )
            try:
                log = await driver.ready_log(START_SECONDS)
                session, place = await self._connect(log, ["127.0.0.1"])
            except BaseException:
                await driver.end()
                raise
            return Coordinator(session, place, driver=driver)
        if door.head_agent_url is not None and _version(door.ray_version) >= _AGENT_JOBS_SINCE:
            from castray_tui.core.ray_api.jobs import JobClient  # noqa: PLC0415

            jobs = JobClient(door.head_agent_url, token=door.token, agent=True)
            try:
                return await self._start_job(door, jobs, owns_client=True)
            except ConnectError as error:
                await jobs.aclose()
                raise self._mismatch(door, own_version, error) from error
            except BaseException:
                await jobs.aclose()
                raise
        raise self._mismatch(door, own_version)

    def _mismatch(
        self, door: ClusterDoor, own_version: str, error: ConnectError | None = None
    ) -> RayMismatchError:
        return RayMismatchError(
            f"{door.name} has no dashboard and runs Ray {door.ray_version or 'unknown'}, which "
            f"castray's own Ray {own_version} cannot drive"
            + (f"; its head's agent takes no jobs either ({error.message})" if error else ""),
            remedy="Start that cluster with its dashboard, or run castray with Ray of its version",
        )


def _version_of(package: str) -> str:
    """The version of a package that castray runs with."""
    from importlib import metadata  # noqa: PLC0415  takes longer than a small transfer may be held up

    return metadata.version(package)


def _is_held(log: str, held_keys: Collection[int]) -> bool:
    """Whether the coordinator that wrote a log is one of those that are connected already."""
    return any(
        line.get("castray") == "ready" and str(line.get("key")) in {f"{key:x}" for key in held_keys}
        for line in read_lines(log)
    )


def _version(text: str | None) -> tuple[int, ...]:
    numbers = []
    for part in (text or "").split(".")[:2]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _last_words(text: str) -> str:
    """The last line: Ray's messages may be whole tracebacks, and their cause stands at the end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return safe_text(lines[-1] if lines else "Ray does not say why", limit=300)
