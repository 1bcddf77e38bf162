"""Turns what Ray 2.9 to 2.60 tell of nodes into castray's terms. Pure, and never fails: what is
missing, of a wrong type, negative, huge or not a number becomes None.

Ray tells of a node in two places. The listing (``/api/v0/nodes``, or the GCS) is small and what Ray
itself holds for true; the summary (``/nodes?view=summary``) adds the machine's figures, and mangles
the names of resources (``objectStoreMemory``, ``node:InternalHead``), so names come from the
listing only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from castray_tui.core.models import Disk, Gpu, NodeHardware
from castray_tui.core.ray_api.raw_values import (
    at,
    mapping,
    number,
    numbers,
    seconds_of_milliseconds,
    sequence,
    text,
    texts,
    whole,
)
from castray_tui.core.text_safety import safe_text

_MEGABYTE = 1024 * 1024
_MOST_DISKS = 64
_MOST_GPUS = 256
_MOST_PROCESSES = 256
_REASON_CHARACTERS = 1_000
_TICKET_CHARACTERS = 128

_LOGICAL = re.compile(
    r"^\s*(?P<used>[0-9][0-9.eE+-]*)(?P<used_unit>[KMGTP]?i?B)?\s*/"
    r"\s*(?P<total>[0-9][0-9.eE+-]*)(?P<total_unit>[KMGTP]?i?B)?\s+(?P<name>\S{1,200})"
)
_UNITS = {"B": 1.0} | {
    f"{prefix}{infix}B": 1024.0 ** (power + 1)
    for power, prefix in enumerate("KMGTP")
    for infix in ("", "i")
}


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of Ray's listing.

    Attributes:
        alive: What Ray says; draining nodes count as alive here.
        reason: Ray's words for its death.
        agent_port: Where its dashboard agent takes jobs; told by the GCS only.
    """

    node_id: str
    alive: bool
    address: str | None = None
    hostname: str | None = None
    is_head: bool = False
    reason: str | None = None
    resources_total: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    agent_port: int | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of the summary: its machine, and what its raylet was started with.

    Attributes:
        python: The interpreter its workers run under.
        gcs_address, session_name, cluster_id: As on the raylet's command line.
    """

    node_id: str
    hardware: NodeHardware
    hostname: str | None = None
    reason: str | None = None
    agent_port: int | None = None
    worker_count: int | None = None
    python: str | None = None
    gcs_address: str | None = None
    session_name: str | None = None
    cluster_id: str | None = None


def read_row(raw: Mapping[str, object]) -> NodeRow | None:
    """A row of ``/api/v0/nodes`` or of the GCS; None where it does not name a node."""
    node_id = text(raw.get("node_id"), limit=_TICKET_CHARACTERS)
    state = raw.get("state")
    if node_id is None or not isinstance(state, str):
        return None
    resources = numbers(raw.get("resources_total"))
    head = raw.get("is_head_node")
    return NodeRow(
        node_id=node_id,
        alive=state.upper() == "ALIVE",
        address=text(raw.get("node_ip")),
        hostname=text(raw.get("hostname")),
        is_head=head if isinstance(head, bool) else "node:__internal_head__" in resources,
        reason=text(raw.get("state_message"), limit=_REASON_CHARACTERS),
        resources_total=resources,
        labels=texts(raw.get("labels")),
        started_at=seconds_of_milliseconds(raw.get("start_time_ms")),
        ended_at=seconds_of_milliseconds(raw.get("end_time_ms")),
        agent_port=_port(raw.get("agent_port")),
    )


def read_record(raw: Mapping[str, object]) -> NodeRecord | None:
    """A record of the summary; None where it does not name a node."""
    raylet = mapping(raw.get("raylet"))
    node_id = text(raylet.get("nodeId"), limit=_TICKET_CHARACTERS)
    if node_id is None:
        return None
    arguments = [part for part in sequence(raw.get("cmdline")) if isinstance(part, str)]
    workers = raw.get("workers")
    return NodeRecord(
        node_id=node_id,
        hardware=_hardware(raw, raylet),
        hostname=text(raw.get("hostname")) or text(raylet.get("nodeManagerHostname")),
        reason=_summary_reason(raylet),
        agent_port=_port(raylet.get("dashboardAgentListenPort"))
        or _agent_argument_port(mapping(raw.get("agent"))),
        worker_count=len(workers) if isinstance(workers, list) and workers else None,
        python=_worker_python(arguments),
        gcs_address=text(_argument(arguments, "gcs-address")),
        session_name=text(_argument(arguments, "session-name")),
        cluster_id=text(_argument(arguments, "cluster-id")),
    )


def read_usage(raw: object) -> dict[str, float] | None:
    """One node's use from the GCS, ``{resource: [used, total]}``, as ``{resource: used}``."""
    if not isinstance(raw, Mapping):
        return None
    return numbers({name: at(sequence(pair), 0) for name, pair in raw.items()}) or None


def read_logical(raw: object) -> dict[str, float] | None:
    """The summary's text for one node's use, one resource a line, as ``{resource: used}``.

    ``1.0/4.0 CPU``, ``0B/22.97GiB memory``, ``1.0/2.0 GPU (1.0 used of 1.0 reserved in placement
    groups)``; memory comes rounded to three digits. None where there is no such text.
    """
    if not isinstance(raw, str):
        return None
    used: dict[str, float] = {}
    for line in raw[:20_000].split("\n"):
        match = _LOGICAL.match(line)
        if match is None:
            continue
        amount = number(match["used"])
        if amount is not None:
            unit = _UNITS.get(match["used_unit"] or "", 1.0)
            used[safe_text(match["name"])] = amount * unit
    return used or None


def _hardware(raw: Mapping[str, object], raylet: Mapping[str, object]) -> NodeHardware:
    cpu_counts = sequence(raw.get("cpus"))
    memory = sequence(raw.get("mem"))
    disk_speed = sequence(raw.get("diskIoSpeed"))
    network_speed = sequence(raw.get("networkSpeed"))
    loads = sequence(at(sequence(raw.get("loadAvg")), 0))
    store_used = whole(raylet.get("objectStoreUsedMemory"))
    store_free = whole(raylet.get("objectStoreAvailableMemory"))
    known_store = store_used is not None and store_free is not None
    return NodeHardware(
        measured_at=number(raw.get("now"), lowest=1.0, highest=1e11),
        cpu_percent=number(raw.get("cpu"), highest=100_000.0),
        cpu_logical_count=whole(at(cpu_counts, 0), highest=1_000_000),
        cpu_physical_count=whole(at(cpu_counts, 1), highest=1_000_000),
        memory_total_bytes=whole(at(memory, 0)),
        memory_used_bytes=whole(at(memory, 3)),
        load_average_1m=number(at(loads, 0), highest=1e6),
        disks=_disks(raw.get("disk")),
        disk_read_bytes_per_second=number(at(disk_speed, 0)),
        disk_write_bytes_per_second=number(at(disk_speed, 1)),
        network_sent_bytes_per_second=number(at(network_speed, 0)),
        network_received_bytes_per_second=number(at(network_speed, 1)),
        object_store_used_bytes=store_used if known_store else None,
        object_store_total_bytes=(store_used or 0) + (store_free or 0) if known_store else None,
        gpus=_gpus(raw.get("gpus")),
        boot_time=number(raw.get("bootTime"), lowest=1.0, highest=1e11),
    )


def _disks(raw: object) -> tuple[Disk, ...]:
    return tuple(
        Disk(
            mount=safe_text(mount, limit=200),
            total_bytes=whole(mapping(disk).get("total")),
            used_bytes=whole(mapping(disk).get("used")),
            free_bytes=whole(mapping(disk).get("free")),
        )
        for mount, disk in list(mapping(raw).items())[:_MOST_DISKS]
        if isinstance(disk, Mapping)
    )


def _gpus(raw: object) -> tuple[Gpu, ...]:
    return tuple(_gpu(gpu) for gpu in sequence(raw)[:_MOST_GPUS] if isinstance(gpu, Mapping))


def _gpu(raw: Mapping[str, object]) -> Gpu:
    """Newer Rays send ``utilizationGpu``; 2.9 passes gpustat's own ``utilization_gpu``, which its
    dashboard may have turned into ``utilizationGpu`` or ``utilization.gpu``."""

    def value(*names: str) -> object:
        return next((raw[name] for name in names if raw.get(name) is not None), None)

    used = number(value("memoryUsed", "memory_used", "memory.used"), highest=1e12)
    total = number(value("memoryTotal", "memory_total", "memory.total"), highest=1e12)
    power = number(value("powerMw", "power_mw"), highest=1e9)
    if power is not None:
        power /= 1000.0
    else:
        power = number(value("powerDraw", "power_draw", "power.draw"), highest=1e6)
    processes = sequence(value("processesPids", "processes_pids", "processes"))
    return Gpu(
        index=whole(raw.get("index"), highest=100_000),
        name=text(raw.get("name")),
        utilization_percent=number(
            value("utilizationGpu", "utilization_gpu", "utilization.gpu"), highest=100.0
        ),
        memory_used_bytes=None if used is None else int(used * _MEGABYTE),
        memory_total_bytes=None if total is None else int(total * _MEGABYTE),
        temperature_celsius=number(
            value("temperatureC", "temperature_c", "temperatureGpu", "temperature.gpu"),
            lowest=-100.0,
            highest=1_000.0,
        ),
        power_watts=power,
        process_pids=tuple(
            pid
            for process in processes[:_MOST_PROCESSES]
            if (pid := whole(mapping(process).get("pid", process), lowest=1)) is not None
        ),
    )


def _summary_reason(raylet: Mapping[str, object]) -> str | None:
    message = text(raylet.get("stateMessage"), limit=_REASON_CHARACTERS)
    if message is not None:
        return message
    death = mapping(raylet.get("deathInfo"))
    words = text(death.get("reasonMessage"), limit=_REASON_CHARACTERS)
    return words or text(death.get("reason"))


def _argument(arguments: list[str], name: str) -> str | None:
    """The value of ``--name=value``, whichever of ``-`` and ``_`` that Ray writes in it."""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and value and option[2:].replace("_", "-") == name:
            return value
    return None


def _worker_python(arguments: list[str]) -> str | None:
    command = _argument(arguments, "python-worker-command")
    if command is None:
        return None
    try:
        words = shlex.split(command[:20_000])
    except ValueError:
        words = command.split()
    return text(words[0], limit=1_000) if words else None


def _agent_argument_port(agent: Mapping[str, object]) -> int | None:
    """Up to 2.49 the agent's command line names its port; 2.60 erases it, and tells elsewhere."""
    arguments = [part for part in sequence(agent.get("cmdline")) if isinstance(part, str)]
    return _port(_argument(arguments, "listen-port"))


def _port(value: object) -> int | None:
    return whole(value, lowest=1, highest=65535)
