"""Removing the records of coordinators' jobs, without anybody having to wait for it.

Ray looks after each job in a loop of its own. A record that is removed between the job's end and
that loop's notice of it comes back as a failed job without an entry point (seen on Ray 2.9 to
2.60), and the loop takes up to three seconds to notice. So the removal waits, and looks again.
When castray itself ends, a small process does the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castray_tui.core.errors import CastrayError, NotFoundError, TransferError
from castray_tui.core.ray_api.tokens import Token

if TYPE_CHECKING:
    from castray_tui.core.ray_api.jobs import JobClient

_END_SECONDS = 15.0
_RAY_NOTICES_SECONDS = 3.5
_LOOK_AGAIN_SECONDS = 2.5
_POLL_SECONDS = 0.3
_LINGER_SECONDS = 86_400.0
_LINGER_POLL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class LeftJob:
    """A coordinator's job that is about to end, and whose record is to go.

    Attributes:
        lingers: It ends only when nobody needed it for the idle time, whenever that is.
    """

    url: str
    submission_id: str
    agent: bool = False
    token: Token | None = None
    lingers: bool = False


async def delete_when_ended(left: LeftJob) -> None:
    """Waits for the job's end and removes its record for good. Takes some seconds.

    Raises:
        CastrayError: The job does not end, or the cluster does not answer.
    """
    from castray_tui.core.ray_api.jobs import JobClient  # noqa: PLC0415  often not needed at all

    jobs = JobClient(left.url, token=left.token, agent=left.agent)
    try:
        if left.lingers:
            await _wait_for_end(jobs, left.submission_id, _LINGER_SECONDS, _LINGER_POLL_SECONDS)
        elif not left.agent:
            await _wait_for_end(jobs, left.submission_id, _END_SECONDS, _POLL_SECONDS)
        for pause_seconds in (_RAY_NOTICES_SECONDS, _LOOK_AGAIN_SECONDS):
            await asyncio.sleep(pause_seconds)
            with contextlib.suppress(NotFoundError):
                await jobs.delete(left.submission_id)
    finally:
        await jobs.aclose()


async def _wait_for_end(
    jobs: JobClient, submission_id: str, patience_seconds: float, poll_seconds: float
) -> None:
    deadline = time.monotonic() + patience_seconds
    with contextlib.suppress(NotFoundError):
        while not (await jobs.info(submission_id)).finished:
            if time.monotonic() > deadline:
                raise TransferError(f"Job {submission_id} does not end")
            await asyncio.sleep(poll_seconds)


def hand_over(left: Sequence[LeftJob]) -> None:
    """Starts a process that removes the records while castray itself ends.

    It ends by itself within half a minute, or where coordinators linger, when these have ended.
    Tokens go over its standard input.
    """
    # An agent's job API does not tell whether a job has ended; the next castray removes that one.
    left = [job for job in left if not (job.agent and job.lingers)]
    if not left:
        return
    told = [
        {
            "url": job.url,
            "submission_id": job.submission_id,
            "agent": job.agent,
            "token": job.token.reveal() if job.token else None,
            "lingers": job.lingers,
        }
        for job in left
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "castray_tui.core.transfer.clearing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps(told).encode())
        process.stdin.close()
    # It outlives this process on purpose; nobody here waits for it.
    process.returncode = 0


async def _clear(left: Sequence[LeftJob]) -> None:
    await asyncio.gather(*(_clear_one(job) for job in left))


async def _clear_one(left: LeftJob) -> None:
    # What cannot be removed now is removed by the next castray on that cluster.
    with contextlib.suppress(CastrayError):
        await delete_when_ended(left)


def main() -> None:
    """Removes the records that standard input names."""
    left = [
        LeftJob(
            url=told["url"],
            submission_id=told["submission_id"],
            agent=told["agent"],
            token=Token(told["token"], origin="castray") if told["token"] else None,
            lingers=told["lingers"],
        )
        for told in json.load(sys.stdin)
    ]
    asyncio.run(_clear(left))


if __name__ == "__main__":
    main()
