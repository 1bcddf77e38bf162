"""A transfer service over real clusters, without the engine around it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from castray_tui.core.config import Settings, TransferSettings
from castray_tui.core.errors import NotFoundError
from castray_tui.core.models import Cluster, Fleet, Node, Transfer, TransferRequest
from castray_tui.core.own_cluster import OwnCluster
from castray_tui.core.ray_api.jobs import JobClient
from castray_tui.core.transfer.access import ClusterDoor
from castray_tui.core.transfer.service import TransferService


class LabFleet:
    """The nodes of some clusters as the dashboards list them, and the way in to each."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.doors: dict[str, ClusterDoor] = {}
        self.keeper_pids: list[int] = []

    async def add(self, name: str, cluster: OwnCluster) -> None:
        self.keeper_pids.append(cluster.keeper_pid)
        jobs = JobClient(f"http://{cluster.dashboard_address}")
        self.doors[name] = ClusterDoor(
            key=name,
            name=name,
            jobs=jobs,
            python=cluster.python,
            gcs_address=cluster.gcs_address,
            control_hosts=("127.0.0.1", cluster.gcs_address.rpartition(":")[0]),
        )
        await self.refresh(name)

    async def refresh(self, name: str) -> None:
        jobs = self.doors[name].jobs
        assert jobs is not None
        told = await jobs.http.get_json("/api/v0/nodes?limit=1000")
        rows = told["data"]["result"]["result"]  # type: ignore[index,call-overload]
        self.set_nodes(
            name,
            [
                Node(
                    cluster_key=name,
                    cluster=name,
                    node_id=row["node_id"],
                    name="head" if row["is_head_node"] else row["node_id"][:8],
                    status="alive" if row["state"] == "ALIVE" else "dead",
                    address=row["node_ip"],
                    is_head=row["is_head_node"],
                )
                for row in rows
            ],
        )

    def set_nodes(self, name: str, nodes: Sequence[Node]) -> None:
        others = tuple(node for node in self.fleet.nodes if node.cluster != name)
        clusters = tuple(cluster for cluster in self.fleet.clusters if cluster.name != name)
        self.fleet = replace(
            self.fleet,
            nodes=(*others, *nodes),
            clusters=(
                *clusters,
                Cluster(key=name, name=name, address="", state="connected"),
            ),
        )

    def node(self, cluster: str, *, head: bool) -> Node:
        return next(n for n in self.fleet.nodes if n.cluster == cluster and n.is_head is head)

    def door(self, cluster_key: str) -> ClusterDoor:
        if cluster_key not in self.doors:
            raise NotFoundError(f"{cluster_key} is not connected")
        return self.doors[cluster_key]

    async def jobs(self, name: str) -> list[str]:
        """The coordinators' jobs that the cluster remembers."""
        client = self.doors[name].jobs
        assert client is not None
        return [
            f"{job.submission_id} {job.status}"
            for job in await client.list()
            if (job.submission_id or "").startswith("castray-")
        ]

    async def forgets(self, *names: str) -> list[str]:
        """Coordinators' jobs that are still there after the time that Ray takes to forget them."""
        deadline = time.monotonic() + 40
        while True:
            left = [job for name in names for job in await self.jobs(name)]
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        for door in self.doors.values():
            if door.jobs is not None:
                await door.jobs.aclose()


class Published(list[Transfer]):
    """Every state that a service published."""

    def __call__(self, transfer: Transfer) -> None:
        self.append(transfer)


def service(
    lab: LabFleet, state_dir: Path, *, idle_seconds: float = 60.0, **transfer: object
) -> tuple[TransferService, Published]:
    published = Published()
    settings = Settings(
        transfer=TransferSettings(agent_idle_seconds=idle_seconds, **transfer)  # type: ignore[arg-type]
    )
    made = TransferService(
        settings=settings,
        state_dir=state_dir,
        fleet=lambda: lab.fleet,
        access=lab,
        publish=published,
    )
    return made, published


async def sent(made: TransferService, source: str, *targets: str, **options: object) -> Transfer:
    """A transfer after its end."""
    request = TransferRequest((source,), targets, **options)  # type: ignore[arg-type]
    transfer = await made.start(request)
    return await made.wait(transfer.id)


def verdicts(transfer: Transfer) -> list[str | None]:
    return [target.verdict for target in transfer.targets]


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
