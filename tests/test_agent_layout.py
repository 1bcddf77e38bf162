"""How content is cut into chunks: everything once, in order, and never too much at once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from castray_tui.agent.layout import (
    FILES_PER_CHUNK,
    MAX_CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    Layout,
    Segment,
    fitting_chunk_bytes,
)

CHUNK = 1000


def chunks_of(sizes: Sequence[int], chunk_bytes: int = CHUNK) -> list[list[Segment]]:
    layout = Layout(sizes, chunk_bytes)
    return [layout.segments(chunk) for chunk in range(layout.chunk_count)]


def check(sizes: Sequence[int], chunk_bytes: int = CHUNK) -> None:
    """What must hold for every layout."""
    layout = Layout(sizes, chunk_bytes)
    chunks = chunks_of(sizes, chunk_bytes)
    pieces = list(itertools.chain(*chunks))
    # Every file, in order, from its first byte to its last, each byte once.
    by_file: dict[int, list[Segment]] = {}
    for piece in pieces:
        by_file.setdefault(piece.number, []).append(piece)
    assert list(by_file) == list(range(len(sizes)))
    assert pieces == sorted(pieces)
    for number, size in enumerate(sizes):
        end = 0
        for piece in by_file[number]:
            assert piece.offset == end
            end += piece.length
            assert layout.is_last_of(piece) == (piece is by_file[number][-1])
        assert end == size
    for number, chunk in enumerate(chunks):
        assert chunk
        assert len(chunk) <= FILES_PER_CHUNK
        assert sum(piece.length for piece in chunk) <= chunk_bytes
        # A chunk holds whole files, or one piece of one large file.
        is_pack = all(piece.offset == 0 and layout.is_last_of(piece) for piece in chunk)
        assert is_pack == layout.is_pack(number)
        assert is_pack or len(chunk) == 1


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1],
        [CHUNK],
        [CHUNK + 1],
        [5 * CHUNK],
        [0, 0, 0],
        [0, CHUNK, 0],
        [0, CHUNK + 1, 0],
        [CHUNK // 2, CHUNK // 2],
        [CHUNK // 2, CHUNK // 2, 1],
        [CHUNK + 1, CHUNK + 1, 1, 1, CHUNK + 1],
        [0] * (FILES_PER_CHUNK + 1),
        [1] * (3 * FILES_PER_CHUNK),
    ],
)
def test_every_byte_is_in_one_chunk(sizes: list[int]) -> None:
    check(sizes)


@pytest.mark.parametrize("seed", range(20))
def test_every_byte_is_in_one_chunk_of_any_tree(seed: int) -> None:
    chance = random.Random(seed)
    largest = chance.choice([10, CHUNK, 10 * CHUNK])
    check([chance.randrange(largest) for _ in range(chance.randrange(3000))])


def test_small_files_share_a_chunk_and_large_ones_have_their_own() -> None:
    assert chunks_of([400, 0, 400, 400, 2500, 10]) == [
        [Segment(0, 0, 400), Segment(1, 0, 0), Segment(2, 0, 400)],
        [Segment(3, 0, 400)],
        [Segment(4, 0, 1000)],
        [Segment(4, 1000, 1000)],
        [Segment(4, 2000, 500)],
        [Segment(5, 0, 10)],
    ]


def test_nothing_takes_no_chunk() -> None:
    assert Layout([], CHUNK).chunk_count == 0


@pytest.mark.parametrize(
    ("total_bytes", "most_bytes", "chunk_bytes"),
    [
        (0, 4 << 20, MIN_CHUNK_BYTES),
        (1 << 20, 4 << 20, MIN_CHUNK_BYTES),
        (512 << 20, 4 << 20, 2 << 20),
        (8 << 30, 4 << 20, 4 << 20),
        (8 << 30, 65536, 131072),  # What is asked for would make too many chunks.
        (1 << 20, 65536, 65536),
        (1 << 50, 4 << 20, MAX_CHUNK_BYTES),
    ],
)
def test_the_chunk_size_fits_the_content(
    total_bytes: int, most_bytes: int, chunk_bytes: int
) -> None:
    assert fitting_chunk_bytes(total_bytes, most_bytes) == chunk_bytes
