"""Several agents in one process, and a leg of a transfer among them, without Ray."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from castray_tui.agent.node_agent import NodeAgent

Json = dict[str, Any]


class Leg:
    """A source's agent and one agent for each target, that share a leg's secret.

    Args:
        agents: How many targets.
        parents: The place of each target's feeder among the targets, -1 for the source; a chain
            where nothing is said.
    """

    def __init__(self, agents: int = 1, parents: Sequence[int] | None = None) -> None:
        self.source = NodeAgent("127.0.0.1", (0, 0))
        self.targets = [NodeAgent("127.0.0.1", (0, 0)) for _ in range(agents)]
        self.parents = list(range(-1, agents - 1)) if parents is None else list(parents)
        self.transfer = secrets.token_hex(16)
        self.secret = secrets.token_bytes(32)
        self.chunk_bytes = 256 * 1024
        self.scanned: Json = {}

    def scan(self, *paths: Path, **options: Any) -> Json:
        """Has the source's agent look at the source."""
        self.scanned = self.source.call(
            "scan",
            {
                "transfer": self.transfer,
                "paths": [str(path) for path in paths],
                "roots": [],
                "links": "keep",
                "include": [],
                "exclude": [],
                **options,
            },
        )
        return self.scanned

    def allow(self, place: int, path: Path | str, **order: Any) -> Json:
        """Tells one target's agent of the leg; its answer."""
        return self.targets[place].call(
            "allow",
            {
                "transfer": self.transfer,
                "secret": self.secret.hex(),
                "manifest": self.scanned["manifest"],
                "chunk_bytes": self.chunk_bytes,
                "targets": [
                    {
                        "index": place,
                        "path": str(path),
                        "overwrite": "always",
                        "roots": [],
                        "reserve_bytes": 0,
                        "part_id": f"{self.transfer[:8]}-{place}",
                        "skip": [],
                        "skip_digests": {},
                        **order,
                    }
                ],
            },
        )

    def row(self, place: int, **row: Any) -> Json:
        """A target's row of the tree."""
        hello = self.targets[place].call("hello", {})
        return {
            "index": place,
            "parent": self.parents[place],
            "mode": "dial",
            "endpoints": hello["endpoints"],
            **row,
        }

    def send(self, tree: list[Json] | None = None, **order: Any) -> None:
        """Starts to send what was scanned."""
        self.source.call(
            "allow", {"transfer": self.transfer, "secret": self.secret.hex(), "targets": []}
        )
        self.source.call(
            "send",
            {
                "transfer": self.transfer,
                "token": self.scanned["token"],
                "chunk_bytes": self.chunk_bytes,
                "rate_limit": 0,
                "link_rate_limit": 0,
                "patience_seconds": 5,
                "skip": {},
                "tree": tree or [self.row(place) for place in range(len(self.targets))],
                **order,
            },
        )

    def cast(self, source: Path, *targets: Path | str, **order: Any) -> Json:
        """One whole transfer, to its end; the last status."""
        self.scan(source)
        for place, path in enumerate(targets):
            self.allow(place, path)
        self.send(**order)
        return self.ended()

    def status(self) -> Json:
        """How it goes."""
        return self.source.call("status", {"transfer": self.transfer})

    def until(self, is_right: Callable[[Json], bool], seconds: float = 30.0) -> Json:
        """The first status that is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if is_right(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.01)

    def ended(self, seconds: float = 60.0) -> Json:
        """The status at the end."""
        return self.until(lambda status: bool(status["done"]), seconds)

    def close(self) -> None:
        """Ends all agents."""
        for agent in (self.source, *self.targets):
            agent.close()


def verdicts(status: Json) -> list[str | None]:
    """The verdict of each target, by its index."""
    return [row["verdict"] for row in sorted(status["targets"], key=lambda row: row["index"])]
