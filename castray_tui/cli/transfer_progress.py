"""How far a transfer is, as lines of text: all of it, and target by target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from castray_tui.cli.output import bytes_text, cell_width, seconds_text
from castray_tui.cli.transfer_text import good_count, target_address
from castray_tui.core.models import Transfer, TransferTarget

_RATE_WINDOW_SECONDS = 3.0
_BAR_CELLS = 8
_BAR_FROM_COLUMNS = 72
_PERCENT_CELLS = len("100 %")
_RATE_CELLS = len("99.9 MB/s")
_LEFT_CELLS = len("100 min")
_LEAST_LABEL_CELLS = 12
_MOST_FEEDER_CELLS = len("from ") + 16

Mood = Literal["plain", "good", "bad"]


class ProgressText(NamedTuple):
    """One line, and how it is meant."""

    text: str
    mood: Mood = "plain"


class _Rate:
    """Bytes a second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def after(self, now: float, count: int) -> float:
        """The rate once ``count`` bytes are there at ``now``; 0 where it is not known yet."""
        if not count or (self._samples and count < self._samples[-1][1]):
            self._samples.clear()  # the time before the first byte says nothing about the rate
        self._samples.append((now, count))
        while now - self._samples[0][0] > _RATE_WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        seconds = now - self._samples[0][0]
        return (count - self._samples[0][1]) / seconds if seconds > 0 else 0.0


class TransferProgress:
    """Makes the lines, and remembers what it needs for rates."""

    def __init__(self) -> None:
        self._whole = _Rate()
        self._by_target: dict[int, _Rate] = {}

    def line(self, transfer: Transfer, now: float, width: int) -> str:
        """All of the transfer in one line.

        Args:
            transfer: How far it is.
            now: A monotonic time in seconds.
            width: The most terminal cells to use.
        """
        count = len(transfer.targets)
        total = transfer.bytes_wanted
        rate = self._whole.after(now, transfer.bytes_done)
        parts: list[str] = [transfer.state]
        if total:
            parts.append(f"{_percent(transfer.bytes_done, total):3.0f} %")
            parts.append(f"{bytes_text(transfer.bytes_done)} of {bytes_text(total)}")
        if rate > 0 and transfer.state == "running":
            parts.append(f"{bytes_text(rate)}/s")
            if total:
                parts.append(f"{seconds_text((total - transfer.bytes_done) / rate)} left")
        parts.append(f"{good_count(transfer)}/{count} verified")
        return cut("  ".join(parts), width)

    def lines(self, transfer: Transfer, now: float, width: int, height: int) -> list[ProgressText]:
        """The transfer in one line, and below it as many of its targets as there is room for:
        first those under way, then those that failed.

        Args:
            transfer: How far it is.
            now: A monotonic time in seconds.
            width: The most terminal cells that a line may use.
            height: The most lines.
        """
        shown = [ProgressText(self.line(transfer, now, width))]
        rates = {
            index: self._by_target.setdefault(index, _Rate()).after(now, target.bytes)
            for index, target in enumerate(transfer.targets)
        }
        order = sorted(range(len(transfer.targets)), key=lambda index: _place(transfer, index))
        room = max(height - 1, 1)
        chosen = sorted(order if len(order) <= room else order[: max(room - 1, 0)])
        labels = {index: target_address(transfer.targets[index]) for index in chosen}
        label_cells = min(
            _widest(labels.values()),
            max(_LEAST_LABEL_CELLS, width - _figures_cells(transfer, chosen, width)),
        )
        for index in chosen:
            label = middle_cut(labels[index], label_cells)
            label += " " * (label_cells - cell_width(label))
            target = transfer.targets[index]
            told, mood = self._told(transfer, target, rates[index], width)
            shown.append(ProgressText(cut(f"{label}  {told}", width), mood))
        if len(order) > len(chosen):
            hidden = len(order) - len(chosen)
            shown.append(ProgressText(cut(f"and {hidden} more", width)))
        return shown

    def _told(
        self, transfer: Transfer, target: TransferTarget, rate: float, width: int
    ) -> tuple[str, Mood]:
        if target.verdict is not None:
            return _ended(target)
        total = target.bytes_total
        if total is None and not transfer.legs:
            total = transfer.bytes_total
        parts: list[str] = []
        if total:
            share = _percent(target.bytes, total)
            full = int(share / 100.0 * _BAR_CELLS)
            bar = "█" * full + "░" * (_BAR_CELLS - full) + " "
            parts.append(f"{bar if width >= _BAR_FROM_COLUMNS else ''}{share:3.0f} %")
        elif target.bytes:
            parts.append(bytes_text(target.bytes))
        if rate > 0 and transfer.state == "running":
            parts.append(f"{bytes_text(rate)}/s".rjust(_RATE_CELLS))
            if total:
                left = seconds_text((total - target.bytes) / rate)
                parts.append(left.rjust(_LEFT_CELLS))
        if target.reason:
            parts.append(target.reason)
        elif feeder := _feeder(target):
            parts.append(feeder)
        if target.attempts > 1:
            parts.append(f"attempt {target.attempts}")
        return "  ".join(parts), "plain"


def _feeder(target: TransferTarget) -> str:
    """From whom a target gets its bytes; empty where that is not settled."""
    return f"from {target.via[-2]}" if len(target.via) > 1 else ""


def _figures_cells(transfer: Transfer, chosen: Sequence[int], width: int) -> int:
    """What a line takes besides the target's address, the gaps included."""
    cells = _PERCENT_CELLS + _RATE_CELLS + _LEFT_CELLS + 3 * len("  ")
    if width >= _BAR_FROM_COLUMNS:
        cells += _BAR_CELLS + 1
    feeders = [_feeder(transfer.targets[index]) for index in chosen]
    return cells + len("  ") + min(_widest(feeders), _MOST_FEEDER_CELLS)


def _widest(texts: Iterable[str]) -> int:
    return max((cell_width(text) for text in texts), default=0)


def _ended(target: TransferTarget) -> tuple[str, Mood]:
    verdict = target.verdict or ""
    if verdict in {"failed", "cancelled"}:
        return f"{verdict}: {target.reason}" if target.reason else verdict, "bad"
    parts: list[str] = [verdict]
    if target.bytes:
        parts.append(bytes_text(target.bytes))
    if target.bytes_per_second is not None:
        parts.append(f"{bytes_text(target.bytes_per_second)}/s")
    return "  ".join(parts), "good"


def _place(transfer: Transfer, index: int) -> tuple[int, int]:
    """Where a target stands in the order of how much it is to be looked at."""
    target = transfer.targets[index]
    if target.verdict is None:
        return (0 if target.bytes or target.reason else 2, index)
    return (1 if target.verdict == "failed" else 3, index)


def _percent(part: int, whole: int) -> float:
    return min(100.0 * part / whole, 100.0)


def cut(text: str, width: int) -> str:
    """The text in at most so many cells; what is too much is left out at the end."""
    if cell_width(text) <= width:
        return text
    kept: list[str] = []
    room = width - 1
    for character in text:
        room -= cell_width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"[: max(width, 0)]


def middle_cut(text: str, width: int) -> str:
    """The text in at most so many cells; what is too much is left out in the middle, as the ends
    of an address tell most."""
    if cell_width(text) <= width:
        return text
    head = cut(text, (width + 1) // 2)
    tail: list[str] = []
    room = width - cell_width(head)
    for character in reversed(text):
        room -= cell_width(character)
        if room < 0:
            break
        tail.append(character)
    return head + "".join(reversed(tail))


class SparseProgress:
    """What is told of a transfer's progress where there is no terminal: a line now and then.

    Args:
        step_percent, step_seconds: A line is told when both are past since the last one.
        silence_seconds: A line is told in any case after so long.
    """

    def __init__(
        self,
        *,
        step_percent: float = 10.0,
        step_seconds: float = 5.0,
        silence_seconds: float = 60.0,
    ) -> None:
        self._step_percent = step_percent
        self._step_seconds = step_seconds
        self._silence_seconds = silence_seconds
        self._progress = TransferProgress()
        self._began: float | None = None
        self._told_at = 0.0
        self._told_percent = 0.0
        self._verdicts: Sequence[str | None] = ()

    def lines(self, transfer: Transfer, now: float) -> list[str]:
        """What is to be told now; mostly nothing.

        Args:
            transfer: How far it is.
            now: A monotonic time in seconds.
        """
        if self._began is None:
            self._began = self._told_at = now
            self._verdicts = [None] * len(transfer.targets)
        told = [
            f"{target_address(target)}: {_ended(target)[0]}"
            for target, before in zip(transfer.targets, self._verdicts, strict=False)
            if target.verdict is not None and before is None
        ]
        self._verdicts = [target.verdict for target in transfer.targets]
        line = self._progress.line(transfer, now, 200)
        total = transfer.bytes_wanted
        percent = _percent(transfer.bytes_done, total) if total else 0.0
        is_step = (
            percent - self._told_percent >= self._step_percent
            and now - self._told_at >= self._step_seconds
        )
        # A transfer that is over within seconds is told of by its end alone.
        if now - self._began < self._step_seconds:
            return []
        if is_step or now - self._told_at >= self._silence_seconds:
            self._told_at, self._told_percent = now, percent
            told.append(line)
        return told
