"""A rival, run by a cluster's own Python: files through Ray's object store, digests at both ends.

    python object_store_mover.py GCS_ADDRESS SOURCE_NODE_ID TARGET_NODE_ID

One actor on each node. The reader makes an object of each chunk (out of band, without a copy of its
own) and hashes the file beside it in a thread; the writer gets the objects, writes them, and hashes
what it writes in a thread. Some chunks are under way at a time. Each line of standard input,
``["source path", "target path"]``, is one file, answered by one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import pickle
import queue
import sys
import threading
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CHUNK_BYTES = 8 * 1024 * 1024
WINDOW = 4  # chunks; two stores of 80 MB hold twice that


class Hashing:
    """SHA-256 in a thread, of blocks in the order in which they are added."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._blocks: queue.Queue[Any] = queue.Queue(WINDOW)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def add(self, block: Any) -> None:
        """Hashes one more block; waits where some are waiting already."""
        self._blocks.put(block)

    def hexdigest(self) -> str:
        """The digest of all blocks; ends the thread."""
        self._blocks.put(None)
        self._thread.join()
        return self._digest.hexdigest()

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._digest.update(block)


class Reader:
    """Gives out the chunks of one file at a time."""

    def open(self, path: str) -> int:
        """Maps a file; its size."""
        with open(path, "rb") as file:  # noqa: PTH123
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._hashing = Hashing()
        return len(self._map)

    def chunk(self, offset: int) -> pickle.PickleBuffer:
        """One chunk, as an object that is made straight from the file's pages."""
        view = memoryview(self._map)[offset : offset + CHUNK_BYTES]
        self._hashing.add(view)
        return pickle.PickleBuffer(view)

    def digest(self) -> str:
        """The digest of what was given out."""
        return self._hashing.hexdigest()


class Writer:
    """Writes the chunks of one file at a time."""

    def open(self, path: str) -> None:
        """Begins a file."""
        self._file = open(path, "wb", buffering=0)  # noqa: PTH123, SIM115
        self._hashing = Hashing()

    def write(self, chunk: Any) -> None:
        """Writes the next chunk."""
        view = memoryview(chunk)
        self._hashing.add(view)
        self._file.write(view)

    def close(self) -> str:
        """Syncs, as castray does; the digest of what was written."""
        digest = self._hashing.hexdigest()
        os.fsync(self._file.fileno())
        self._file.close()
        return digest


def move(reader: Any, writer: Any, source: str, target: str) -> dict[str, Any]:
    """Moves one file; how long it took, and whether the digests agree."""
    clock = time.monotonic()
    size, _ = ray.get([reader.open.remote(source), writer.open.remote(target)])
    under_way: list[Any] = []
    for offset in range(0, size, CHUNK_BYTES):
        if len(under_way) >= WINDOW:
            ray.get(under_way.pop(0))
        under_way.append(writer.write.remote(reader.chunk.remote(offset)))
    ray.get(under_way)
    first, second = ray.get([reader.digest.remote(), writer.close.remote()])
    return {"seconds": time.monotonic() - clock, "digest": first, "is_same": first == second}


def main() -> None:
    """Starts the actors and serves standard input until it ends."""
    address, source_node, target_node = sys.argv[1:]
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    reader, writer = (
        ray.remote(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )(actor).remote()
        for actor, node in ((Reader, source_node), (Writer, target_node))
    )
    for line in sys.stdin:
        print(json.dumps(move(reader, writer, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
