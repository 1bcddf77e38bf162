"""The sources that an agent has looked at, remembered until they are sent."""

from __future__ import annotations

import os
import threading
from typing import Any, Container, Dict

from . import files
from .content import digest_of
from .refusals import OrderRefusedError
from .scanning import Scan, scan

Json = Dict[str, Any]

_KEPT_SCANS = 8


class Scans:
    """The scans of one agent, by the transfer that they are for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scans: Dict[str, Scan] = {}

    def scan(self, arguments: Json) -> Json:
        """Looks at a source, without reading it, and remembers it for ``send``.

        Raises:
            FileRefusedError: It cannot be sent.
        """
        found = scan(
            arguments["paths"],
            arguments["roots"],
            arguments["links"],
            arguments["include"],
            arguments["exclude"],
        )
        with self._lock:
            self._scans[arguments["transfer"]] = found
        manifest = found.manifest
        kinds = [entry.kind for entry in manifest.entries]
        answer: Json = {
            "manifest": manifest.pack(),
            "manifest_digest": manifest.digest,
            "name": manifest.name,
            "is_tree": manifest.is_tree,
            "size": manifest.total_bytes,
            "files": len(manifest.files),
            "folders": kinds.count("folder"),
            "links": kinds.count("link"),
            "token": found.token,
            "machine": files.machine_id(),
            "device": None,
            "inode": None,
            "path": found.paths[0] if found.paths else arguments["paths"][0],
        }
        if not manifest.is_tree:
            _, _, answer["inode"], answer["device"] = found.signatures[0]
        return answer

    def of(self, transfer: str) -> Scan:
        """What was found for a transfer.

        Raises:
            OrderRefusedError: This agent has not looked at it.
        """
        with self._lock:
            found = self._scans.get(transfer)
        if found is None:
            raise OrderRefusedError("unknown", "this agent has not looked at that source")
        return found

    def digests(self, arguments: Json) -> Json:
        """The digests of some of the source's files, which stay as they were while it reads."""
        found = self.of(arguments["transfer"])
        return {"digests": {str(n): _digest_of(found, n) for n in arguments["files"]}}

    def forget(self, transfer: str) -> None:
        """What was found for a transfer is of no use any more."""
        with self._lock:
            self._scans.pop(transfer, None)

    def forget_old(self, running: Container[str]) -> None:
        """Drops the oldest, but of these transfers none, where there are more than a few."""
        with self._lock:
            for transfer in list(self._scans):
                if len(self._scans) > _KEPT_SCANS and transfer not in running:
                    del self._scans[transfer]


def _digest_of(found: Scan, number: int) -> str:
    fd = found.open_file(number)
    try:
        digest = digest_of(fd)
        found.check_file(number, fd)
    finally:
        os.close(fd)
    return digest
