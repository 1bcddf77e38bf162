"""How a leg's content is cut into chunks: the same at every node, worked out and never sent.

A large file has chunks of its own; small files lie side by side in one, whole. So a chunk is
checked by itself, and a tree of many small files costs as many frames as one large file.
"""

from __future__ import annotations

import bisect
from typing import List, NamedTuple, Sequence

MIN_CHUNK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 16 * 1024 * 1024
FILES_PER_CHUNK = 1024
# Every chunk's digests are kept while a transfer runs: this bounds what they take.
_MOST_CHUNKS = 65536
# Fewer would be felt at the end of a chain of relays, each of which is a chunk behind.
_FEWEST_CHUNKS = 256


class Segment(NamedTuple):
    """A piece of one file: its number in the manifest, where the piece begins, how long it is."""

    number: int
    offset: int
    length: int


class _Run(NamedTuple):
    first_chunk: int
    first_file: int
    end_file: int
    is_pack: bool


def fitting_chunk_bytes(total_bytes: int, most_bytes: int) -> int:
    """The chunk size for that much content, at most ``most_bytes`` unless there is very much."""
    wanted = min(max(total_bytes // _FEWEST_CHUNKS, MIN_CHUNK_BYTES), most_bytes)
    return min(max(wanted, -(-total_bytes // _MOST_CHUNKS)), MAX_CHUNK_BYTES)


class Layout:
    """The chunks of a sequence of files.

    Args:
        sizes: Of each file in bytes, by its number.
        chunk_bytes: Most bytes in a chunk.
    """

    def __init__(self, sizes: Sequence[int], chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.chunk_count = 0
        self._sizes = sizes
        self._runs: List[_Run] = []
        self._starts: List[int] = []
        first = filled = 0
        for number, size in enumerate(sizes):
            is_large = size > chunk_bytes
            is_full = number - first >= FILES_PER_CHUNK or filled + size > chunk_bytes
            if number > first and (is_large or is_full):
                self._add(first, number, True, 1)
                first, filled = number, 0
            if is_large:
                self._add(number, number + 1, False, -(-size // chunk_bytes))
                first = number + 1
            else:
                filled += size
        if first < len(sizes):
            self._add(first, len(sizes), True, 1)

    def _add(self, first: int, end: int, is_pack: bool, chunks: int) -> None:
        self._runs.append(_Run(self.chunk_count, first, end, is_pack))
        self._starts.append(self.chunk_count)
        self.chunk_count += chunks

    def _run(self, chunk: int) -> _Run:
        return self._runs[bisect.bisect_right(self._starts, chunk) - 1]

    def is_pack(self, chunk: int) -> bool:
        """Whether the chunk holds whole files, and not a piece of a large one."""
        return self._run(chunk).is_pack

    def segments(self, chunk: int) -> List[Segment]:
        """What the chunk holds, in order."""
        run = self._run(chunk)
        if run.is_pack:
            sizes = self._sizes
            return [
                Segment(number, 0, sizes[number]) for number in range(run.first_file, run.end_file)
            ]
        offset = (chunk - run.first_chunk) * self.chunk_bytes
        length = min(self.chunk_bytes, self._sizes[run.first_file] - offset)
        return [Segment(run.first_file, offset, length)]

    def is_last_of(self, segment: Segment) -> bool:
        """Whether the segment ends its file."""
        return segment.offset + segment.length == self._sizes[segment.number]
