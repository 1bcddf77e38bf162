"""Ray's processes on this machine, and what their arguments tell.

Read through psutil, so that macOS and Windows are served as well. What Linux alone knows
(namespaces of network and mounts) is asked of ``/proc`` beside it, and is None elsewhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from castray_tui.core.discovery.addresses import (
    is_any_address,
    is_loopback,
    split_host_port,
)
from castray_tui.core.discovery.probing import cluster_id_of
from castray_tui.core.text_safety import safe_text

Role = Literal["gcs", "raylet", "dashboard", "client_server"]

_PYTHON_WORKER = re.compile(r"(?P<python>.+?) \S*(setup_worker|default_worker)\.py")
_WEB_UI = re.compile(r" --webui=(?P<place>\S+)")
_VERSION_LINE = re.compile(r"""^(?:__)?version(?:__)?\s*=\s*["']([^"']{1,60})["']""", re.MULTILINE)
_SESSION = re.compile(r"session_[A-Za-z0-9._-]{1,200}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayProcess:
    """One process of a cluster, as its arguments describe it.

    Attributes:
        executable: Its first argument, a path inside the installed Ray for ``gcs`` and ``raylet``.
        listens: ``(host, port)`` of the server that this process is, as it was told to bind.
        dashboard: ``(host, port)`` that a raylet tells its workers as the web UI.
        network: Identity of its network namespace, None where the system has none or hides it.
        same_files: Whether its session's folder is the one that its path names here.
        is_head: Of a raylet.
    """

    role: Role
    pid: int = 0
    executable: str = ""
    session_name: str | None = None
    session_dir: str | None = None
    temp_dir: str | None = None
    cluster_id: str | None = None
    gcs: tuple[str, int] | None = None
    node_ip: str | None = None
    node_id: str | None = None
    listens: tuple[str, int] | None = None
    dashboard: tuple[str, int] | None = None
    python: str | None = None
    is_head: bool = False
    owner: str | None = None
    network: int | None = None
    same_files: bool = True


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Every Ray process seen at one moment, and this process's own namespaces and user."""

    processes: tuple[RayProcess, ...] = ()
    own_network: int | None = None
    me: str | None = None
    own_hosts: frozenset[str] = frozenset()


def read_ray_process(name: str, arguments: Sequence[str]) -> RayProcess | None:
    """What one process's name and arguments tell; None where it is no server of Ray's.

    Args:
        name: The process's name as the system shows it.
        arguments: Its command line.
    """
    if not arguments:
        return None
    # A process may carry any name; what was started is in the first argument.
    program = re.split(r"[/\\]", arguments[0])[-1].removesuffix(".exe")
    options = _options(arguments)
    if program == "gcs_server" or name == "gcs_server":
        return _read_gcs(arguments[0], options)
    if program == "raylet" or name == "raylet":
        return _read_raylet(arguments[0], options)
    for at, argument in enumerate(arguments[1:6], start=1):
        if argument.endswith(("dashboard/dashboard.py", "dashboard\\dashboard.py")):
            return _read_dashboard(options)
        if argument == "ray.util.client.server" and arguments[at - 1] == "-m":
            return _read_client_server(options)
    return None


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for argument in arguments[1:]:
        if argument.startswith("--"):
            option, _, value = argument[2:].partition("=")
            options.setdefault(option.replace("_", "-"), value)
    return options


def _read_gcs(executable: str, options: dict[str, str]) -> RayProcess | None:
    session_dir = options.get("session-dir") or _parent_of_logs(options.get("log-dir"))
    session = _session_name(options.get("session-name")) or _session_of_folder(session_dir)
    if session is None:
        return None
    node_ip = _host(options.get("node-ip-address"))
    port = _port(options.get("gcs-server-port"))
    listens = (node_ip, port) if node_ip and port else None
    return RayProcess(
        role="gcs",
        executable=executable,
        session_name=session,
        session_dir=session_dir,
        temp_dir=_parent(session_dir),
        gcs=listens,
        listens=listens,
        node_ip=node_ip,
        node_id=options.get("node-id"),
        is_head=True,
    )


def _read_raylet(executable: str, options: dict[str, str]) -> RayProcess | None:
    session_dir = _path(options.get("session-dir"))
    session = _session_name(options.get("session-name")) or _session_of_folder(session_dir)
    if session is None:
        return None
    command = options.get("python-worker-command", "")
    python = _PYTHON_WORKER.match(command)
    web_ui = _WEB_UI.search(command)
    return RayProcess(
        role="raylet",
        executable=executable,
        session_name=session,
        session_dir=session_dir,
        temp_dir=_path(options.get("temp-dir")) or _parent(session_dir),
        cluster_id=cluster_id_of(options.get("cluster-id")),
        gcs=split_host_port(options.get("gcs-address", "")),
        node_ip=_host(options.get("node-ip-address")),
        node_id=options.get("node-id"),
        dashboard=split_host_port(web_ui["place"]) if web_ui else None,
        python=safe_text(python["python"], limit=400) if python else None,
        is_head="head" in options
        or "node:__internal_head__" in options.get("static-resource-list", ""),
    )


def _read_dashboard(options: dict[str, str]) -> RayProcess | None:
    session_dir = _path(options.get("session-dir"))
    session = _session_of_folder(session_dir)
    if session is None:
        return None
    host, port = options.get("host", ""), _port(options.get("port"))
    return RayProcess(
        role="dashboard",
        session_name=session,
        session_dir=session_dir,
        temp_dir=_path(options.get("temp-dir")) or _parent(session_dir),
        cluster_id=cluster_id_of(options.get("cluster-id-hex")),
        gcs=split_host_port(options.get("gcs-address", "")),
        node_ip=_host(options.get("node-ip-address")),
        listens=_bind_address(host, port),
    )


def _read_client_server(options: dict[str, str]) -> RayProcess | None:
    # A proxy starts a server of the same kind for every client; only the proxy is an address.
    if options.get("mode", "proxy") != "proxy":
        return None
    return RayProcess(
        role="client_server",
        gcs=split_host_port(options.get("address", "")),
        listens=_bind_address(options.get("host", ""), _port(options.get("port"))),
        node_id=options.get("node-id"),
    )


def _bind_address(host: str, port: int | None) -> tuple[str, int] | None:
    host = host.strip("[]")
    if port is None or not (is_any_address(host) or split_host_port(_joined(host, port))):
        return None
    return host, port


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(text: str | None) -> str | None:
    return text if text and split_host_port(_joined(text, 1)) else None


def _port(text: str | None) -> int | None:
    if not text or not text.isascii() or not text.isdigit():
        return None
    return int(text) if 0 < int(text[:6]) < 65_536 else None


def _path(text: str | None) -> str | None:
    return text if text and text.isprintable() and len(text) < 1_000 else None


def _parent(folder: str | None) -> str | None:
    return str(PurePath(folder).parent) if folder else None


def _parent_of_logs(folder: str | None) -> str | None:
    path = _path(folder)
    return _parent(path) if path and PurePath(path).name == "logs" else None


def _session_name(text: str | None) -> str | None:
    return text if text and _SESSION.match(text) else None


def _session_of_folder(folder: str | None) -> str | None:
    return _session_name(PurePath(folder).name) if folder else None


def installed_version(executable: str) -> str | None:
    """Ray's version beside a ``gcs_server`` or ``raylet`` binary, read as text.

    Args:
        executable: ``…/ray/core/src/ray/raylet/raylet`` or ``…/ray/core/src/ray/gcs/gcs_server``.
    """
    parents = Path(executable).parents
    if len(parents) < 5 or parents[4].name != "ray":
        return None
    for name in ("_version.py", "__init__.py"):
        try:
            with (parents[4] / name).open(encoding="utf-8", errors="replace") as file:
                found = _VERSION_LINE.search(file.read(16 * 1024))
        except OSError:
            continue
        if found:
            return safe_text(found[1], limit=60)
    return None


def list_local_processes() -> LocalProcesses:
    """Lists Ray's processes on this machine; blocks for some 10 ms, so call it in a thread.

    What may not be read (other users' on some systems, or gone meanwhile) is left out.
    """
    import psutil  # noqa: PLC0415 - 40 ms that other methods need not wait for

    found: list[RayProcess] = []
    for process in psutil.process_iter():
        try:
            name = process.name()
            if not name.startswith(("gcs_server", "raylet", "python", "Python")):
                continue
            ray_process = read_ray_process(name.removesuffix(".exe"), process.cmdline())
            # A zombie keeps its name and has no arguments, so it falls out above.
            if ray_process is None:
                continue
            owner = process.username()
        except (psutil.Error, OSError):
            continue
        found.append(
            replace(
                ray_process,
                pid=process.pid,
                owner=owner,
                network=_namespace(process.pid, "net"),
                same_files=_has_same_files(process.pid, ray_process.session_dir),
            )
        )
    me: str | None
    try:
        me = psutil.Process().username()
    except (psutil.Error, OSError):
        me = None
    return LocalProcesses(tuple(found), _namespace("self", "net"), me, own_hosts())


def own_hosts() -> frozenset[str]:
    """The addresses of this machine's network interfaces, and its name."""
    import socket  # noqa: PLC0415

    import psutil  # noqa: PLC0415

    hosts = {socket.gethostname()}
    for addresses in psutil.net_if_addrs().values():
        hosts |= {
            address.address.partition("%")[0]
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        }
    return frozenset(hosts)


def _namespace(pid: int | Literal["self"], kind: str) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino
    except OSError:
        return None


def _has_same_files(pid: int, folder: str | None) -> bool:
    """Whether a path means the same folder to a process as it does here; containers have file
    systems of their own. What may not be known counts as the same."""
    if folder is None or _namespace(pid, "mnt") in (None, _namespace("self", "mnt")):
        return True
    try:
        theirs = Path(f"/proc/{pid}/root{folder}").stat()
    except OSError:
        return False
    try:
        ours = Path(folder).stat()
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def listening_ports(pid: int) -> frozenset[int] | None:
    """The TCP ports that a process listens on; None where that may not be known."""
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        # Renamed in psutil 6; the old name warns from then on.
        ask = getattr(process, "net_connections", None) or process.connections
        return frozenset(
            connection.laddr.port
            for connection in ask(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        )
    except (psutil.Error, OSError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSession:
    """All processes on this machine of one cluster, taken together.

    Attributes:
        gcs: Where its GCS can be asked from here, best guess first; empty where it cannot.
        dashboards: Where its dashboard may be asked from here, best guess first.
        client_ports: ``(host, port)`` of its Ray client servers.
        has_gcs: Whether its ``gcs_server`` runs on this machine.
        dashboard_pids: Processes of ``dashboard.py``.
        elsewhere: Whether its processes live in another network namespace, so that their loopback
            addresses lead nowhere from here.
        maybe_elsewhere: Whether that may not be known (other users' processes).
        same_files: Whether its paths mean the same files here.
        stated_port: Its GCS's port by its own words, wherever that can be reached.
    """

    session_name: str
    cluster_id: str | None = None
    gcs: tuple[tuple[str, int], ...] = ()
    dashboards: tuple[tuple[str, int], ...] = ()
    client_ports: tuple[tuple[str, int], ...] = ()
    has_gcs: bool = False
    raylet_count: int = 0
    dashboard_pids: tuple[int, ...] = ()
    elsewhere: bool = False
    maybe_elsewhere: bool = False
    same_files: bool = True
    stated_port: int | None = None
    temp_dir: str | None = None
    session_dir: str | None = None
    python: str | None = None
    executable: str | None = None
    owner: str | None = None
    owned_by_me: bool | None = None
    notes: tuple[str, ...] = ()


def group_sessions(local: LocalProcesses) -> tuple[LocalSession, ...]:
    """Puts processes together by session name, which Ray makes from time and process ID."""
    by_session: dict[str, list[RayProcess]] = {}
    for process in local.processes:
        if process.session_name is not None:
            by_session.setdefault(process.session_name, []).append(process)
    clients = [process for process in local.processes if process.role == "client_server"]
    sessions = []
    for name, processes in by_session.items():
        # A dashboard or an agent alone is what is left of a cluster, not a cluster.
        if any(process.role in ("gcs", "raylet") for process in processes):
            sessions.append(_session(name, processes, clients, local))
    return tuple(sessions)


def _session(
    name: str,
    processes: Sequence[RayProcess],
    clients: Iterable[RayProcess],
    local: LocalProcesses,
) -> LocalSession:
    order: dict[Role, int] = {"gcs": 0, "raylet": 1, "dashboard": 2, "client_server": 3}
    processes = sorted(processes, key=lambda process: (order[process.role], not process.is_head))
    leader = processes[0]
    gcs: list[tuple[str, int]] = []
    dashboards: list[tuple[str, int]] = []
    notes: list[str] = []
    stated_gcs = {(process.gcs, process.network) for process in processes if process.gcs}
    for process in processes:
        if process.gcs is not None:
            gcs += _reachable(process.gcs, process, local)
        # Raylets name the port that the dashboard really got; its own arguments only the first
        # that it tried. A worker's loopback is not the head's.
        place = process.dashboard or (process.listens if process.role == "dashboard" else None)
        if place is None:
            continue
        head_is_here = (
            process.role == "dashboard"
            or any(other.role == "gcs" and other.network == process.network for other in processes)
            or (process.gcs is not None and process.gcs[0] in (local.own_hosts | {process.node_ip}))
        )
        if is_loopback(place[0]) and not head_is_here:
            notes.append(
                f"Its dashboard listens on the head's own loopback address only ({place[0]})."
            )
            continue
        dashboards += _reachable(place, process, local)
    elsewhere = _is_elsewhere(leader, local)
    if elsewhere:
        notes.append(
            "Runs in another network namespace: its loopback addresses cannot be reached from here."
        )
    owner = leader.owner
    return LocalSession(
        session_name=name,
        cluster_id=_first(process.cluster_id for process in processes),
        gcs=tuple(dict.fromkeys(gcs)),
        dashboards=tuple(dict.fromkeys(dashboards)),
        client_ports=tuple(
            place
            for client in clients
            if client.listens and (client.gcs, client.network) in stated_gcs
            for place in _reachable(client.listens, client, local)
        ),
        has_gcs=any(process.role == "gcs" for process in processes),
        raylet_count=sum(process.role == "raylet" for process in processes),
        dashboard_pids=tuple(
            process.pid for process in processes if process.role == "dashboard" and process.pid
        ),
        elsewhere=elsewhere,
        maybe_elsewhere=leader.network is None and local.own_network is not None,
        same_files=leader.same_files,
        stated_port=leader.gcs[1] if leader.gcs else None,
        temp_dir=_first(process.temp_dir for process in processes),
        session_dir=_first(process.session_dir for process in processes),
        python=_first(process.python for process in processes),
        executable=leader.executable or None,
        owner=None if owner is None else safe_text(owner, limit=100),
        owned_by_me=None if owner is None or local.me is None else owner == local.me,
        notes=tuple(dict.fromkeys(notes)),
    )


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _is_elsewhere(process: RayProcess, local: LocalProcesses) -> bool:
    return None not in (process.network, local.own_network) and process.network != local.own_network


def _reachable(
    place: tuple[str, int], process: RayProcess, local: LocalProcesses
) -> list[tuple[str, int]]:
    """Where a place that a process names can be reached from here."""
    host, port = place
    elsewhere = _is_elsewhere(process, local)
    if is_any_address(host):
        if not elsewhere:
            return [("::1" if ":" in host else "127.0.0.1", port)]
        host = process.node_ip or host
    if (elsewhere and is_loopback(host)) or is_any_address(host):
        usable = elsewhere and process.node_ip and not is_loopback(process.node_ip)
        return [(process.node_ip, port)] if usable and process.node_ip else []
    return [(host, port)]
