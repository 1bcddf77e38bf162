"""How fast transfers are, worked out from what successive snapshots say."""

from __future__ import annotations

from collections.abc import Iterable

from castray_tui.core.models import Transfer

_KEEP_SECONDS = 5.0
ENDED = frozenset({"done", "partial", "failed", "cancelled"})


class TransferRates:
    """Bytes a second of each transfer over the last few seconds."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[float, int]]] = {}

    def take(self, transfers: Iterable[Transfer], now: float) -> None:
        """Takes a sample of every transfer under way and forgets the others."""
        samples: dict[str, list[tuple[float, int]]] = {}
        for transfer in transfers:
            if transfer.state in ENDED:
                continue
            kept = self._samples.get(transfer.id, [])
            if not kept or kept[-1][0] < now:
                kept = [*kept, (now, transfer.bytes_done)]
            while len(kept) > 2 and kept[1][0] < now - _KEEP_SECONDS:
                kept.pop(0)
            samples[transfer.id] = kept
        self._samples = samples

    def bytes_per_second(self, transfer: Transfer) -> float | None:
        """The present rate of all targets together; once ended, the mean one; None if unknown.

        The mean counts from the first byte: what came before it, agents that had to be started
        for example, says nothing about the way the bytes went.
        """
        if transfer.state in ENDED:
            seconds = content_seconds(transfer)
            sent = sum(target.bytes for target in transfer.targets)
            return sent / max(seconds, 1e-3) if seconds is not None and sent else None
        samples = self._samples.get(transfer.id, [])
        if len(samples) < 2:
            return None
        (start, before), (end, after) = samples[0], samples[-1]
        return max(after - before, 0) / (end - start) if end > start else None

    def seconds_left(self, transfer: Transfer) -> float | None:
        """Until it ends at the present rate; None if unknown or ended."""
        rate = self.bytes_per_second(transfer)
        whole = whole_bytes(transfer)
        if transfer.state in ENDED or not rate or whole is None:
            return None
        return max(whole - transfer.bytes_done, 0) / rate


def content_seconds(transfer: Transfer) -> float | None:
    """From the first byte to the last verdict; None where no byte was sent."""
    return max(
        (one.seconds for one in transfer.targets if one.bytes and one.seconds is not None),
        default=None,
    )


def whole_bytes(transfer: Transfer) -> int | None:
    """What all targets together are to get."""
    return transfer.bytes_wanted


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
