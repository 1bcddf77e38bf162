"""Transfers to clusters whose dashboard is not there: by castray's own Ray, or a node's agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import StartCluster
from ray_lab import MIDDLE_RAY
from transfer_lab import LabFleet, sent, service, verdicts

from castray_tui.core.models import Node, TransferRequest
from castray_tui.core.own_cluster import OwnCluster
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.tokens import Token
from castray_tui.core.transfer.access import ClusterDoor

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

SECRET = "the token of a cluster of a test"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "src"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def gcs() -> AsyncIterator[GcsProcesses]:
    made = GcsProcesses()
    yield made
    await made.close()


async def lab_of(
    name: str, cluster: OwnCluster, gcs: GcsProcesses, token: Token | None = None
) -> LabFleet:
    lab = LabFleet()
    # A node's agent says which port it got some time after its raylet is up.
    for _ in range(300):
        snapshot = await gcs.poll(cluster.gcs_address, token=token, timeout_seconds=20)
        head = next(row for row in snapshot.rows if row["is_head_node"])
        if head["agent_port"]:
            break
        await asyncio.sleep(0.2)
    nodes = [
        Node(
            cluster_key=name,
            cluster=name,
            node_id=str(row["node_id"]),
            name="head" if row["is_head_node"] else str(row["node_id"])[:8],
            status="alive",
            address=str(row["node_ip"]),
            is_head=bool(row["is_head_node"]),
        )
        for row in snapshot.rows
    ]
    lab.set_nodes(name, nodes)
    lab.doors[name] = ClusterDoor(
        key=name,
        name=name,
        python=cluster.python,
        control_hosts=("127.0.0.1", str(head["node_ip"])),
        gcs_address=cluster.gcs_address,
        head_agent_url=f"http://{head['node_ip']}:{head['agent_port']}",
        ray_version=snapshot.ray_version,
        token=token,
    )
    return lab


async def test_castrays_own_ray_drives_a_token_cluster_of_its_version(
    module_clusters: StartCluster, gcs: GcsProcesses, source: Path, tmp_path: Path
) -> None:
    cluster = await module_clusters(
        node_count=2,
        include_dashboard=False,
        environment={
            "HOME": str(tmp_path),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": SECRET,
        },
    )
    lab = await lab_of("bare", cluster, gcs, Token(SECRET, origin="the test"))
    made, _ = service(lab, tmp_path / "state")
    there = await sent(made, str(source), f"bare/*:{tmp_path}/out/")
    back = await sent(made, f"bare/head:{tmp_path}/out/src", str(tmp_path / "back"))
    logs = [path.read_text() for path in (tmp_path / "state" / "coordinators").iterdir()]
    await made.close()
    assert (verdicts(there), verdicts(back)) == (["verified"] * 2, ["verified"]), there.error
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert logs
    assert not [log for log in logs if SECRET in log]
    assert list((tmp_path / "state" / "coordinators").iterdir()) == []


async def test_another_version_is_reached_by_a_nodes_agent_or_refused(
    module_clusters: StartCluster, gcs: GcsProcesses, source: Path, tmp_path: Path
) -> None:
    cluster = await module_clusters(
        version=MIDDLE_RAY, include_dashboard=False, environment={"HOME": str(tmp_path)}
    )
    lab = await lab_of("bare", cluster, gcs)
    made, _ = service(lab, tmp_path / "state")
    there = await sent(made, str(source), f"bare/head:{tmp_path}/out/")
    await made.close()
    assert verdicts(there) == ["verified"], there.targets[0].reason

    lab.doors["bare"] = replace(lab.doors["bare"], head_agent_url=None)
    second, _ = service(lab, tmp_path / "state")
    refused = await second.wait(
        (await second.start(TransferRequest((str(source),), (f"bare/head:{tmp_path}/x",)))).id
    )
    await second.close()
    assert verdicts(refused) == ["failed"]
    assert f"runs Ray {MIDDLE_RAY}" in str(refused.targets[0].reason)
    assert "with its dashboard" in str(refused.targets[0].reason)
