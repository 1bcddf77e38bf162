"""What a transfer's statuses become, whatever a cluster says, and who still runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transfer_lab import LabFleet, service

from castray_tui.core.models import Transfer, TransferLeg, TransferTarget
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.coordinators import results_in
from castray_tui.core.transfer.left_legs import left_legs
from castray_tui.core.transfer.owner_lock import OwnerLock, is_owner_alive

TRANSFER = Transfer(
    id="ab" * 16,
    kind="multicast",
    state="running",
    source="local:/src",
    bytes_total=100,
    targets=(
        TransferTarget("ml", "head", "/x", via=("local", "ml/head")),
        TransferTarget("ml", "w", "/x", via=("local", "ml/w")),
    ),
    route=("local → ml/head", "local → ml/w"),
)


def row(index: int, **more: object) -> dict[str, object]:
    return {"index": index, "bytes": 0, "verdict": None, **more}


def status(*rows: object, **more: object) -> dict[str, object]:
    return {"targets": list(rows), **more}


def test_bytes_and_verdicts_are_taken_over_and_added_up() -> None:
    seen = progress.with_status(TRANSFER, status(row(0, bytes=60), row(1, bytes=30)))
    assert seen.bytes_done == 90
    done = progress.with_status(
        seen,
        status(
            row(0, bytes=100, verdict="verified", digest="sha256:aa", seconds=0.5),
            row(1, bytes=30, verdict="failed", reason="No space left on device"),
            digest="sha256:aa",
        ),
    )
    ended = progress.ended(done)
    assert (ended.state, ended.bytes_done, ended.digest) == ("partial", 130, "sha256:aa")
    assert ended.targets[0].reason is None
    assert ended.targets[1].reason == "No space left on device"
    assert ended.ended is not None


def test_a_verdict_that_stands_is_not_taken_back() -> None:
    done = progress.with_status(TRANSFER, status(row(0, verdict="verified", bytes=100)))
    again = progress.with_status(done, status(row(0, verdict="failed", reason="no")))
    assert again.targets[0].verdict == "verified"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"targets": None},
        {"targets": ["x", 7, {"index": "0"}, {"index": -1}, {"index": 99}]},
        {"targets": [row(0, bytes="many", seconds="long")]},
        {"targets": [row(0, seconds=float("nan"), verdict="excellent")]},
    ],
)
def test_nonsense_from_a_cluster_changes_nothing(told: dict[str, object]) -> None:
    seen = progress.with_status(TRANSFER, told)
    assert [target.verdict for target in seen.targets] == [None, None]
    assert seen.bytes_done == 0


def test_text_from_a_cluster_is_made_safe_and_bytes_are_bounded() -> None:
    seen = progress.with_status(
        TRANSFER, status(row(0, bytes=10**18, verdict="failed", reason="\x1b[31mred" + "x" * 9999))
    )
    assert "\x1b" not in str(seen.targets[0].reason)
    assert len(str(seen.targets[0].reason)) <= 1000
    assert seen.targets[0].bytes == 100


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        (("verified", "identical"), "done"),
        (("verified", "failed"), "partial"),
        (("failed", "failed"), "failed"),
        (("verified", "cancelled"), "cancelled"),
        (("failed", "cancelled"), "cancelled"),
    ],
)
def test_verdicts_make_the_state(verdicts: tuple[str, str], state: str) -> None:
    rows = [row(index, verdict=verdict) for index, verdict in enumerate(verdicts)]
    assert progress.ended(progress.with_status(TRANSFER, status(*rows))).state == state


def test_targets_without_a_verdict_fail_or_are_cancelled_with_the_rest() -> None:
    failed = progress.ended(TRANSFER, error="the coordinator is gone")
    assert {target.reason for target in failed.targets} == {"the coordinator is gone"}
    cancelled = progress.cancelled(TRANSFER, "cancelled")
    assert (cancelled.state, cancelled.targets[0].verdict) == ("cancelled", "cancelled")


def left(transfer: Transfer, leg: int, indexes: list[int], told: object) -> dict[str, object]:
    """A result as a coordinator prints it."""
    record = progress.to_record(transfer, leg, indexes)
    return {"record": record, "status": told, "ended": 1234.5}


def test_a_result_in_a_log_becomes_the_transfer_again() -> None:
    told = status(row(0, verdict="verified", bytes=100), row(1, verdict="verified"))
    line = json.dumps({"castray": "result", "result": left(TRANSFER, 0, [0, 1], told)})
    log = f"a line of Ray\n{line}\n{line[:50]}\n" + '{"castray": nonsense\n'
    (leg,) = left_legs(results_in(log), [], None)
    assert leg.result is not None
    seen = progress.with_result(leg.transfer, leg.number, leg.result)
    assert (seen.id, seen.state, seen.ended) == (TRANSFER.id, "done", 1234.5)
    assert seen.targets[0].via == TRANSFER.targets[0].via
    assert replace(seen, targets=(), route=()).kind == "multicast"
    for broken in ({}, {"record": 7}, {"record": {"transfer": {"id": 1}}, "status": {}}):
        assert left_legs([broken], [], None) == []


def test_legs_that_ended_apart_make_one_transfer() -> None:
    source = TransferLeg("ml", "head", ("/src",))
    two = replace(
        TRANSFER,
        legs=(source, replace(source, node="w")),
        targets=tuple(replace(t, leg=n) for n, t in enumerate(TRANSFER.targets)),
    )
    first = left(two, 0, [0], status(row(0, verdict="verified", bytes=100)))
    second = left(two, 1, [1], status(row(1, verdict="failed", reason="no room")))
    older = {**left(two, 1, [1], status(row(1, verdict="verified"))), "ended": 1.0}
    known = {two.id: two}
    legs = left_legs([second, first, older], [], known)
    assert [leg.number for leg in sorted(legs, key=lambda leg: leg.number)] == [0, 1]
    seen = two
    for leg in legs:
        assert leg.result is not None
        seen = progress.with_result(seen, leg.number, leg.result)
    assert [target.verdict for target in seen.targets] == ["verified", "failed"]
    assert seen.state == "partial"
    # One leg may still run, and what the other coordinator knew of it before is no news then.
    (running,) = left_legs([second], [second["record"]], known)  # type: ignore[list-item]
    assert (running.result, running.indexes) == (None, (1,))
    half = progress.with_result(two, 0, first)
    assert (half.state, half.targets[1].verdict) == ("running", None)


async def test_the_next_castray_settles_what_nobody_can_finish(tmp_path: Path) -> None:
    made, published = service(LabFleet(), tmp_path)
    local = replace(TRANSFER, id="01")
    elsewhere = replace(TRANSFER, id="02", source="ml/head:/src")
    mine = replace(TRANSFER, id="03")
    lock = OwnerLock.take(tmp_path, mine.id)
    assert lock is not None
    made.settle([local, elsewhere, mine])
    assert [(transfer.id, transfer.state) for transfer in published] == [("01", "failed")]
    made.settle([elsewhere], adopted={"ml"})
    assert published[-1].id == "02"
    assert "castray ended" in str(published[-1].targets[0].reason)
    lock.release()
    await made.close()


HOLDER = """
import sys
from pathlib import Path
from castray_tui.core.transfer.left_legs import left_legs
from castray_tui.core.transfer.owner_lock import OwnerLock
held = OwnerLock.take(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_owner_is_known_to_be_gone(tmp_path: Path) -> None:
    assert not is_owner_alive(tmp_path, "ab")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "ab"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_owner_alive(tmp_path, "ab")
        holder.kill()
    assert not is_owner_alive(tmp_path, "ab")
    own = OwnerLock.take(tmp_path, "cd")
    assert own is not None
    own.release()
    assert list((tmp_path / "running").iterdir()) == []
