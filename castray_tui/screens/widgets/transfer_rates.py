"""How fast transfers are, worked out from what successive snapshots say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from castray_tui.core.models import Transfer, TransferTarget

KeyT = TypeVar("KeyT")
_KEEP_SECONDS = 5.0
ENDED = frozenset({"done", "partial", "failed", "cancelled"})


class RateMeter(Generic[KeyT]):
    """How fast counters have grown over the last few seconds."""

    def __init__(self) -> None:
        self._samples: dict[KeyT, list[tuple[float, int]]] = {}

    def take(self, counters: Mapping[KeyT, int], now: float) -> None:
        """Takes a sample of each counter and forgets those that are no longer there."""
        samples: dict[KeyT, list[tuple[float, int]]] = {}
        for key, value in counters.items():
            kept = self._samples.get(key, [])
            if not kept or kept[-1][0] < now:
                kept = [*kept, (now, value)]
            while len(kept) > 2 and kept[1][0] < now - _KEEP_SECONDS:
                kept.pop(0)
            samples[key] = kept
        self._samples = samples

    def per_second(self, key: KeyT) -> float | None:
        """The present rate of one counter; None before it was seen twice."""
        samples = self._samples.get(key, [])
        if len(samples) < 2:
            return None
        (start, before), (end, after) = samples[0], samples[-1]
        return max(after - before, 0) / (end - start) if end > start else None


class TransferRates:
    """Bytes a second of each transfer over the last few seconds."""

    def __init__(self) -> None:
        self._meter: RateMeter[str] = RateMeter()

    def take(self, transfers: Iterable[Transfer], now: float) -> None:
        """Takes a sample of every transfer under way and forgets the others."""
        self._meter.take({one.id: one.bytes_done for one in transfers if _is_moving(one)}, now)

    def bytes_per_second(self, transfer: Transfer) -> float | None:
        """The present rate of all targets together; once ended, the mean one; None if unknown.

        The mean counts from the first byte: what came before it, agents that had to be started
        for example, says nothing about the way the bytes went.
        """
        if transfer.state in ENDED:
            seconds = content_seconds(transfer)
            sent = sum(target.bytes for target in transfer.targets)
            return sent / max(seconds, 1e-3) if seconds is not None and sent else None
        return self._meter.per_second(transfer.id)

    def seconds_left(self, transfer: Transfer) -> float | None:
        """Until it ends at the present rate; None if unknown or ended."""
        rate = self.bytes_per_second(transfer)
        whole = whole_bytes(transfer)
        if transfer.state in ENDED or not rate or whole is None:
            return None
        return max(whole - transfer.bytes_done, 0) / rate


class TargetRates:
    """Bytes a second of each target of one transfer."""

    def __init__(self) -> None:
        self._meter: RateMeter[tuple[int, str, str, str]] = RateMeter()

    def take(self, transfer: Transfer, now: float) -> None:
        """Takes a sample of every target without a verdict."""
        waiting = (one for one in transfer.targets if one.verdict is None)
        moving = waiting if _is_moving(transfer) else ()
        self._meter.take({_key(one): one.bytes for one in moving}, now)

    def bytes_per_second(self, target: TransferTarget) -> float | None:
        """The present rate; with a verdict, the mean one from the first byte; None if unknown."""
        if target.verdict is not None:
            return target.bytes_per_second
        return self._meter.per_second(_key(target))


def _key(target: TransferTarget) -> tuple[int, str, str, str]:
    return target.leg, target.cluster, target.node, target.path


def _is_moving(transfer: Transfer) -> bool:
    return transfer.state not in ENDED and transfer.state != "paused"


def content_seconds(transfer: Transfer) -> float | None:
    """From the first byte to the last verdict; None where no byte was sent."""
    return max(
        (one.seconds for one in transfer.targets if one.bytes and one.seconds is not None),
        default=None,
    )


def whole_bytes(transfer: Transfer) -> int | None:
    """What all targets together are to get."""
    return transfer.bytes_wanted


def sent_bytes(transfer: Transfer) -> int | None:
    """What went over the network to all targets, what was sent twice included."""
    known = [one.sent_bytes for one in transfer.targets if one.sent_bytes is not None]
    return sum(known) if known else None


def progress_percent(transfer: Transfer) -> float | None:
    """How much of it is done; identical targets count as done."""
    if transfer.state == "done":
        return 100.0
    whole = whole_bytes(transfer)
    if whole is None:
        return None
    if not whole:
        return 100.0 if transfer.state in ENDED else 0.0
    return min(100.0 * transfer.bytes_done / whole, 100.0)
