"""What coordinators that have ended left behind: results in their logs, and records to remove."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from castray_tui.core.errors import CastrayError, NotFoundError
from castray_tui.core.transfer import shipping
from castray_tui.core.transfer.access import ClusterDoor
from castray_tui.core.transfer.coordinators import results_in
from castray_tui.core.transfer.driver_process import left_drivers

Json = dict[str, Any]


async def collect_ended(door: ClusterDoor, key: shipping.CastrayKey, state_dir: Path) -> list[Json]:
    """Reads what this castray's ended coordinators noted on a cluster, and removes their records.

    Returns:
        The results of transfers, oldest first.

    Raises:
        ConnectError, RayAnswerError: The cluster's jobs cannot be listed.
    """
    results: list[Json] = []
    for driver in left_drivers(state_dir, door.key):
        if not driver.is_alive():
            results += results_in(driver.log())
            driver.remove_log()
    if door.jobs is None:
        return results
    for job in await door.jobs.list():
        submission_id = job.submission_id or ""
        if not submission_id.startswith(shipping.own_prefix(key)) or not job.finished:
            continue
        with contextlib.suppress(NotFoundError):
            results += results_in(await door.jobs.logs(submission_id))
        with contextlib.suppress(CastrayError):
            await door.jobs.delete(submission_id)
    return results
