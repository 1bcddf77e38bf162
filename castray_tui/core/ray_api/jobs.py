"""Ray's job API: submit, look at, stop and delete jobs, and read what their drivers printed.

Two doors lead to it: the dashboard's ``/api/jobs/``, and, where no dashboard runs, the agent on a
node (``/api/job_agent/jobs/``). The agent tells no status; whoever uses it reads the job's record
out of the GCS (``gcs_process``) or watches the log. Job listings show a job's ``runtime_env`` in
plain text to everybody: put no secret there, nor into the entrypoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from castray_tui.core.errors import NotFoundError, RayAnswerError
from castray_tui.core.ray_api.http import Answer, RayHttp, decode_json, error_words
from castray_tui.core.ray_api.tokens import Token
from castray_tui.core.text_safety import safe_text

if TYPE_CHECKING:
    import httpx

FINISHED_STATUSES = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})
SUBMIT_TIMEOUT_SECONDS = 30.0
"""A cold cluster answers in 1.2 s, one whose head raylet is gone after 10 s with an error."""
_JOBS_MAX_BODY_BYTES = 32 * 1024 * 1024
_LOG_MAX_BODY_BYTES = 64 * 1024 * 1024
_PACKAGE_MAX_BYTES = 100 * 1024 * 1024

JobRecordReader = Callable[[str], Awaitable[Mapping[str, object] | None]]
"""Reads a submission's record out of the GCS: ``GcsProcesses.job_record``."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job as Ray remembers it. Times are seconds since the epoch.

    Attributes:
        submission_id: None for a driver that somebody started without the job API.
        status: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``.
        message: Ray's words on the status.
        driver_node_id: The node its driver runs on, once it is known.
    """

    submission_id: str | None
    status: str
    job_id: str | None = None
    entrypoint: str | None = None
    message: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None

    @property
    def finished(self) -> bool:
        """Whether it has ended, whichever way."""
        return self.status in FINISHED_STATUSES


class JobClient:
    """The jobs of one cluster.

    Args:
        url: Of the dashboard, or with ``agent`` of a node's agent, ``http://<node ip>:<port>``.
        token: Ray's authentication token, if this address may have one.
        timeout_seconds: For one exchange, save submitting, which has a time of its own.
        agent: Whether ``url`` is a node's agent.
        record_reader: How to read a job's record where ``agent`` is set.
        transport: Stands in for the network in tests.

    Every method raises UnreachableError, AuthError, or RayAnswerError with Ray's own words.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        timeout_seconds: float = 10.0,
        agent: bool = False,
        record_reader: JobRecordReader | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.http = RayHttp(url, token=token, timeout_seconds=timeout_seconds, transport=transport)
        self.agent = agent
        self._record_reader = record_reader
        self._base = "/api/job_agent/jobs/" if agent else "/api/jobs/"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.http.aclose()

    async def submit(
        self,
        entrypoint: str,
        *,
        submission_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, object] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        timeout_seconds: float = SUBMIT_TIMEOUT_SECONDS,
    ) -> str:
        """Starts a driver, on the head node or on the agent's.

        Args:
            entrypoint: A shell command; everybody can read it.
            submission_id: Ray makes one up where it is None; one that exists is refused.

        Returns:
            The submission ID.
        """
        body: dict[str, object] = {"entrypoint": entrypoint}
        if submission_id is not None:
            body["submission_id"] = submission_id
        if metadata is not None:
            body["metadata"] = dict(metadata)
        if runtime_env is not None:
            body["runtime_env"] = dict(runtime_env)
        if entrypoint_num_cpus is not None:
            body["entrypoint_num_cpus"] = entrypoint_num_cpus
        if entrypoint_resources is not None:
            body["entrypoint_resources"] = dict(entrypoint_resources)
        answer = await self.http.request(
            "POST", self._base, json_body=body, timeout_seconds=timeout_seconds
        )
        told = await self._told(answer, "submit a job")
        answered_id = told.get("submission_id") or told.get("job_id")
        if not isinstance(answered_id, str):
            raise RayAnswerError(f"{answer.url} accepted a job without telling its ID")
        return safe_text(answered_id, limit=200)

    async def info(self, submission_id: str) -> JobInfo:
        """One job.

        Raises:
            NotFoundError: Ray remembers no such job.
        """
        if self.agent:
            if self._record_reader is None:
                raise RayAnswerError("A node's agent tells no job's status")
            record = await self._record_reader(submission_id)
            if record is None:
                raise NotFoundError(f"{self.http.shown_url} knows no job {submission_id}")
            return job_info({**record, "submission_id": submission_id})
        answer = await self.http.request(
            "GET", self._path(submission_id), max_body_bytes=_JOBS_MAX_BODY_BYTES
        )
        return job_info(await self._told(answer, f"read job {submission_id}"))

    async def list(self) -> list[JobInfo]:
        """All jobs that the dashboard remembers, in Ray's order."""
        told = await self.http.get_json("/api/jobs/", max_body_bytes=_JOBS_MAX_BODY_BYTES)
        if not isinstance(told, list):
            raise RayAnswerError(f"{self.http.shown_url}/api/jobs/ answered without a list")
        return [job_info(row) for row in told if isinstance(row, Mapping)]

    async def stop(self, submission_id: str) -> bool:
        """Asks the driver to end (SIGTERM, then SIGKILL after 3 s).

        Returns:
            Whether there was something to stop.
        """
        answer = await self.http.request("POST", self._path(submission_id) + "/stop")
        return (await self._told(answer, f"stop job {submission_id}")).get("stopped") is True

    async def delete(self, submission_id: str) -> bool:
        """Removes an ended job's record.

        Returns:
            Whether it is gone; a job that is already unknown counts as gone.

        Raises:
            RayAnswerError: The job has not ended.
        """
        answer = await self.http.request("DELETE", self._path(submission_id))
        if answer.status == 404:
            return True
        return (await self._told(answer, f"delete job {submission_id}")).get("deleted") is True

    async def logs(self, submission_id: str) -> str:
        """Everything the driver printed so far, as it came: not yet safe to draw.

        Raises:
            NotFoundError: Ray remembers no such job.
        """
        answer = await self.http.request(
            "GET", self._path(submission_id) + "/logs", max_body_bytes=_LOG_MAX_BODY_BYTES
        )
        told = await self._told(answer, f"read the log of job {submission_id}")
        text = told.get("logs")
        return text if isinstance(text, str) else ""

    async def tail(
        self,
        submission_id: str,
        *,
        interval_seconds: float = 0.5,
        info_interval_seconds: float = 2.0,
    ) -> AsyncIterator[str]:
        """What the driver prints, whole lines, from its first; ends when the job has ended.

        Polls: the WebSocket that Ray offers sends its first message after 5 s. Failed reads are
        tried again until the job's record cannot be had either.

        Yields:
            Lines without their line feed.
        """
        given = 0
        asked_at = 0.0
        finished = False
        while True:
            try:
                text = await self.logs(submission_id)
            except NotFoundError:
                return
            end = len(text) if finished else text.rfind("\n") + 1
            if end > given:
                # Line feeds only: splitlines would also break at characters inside a line.
                for line in text[given:end].removesuffix("\n").split("\n"):
                    yield line
            given = max(given, end)
            if finished:
                return
            if time.monotonic() - asked_at >= info_interval_seconds:
                # One more reading follows, so nothing printed before the end is lost.
                finished = (await self.info(submission_id)).finished
                asked_at = time.monotonic()
                if finished:
                    continue
            await asyncio.sleep(interval_seconds)

    async def package_exists(self, name: str) -> bool:
        """Whether the cluster holds the package ``gcs://<name>`` (``_ray_pkg_<hash>.zip``)."""
        answer = await self.http.request("GET", f"/api/packages/gcs/{quote(name, safe='')}")
        if answer.status == 404:
            return False
        self.http.check(answer)
        return True

    async def upload_package(self, name: str, content: bytes) -> None:
        """Puts a zip into the cluster as ``gcs://<name>``, for use in a ``runtime_env``."""
        if len(content) > _PACKAGE_MAX_BYTES:
            raise RayAnswerError(f"A package of {len(content):,} bytes is too large for Ray's GCS")
        answer = await self.http.request(
            "PUT",
            f"/api/packages/gcs/{quote(name, safe='')}",
            content=content,
            timeout_seconds=SUBMIT_TIMEOUT_SECONDS,
        )
        self.http.check(answer)

    def _path(self, submission_id: str) -> str:
        return self._base + quote(submission_id, safe="")

    async def _told(self, answer: Answer, what: str) -> Mapping[str, object]:
        if answer.status in {401, 403}:
            self.http.check(answer)
        if answer.status == 405:
            raise RayAnswerError(
                f"{self.http.shown_url} refused to {what}: its jobs API takes no such request"
            )
        if not 200 <= answer.status < 300:
            words = error_words(answer) or f"status {answer.status}"
            kind = NotFoundError if answer.status == 404 else RayAnswerError
            raise kind(f"{self.http.shown_url} could not {what}: {words}")
        told = await decode_json(answer)
        if not isinstance(told, Mapping):
            raise RayAnswerError(f"{answer.url} answered in a shape that castray does not know")
        return told


def job_info(record: Mapping[str, object]) -> JobInfo:
    """A job's record, from the dashboard or the GCS, in castray's words; tolerant of any shape."""
    metadata = record.get("metadata")
    return JobInfo(
        submission_id=_text(record.get("submission_id")),
        status=_text(record.get("status")) or "UNKNOWN",
        job_id=_text(record.get("job_id")),
        entrypoint=_text(record.get("entrypoint")),
        message=_text(record.get("message")),
        metadata={
            safe_text(key, limit=200): safe_text(value, limit=500)
            for key, value in list(metadata.items())[:100]
        }
        if isinstance(metadata, Mapping)
        else {},
        started_at=_seconds(record.get("start_time")),
        ended_at=_seconds(record.get("end_time")),
        driver_node_id=_text(record.get("driver_node_id")),
        driver_exit_code=_whole(record.get("driver_exit_code")),
    )


def _text(value: object) -> str | None:
    return safe_text(value) if isinstance(value, str) and value else None


def _seconds(value: object) -> float | None:
    """Milliseconds since the epoch as seconds; Ray's 0 means not yet."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 1000.0 if 0 < value < 1e14 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
