"""Ray's records of nodes, recorded and broken, in castray's terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from castray_tui.core.models import NodeHardware
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.node_names import node_names
from castray_tui.core.ray_api.node_records import (
    NodeRow,
    read_logical,
    read_record,
    read_row,
    read_usage,
)

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = sorted(folder.parent.name for folder in RECORDED.glob("*/nodes_summary.json"))
ENDPOINT_OF_PATH = {
    "/api/version": "version",
    "/cluster_id": "cluster_id",
    "/nodes": "nodes_summary",
    "/api/v0/nodes": "state_nodes",
    "/api/cluster_status": "cluster_status",
    "/api/jobs/": "jobs",
    "/api/v0/logs": "log_files",
}


def recorded_client(version: str) -> DashboardClient:
    """The real client, with a recorded dashboard behind it."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        name = "node_detail" if path.startswith("/nodes/") else ENDPOINT_OF_PATH[path]
        told = json.loads((RECORDED / version / f"{name}.json").read_text())
        if isinstance(told["body"], str):
            return httpx.Response(told["status"], text=told["body"])
        return httpx.Response(told["status"], json=told["body"])

    return DashboardClient("http://ray.test:8265", transport=httpx.MockTransport(answer))


def test_the_oldest_and_the_newest_are_recorded() -> None:
    assert {"2.9.3", "2.60.0"} <= set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
async def test_recorded_answers_are_read_whole(version: str) -> None:
    client = recorded_client(version)
    assert (await client.version()).ray_version == version
    raw_rows = await client.state_nodes()
    rows = [row for raw in raw_rows if (row := read_row(raw))]
    assert len(rows) == len(raw_rows) >= 2
    [head] = [row for row in rows if row.is_head]
    assert head.alive
    assert head.address == "10.0.0.1"
    assert head.resources_total["CPU"] == 1.0
    assert "object_store_memory" in head.resources_total
    assert "node:__internal_head__" in head.resources_total
    assert head.started_at is not None
    assert 1.7e9 < head.started_at < 2.0e9

    summary = await client.nodes_summary()
    records = {record.node_id: record for raw in summary.records if (record := read_record(raw))}
    assert set(records) == {row.node_id for row in rows}
    record = records[head.node_id]
    assert record.hostname == "host-1"
    assert record.python == "/opt/ray/bin/python"
    assert record.session_name is not None
    assert record.session_name.startswith("session_")
    assert record.cluster_id
    hardware = record.hardware
    assert hardware.measured_at
    assert hardware.memory_total_bytes
    assert hardware.memory_total_bytes > 2**30
    assert hardware.memory_percent is not None
    assert 0 < hardware.memory_percent < 100
    assert hardware.main_disk is not None
    assert hardware.main_disk.mount == "/"
    assert hardware.cpu_percent is not None
    assert hardware.cpu_logical_count == 2
    assert hardware.object_store_total_bytes
    assert hardware.gpus == ()
    logical = read_logical(summary.logical_resources[head.node_id])
    assert logical == {"CPU": 0.0, "memory": 0.0, "object_store_memory": 0.0}

    detail = read_record(await client.node_detail(head.node_id))
    assert detail is not None
    assert detail.node_id in records
    assert any(file.name.startswith("raylet") for file in await client.log_files(head.node_id))


def test_a_death_is_recorded_with_its_reason() -> None:
    found = 0
    for version in VERSIONS:
        told = json.loads((RECORDED / version / "state_nodes.json").read_text())
        for raw in told["body"]["data"]["result"]["result"]:
            row = read_row(raw)
            assert row is not None
            if row.alive:
                continue
            found += 1
            assert row.ended_at is not None
            # Older Rays tell no reason at all.
            if tuple(map(int, version.split("."))) >= (2, 38, 0):
                assert "nexpected termination" in (row.reason or "")
    assert found, "no recorded cluster has a dead node"


@pytest.mark.parametrize("version", ["2.9.3", "2.60.0"])
@pytest.mark.parametrize(
    "damage",
    [None, "", "x\x1b[2J", -1, 1e308, 10**400, float("nan"), True, [], {}, [None], {"a": None}],
    ids=repr,
)
def test_any_field_may_be_anything(version: str, damage: Any) -> None:
    """Each field of a recorded record in turn, however deep, is replaced by something else."""
    told = json.loads((RECORDED / version / "nodes_summary.json").read_text())
    raw = told["body"]["data"]["summary"][0]
    raw["gpus"] = [{"index": 0, "name": "A100", "utilizationGpu": 3, "memoryTotal": 40_000}]
    for broken in damaged(raw, damage):
        record = read_record(broken)
        if record is not None:
            check_hardware(record.hardware)
            assert record.node_id.isprintable()
    rows = json.loads((RECORDED / version / "state_nodes.json").read_text())
    for broken in damaged(rows["body"]["data"]["result"]["result"][0], damage):
        row = read_row(broken)
        if row is not None:
            assert all(0 <= amount < 1e19 for amount in row.resources_total.values())
            assert node_names([row], {})


def damaged(value: Any, damage: Any) -> list[Any]:
    """The value with one of its parts replaced, for every part."""
    results = [damage] if isinstance(damage, dict) else []
    if isinstance(value, dict):
        for key, part in value.items():
            results.append({**value, key: damage})
            results.append({other: value[other] for other in value if other != key})
            if isinstance(part, dict | list):
                results.extend({**value, key: broken} for broken in damaged(part, damage))
    elif isinstance(value, list):
        for index, part in enumerate(value[:4]):
            results.append([*value[:index], damage, *value[index + 1 :]])
            if isinstance(part, dict | list):
                results.extend(
                    [*value[:index], broken, *value[index + 1 :]]
                    for broken in damaged(part, damage)
                )
    return [result for result in results if isinstance(result, type(value))]


def check_hardware(hardware: NodeHardware) -> None:
    for name in NodeHardware.__slots__:
        value = getattr(hardware, name)
        assert value is None or isinstance(value, tuple) or 0 <= value < 1e20, name
    assert hardware.memory_percent is None or hardware.memory_percent >= 0


def test_gpus_in_the_words_of_old_and_new_rays() -> None:
    def gpu(raw: dict[str, object]) -> Any:
        record = read_record({"raylet": {"nodeId": "ab"}, "gpus": [raw]})
        assert record is not None
        return record.hardware.gpus[0]

    new = gpu(
        {
            "index": 1,
            "name": "NVIDIA A100",
            "utilizationGpu": None,
            "memoryUsed": 1024,
            "memoryTotal": 40960,
            "processesPids": [{"pid": 77, "gpuMemoryUsage": 5}, {"pid": "x"}],
            "powerMw": 61_500,
            "temperatureC": 40,
        }
    )
    assert new.utilization_percent is None
    assert (new.memory_used_bytes, new.memory_total_bytes) == (1 << 30, 40 << 30)
    assert (new.power_watts, new.temperature_celsius) == (61.5, 40.0)
    assert new.process_pids == (77,)
    old = gpu({"index": 0, "utilization_gpu": 7, "memory_used": 1, "memory_total": 2})
    assert (old.utilization_percent, old.memory_total_bytes) == (7.0, 2 << 20)


def test_logical_resources_as_text() -> None:
    told = (
        "1.5/4.0 CPU (1.0 used of 2.0 reserved in placement groups)\n"
        "1.50GiB/22.97GiB memory\n0B/76.29MiB object_store_memory\n"
        "\x1b[31mnonsense\n1/0\n-1/2 X\n1e999/2 Y"
    )
    assert read_logical(told) == {"CPU": 1.5, "memory": 1.5 * 2**30, "object_store_memory": 0.0}
    assert read_logical("") is None
    assert read_logical(None) is None
    assert read_usage({"CPU": [1.0, 4.0], "odd": None, "short": []}) == {"CPU": 1.0}


def row(node_id: str, address: str | None = None, **more: Any) -> NodeRow:
    return NodeRow(node_id=node_id, alive=more.pop("alive", True), address=address, **more)


def test_names_are_short_and_unique() -> None:
    names = node_names(
        [
            row("aaaa1111", "10.0.0.1", is_head=True),
            row("bbbb2222", "10.0.0.1"),
            row("cccc3333", "10.0.0.3"),
            row("dddd44440", "10.0.0.4"),
            row("dddd44441", "10.0.0.4"),
            row("eeee5555", "fe80::1"),
            row("ffff6666", "../../etc"),
            row("99997777", "head"),
        ],
        {"eeee5555": "worker-5", "bbbb2222": "same", "cccc3333": "same"},
    )
    assert names == {
        "aaaa1111": "head",
        "bbbb2222": "bbbb22",
        "cccc3333": "10.0.0.3",
        "dddd44440": "dddd44440",
        "dddd44441": "dddd44441",
        "eeee5555": "worker-5",
        "ffff6666": "ffff66",
        "99997777": "999977",
    }


def test_the_dead_take_no_name_from_the_living() -> None:
    rows = [
        row("aaaa1111", "10.0.0.2", alive=False),
        row("bbbb2222", "10.0.0.2"),
        row("cccc3333", "10.0.0.3", alive=False),
    ]
    assert node_names(rows, {}) == {
        "aaaa1111": "aaaa11",
        "bbbb2222": "10.0.0.2",
        "cccc3333": "10.0.0.3",
    }
