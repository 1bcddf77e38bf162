"""How a transfer is to be made: what was asked for, filled up from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from castray_tui.core.config import TransferSettings
from castray_tui.core.models import LinkPolicy, Overwrite, TransferRequest

_MIN_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How a transfer is to be made, from what was asked for and from the settings."""

    overwrite: Overwrite
    links: LinkPolicy
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    roots: tuple[str, ...]
    reserve_bytes: int
    chunk_bytes: int
    rate_limit_bytes_per_second: int
    link_rate_limit_bytes_per_second: int
    streams: int
    patience_seconds: float
    niceness: int = 0
    delete: bool = False

    @classmethod
    def of(cls, request: TransferRequest, settings: TransferSettings) -> SendOptions:
        """The request's own options; where it leaves them open, the settings'."""
        patience = request.patience_seconds
        rate = request.rate_limit_bytes_per_second or settings.rate_limit_bytes_per_second
        chunk_bytes = settings.chunk_size_bytes
        if rate:
            # Several chunks a second, so that a slow transfer flows instead of jumping.
            chunk_bytes = max(min(chunk_bytes, rate // 8), _MIN_CHUNK_BYTES)
        return cls(
            overwrite=request.overwrite,
            links=request.links,
            include=request.include,
            exclude=request.exclude,
            roots=tuple(str(root) for root in settings.allowed_roots),
            reserve_bytes=settings.disk_reserve_bytes,
            chunk_bytes=chunk_bytes,
            rate_limit_bytes_per_second=rate,
            link_rate_limit_bytes_per_second=(
                request.link_rate_limit_bytes_per_second
                or settings.link_rate_limit_bytes_per_second
            ),
            streams=request.streams or settings.streams,
            patience_seconds=settings.patience_seconds if patience is None else patience,
            niceness=settings.niceness,
            delete=request.delete,
        )
