"""What the command lines of Ray's processes tell, by recordings of five versions of Ray."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from castray_tui.core.discovery.ray_processes import (
    LocalProcesses,
    LocalSession,
    RayProcess,
    group_sessions,
    installed_version,
    list_local_processes,
    listening_ports,
    read_ray_process,
)

RECORDED = Path(__file__).parent / "recorded" / "processes"
HERE, ELSEWHERE = 1, 2

# version: (cluster ID begins, session, GCS port, dashboard port, client server port, raylets)
EXPECTED = {
    "2.9.3": ("e14280", "session_2026-11-23_20-04-44_873887_25153", 25111, 30466, 28440, 2),
    "2.20.0": ("efc351", "session_2026-11-23_20-04-44_702829_25152", 23590, 21900, 25430, 1),
    "2.38.0": ("110bce", "session_2026-11-23_20-05-03_327240_25565", 28334, 25488, 28356, 1),
    "2.49.2": ("822320", "session_2026-11-23_20-05-03_209648_25564", 21499, 22871, 25954, 1),
    "2.60.0": ("f0e109", "session_2026-11-23_20-05-24_600478_26594", 29132, 22044, 31178, 1),
}


def recorded(name: str, *, network: int = HERE) -> list[RayProcess]:
    rows = json.loads((RECORDED / f"ray-{name}.json").read_text())
    found = [read_ray_process(row["name"], row["arguments"]) for row in rows]
    return [
        replace(process, network=network, owner="ann", pid=number)
        for number, process in enumerate(found, start=1)
        if process is not None
    ]


def grouped(
    processes: list[RayProcess], *, own_hosts: frozenset[str] = frozenset({"192.0.2.2"})
) -> tuple[LocalSession, ...]:
    return group_sessions(LocalProcesses(tuple(processes), HERE, "ann", own_hosts))


@pytest.mark.parametrize("version", EXPECTED)
def test_every_version_tells_all_about_its_cluster(version: str) -> None:
    cluster_id, name, gcs_port, dashboard_port, client_port, raylets = EXPECTED[version]
    (session,) = grouped(recorded(version))
    assert session.session_name == name
    assert session.cluster_id is not None
    assert session.cluster_id.startswith(cluster_id)
    assert len(session.cluster_id) == 56
    assert session.gcs == (("192.0.2.2", gcs_port),)
    assert session.dashboards == (("127.0.0.1", dashboard_port),)
    assert [port for _, port in session.client_ports] == [client_port]
    assert session.has_gcs
    assert session.raylet_count == raylets
    assert session.temp_dir == "/tmp/ray"
    assert session.session_dir == f"/tmp/ray/{name}"
    assert session.python == f"/opt/ray-{version}/bin/python"
    assert session.owned_by_me is True
    assert not session.elsewhere
    assert not session.notes


def test_a_head_without_a_dashboard_names_none_that_its_workers_could_use() -> None:
    raylets = [p for p in recorded("2.60.0-no-dashboard") if p.role == "raylet"]
    assert [process.dashboard for process in raylets] == [None]


def test_clusters_on_one_host_are_kept_apart() -> None:
    everything = [process for version in EXPECTED for process in recorded(version)]
    assert {session.session_name for session in grouped(everything)} == {
        name for _, name, *_ in EXPECTED.values()
    }


@pytest.mark.parametrize("version", EXPECTED)
def test_a_host_with_only_a_worker_knows_gcs_session_and_cluster_id(version: str) -> None:
    cluster_id, name, gcs_port, *_ = EXPECTED[version]
    raylet = next(p for p in recorded(version) if p.role == "raylet")
    worker = replace(raylet, is_head=False, node_ip="192.0.2.9")
    (session,) = grouped([worker], own_hosts=frozenset({"192.0.2.9"}))
    assert session.session_name == name
    assert session.cluster_id is not None
    assert session.cluster_id.startswith(cluster_id)
    assert session.gcs == (("192.0.2.2", gcs_port),)
    # The web UI of 127.0.0.1 is the head's loopback, not this host's.
    assert session.dashboards == ()
    assert "loopback" in session.notes[0]
    reachable = replace(worker, dashboard=("192.0.2.2", 8265))
    assert grouped([reachable])[0].dashboards == (("192.0.2.2", 8265),)


def test_loopback_of_another_network_namespace_is_never_taken_for_ours() -> None:
    inside = [
        replace(process, node_ip="127.0.0.1", gcs=("127.0.0.1", 6379))
        for process in recorded("2.60.0", network=ELSEWHERE)
        if process.role != "client_server"
    ]
    (session,) = grouped(inside)
    assert session.elsewhere
    assert session.gcs == session.dashboards == ()
    assert session.stated_port == 6379
    assert any("network namespace" in note for note in session.notes)


def test_a_bridged_namespace_is_reached_by_its_node_address() -> None:
    inside = [
        replace(process, node_ip="10.77.8.2", gcs=("10.77.8.2", 6379))
        for process in recorded("2.60.0", network=ELSEWHERE)
    ]
    inside = [
        replace(process, listens=("0.0.0.0", 8265)) if process.role == "dashboard" else process
        for process in inside
    ]
    (session,) = grouped(inside)
    assert session.gcs == (("10.77.8.2", 6379),)
    assert ("10.77.8.2", 8265) in session.dashboards
    assert all(host == "10.77.8.2" for host, _ in session.dashboards)


def test_a_dashboard_that_outlived_its_cluster_is_no_cluster() -> None:
    assert grouped([p for p in recorded("2.60.0") if p.role == "dashboard"]) == ()


def test_another_users_cluster_is_known_as_such() -> None:
    processes = [replace(process, owner="bob") for process in recorded("2.60.0")]
    (session,) = grouped(processes)
    assert (session.owner, session.owned_by_me) == ("bob", False)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("python", []),
        ("raylet", []),
        ("ray::DashboardAgent", ["ray::DashboardAgent"]),
        ("python", ["python", "train.py", "--session-name=session_x"]),
        ("gcs_server", ["/x/gcs_server", "--session-name=../../etc", "--gcs_server_port=1"]),
        ("raylet", ["/x/raylet", "--gcs-address=1.2.3.4:1"]),
        ("python", ["python", "/x/dashboard/dashboard.py", "--port=abc"]),
        ("grep", ["grep", "raylet"]),
    ],
)
def test_what_only_looks_like_ray_is_nothing(name: str, arguments: list[str]) -> None:
    assert read_ray_process(name, arguments) is None


def test_hostile_arguments_make_no_address_and_no_identity() -> None:
    process = read_ray_process(
        "raylet",
        [
            "/x/raylet",
            "--session-name=session_1",
            "--gcs-address=\x1b]0;evil\x07:1",
            "--cluster-id=" + "g" * 56,
            "--node_ip_address=a b",
            "--python_worker_command=" + "x" * 100_000,
        ],
    )
    assert process is not None
    assert (process.gcs, process.cluster_id, process.node_ip, process.python) == (None,) * 4


def test_the_installed_version_is_read_beside_the_binary(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "ray"
    binary = package / "core" / "src" / "ray" / "raylet" / "raylet"
    binary.parent.mkdir(parents=True)
    assert installed_version(str(binary)) is None
    (package / "_version.py").write_text('"""x"""\nversion = "2.60.0"\ncommit = "c"\n')
    assert installed_version(str(binary)) == "2.60.0"
    assert installed_version("raylet") is None
    assert installed_version("/somewhere/else/raylet") is None


def test_the_real_process_list_can_be_read() -> None:
    local = list_local_processes()
    assert local.me
    assert "127.0.0.1" in local.own_hosts


def test_listening_ports_of_a_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = listening_ports(os.getpid())
        assert ports is not None
        assert server.getsockname()[1] in ports
    assert listening_ports(2**30) is None
