"""The program that asks GCS servers, in a process of its own: ``python -m …ray_api.gcs_reader``.

Ray's Python blocks, can end its process from C++, and knows one token a process; so castray keeps
it out of its own. One JSON object a line on standard input, one a line on standard output. The
first line in holds the token or null; every further one is a request::

    {"id": 7, "op": "poll", "address": "host:port", "timeout": 5.0}
    {"id": 7, "ok": {...}}    or    {"id": 7, "error": "refused", "message": "..."}

``error`` is ``refused``, ``silent``, ``auth``, ``mismatch`` or ``failed``. The end of standard
input ends the program, so it never outlives castray. Each address has a thread of its own: a GCS
that hangs delays no other.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_PROBE_SECONDS = 2.0
_MAX_THREADS = 256
_IDLE_SECONDS = 300.0
# What makes Ray's C++ quiet, and keeps it from ending the process when one GCS of several is gone.
_RAY_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0",
}
_AGENT_KEYS = ("DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX:", "DASHBOARD_AGENT_PORT_PREFIX:")
"""From 2.49 or before, and up to 2.38."""
_DRAINING = 4
"""``NodeStatus.DRAINING`` in Ray's autoscaler.proto."""

Request = Mapping[str, Any]


class _RequestError(Exception):
    """A request that failed in a way the parent knows by ``kind``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main() -> None:
    """Serves requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    # Whatever Ray prints must not get between the answers.
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline() or "{}")
    _set_token(first.get("token"))
    lock = threading.Lock()

    def answer(told: Mapping[str, object]) -> None:
        line = json.dumps(told)
        with lock:
            answers.write(line + "\n")

    threads: dict[str, _AddressThread] = {}
    for line in sys.stdin:
        request = json.loads(line)
        address = str(request.get("address"))
        thread = threads.get(address)
        if thread is None or not thread.accepts(request):
            if len(threads) >= _MAX_THREADS:
                threads = {name: old for name, old in threads.items() if not old.ended}
            threads[address] = thread = _AddressThread(address, answer)
            thread.accepts(request)
    # Threads may sit in C++ for a long time; nothing they hold needs an orderly end.
    os._exit(0)


def _set_token(token: str | None) -> None:
    """Set here, after the start, the token shows in nobody's view of this process."""
    os.environ.update(_RAY_ENVIRONMENT)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    if token:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = token
    else:
        os.environ["RAY_AUTH_MODE"] = "disabled"


class _AddressThread:
    """Answers the requests to one address, one after the other; ends when it had none for long."""

    def __init__(self, address: str, answer: Callable[[Mapping[str, object]], None]) -> None:
        self._requests: queue.Queue[tuple[float, Request]] = queue.Queue()
        self._gcs = _Gcs(address)
        self._answer = answer
        self._lock = threading.Lock()
        self.ended = False
        threading.Thread(target=self._run, name=f"gcs {address}", daemon=True).start()

    def accepts(self, request: Request) -> bool:
        """Takes a request unless the thread has ended."""
        with self._lock:
            if not self.ended:
                self._requests.put((time.monotonic(), request))
            return not self.ended

    def _run(self) -> None:
        while True:
            try:
                put_at, request = self._requests.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._requests.empty():
                        self.ended = True
                        return
                continue
            timeout = float(request.get("timeout", 5.0))
            if time.monotonic() - put_at < timeout:
                self._answer({"id": request["id"], **self._gcs.answer(request, timeout)})


class _Gcs:
    """One GCS and the client that talks to it, made anew after every failure."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: Any = None
        self._facts: dict[str, str | None] = {}
        self._agent_ports: dict[str, int] = {}

    def answer(self, request: Request, timeout: float) -> dict[str, object]:
        """``{"ok": …}`` or ``{"error": …, "message": …}``; never raises."""
        try:
            self._probe()
            client = self._connected()
            if request["op"] == "poll":
                return {"ok": self._poll(client, timeout)}
            if request["op"] == "job_record":
                return {"ok": self._job_record(client, str(request["submission_id"]), timeout)}
            raise _RequestError("failed", "unknown request")
        except _RequestError as error:
            self._forget()
            return {"error": error.kind, "message": str(error)}
        except ImportError as error:
            return {"error": "mismatch", "message": f"Ray cannot be imported here: {error}"}
        except Exception as error:
            # The border to Ray's Python, whose exceptions differ from version to version.
            self._forget()
            return {"error": _kind_of(error), "message": f"{type(error).__name__}: {error}"[:500]}

    def _forget(self) -> None:
        self._client = None
        self._facts = {}
        self._agent_ports = {}

    def _probe(self) -> None:
        """The client's constructor blocks for 40 s where nobody listens."""
        host, _, port = self._address.rpartition(":")
        try:
            address = (host.strip("[]"), int(port))
            socket.create_connection(address, timeout=_PROBE_SECONDS).close()
        except TimeoutError as error:
            raise _RequestError("refused", f"no connection within {_PROBE_SECONDS:g} s") from error
        except (OSError, ValueError, OverflowError) as error:
            raise _RequestError(
                "refused", getattr(error, "strerror", None) or str(error)
            ) from error

    def _connected(self) -> Any:
        if self._client is None:
            # Imported here and not above: the token must be in the environment before.
            raylet: Any = importlib.import_module("ray._raylet")
            self._client = raylet.GcsClient(address=self._address)
        return self._client

    def _poll(self, client: Any, timeout: float) -> dict[str, object]:
        if not self._facts:
            self._facts = _facts(client, timeout)
        rows = [_row(info) for info in _infos(client.get_all_node_info(timeout=timeout))]
        self._add_agent_ports(client, rows, timeout)
        usage, draining, session_name = _usage_and_draining(client, timeout)
        return {
            **self._facts,
            "session_name": session_name or self._facts.get("session_name"),
            "nodes": rows,
            "usage": usage,
            "draining": draining,
        }

    def _add_agent_ports(self, client: Any, rows: list[dict[str, Any]], timeout: float) -> None:
        """Rays before 2.5x keep the agents' ports in the key-value store only, as
        ``[…, http port, grpc port]``."""
        for row in rows:
            node_id = row["node_id"]
            if row["state"] != "ALIVE" or row["agent_port"] > 0:
                continue
            if node_id not in self._agent_ports:
                for prefix in _AGENT_KEYS:
                    key = (prefix + node_id).encode()
                    value = client.internal_kv_get(key, b"dashboard", timeout=timeout)
                    if value:
                        self._agent_ports[node_id] = int(json.loads(value)[-2])
                        break
            row["agent_port"] = self._agent_ports.get(node_id, 0)

    def _job_record(self, client: Any, submission_id: str, timeout: float) -> object:
        key = f"_ray_internal_job_info_{submission_id}".encode()
        value = client.internal_kv_get(key, b"job", timeout=timeout)
        if value is None:
            return None
        record = json.loads(value)
        # Other people's secrets may lie there; nobody here needs them.
        record.pop("runtime_env", None)
        return record


def _facts(client: Any, timeout: float) -> dict[str, str | None]:
    """What does not change while a GCS lives."""
    metadata = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=timeout)
    ray_version = None
    if metadata:
        ray_version = json.loads(metadata).get("ray_version")
    cluster_id = getattr(client, "cluster_id", None)
    return {
        "cluster_id": cluster_id.hex() if cluster_id is not None else None,
        "session_name": _kv_text(client, b"session_name", b"session", timeout),
        "dashboard": _kv_text(client, b"dashboard", b"dashboard", timeout),
        "ray_version": ray_version,
    }


def _kv_text(client: Any, key: bytes, namespace: bytes, timeout: float) -> str | None:
    value = client.internal_kv_get(key, namespace, timeout=timeout)
    return value.decode("utf-8", "replace") if value else None


def _infos(told: Any) -> list[Any]:
    values = list(told.values())
    if values and not hasattr(values[0], "resources_total"):
        raise _RequestError("mismatch", "this Ray's GcsClient is too old to list nodes")
    return values


def _row(info: Any) -> dict[str, Any]:
    """A node in the words of the dashboard's ``/api/v0/nodes``, so one reader serves both."""
    return {
        "node_id": info.node_id.hex(),
        "node_ip": info.node_manager_address,
        "hostname": info.node_manager_hostname,
        "state": "DEAD" if info.state == 1 else "ALIVE",
        "state_message": _death_message(info),
        "is_head_node": bool(info.is_head_node),
        "resources_total": dict(info.resources_total),
        "labels": dict(info.labels),
        "start_time_ms": info.start_time_ms,
        "end_time_ms": info.end_time_ms,
        "agent_port": getattr(info, "dashboard_agent_listen_port", 0),
        "session_dir": getattr(info, "session_dir", "") or None,
        "temp_dir": getattr(info, "temp_dir", "") or None,
    }


def _death_message(info: Any) -> str | None:
    death = getattr(info, "death_info", None)
    if death is None:
        return None
    reasons = death.DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_number
    reason = reasons[death.reason].name if death.reason in reasons else ""
    words = {
        "EXPECTED_TERMINATION": "Expected termination",
        "UNEXPECTED_TERMINATION": "Unexpected termination",
        "AUTOSCALER_DRAIN_PREEMPTED": "Terminated due to preemption",
        "AUTOSCALER_DRAIN_IDLE": "Terminated due to idle (no Ray activity)",
    }.get(reason)
    parts = [part for part in (words, death.reason_message) if part]
    return ": ".join(parts) or None


def _usage_and_draining(
    client: Any, timeout: float
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, object]], str | None]:
    """``{node: {resource: [used, total]}}``, ``{node: {"deadline_ms": …}}``, session name."""
    autoscaler_pb2: Any = importlib.import_module("ray.core.generated.autoscaler_pb2")
    told = client.get_cluster_status(timeout_s=timeout)
    reply = autoscaler_pb2.GetClusterStatusReply()
    reply.ParseFromString(told)
    usage: dict[str, dict[str, list[float]]] = {}
    draining: dict[str, dict[str, object]] = {}
    for state in reply.cluster_resource_state.node_states:
        node_id = state.node_id.hex()
        free = state.available_resources
        usage[node_id] = {
            name: [max(total - free.get(name, 0.0), 0.0), total]
            for name, total in state.total_resources.items()
        }
        if state.status == _DRAINING:
            draining[node_id] = {"activity": list(state.node_activity)[:8]}
    if draining:
        for key, deadline_ms in _deadlines(client, timeout).items():
            if key in draining:
                draining[key]["deadline_ms"] = deadline_ms
    return usage, draining, reply.cluster_resource_state.cluster_session_name or None


def _deadlines(client: Any, timeout: float) -> dict[str, int]:
    """Until when nodes drain, in milliseconds since the epoch, by node ID."""
    try:
        told = client.get_draining_nodes(timeout=timeout)
    except Exception:
        # Older Rays, here or there, do not know the question; the deadline is an extra.
        return {}
    return {_hex(key): int(value) for key, value in dict(told).items()}


def _hex(key: Any) -> str:
    """A node ID in hex, whichever form this Ray's Python hands it out in."""
    if isinstance(key, str):
        return key
    return key.hex() if hasattr(key, "hex") else str(key)


def _kind_of(error: Exception) -> str:
    name = type(error).__name__
    text = str(error)
    if name == "AuthenticationError" or "InvalidAuthToken" in text or "Unauthenticated" in text:
        return "auth"
    if name in {"GetTimeoutError", "TimeoutError"} or "TimedOut" in text or "Deadline" in text:
        return "silent"
    return "failed"


if __name__ == "__main__":
    main()
