"""What the doctor makes of what it sees."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.config_loading import load_settings
from castray_tui.core.doctor.clusters import check_cluster, check_leftovers, check_methods
from castray_tui.core.doctor.finding import Finding
from castray_tui.core.doctor.machine import check_configuration, check_proxies, check_state
from castray_tui.core.models import (
    DiscoveredCluster,
    DiscoveryReport,
    ForeignService,
    MethodOutcome,
)

CLUSTER = DiscoveredCluster(
    key="k",
    name="ml",
    ray_version="2.60.0",
    dashboard_url="http://127.0.0.1:8265",
    dashboard_vouched=True,
    gcs_address="127.0.0.1:6379",
    sources=("process_scan",),
    on_this_host=True,
    owned_by_me=True,
    owner="me",
)


def examined(cluster: DiscoveredCluster, *, installed: str | None = "2.60.0") -> list[Finding]:
    return check_cluster(cluster, known=(), installed_ray=installed)


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_a_cluster_that_is_well() -> None:
    assert levels(examined(CLUSTER)) == ["ok"]


def test_a_token_that_is_missing_and_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = replace(CLUSTER, needs_token=True)
    missing = examined(locked)
    assert levels(missing) == ["ok", "fail"]
    assert "RAY_AUTH_TOKEN" in (missing[1].remedy or "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cr3t-value")
    there = examined(locked)
    assert levels(there) == ["ok", "ok"]
    assert "s3cr3t" not in " ".join(finding.message for finding in there)


def test_no_token_for_what_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cr3t-value")
    found = replace(CLUSTER, needs_token=True, owned_by_me=None, sources=("dashboard_scan",))
    findings = examined(replace(found, on_this_host=False))
    assert levels(findings) == ["ok", "warn"]
    assert "--connect http://127.0.0.1:8265" in (findings[1].remedy or "")


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    entry = KnownClusterSettings("ml", "127.0.0.1:8265", token_file=tmp_path / "nosuch")
    findings = check_cluster(
        replace(CLUSTER, needs_token=True), known=(entry,), installed_ray="2.60.0"
    )
    assert levels(findings) == ["ok", "fail"]
    assert "nosuch" in findings[1].message


def test_no_dashboard_is_worse_the_less_the_installed_ray_fits() -> None:
    without = replace(CLUSTER, dashboard_url=None)
    same = examined(without)
    assert levels(same) == ["ok", "warn"]
    other = examined(without, installed="2.49.2")
    assert "2.49.2" in other[1].message
    assert "2.60.0" in other[1].message
    assert levels(examined(without, installed=None)) == ["ok", "fail"]


def test_a_cluster_without_any_address() -> None:
    lost = replace(CLUSTER, dashboard_url=None, gcs_address=None, notes=("In another network.",))
    findings = examined(lost)
    assert levels(findings) == ["warn", "warn"]
    assert "container" in (findings[0].remedy or "")


def test_anothers_cluster_is_read_only() -> None:
    findings = examined(replace(CLUSTER, owned_by_me=False, owner="somebody"))
    assert "somebody" in findings[1].message
    assert "read_only = false" in (findings[1].remedy or "")


def test_a_hung_dashboard_has_a_remedy() -> None:
    note = "Its dashboard at 127.0.0.1:8265 accepts connections and does not answer."
    findings = examined(replace(CLUSTER, dashboard_url=None, notes=(note,)))
    assert levels(findings) == ["ok", "warn"]
    assert "dashboard.log" in (findings[1].remedy or "")


def test_methods_that_fail_and_ports_that_are_not_ray() -> None:
    report = DiscoveryReport(
        methods=(
            MethodOutcome("process_scan", 0.01, 0),
            MethodOutcome("dashboard_scan", 5.0, 0, "dashboard_scan ran out of time after 5 s"),
        ),
        foreign=(ForeignService("127.0.0.1:8265", "HTTP server (nginx)"),),
    )
    findings = check_methods(report)
    assert levels(findings) == ["ok", "warn", "warn", "warn"]
    assert [finding.check for finding in findings] == [
        "process_scan",
        "dashboard_scan",
        "clusters",
        "ports",
    ]


def test_a_stale_record_of_a_dead_cluster(tmp_path: Path) -> None:
    temp_dir = tmp_path / "ray"
    temp_dir.mkdir()
    (temp_dir / "ray_current_cluster").write_text("127.0.0.1:9")
    findings = asyncio.run(check_leftovers({"RAY_TMPDIR": str(tmp_path)}, DiscoveryReport()))
    stale = [finding for finding in findings if str(temp_dir) in finding.message]
    assert levels(stale) == ["warn"]
    assert "remove the file" in (stale[0].remedy or "")


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "ok"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "warn"),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "localhost,127.0.0.1"}, "ok"),
        ({"http_proxy": "http://[", "NO_PROXY": "*"}, "ok"),
    ],
)
def test_proxies(environ: dict[str, str], level: str) -> None:
    assert levels(check_proxies(environ)) == [level]


def test_switches_that_hide_clusters_are_told(tmp_path: Path) -> None:
    loaded = load_settings(
        config_path=None,
        overrides={"external_cluster.enabled": False},
        environ={"HOME": str(tmp_path)},
        working_dir=tmp_path,
    )
    findings = check_configuration(loaded)
    assert levels(findings) == ["ok", "fail"]
    assert "command line" in findings[1].message


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loaded = load_settings(
        config_path=None,
        overrides={"state_dir": str(tmp_path / "file" / "state")},
        environ={"HOME": str(tmp_path)},
        working_dir=tmp_path,
    )
    assert levels(check_state(loaded)) == ["fail"]
