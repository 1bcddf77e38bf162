"""Discovery on real clusters: one with a token, one of an old version, one without a dashboard."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from conftest import StartCluster
from ray_lab import MIDDLE_RAY, OLD_RAY

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.discovery import surroundings
from castray_tui.core.discovery.identify import identify
from castray_tui.core.discovery.ray_processes import list_local_processes
from castray_tui.core.discovery.run import DiscoveryRequest, discover
from castray_tui.core.errors import AuthError, UnreachableError
from castray_tui.core.models import DiscoveredCluster, DiscoveryReport
from castray_tui.core.own_cluster import OwnCluster, _free_ports

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

TOKEN = "castray-test-token-0123456789abcdef"


@dataclass
class Three:
    """The clusters of this module; others may run on the same machine."""

    locked: OwnCluster
    old: OwnCluster
    bare: OwnCluster

    @property
    def temp_dirs(self) -> set[str]:
        return {cluster.temp_dir for cluster in (self.locked, self.old, self.bare)}

    def own(self, report: DiscoveryReport) -> dict[str | None, DiscoveredCluster]:
        """What was found of them, by temp dir; fails where one is there twice."""
        ours = [found for found in report.clusters if found.temp_dir in self.temp_dirs]
        assert len({found.temp_dir for found in ours}) == len(ours)
        return {found.temp_dir: found for found in ours}


_running: list[Three] = []


@pytest_asyncio.fixture(loop_scope="module")
async def three(module_clusters: StartCluster) -> Three:
    if not _running:
        locked, old = await asyncio.gather(
            module_clusters(environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}),
            module_clusters(version=OLD_RAY, node_count=2),
        )
        # A head without a dashboard goes on naming the port it would have had, which is Ray's
        # default for all; here the one with a token has it.
        ports = replace(_free_ports(), dashboard=locked.ports.dashboard)
        bare = await module_clusters(version=MIDDLE_RAY, include_dashboard=False, ports=ports)
        _running.append(Three(locked, old, bare))
    return _running[0]


def request(
    dashboard: OwnCluster, record: Path, *, known: tuple[KnownClusterSettings, ...] = ()
) -> DiscoveryRequest:
    """All methods, one cluster's dashboard port, a temp dir record of the test's own."""
    port = dashboard.ports.dashboard
    return DiscoveryRequest(ports=(port, port), environ={"RAY_TMPDIR": str(record)}, known=known)


def write_record(folder: Path, address: str) -> Path:
    (folder / "ray").mkdir(exist_ok=True)
    (folder / "ray" / "ray_current_cluster").write_text(address)
    return folder


async def test_each_cluster_is_found_once_with_all_its_sources(
    three: Three, tmp_path: Path
) -> None:
    record = write_record(tmp_path, three.old.gcs_address)
    found = three.own(await discover(request(three.old, record)))
    assert set(found) == three.temp_dirs
    old, bare = found[three.old.temp_dir], found[three.bare.temp_dir]
    assert old.sources == ("ray_status", "process_scan", "dashboard_scan", "temp_dir")
    assert bare.sources == ("process_scan", "temp_dir")
    assert (old.ray_version, old.node_count) == (OLD_RAY, 2)
    assert (bare.ray_version, bare.node_count) == (MIDDLE_RAY, 1)
    assert (old.dashboard_url, bare.dashboard_url) == (
        f"http://{three.old.dashboard_address}",
        None,
    )
    assert bare.name == f"localhost-{three.bare.ports.gcs}"
    assert old.resources is not None
    assert old.resources["CPU"] == 2.0
    for cluster in found.values():
        assert cluster.key == cluster.cluster_id
        assert cluster.owned_by_me
        assert cluster.python


async def test_a_cluster_behind_a_token_is_known_without_it(three: Three, tmp_path: Path) -> None:
    report = await discover(request(three.locked, tmp_path))
    locked = three.own(report)[three.locked.temp_dir]
    assert locked.needs_token is True
    assert locked.sources == ("process_scan", "dashboard_scan", "temp_dir")
    assert locked.key == locked.cluster_id
    assert locked.ray_version is not None
    assert locked.dashboard_url == f"http://{three.locked.dashboard_address}"
    assert not [one for one in report.foreign if str(three.locked.ports.dashboard) in one.address]


async def test_a_name_of_the_configuration_is_used(three: Three, tmp_path: Path) -> None:
    known = (
        KnownClusterSettings("ml", f"http://localhost:{three.old.ports.dashboard}"),
        KnownClusterSettings("bare", f"ray://127.0.0.1:{three.bare.ports.client_server}"),
    )
    found = three.own(await discover(request(three.old, tmp_path, known=known)))
    assert found[three.old.temp_dir].name == "ml"
    assert "config" in found[three.old.temp_dir].sources
    assert found[three.bare.temp_dir].name == "bare"


async def test_ray_address_is_what_ray_itself_would_ask(three: Three) -> None:
    for address in (three.bare.gcs_address, f"ray://127.0.0.1:{three.bare.ports.client_server}"):
        report = await discover(DiscoveryRequest(methods=("ray_status",), ray_address=address))
        (found,) = report.clusters
        assert found.temp_dir == three.bare.temp_dir
        assert found.sources == ("ray_status", "env")
    report = await discover(DiscoveryRequest(methods=("ray_status",), ray_address="127.0.0.1:1"))
    assert report.clusters == ()
    assert "RAY_ADDRESS" in (report.methods[0].error or "")


async def test_a_stale_record_is_passed_over(three: Three, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        unused = server.getsockname()[1]
    record = write_record(tmp_path, f"127.0.0.1:{unused}")
    report = await discover(
        DiscoveryRequest(methods=("ray_status",), environ={"RAY_TMPDIR": str(record)})
    )
    assert report.methods[0].error is None
    assert len(report.clusters) == 1
    assert report.clusters[0].gcs_address != f"127.0.0.1:{unused}"


async def test_dead_sessions_beside_a_living_one_are_no_clusters(three: Three) -> None:
    # Left behind by heads that had the same GCS port before.
    for name in ("session_2020-01-01_00-00-00_000000_1", "session_2999-01-01_00-00-00_000000_1"):
        folder = Path(three.bare.temp_dir) / name
        folder.mkdir()
        (folder / "gcs_server_port_00ff").write_text(str(three.bare.ports.gcs))
    report = await discover(
        DiscoveryRequest(methods=("temp_dir",), environ={"RAY_TMPDIR": three.bare.temp_dir})
    )
    found = three.own(report)[three.bare.temp_dir]
    assert found.session_name not in (None, "session_2020-01-01_00-00-00_000000_1")
    assert not [one for one in report.clusters if "00-00-00_000000_1" in (one.session_name or "")]


async def test_a_session_folder_is_enough_where_processes_cannot_be_seen(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = await asyncio.to_thread(list_local_processes)
    blind = replace(local, processes=())
    monkeypatch.setattr(surroundings, "list_local_processes", lambda: blind)
    report = await discover(
        DiscoveryRequest(methods=("temp_dir",), environ={"RAY_TMPDIR": three.old.temp_dir})
    )
    found = three.own(report)[three.old.temp_dir]
    assert (found.ray_version, found.on_this_host) == (OLD_RAY, False)


async def test_a_host_with_only_a_worker_finds_its_cluster(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = await asyncio.to_thread(list_local_processes)
    workers = tuple(
        process
        for process in local.processes
        if process.role == "raylet"
        and not process.is_head
        and process.temp_dir == three.old.temp_dir
    )
    assert len(workers) == 1
    only_workers = replace(local, processes=workers)
    monkeypatch.setattr(surroundings, "list_local_processes", lambda: only_workers)
    report = await discover(DiscoveryRequest(methods=("process_scan",)))
    (found,) = report.clusters
    assert (found.gcs_address, found.ray_version) == (three.old.gcs_address, OLD_RAY)
    assert found.node_count == 2


async def test_every_form_of_address_leads_to_the_cluster(three: Three) -> None:
    found = {
        form: await identify(form, timeout_seconds=5)
        for form in (
            three.old.dashboard_address,
            f"localhost:{three.old.ports.dashboard}",
            f"http://{three.old.dashboard_address}/#/nodes",
            three.old.gcs_address,
            f"127.0.0.1:{three.old.ports.client_server}",
            f"ray://127.0.0.1:{three.old.ports.client_server}",
        )
    }
    assert len({cluster.key for cluster in found.values()}) == 1
    for cluster in found.values():
        assert cluster.dashboard_url is not None
        assert cluster.gcs_address is not None
        assert cluster.node_count == 2
        assert cluster.temp_dir == three.old.temp_dir
    bare = await identify(three.bare.gcs_address, timeout_seconds=5)
    assert (bare.dashboard_url, bare.temp_dir) == (None, three.bare.temp_dir)


async def test_a_token_opens_what_asks_for_one(three: Three) -> None:
    for address in (three.locked.dashboard_address, three.locked.gcs_address):
        with pytest.raises(AuthError, match="wants a token"):
            await identify(address, timeout_seconds=5)
        with pytest.raises(AuthError, match="refused"):
            await identify(address, timeout_seconds=5, token="wrong-" + TOKEN)
        cluster = await identify(address, timeout_seconds=5, token=TOKEN)
        assert cluster.node_count == 1
        assert cluster.dashboard_url == f"http://{three.locked.dashboard_address}"


async def test_a_hung_dashboard_costs_a_second_and_hides_nothing(
    three: Three, tmp_path: Path
) -> None:
    dashboards = [
        pid
        for pid in await three.old.process_ids()
        if any("dashboard/dashboard.py" in part for part in psutil.Process(pid).cmdline())
    ]
    assert dashboards
    for pid in dashboards:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        report = await discover(request(three.old, tmp_path))
        seconds = time.monotonic() - started
    finally:
        for pid in dashboards:
            os.kill(pid, signal.SIGCONT)
    found = three.own(report)
    assert set(found) == three.temp_dirs
    hung = found[three.old.temp_dir]
    assert hung.dashboard_url is None
    assert hung.node_count == 2
    assert hung.name == f"localhost-{three.old.ports.dashboard}"
    assert any("does not answer" in note for note in hung.notes)
    assert seconds < 2.5


async def test_a_head_restarted_on_the_same_ports_is_another_cluster(tmp_path: Path) -> None:
    first = await OwnCluster.start()
    async with first:
        asked = request(first, write_record(tmp_path, first.gcs_address))
        before = next(
            found for found in (await discover(asked)).clusters if found.temp_dir == first.temp_dir
        )
        # All at once, so that nothing gets to say goodbye: files and records stay behind.
        for pid in await first.process_ids():
            os.kill(pid, signal.SIGKILL)
        gone = await discover(asked)
        assert before.key not in {found.key for found in gone.clusters}
        with pytest.raises(UnreachableError):
            await identify(first.dashboard_address, timeout_seconds=3)
        async with await OwnCluster.start(ports=first.ports) as second:
            report = await discover(asked)
            assert before.key not in {found.key for found in report.clusters}
            (after,) = [one for one in report.clusters if one.gcs_address == second.gcs_address]
            assert after.key != before.key
            assert after.name == before.name
            assert after.sources == ("ray_status", "process_scan", "dashboard_scan", "temp_dir")
