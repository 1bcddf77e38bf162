"""A chunk that has come: whether its head is what was agreed, and what is to be checked of it."""

from __future__ import annotations

import struct
from typing import Any, List, NamedTuple, Optional, Tuple

from . import wire
from .buffers import Chunk
from .content import unpack_head
from .layout import Segment

_ZEROS_BYTES = 1024 * 1024


class Arrived(NamedTuple):
    """A chunk that has come and is to be checked; without ``view`` it is a hole."""

    chunk: int
    segments: List[Segment]
    digests: List[Tuple[int, bytes]]
    view: Optional[memoryview]
    buffer: Optional[Chunk]


def agreed_digests(
    head: wire.ChunkHead, segments: List[Segment], is_pack: bool
) -> List[Tuple[int, bytes]]:
    """The digests that a chunk's head tells, for just those pieces that were to come in it.

    Raises:
        WireError: The head is another than was agreed.
    """
    try:
        digests = unpack_head(head.head)
    except struct.error:
        raise wire.WireError("a chunk with a head that makes no sense") from None
    if [number for number, _ in digests] != [one.number for one in segments]:
        raise wire.WireError("a chunk with other files than were wanted")
    if head.length != sum(one.length for one in segments):
        raise wire.WireError("a chunk of another length than agreed")
    if is_pack and head.is_hole:
        raise wire.WireError("a hole among small files")
    return digests


def hash_zeros(hasher: Any, length: int) -> None:
    """Feeds a digest with the zeros of a hole."""
    zeros = memoryview(bytes(min(length, _ZEROS_BYTES)))
    while length:
        view = zeros[: min(length, len(zeros))]
        hasher.update(view)
        length -= len(view)
