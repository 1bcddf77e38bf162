"""Trying which agents can be dialed from here, and how fast the way to them is."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Dict, List, Optional

from . import wire
from .leg import Leg

Json = Dict[str, Any]

_CHUNK_BYTES = 256 * 1024


def try_agents(leg: Leg, arguments: Json) -> Json:
    """Which of several agents can be dialed: for each None, or why not; and how fast it is."""
    timeout_seconds = float(arguments["timeout_seconds"])
    probe_bytes = min(int(arguments.get("probe_bytes") or 0), _CHUNK_BYTES * 64)
    results: List[Optional[str]] = [None] * len(arguments["agents"])
    rates: List[Optional[float]] = [None] * len(arguments["agents"])

    def try_one(place: int, endpoints: List[Any]) -> None:
        try:
            with contextlib.closing(leg.dial(endpoints, timeout_seconds)) as channel:
                rates[place] = _probe(channel, probe_bytes)
        except (OSError, wire.WireError) as error:
            results[place] = wire.describe(error)

    threads = [
        threading.Thread(target=try_one, args=(place, endpoints), daemon=True)
        for place, endpoints in enumerate(arguments["agents"])
    ]
    for thread in threads:
        thread.start()
        if probe_bytes:
            thread.join()  # One after another, so that they do not slow each other down.
    for thread in threads:
        thread.join()
    return {"results": results, "rates": rates}


def _probe(channel: wire.Channel, length: int) -> Optional[float]:
    """Bytes per second over a connection, measured with that many; None for none."""
    channel.send({"role": "probe", "bytes": length})
    if not length:
        return None
    began = time.monotonic()
    chunk = memoryview(bytes(_CHUNK_BYTES))
    for at in range(0, length, _CHUNK_BYTES):
        channel.send_chunk(0, b"", chunk[: min(_CHUNK_BYTES, length - at)])
    channel.receive_message()
    return length / max(time.monotonic() - began, 1e-6)


def answer_probe(channel: wire.Channel, length: int) -> None:
    """Takes in what another agent sends to see how fast it comes."""
    if not length:
        return
    scratch = memoryview(bytearray(_CHUNK_BYTES))
    while length > 0:
        head = channel.receive()
        if isinstance(head, dict) or not 0 < head.length <= len(scratch):
            raise wire.WireError("a probe that makes no sense")
        wire.receive_exactly(channel.sock, scratch[: head.length])
        length -= head.length
    channel.send({"got": 1})
