"""The progress of a transfer on a terminal and elsewhere: what is said, and how it is drawn."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from dataclasses import replace
from typing import TextIO

import pytest

from castray_tui.cli.live_lines import LiveLines, can_redraw
from castray_tui.cli.output import cell_width
from castray_tui.cli.transfer_progress import (
    ProgressText,
    SparseProgress,
    TransferProgress,
    cut,
    middle_cut,
)
from castray_tui.core.models import Transfer, TransferTarget

pyte = pytest.importorskip("pyte")


def transfer(count: int = 2, **fields: object) -> Transfer:
    targets = tuple(
        TransferTarget("ml", f"10.0.0.{index}", "/data/model.bin", via=("local", "ml/head"))
        for index in range(count)
    )
    made = Transfer(
        id="t1",
        kind="multicast",
        state="running",
        source="local:/a",
        targets=targets,
        bytes_total=1000,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def with_target(made: Transfer, index: int, **fields: object) -> Transfer:
    targets = list(made.targets)
    targets[index] = replace(targets[index], **fields)  # type: ignore[arg-type]
    return replace(made, targets=tuple(targets), bytes_done=sum(each.bytes for each in targets))


# --- what is said -----------------------------------------------------------------------------


def test_the_rate_is_taken_from_the_first_byte_on() -> None:
    progress = TransferProgress()
    progress.line(transfer(bytes_done=0), 0.0, 200)
    progress.line(transfer(bytes_done=0), 9.0, 200)
    text = progress.line(transfer(bytes_done=500), 10.0, 200)
    assert " 25 %" in text
    assert "500 B/s" in text
    assert "3.0 s left" in text


def test_each_target_has_its_rate_time_left_and_feeder() -> None:
    progress = TransferProgress()
    progress.lines(transfer(), 0.0, 120, 10)
    now = with_target(with_target(transfer(), 0, bytes=500), 1, bytes=100)
    _, first, second = progress.lines(now, 2.0, 120, 10)
    assert "ml/10.0.0.0:/data/model.bin" in first.text
    assert " 50 %" in first.text
    assert "250 B/s" in first.text
    assert "2.0 s" in first.text
    assert "from local" in first.text
    assert "50 B/s" in second.text
    assert "18 s" in second.text


def test_eighty_columns_have_room_for_all_of_it() -> None:
    progress = TransferProgress()
    progress.lines(transfer(), 0.0, 79, 23)
    now = transfer(bytes_total=200_000_000)
    now = with_target(now, 0, bytes=30_000_000, via=("local", "lab/head", "lab/10.0.0.0"))
    line = progress.lines(now, 1.0, 79, 23)[1].text
    assert line.startswith("ml/10.0.0.0:/data/model.bin")
    assert "15 %" in line
    assert "30.0 MB/s" in line
    assert "5.7 s" in line
    assert line.endswith("from lab/head")


def test_verdicts_are_said_with_their_reason() -> None:
    now = with_target(transfer(), 0, verdict="verified", bytes=1000, seconds=2.0)
    now = with_target(now, 1, verdict="failed", reason="No space left")
    _, good, bad = TransferProgress().lines(now, 1.0, 120, 10)
    assert good.mood == "good"
    assert "verified  1.0 KB  500 B/s" in good.text
    assert bad.mood == "bad"
    assert "failed: No space left" in bad.text


def test_a_paused_transfer_has_no_time_left() -> None:
    progress = TransferProgress()
    progress.lines(with_target(transfer(), 0, bytes=100), 0.0, 120, 10)
    paused = replace(with_target(transfer(), 0, bytes=500), state="paused")
    lines = progress.lines(paused, 1.0, 120, 10)
    assert lines[0].text.startswith("paused")
    assert not any("left" in line.text or "/s" in line.text for line in lines)


@pytest.mark.parametrize("width", [10, 20, 40, 79, 120])
@pytest.mark.parametrize("height", [2, 5, 23])
def test_lines_keep_to_the_terminal(width: int, height: int) -> None:
    lines = TransferProgress().lines(transfer(count=40), 1.0, width, height)
    assert len(lines) <= height
    assert all(cell_width(line.text) <= width for line in lines)


def test_what_moves_and_what_failed_is_shown_before_the_rest() -> None:
    now = with_target(with_target(transfer(count=40), 30, bytes=5), 35, verdict="failed")
    lines = TransferProgress().lines(now, 1.0, 100, 5)
    text = "\n".join(line.text for line in lines)
    assert "10.0.0.30" in text
    assert "10.0.0.35" in text
    assert lines[-1].text == "and 37 more"


def test_texts_are_cut_by_cells() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("节点节点", 5) == "节点…"
    assert middle_cut("ml/head:/data/model.bin", 11) == "ml/he…l.bin"
    assert cell_width(middle_cut("节点节点节点", 7)) <= 7


def test_without_a_terminal_a_line_is_said_now_and_then() -> None:
    sparse = SparseProgress(step_percent=10.0, step_seconds=5.0, silence_seconds=60.0)
    assert sparse.lines(transfer(), 0.0) == []
    assert sparse.lines(with_target(transfer(), 0, bytes=900), 4.0) == []
    (line,) = sparse.lines(with_target(transfer(), 0, bytes=950), 6.0)
    assert " 48 %" in line
    assert sparse.lines(with_target(transfer(), 0, bytes=960), 30.0) == []
    (verdict,) = sparse.lines(with_target(transfer(), 1, verdict="failed", reason="full"), 31.0)
    assert verdict.endswith("failed: full")
    assert len(sparse.lines(with_target(transfer(), 1, verdict="failed"), 67.0)) == 1


def test_a_short_transfer_says_nothing_before_its_end() -> None:
    sparse = SparseProgress()
    assert sparse.lines(transfer(), 0.0) == []
    assert sparse.lines(with_target(transfer(), 0, verdict="verified", bytes=1000), 1.0) == []


# --- how it is drawn --------------------------------------------------------------------------


class Terminal:
    """A terminal of a size, and what it would show."""

    def __init__(self, columns: int, lines: int) -> None:
        self._ours, theirs = pty.openpty()
        self.stream: TextIO = os.fdopen(theirs, "w", encoding="utf-8")
        self._screen = pyte.Screen(columns, lines)
        self._feed = pyte.ByteStream(self._screen)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, size)

    def shown(self) -> list[str]:
        os.set_blocking(self._ours, False)
        while True:
            try:
                self._feed.feed(os.read(self._ours, 65536))
            except BlockingIOError:
                break
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(40, 10)
    yield made
    made.close()


def plain(*texts: str) -> list[ProgressText]:
    return [ProgressText(text) for text in texts]


def test_lines_are_drawn_again_in_place(terminal: Terminal) -> None:
    live = LiveLines(color=False, stream=terminal.stream)
    live.draw(plain("one", "two", "three"))
    live.draw(plain("1", "2"))
    assert terminal.shown() == ["1", "2"]
    live.clear()
    assert terminal.shown() == []


def test_what_stood_above_stays(terminal: Terminal) -> None:
    terminal.stream.write("before\r\n")
    live = LiveLines(color=False, stream=terminal.stream)
    for number in range(30):
        live.draw(plain(f"{number}", "x" * 39, "y"))
    assert terminal.shown() == ["before", "29", "x" * 39, "y"]
    live.clear()
    assert terminal.shown() == ["before"]


def test_lines_that_a_narrower_terminal_folds_are_counted(terminal: Terminal) -> None:
    live = LiveLines(color=False, stream=terminal.stream)
    live.draw(plain("x" * 39, "y" * 25))
    terminal.resize(20, 10)
    terminal.stream.flush()
    live.draw(plain("now"))
    written = ""
    while "now" not in written:
        written += os.read(terminal._ours, 65536).decode()
    # 39 cells take two lines of 20, and so do 25.
    assert "\x1b[3A" in written


def test_colour_is_for_verdicts_and_only_where_wanted(terminal: Terminal) -> None:
    live = LiveLines(color=True, stream=terminal.stream)
    live.draw([ProgressText("fine", "good"), ProgressText("plain")])
    raw = os.read(terminal._ours, 65536).decode()
    assert "\x1b[32mfine\x1b[0m" in raw
    LiveLines(color=False, stream=terminal.stream).draw([ProgressText("fine", "good")])
    assert "\x1b[32m" not in os.read(terminal._ours, 65536).decode()


def test_text_from_clusters_cannot_move_the_cursor(terminal: Terminal) -> None:
    LiveLines(color=False, stream=terminal.stream).draw(plain("a\x1b[2Jb\nc"))
    raw = os.read(terminal._ours, 65536).decode()
    assert "\x1b[2J" not in raw
    assert "\n" not in raw


def test_a_dumb_terminal_is_not_drawn_on(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert can_redraw(terminal.stream)
    monkeypatch.setenv("TERM", "dumb")
    assert not can_redraw(terminal.stream)
