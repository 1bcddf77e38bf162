"""Two agents in one process, and a transfer between them, without Ray."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castray_tui.agent.node_agent import NodeAgent

Json = dict[str, Any]
SIGNATURE = ("size", "mtime_ns", "inode", "device", "machine")


class Pair:
    """A source's and a target's agent that share one transfer's secret."""

    def __init__(self) -> None:
        self.source = NodeAgent("127.0.0.1", (0, 0))
        self.target = NodeAgent("127.0.0.1", (0, 0))
        self.transfer = secrets.token_hex(16)
        self.secret = secrets.token_bytes(32)

    def allow(self, *paths: Path, size: int, overwrite: str = "always", reserve: int = 0) -> Json:
        """Tells both agents of the transfer; the target agent's answer."""
        self.source.call("allow", {"transfer": self.transfer, "secret": self.secret.hex()})
        return self.target.call(
            "allow",
            {
                "transfer": self.transfer,
                "secret": self.secret.hex(),
                "targets": [
                    {
                        "index": index,
                        "path": str(path),
                        "size": size,
                        "overwrite": overwrite,
                        "reserve_bytes": reserve,
                        "part_id": f"{self.transfer[:8]}-{index}",
                    }
                    for index, path in enumerate(paths)
                ],
            },
        )

    def send(
        self,
        source: Path,
        *targets: Path,
        overwrite: str = "always",
        reserve: int = 0,
        rate_limit: int = 0,
        chunk_bytes: int = 64 * 1024,
        mode: str = "dial",
        endpoints: list[list[Any]] | None = None,
    ) -> None:
        """Starts a transfer."""
        probe = self.source.call("probe", {"path": str(source), "roots": []})
        hello = self.allow(*targets, size=probe["size"], overwrite=overwrite, reserve=reserve)
        self.source.call(
            "send",
            {
                "transfer": self.transfer,
                "path": probe["path"],
                "signature": {name: probe[name] for name in SIGNATURE},
                "mode": probe["mode"],
                "chunk_bytes": chunk_bytes,
                "rate_limit": rate_limit,
                "targets": [
                    {
                        "index": index,
                        "hops": [{"mode": mode, "endpoints": endpoints or hello["endpoints"]}],
                    }
                    for index in range(len(targets))
                ],
            },
        )
        if mode == "await":
            own = self.source.call("hello", {})["endpoints"]
            for index in range(len(targets)):
                self.target.call(
                    "dial", {"transfer": self.transfer, "index": index, "endpoints": own}
                )

    def status(self) -> Json:
        return self.source.call("status", {"transfer": self.transfer})

    def wait_for(self, is_reached: Callable[[Json], bool], seconds: float = 20.0) -> Json:
        """The first status that fits; fails the test after a while."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if is_reached(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.01)

    def ended(self, seconds: float = 20.0) -> list[Json]:
        """The targets after the last verdict."""
        targets = self.wait_for(lambda status: bool(status["done"]), seconds)["targets"]
        assert isinstance(targets, list)
        return targets

    def close(self) -> None:
        self.source.close()
        self.target.close()


def wait_until(is_true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
