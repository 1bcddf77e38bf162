"""What stands at a host and port: a Ray dashboard, another of Ray's servers, or something else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from castray_tui.core.discovery.addresses import bracketed, host_port
from castray_tui.core.discovery.gcs_wire import GcsAnswer, ask_gcs, is_client_server
from castray_tui.core.discovery.http_get import HttpAnswer, NoAnswer, http_get
from castray_tui.core.text_safety import safe_text

StandingKind = Literal["dashboard", "gcs", "client_server", "other", "silent", "nothing"]

_MAX_NODES_BYTES = 64 * 1024 * 1024
_HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was found at one place.

    Attributes:
        kind: ``silent`` accepts connections and does not answer; ``nothing`` does not even accept.
        what: The same in words, for people; says why where nothing stands there.
        url: Where its requests went, ``http://host:port/path``.
        needs_token: Of a dashboard: whether it refused to answer without (or with this) token.
        token_refused: A token was given and is wrong.
        gcs_healthy: Of a dashboard: whether its GCS answers; None where it does not know that.
        gcs_address, temp_dir, python: Of a dashboard: what the head's raylet was started with, only
            where it had to be asked for.
        gcs: Of a GCS: what it answered.
    """

    kind: StandingKind
    what: str
    host: str
    port: int
    url: str = ""
    needs_token: bool | None = None
    token_refused: bool = False
    gcs_healthy: bool | None = None
    cluster_id: str | None = None
    session_name: str | None = None
    ray_version: str | None = None
    gcs_address: str | None = None
    temp_dir: str | None = None
    python: str | None = None
    node_count: int | None = None
    resources: Mapping[str, float] | None = None
    gcs: GcsAnswer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """How one HTTP server is asked."""

    host: str
    port: int
    tls: bool
    path: str
    timeout_seconds: float
    token: str | None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{host_port(self.host, self.port)}{self.path}"

    async def get(self, path: str, *, limit_bytes: int = 256 * 1024) -> HttpAnswer:
        return await http_get(
            self.host,
            self.port,
            self.path + path,
            timeout_seconds=self.timeout_seconds,
            limit_bytes=limit_bytes,
            tls=self.tls,
            token=self.token,
        )

    async def get_json(self, path: str, *, limit_bytes: int = 256 * 1024) -> Any:
        """The JSON of a good answer; None for everything else."""
        try:
            answer = await self.get(path, limit_bytes=limit_bytes)
        except NoAnswer:
            return None
        return _json_of(answer) if answer.status == 200 else None


async def probe_dashboard(
    host: str,
    port: int,
    *,
    timeout_seconds: float,
    tls: bool = False,
    path: str = "",
    token: str | None = None,
    with_nodes: bool = False,
) -> Standing:
    """Looks for a Ray dashboard.

    Args:
        host: Name or address, without brackets.
        port: TCP port.
        timeout_seconds: For each of its few requests.
        tls: Whether to speak TLS.
        path: Where a proxy serves it.
        token: Only given where it belongs there; never while scanning.
        with_nodes: Whether to count nodes and resources too.

    Returns:
        A standing of kind ``dashboard``, ``other``, ``silent`` or ``nothing``.
    """
    door = _Door(
        host=host, port=port, tls=tls, path=path, timeout_seconds=timeout_seconds, token=token
    )
    try:
        answer = await door.get("/api/version")
    except NoAnswer as failure:
        return await _without_http(door, failure)
    if answer.status in (401, 403):
        return await _closed_dashboard(door, answer)
    version = _json_of(answer)
    ray_version = version.get("ray_version") if isinstance(version, dict) else None
    if answer.status != 200 or not isinstance(ray_version, str) or not ray_version:
        return await _other_http(door, answer)
    identity, health, nodes = await asyncio.gather(
        door.get_json("/cluster_id"),
        _gcs_health(door),
        door.get_json("/api/v0/nodes?limit=10000", limit_bytes=_MAX_NODES_BYTES)
        if with_nodes
        else _nothing(),
    )
    session_name = text_of(version, "session_name")
    cluster_id = cluster_id_of(text_of(identity, "data", "clusterId"))
    head: dict[str, str] = {}
    # A dashboard whose GCS does not answer lets every other question wait.
    if health is not False and (with_nodes or (cluster_id is None and session_name is None)):
        if nodes is None:
            nodes = await door.get_json("/api/v0/nodes?limit=10000", limit_bytes=_MAX_NODES_BYTES)
        head = await _head_arguments(door, nodes)
    node_count, resources = _count_nodes(nodes)
    return Standing(
        kind="dashboard",
        what="Ray dashboard",
        host=host,
        port=port,
        url=door.url,
        needs_token=token is not None,
        gcs_healthy=health,
        cluster_id=cluster_id or cluster_id_of(head.get("cluster-id")),
        session_name=session_name or head.get("session-name"),
        ray_version=safe_text(ray_version, limit=60),
        gcs_address=head.get("gcs-address"),
        temp_dir=head.get("temp_dir"),
        python=head.get("python"),
        node_count=node_count,
        resources=resources,
    )


async def probe(
    host: str,
    port: int,
    *,
    timeout_seconds: float,
    token: str | None = None,
) -> Standing:
    """Works out what stands at a place that may be anything: dashboard, GCS, client server …"""
    standing = await probe_dashboard(
        host, port, timeout_seconds=timeout_seconds, token=token, with_nodes=True
    )
    if standing.kind != "other" or standing.gcs is None:
        return standing
    if standing.gcs.state in ("answers", "wants_token"):
        return Standing(
            kind="gcs",
            what="Ray GCS",
            host=host,
            port=port,
            gcs=standing.gcs,
            needs_token=standing.gcs.state == "wants_token",
        )
    if standing.gcs.speaks_grpc and await is_client_server(
        host, port, timeout_seconds=timeout_seconds
    ):
        return Standing(kind="client_server", what="Ray client server", host=host, port=port)
    return standing


async def _nothing() -> None:
    return None


async def _gcs_health(door: _Door) -> bool | None:
    try:
        answer = await door.get("/api/gcs_healthz", limit_bytes=1024)
    except NoAnswer:
        # It answers in milliseconds; only where the GCS is gone does it wait for that first.
        return False
    if answer.status == 200:
        return True
    return False if answer.status >= 500 else None


async def _closed_dashboard(door: _Door, answer: HttpAnswer) -> Standing:
    """401 or 403: Ray's token, or somebody else's lock?

    Ray's dashboard leaves ``/`` and ``/api/authentication_mode`` open.
    """
    mode, health = await asyncio.gather(
        door.get_json("/api/authentication_mode"), _gcs_health(door)
    )
    is_ray = isinstance(mode, dict) and isinstance(mode.get("authentication_mode"), str)
    if not is_ray:
        try:
            page = await door.get("/", limit_bytes=8 * 1024)
            is_ray = page.status == 200 and b"<title>Ray Dashboard</title>" in page.body
        except NoAnswer:
            is_ray = False
    if not is_ray:
        return _foreign(door, f"{_server_name(answer)}, wants a login ({answer.status})")
    return Standing(
        kind="dashboard",
        what="Ray dashboard that wants a token",
        host=door.host,
        port=door.port,
        url=door.url,
        needs_token=True,
        token_refused=door.token is not None,
        gcs_healthy=health,
    )


async def _without_http(door: _Door, failure: NoAnswer) -> Standing:
    where = host_port(door.host, door.port)
    if failure.failure in ("refused", "unresolved", "unreachable"):
        words = {
            "refused": "nothing listens there",
            "unresolved": "no such host is known",
            "unreachable": "it does not answer to connection attempts",
        }
        return Standing(kind="nothing", what=words[failure.failure], host=door.host, port=door.port)
    if failure.failure == "silent":
        return Standing(
            kind="silent",
            what="accepts connections, does not answer",
            host=door.host,
            port=door.port,
            url=f"http://{where}",
        )
    if failure.failure == "tls":
        detail = safe_text(failure.detail, limit=200)
        return _foreign(door, f"TLS failed: {detail}")
    # A gRPC server speaks first, with a frame of type SETTINGS.
    if failure.failure == "not_http" and failure.first_bytes[3:4] == b"\x04":
        gcs = await ask_gcs(
            door.host, door.port, timeout_seconds=door.timeout_seconds, token=door.token
        )
        if gcs.state == "wants_token" and door.token is None:
            return _foreign(door, "Ray GCS that wants a token", gcs)
        return _foreign(door, "Ray GCS" if gcs.state == "answers" else "gRPC server", gcs)
    return _foreign(door, "TCP service, not HTTP")


async def _other_http(door: _Door, answer: HttpAnswer) -> Standing:
    """Names an HTTP server that is no dashboard, Ray's own small ones included."""
    body = answer.body[: 256 * 1024]
    if b"# HELP " in body or b"# TYPE " in body:
        is_ray = b" ray_" in body or b"\nray_" in body
        return _foreign(door, "Ray metrics" if is_ray else "Prometheus metrics")
    if not answer.complete and len(answer.body) >= 256 * 1024:
        return _foreign(door, f"{_server_name(answer)} with an oversized answer")
    if answer.status == 404:
        try:
            health = await door.get("/api/local_raylet_healthz", limit_bytes=1024)
            if health.status in (200, 503) and health.body.strip().lower() == b"success":
                return _foreign(door, "Ray dashboard agent of a node")
        except NoAnswer:
            pass
    return _foreign(door, _server_name(answer))


def _foreign(door: _Door, what: str, gcs: GcsAnswer | None = None) -> Standing:
    return Standing(kind="other", what=what, host=door.host, port=door.port, url=door.url, gcs=gcs)


def _server_name(answer: HttpAnswer) -> str:
    server = safe_text(answer.headers.get("server", ""), limit=60).strip()
    return f"HTTP server ({server})" if server else "HTTP server"


async def _head_arguments(door: _Door, nodes: Any) -> dict[str, str]:
    """What the head's raylet was started with, for Ray before 2.38, whose dashboard does not say
    which cluster it is."""
    for node in _node_rows(nodes):
        node_id = node.get("node_id")
        if node.get("is_head_node") is True and isinstance(node_id, str):
            if not node_id or not set(node_id) <= _HEX_DIGITS:
                return {}
            detail = await door.get_json(f"/nodes/{node_id}", limit_bytes=4 * 1024 * 1024)
            return _raylet_arguments(detail)
    return {}


def _raylet_arguments(detail: Any) -> dict[str, str]:
    for key in ("data", "detail", "cmdline"):
        detail = detail.get(key) if isinstance(detail, dict) else None
    if not isinstance(detail, list):
        return {}
    found: dict[str, str] = {}
    for argument in detail[:200]:
        if not isinstance(argument, str):
            continue
        name, separator, value = argument.partition("=")
        name = name.lstrip("-")
        if separator and name in ("gcs-address", "session-name", "cluster-id", "temp_dir"):
            found[name] = safe_text(value, limit=400)
        elif name == "python_worker_command":
            found["python"] = safe_text(value.partition(" ")[0], limit=400)
    return found


def _node_rows(nodes: Any) -> list[dict[str, Any]]:
    for key in ("data", "result", "result"):
        nodes = nodes.get(key) if isinstance(nodes, dict) else None
    return [row for row in nodes if isinstance(row, dict)] if isinstance(nodes, list) else []


def _count_nodes(nodes: Any) -> tuple[int | None, dict[str, float] | None]:
    rows = _node_rows(nodes)
    if not rows:
        return None, None
    alive = [row for row in rows if row.get("state") == "ALIVE"]
    totals: dict[str, float] = {}
    for row in alive:
        resources = row.get("resources_total")
        for name, amount in resources.items() if isinstance(resources, dict) else ():
            is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
            if is_number and not name.startswith("node:") and len(totals) < 1_000:
                key = safe_text(name, limit=200)
                totals[key] = totals.get(key, 0.0) + float(amount)
    return len(alive), totals


def _json_of(answer: HttpAnswer) -> Any:
    import json  # noqa: PLC0415 - only where something answered

    if not answer.complete:
        return None
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def text_of(value: Any, *keys: str) -> str | None:
    """Text at a path of keys in decoded JSON, made safe; None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return safe_text(value, limit=300) if isinstance(value, str) and value else None


def cluster_id_of(text: str | None) -> str | None:
    """Ray's cluster ID, 28 bytes in hex; None for anything else, all zeros or ones included."""
    if text is None or len(text) != 56 or not set(text) <= _HEX_DIGITS or len(set(text)) == 1:
        return None
    return text


def url_of(host: str, port: int) -> str:
    """``http://host:port``."""
    return f"http://{bracketed(host)}:{port}"
