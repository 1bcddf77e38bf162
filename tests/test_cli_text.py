"""What the command line prints: widths, figures, progress."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import time

import pytest

from castray_tui.cli.arguments import bytes_per_second, comma_list, port_range, positive_seconds
from castray_tui.cli.output import (
    Column,
    bytes_text,
    cell_width,
    print_json,
    print_table,
    seconds_text,
)
from castray_tui.cli.running import run_until_done
from castray_tui.cli.times import past_time
from castray_tui.cli.transfer_text import (
    DETAIL_COLUMNS,
    detail_row,
    plan_exit_code,
    plan_summary,
    summary,
    target_row,
)
from castray_tui.core.models import PlannedTarget, Transfer, TransferPlan, TransferTarget


def test_columns_line_up_by_cells_not_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("NAME"), Column("N", right=True)], [["节点", "1"], ["e\u0301a", "22"]])
    lines = capsys.readouterr().out.splitlines()
    assert [cell_width(line) for line in lines] == [8, 8, 8]
    assert lines[1] == "节点   1"


def test_text_from_clusters_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("NAME")], [["a\x1b[2Jb\nc\u202ed"]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 2


def test_ascii_tables_hold_only_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("A")], [["x → y…"], ["节"]], ascii_only=True)
    out = capsys.readouterr().out
    assert out.isascii()
    assert "x -> y..." in out


def test_json_survives_names_that_are_no_unicode(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": "a\udcffb"})
    assert '"path"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (99_949, "99.9 KB"),
        (99_950, "100 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (25_300_000_000, "25.3 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_bytes(count: float | None, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (math.inf, "-"),
        (0.84, "0.8 s"),
        (75.0, "75 s"),
        (720.0, "12 min"),
        (10_800.0, "3 h"),
        (400_000.0, "5 d"),
    ],
)
def test_seconds(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_values_of_options() -> None:
    assert port_range("8265-8275") == (8265, 8275)
    assert port_range("80") == (80, 80)
    assert bytes_per_second("10MB") == 10_000_000
    assert bytes_per_second("4MiB") == 4 * 1024**2
    assert comma_list("a, b,,c") == ["a", "b", "c"]
    assert positive_seconds("0.5") == 0.5
    for parse, text in [
        (port_range, "0-3"),
        (port_range, "1-70000"),
        (bytes_per_second, "10XB"),
        (positive_seconds, "nan"),
        (positive_seconds, "0"),
        (past_time, "yesterday"),
        (past_time, "2 fortnights"),
        (past_time, "99999-01-01"),
    ]:
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)  # type: ignore[operator]


def test_all_that_is_kept_of_a_target_fits_its_columns() -> None:
    target = TransferTarget("ml", "a", "/x", verdict="verified", sent_bytes=3000, ended=0.0)
    row = dict(zip([column.title for column in DETAIL_COLUMNS], detail_row(target), strict=True))
    assert (row["BYTES"], row["SENT"], row["BEGAN"]) == ("0 B", "3.0 KB", "-")
    assert row["ENDED"] == time.strftime("%H:%M:%S", time.localtime(0))
    assert row["DIGEST"] == "-"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("1.5d", 129_600)])
def test_a_time_ago(text: str, seconds: float) -> None:
    assert past_time(text) == pytest.approx(time.time() - seconds, abs=5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00Z", 86_400),
        ("1970-01-02T00:00:00.5+00:00", 86_400.5),
        ("1970-01-02T02:00+02:00", 86_400),
    ],
)
def test_a_time_with_a_zone(text: str, seconds: float) -> None:
    assert past_time(text) == seconds


def test_a_time_without_a_zone_is_of_this_machine() -> None:
    assert past_time("2026-01-31") == time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))


def transfer(**fields: object) -> Transfer:
    targets = (TransferTarget("ml", "head", "/a"), TransferTarget("ml", "b", "/a"))
    defaults: dict[str, object] = {
        "id": "t1",
        "kind": "multicast",
        "state": "running",
        "source": "local:/a",
        "targets": targets,
        "bytes_total": 1000,
    }
    return Transfer(**{**defaults, **fields})  # type: ignore[arg-type]


def test_a_transfer_in_a_sentence() -> None:
    done = transfer(
        state="partial",
        started=1.0,
        ended=3.0,
        targets=(
            TransferTarget("ml", "head", "/a", verdict="verified"),
            TransferTarget("ml", "b", "/a", verdict="failed"),
        ),
    )
    assert summary(done) == "t1 partial: 1 of 2 targets, 1.0 KB, 2.0 s"


@pytest.mark.parametrize(
    ("actions", "code"),
    [(["send", "skip"], 0), (["send", "refuse"], 3), (["refuse", "refuse"], 1)],
)
def test_exit_code_of_a_plan(actions: list[str], code: int) -> None:
    targets = tuple(
        PlannedTarget("ml", str(index), "/a", action)  # type: ignore[arg-type]
        for index, action in enumerate(actions)
    )
    plan = TransferPlan("local:/a", "multicast", None, None, targets)
    assert plan_exit_code(plan) == code


def test_a_plan_in_a_sentence() -> None:
    targets = (
        PlannedTarget("ml", "a", "/a", "send"),
        PlannedTarget("ml", "b", "/a", "skip"),
        PlannedTarget("ml", "c", "/a", "refuse"),
    )
    plan = TransferPlan(
        "local:/a", "multicast", 2_000_000, None, targets, predicted_seconds=4.0, files=1200
    )
    assert plan_summary(plan) == (
        "3 targets, 1 to send, 1 identical, 1 refused, 2.0 MB in 1,200 files, about 4.0 s"
    )


def test_a_target_shows_tries_digest_and_its_own_source() -> None:
    target = TransferTarget(
        "local",
        "local",
        "/out/ml-a/x",
        verdict="verified",
        digest="sha256:" + "ab" * 32,
        bytes=2_000_000,
        seconds=2.0,
        attempts=2,
        source="ml/a:/x",
    )
    assert target_row(target) == [
        "verified",
        "ml/a:/x → local:/out/ml-a/x",
        "2.0 MB",
        "2.0 s",
        "1.0 MB/s",
        "2",
        "sha256:abababababab",
        "",
    ]


def test_a_signal_lets_a_command_clean_up() -> None:
    cleaned: list[str] = []

    async def command() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")
        return 0

    assert run_until_done(command()) == 128 + signal.SIGTERM
    assert cleaned == ["yes"]


def test_a_command_that_ends_by_itself_gives_its_code() -> None:
    async def command() -> int:
        return 3

    assert run_until_done(command()) == 3
