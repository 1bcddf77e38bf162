"""What a Ray dashboard tells over HTTP, the same for every Ray from 2.9 on.

Answers come back as the plain data that Ray sent, their envelope taken off and their outer shape
checked; ``node_records`` turns them into models.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from castray_tui.core.errors import NotFoundError, NotRayError, RayAnswerError
from castray_tui.core.models import LogFile
from castray_tui.core.ray_api.http import RayHttp, decode_json, error_words, looks_like_html
from castray_tui.core.ray_api.tokens import Token
from castray_tui.core.text_safety import safe_text

if TYPE_CHECKING:
    import httpx

STATE_API_MAX_ROWS = 10_000
"""Above it Ray's state API answers 400 (2.60) or 500 (older)."""

# A record of the summary has 12.5 KB a node: enough for some 10,000 nodes.
_SUMMARY_MAX_BODY_BYTES = 160 * 1024 * 1024
_STATE_MAX_BODY_BYTES = 32 * 1024 * 1024
_LOG_MAX_BODY_BYTES = 16 * 1024 * 1024
_LOG_BLOCK_BYTES = 1 << 16
"""``BLOCK_SIZE`` of Ray's log agent, up to 2.38."""
_MAX_LOG_FILES = 20_000


@dataclass(frozen=True, slots=True)
class DashboardVersion:
    """What ``/api/version`` tells. ``session_name`` is told from Ray 2.38 on."""

    ray_version: str
    session_name: str | None = None
    ray_commit: str | None = None


@dataclass(frozen=True, slots=True)
class NodesSummary:
    """What ``/nodes?view=summary`` tells, as Ray sent it.

    Attributes:
        records: One mapping a node.
        logical_resources: Text by node ID, ``"0.0/2.0 CPU\\n…"``.
    """

    records: tuple[Mapping[str, object], ...]
    logical_resources: Mapping[str, object]


class DashboardClient:
    """Reads one dashboard. Nothing here changes anything on the cluster.

    Args:
        url: ``http://host:port``.
        token: Ray's authentication token, if this address may have one.
        timeout_seconds: For one whole exchange.
        transport: Stands in for the network in tests.

    Every method raises UnreachableError (RefusedError, SilentError), AuthError or RayAnswerError.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        timeout_seconds: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.http = RayHttp(url, token=token, timeout_seconds=timeout_seconds, transport=transport)
        # Unique for each request of each run: old Rays cache by the whole query.
        self._unique = itertools.count(time.time_ns())

    @property
    def url(self) -> str:
        """``http://host:port``, as it was given."""
        return self.http.base_url

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.http.aclose()

    async def version(self, *, timeout_seconds: float | None = None) -> DashboardVersion:
        """Ray's version and session.

        Raises:
            NotRayError: Something answers, but no Ray dashboard.
        """
        answer = await self.http.request(
            "GET", "/api/version", max_body_bytes=64 * 1024, timeout_seconds=timeout_seconds
        )
        if answer.status in {401, 403} or answer.status >= 500:
            self.http.check(answer)
        told: object = None
        if answer.status == 200:
            try:
                told = await decode_json(answer)
            except RayAnswerError:
                told = None
        if isinstance(told, Mapping):
            ray_version = told.get("ray_version")
            if isinstance(ray_version, str) and ray_version:
                return DashboardVersion(
                    ray_version=safe_text(ray_version, limit=64),
                    session_name=_short_text(told.get("session_name")),
                    ray_commit=_short_text(told.get("ray_commit")),
                )
        what = "a web page" if looks_like_html(answer) else f"status {answer.status}"
        raise NotRayError(
            f"{self.http.shown_url} is no Ray dashboard: it answered with {what}",
            remedy="Give the address of a Ray dashboard (port 8265 by default)",
        )

    async def cluster_id(self, *, timeout_seconds: float | None = None) -> str | None:
        """Ray's cluster ID in hex, None where this Ray does not tell it (2.9, 2.20)."""
        try:
            told = await self.http.get_json("/cluster_id", timeout_seconds=timeout_seconds)
        except NotFoundError:
            return None
        found = _mapping(_mapping(told).get("data")).get("clusterId")
        return _short_text(found)

    async def gcs_healthy(self, *, timeout_seconds: float | None = None) -> bool:
        """Whether the dashboard reaches its GCS. The other answers may be cached ones: with a dead
        GCS they go on for a minute with status 200."""
        answer = await self.http.request(
            "GET", "/api/gcs_healthz", max_body_bytes=64 * 1024, timeout_seconds=timeout_seconds
        )
        if answer.status in {401, 403}:
            self.http.check(answer)
        return answer.status < 500

    async def nodes_summary(self, *, timeout_seconds: float | None = None) -> NodesSummary:
        """Hardware and state of all nodes: 12.5 KB a node, so not for every poll of a large
        cluster. Never a cached answer."""
        told = _data(
            await self.http.get_json(
                "/nodes",
                params={"view": "summary", "nocache": "1", "castray": str(next(self._unique))},
                max_body_bytes=_SUMMARY_MAX_BODY_BYTES,
                timeout_seconds=timeout_seconds,
            ),
            "/nodes",
        )
        records = told.get("summary")
        if not isinstance(records, list):
            raise RayAnswerError(f"{self.http.shown_url}/nodes answered without a summary")
        return NodesSummary(
            records=tuple(record for record in records if isinstance(record, Mapping)),
            logical_resources=_mapping(told.get("nodeLogicalResources")),
        )

    async def node_detail(self, node_id: str) -> Mapping[str, object]:
        """One node's record with its workers and actors.

        Raises:
            NotFoundError: The dashboard knows no such node.
        """
        told = _data(
            await self.http.get_json(
                f"/nodes/{quote(node_id, safe='')}",
                params={"nocache": "1", "castray": str(next(self._unique))},
            ),
            "/nodes/<id>",
        )
        detail = _mapping(told.get("detail"))
        # An unknown ID is answered with 200 and almost nothing.
        if not _mapping(detail.get("raylet")).get("nodeId"):
            raise NotFoundError(
                f"{self.http.shown_url} knows no node {safe_text(node_id, limit=64)}"
            )
        return detail

    async def state_nodes(
        self, *, limit: int = STATE_API_MAX_ROWS, timeout_seconds: float | None = None
    ) -> tuple[Mapping[str, object], ...]:
        """Ray's own listing of nodes, dead ones too: small, uncached, and what Ray itself holds for
        true. ``detail`` adds start and end times."""
        told = _data(
            await self.http.get_json(
                "/api/v0/nodes",
                params={"limit": str(min(limit, STATE_API_MAX_ROWS)), "detail": "1"},
                max_body_bytes=_STATE_MAX_BODY_BYTES,
                timeout_seconds=timeout_seconds,
            ),
            "/api/v0/nodes",
        )
        rows = _mapping(told.get("result")).get("result")
        if not isinstance(rows, list):
            raise RayAnswerError(f"{self.http.shown_url}/api/v0/nodes answered without a list")
        return tuple(row for row in rows if isinstance(row, Mapping))

    async def cluster_status(self, *, timeout_seconds: float | None = None) -> Mapping[str, object]:
        """The autoscaler's view, with ``clusterStatus.loadMetricsReport.usageByNode``."""
        return _data(
            await self.http.get_json(
                "/api/cluster_status",
                max_body_bytes=_STATE_MAX_BODY_BYTES,
                timeout_seconds=timeout_seconds,
            ),
            "/api/cluster_status",
        )

    async def jobs(self) -> tuple[Mapping[str, object], ...]:
        """All jobs Ray remembers. Their ``runtime_env`` may hold other people's secrets: it is
        taken out here and goes no further."""
        told = await self.http.get_json("/api/jobs/", max_body_bytes=_STATE_MAX_BODY_BYTES)
        if not isinstance(told, list):
            raise RayAnswerError(f"{self.http.shown_url}/api/jobs/ answered without a list")
        return tuple(
            {key: value for key, value in row.items() if key != "runtime_env"}
            for row in told
            if isinstance(row, Mapping)
        )

    async def log_files(self, node_id: str) -> list[LogFile]:
        """The log files of one node, by group and name; folders are left out."""
        told = _data(
            await self.http.get_json(
                "/api/v0/logs",
                params={"node_id": node_id, "timeout": str(max(1, int(self.http.timeout_seconds)))},
            ),
            "/api/v0/logs",
        )
        files: list[LogFile] = []
        for group, names in _mapping(told.get("result")).items():
            if not isinstance(names, list):
                continue
            for name in names[:_MAX_LOG_FILES]:
                if isinstance(name, str) and name and not name.endswith("/"):
                    files.append(
                        LogFile(name=safe_text(name, limit=400), group=safe_text(group, limit=64))
                    )
        return sorted(files, key=lambda file: (file.group or "", file.name))

    async def log_tail(self, node_id: str, name: str, lines: int = 500) -> str:
        """The last lines of a node's log file, made safe to draw.

        Raises:
            NotFoundError: The node has no such file.
        """
        answer = await self.http.request(
            "GET",
            "/api/v0/logs/file",
            params={"node_id": node_id, "filename": name, "lines": str(lines)},
            max_body_bytes=_LOG_MAX_BODY_BYTES,
        )
        if answer.status in {401, 403}:
            self.http.check(answer)
        words = error_words(answer) if answer.status >= 400 else ""
        body = answer.body
        # Newer Rays, whose body is the log as it is, offer it as a file of that name.
        marked = answer.status == 200 and "content-disposition" not in answer.headers
        if marked and body[:1] == b"0":
            words = safe_text(body[1:].decode("utf-8", "replace"), limit=300)
        elif marked:
            body = _without_marks(body)
        if words:
            if "not found" in words or "not available" in words:
                raise NotFoundError(f"No log file {safe_text(name, limit=200)} there: {words}")
            raise RayAnswerError(f"The log {safe_text(name, limit=200)} cannot be read: {words}")
        self.http.check(answer)
        text = body.decode("utf-8", "replace").lstrip("\n")
        return safe_text(text, limit=_LOG_MAX_BODY_BYTES, keep_newlines=True)


def _without_marks(body: bytes) -> bytes:
    """A log's text without the ``1`` for success that Ray up to 2.38 puts before each block."""
    step = _LOG_BLOCK_BYTES + 1
    blocks = (body[start : start + step] for start in range(0, len(body), step))
    return b"".join(block.removeprefix(b"1") for block in blocks)


def _data(told: object, path: str) -> Mapping[str, object]:
    """The ``data`` of Ray's envelope ``{"result": true, "msg": …, "data": {…}}``."""
    if not isinstance(told, Mapping) or not isinstance(told.get("data"), Mapping):
        raise RayAnswerError(f"{path} answered in a shape that castray does not know")
    if told.get("result") is False:
        raise RayAnswerError(f"{path} failed: {safe_text(told.get('msg'), limit=300)}")
    return _mapping(told["data"])


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _short_text(value: object) -> str | None:
    return safe_text(value, limit=128) if isinstance(value, str) and value else None
