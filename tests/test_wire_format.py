"""The JSON shapes that scripts and programs rely on."""

from __future__ import annotations

import json
import math

import pytest

from castray_tui.core.models import (
    LOCAL,
    Cluster,
    DiscoveredCluster,
    DiscoveryReport,
    Event,
    Fleet,
    ForeignService,
    MethodOutcome,
    Node,
    NodeHardware,
    PlannedTarget,
    Transfer,
    TransferPlan,
    TransferTarget,
)
from castray_tui.core.wire_format import (
    discovery_json,
    error_json,
    event_json,
    iso_time,
    nodes_json,
    plan_json,
    totals_json,
    transfer_json,
)

NODE = Node(
    cluster_key="k",
    cluster="ml",
    node_id="ab12",
    name="head",
    status="alive",
    address="10.0.0.1",
    last_seen=1767323045.678,
    resources_total={"CPU": 4.0, "odd": math.inf},
    hardware=NodeHardware(cpu_percent=math.nan, memory_total_bytes=100, memory_used_bytes=25),
)
CLUSTER = Cluster(
    key="k",
    name="ml",
    address="10.0.0.1:8265",
    state="connected",
    sources=("process_scan", "temp_dir"),
    resources_total={"CPU": 4.0},
    resources_used={"CPU": 1.0},
)
HERE = Node(cluster_key=LOCAL, cluster=LOCAL, node_id=LOCAL, name=LOCAL, status="alive")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1767323045.678, "2026-01-02T03:04:05.678Z"),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (None, None),
        (1e30, None),
        (math.nan, None),
    ],
)
def test_times_are_iso_8601_in_utc(seconds: float | None, text: str | None) -> None:
    assert iso_time(seconds) == text


def test_a_discovered_cluster_has_the_documented_fields() -> None:
    report = DiscoveryReport(
        clusters=(DiscoveredCluster(key="k", name="ml", node_count=3, sources=("temp_dir",)),),
        methods=(MethodOutcome("temp_dir", 0.01, 1, None),),
        foreign=(ForeignService("127.0.0.1:8266", "a web server"),),
    )
    document = json.loads(json.dumps(discovery_json(report), allow_nan=False))
    (cluster,) = document["clusters"]
    assert {
        "name",
        "nodes",
        "dashboard_url",
        "gcs_address",
        "ray_version",
        "resources",
        "sources",
        "session_name",
        "cluster_id",
    } <= set(cluster)
    assert cluster["nodes"] == 3
    assert document["methods"][0]["method"] == "temp_dir"
    assert document["foreign"] == [{"address": "127.0.0.1:8266", "what": "a web server"}]


def test_nodes_tell_local_from_external() -> None:
    here, external = json.loads(json.dumps(nodes_json([HERE, NODE], [CLUSTER]), allow_nan=False))
    assert (here["type"], here["cluster_source"]) == ("local", None)
    assert external["type"] == "external"
    assert external["id"] == "ab12"
    assert external["cluster"] == "ml"
    assert external["cluster_source"] == "process_scan"
    assert external["last_seen"] == "2026-01-02T03:04:05.678Z"
    assert external["resources"] == {"CPU": 4.0, "odd": None}
    assert external["hardware"]["cpu_percent"] is None
    assert external["hardware"]["memory_percent"] == 25.0


def test_totals_leave_the_local_node_out() -> None:
    totals = totals_json(Fleet(clusters=(CLUSTER, CLUSTER), nodes=(HERE, NODE)))
    assert totals["nodes"] == totals["nodes_alive"] == 1
    assert totals["resources"] == {"CPU": 8.0}
    assert totals["resources_used"] == {"CPU": 2.0}


def test_a_transfer_has_the_documented_fields() -> None:
    transfer = Transfer(
        id="t1",
        kind="unicast",
        state="done",
        source="local:/a",
        targets=(TransferTarget(cluster="ml", node="head", path="/b", verdict="verified"),),
        bytes_total=3,
    )
    document = transfer_json(transfer)
    assert {
        "id",
        "kind",
        "state",
        "source",
        "bytes_total",
        "bytes_done",
        "started",
        "ended",
        "targets",
        "route",
    } <= set(document)
    (target,) = json.loads(json.dumps(document))["targets"]
    assert {
        "cluster",
        "node",
        "path",
        "verdict",
        "reason",
        "digest",
        "bytes",
        "seconds",
        "attempts",
    } <= set(target)


def test_what_is_done_is_told_as_a_part_of_the_total() -> None:
    targets = (
        TransferTarget(cluster="ml", node="a", path="/b", bytes=100, bytes_total=100),
        TransferTarget(cluster="ml", node="b", path="/b", bytes=50, bytes_total=100),
    )
    transfer = Transfer(
        id="t1",
        kind="multicast",
        state="running",
        source="local:/a",
        targets=targets,
        bytes_total=100,
        bytes_done=150,
    )
    document = transfer_json(transfer)
    assert (document["bytes_total"], document["bytes_done"]) == (100, 75)


def test_a_plan_says_that_it_is_one() -> None:
    plan = TransferPlan(
        source="local:/a",
        kind="unicast",
        bytes_total=None,
        digest=None,
        targets=(PlannedTarget("ml", "head", "/b", "refuse", reason="no space"),),
    )
    document = json.loads(json.dumps(plan_json(plan)))
    assert document["dry_run"] is True
    assert document["targets"][0]["action"] == "refuse"


def test_events_hold_only_what_json_holds() -> None:
    event = Event(1, "node_died", 0.0, "gone", data={"rate": math.inf, "ids": (1, 2), "x": {3}})
    assert json.loads(json.dumps(event_json(event), allow_nan=False))["data"] == {
        "rate": None,
        "ids": [1, 2],
        "x": [3],
    }


def test_errors_have_one_form() -> None:
    assert error_json("usage", "no") == {
        "success": False,
        "error": {"code": "usage", "message": "no"},
    }
