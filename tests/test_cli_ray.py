"""The command line over real Ray clusters of two versions."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from castray_process import castray, command, environment
from conftest import StartCluster
from ray_lab import OLD_RAY

from castray_tui.core.own_cluster import OwnCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

OLD_NODES = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clusters(module_clusters: StartCluster) -> AsyncIterator[dict[str, OwnCluster]]:
    """``old``: three nodes of an old Ray; ``new``: one node of castray's own."""
    yield {
        "old": await module_clusters(version=OLD_RAY, node_count=OLD_NODES),
        # Ray takes a token into use by itself where whoever runs the tests has one.
        "new": await module_clusters(environment={"RAY_AUTH_MODE": "disabled"}),
    }


@pytest.fixture(autouse=True)
def named(clusters: dict[str, OwnCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clusters by name in a configuration beside the command."""
    entries = [
        f'[[clusters]]\nname = "{name}"\naddress = "{cluster.dashboard_address}"\n'
        for name, cluster in clusters.items()
    ]
    (tmp_path / "castray.toml").write_text("\n".join(entries))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(os.urandom(3_000_000))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_discover_lists_each_cluster_once(clusters: dict[str, OwnCluster]) -> None:
    ran = castray("discover", "--json")
    assert ran.code == 0
    found = [each for each in ran.json["clusters"] if each["name"] in clusters]
    assert sorted(each["name"] for each in found) == ["new", "old"]
    for each in found:
        own = clusters[each["name"]]
        assert "process_scan" in each["sources"]
        assert each["dashboard_url"] == f"http://{own.dashboard_address}"
        assert each["session_name"].startswith("session_")
        assert each["nodes"] == own.node_count, ran.out
    versions = {each["name"]: each["ray_version"] for each in found}
    assert versions["old"] == OLD_RAY


def test_status_counts_nodes_and_resources(clusters: dict[str, OwnCluster]) -> None:
    ran = castray("status", "old", clusters["new"].dashboard_address, "--json")
    assert ran.code == 0, ran.err
    assert {each["state"] for each in ran.json["clusters"]} == {"connected"}
    assert ran.json["totals"]["nodes_alive"] == OLD_NODES + 1
    assert ran.json["totals"]["resources"]["CPU"] == OLD_NODES + 1
    for_people = castray("status", "old")
    assert "1 cluster, 3 of 3 nodes alive" in for_people.out


def test_nodes_lists_external_and_local() -> None:
    ran = castray("nodes", "old", "--json")
    assert ran.code == 0, ran.err
    external = [node for node in ran.json["nodes"] if node["type"] == "external"]
    assert len(external) == OLD_NODES
    assert len({node["id"] for node in external}) == OLD_NODES
    assert sum(node["is_head"] for node in external) == 1
    for node in external:
        assert (node["cluster"], node["status"]) == ("old", "alive")
        assert node["hardware"]["memory_total_bytes"] > 0
    assert ran.json["nodes"][0]["type"] == "local"


def test_nodes_filters_and_sorts() -> None:
    ran = castray("nodes", "old", "new", "--filter", "type:external", "--sort=-cluster", "--json")
    clusters = [node["cluster"] for node in ran.json["nodes"]]
    assert clusters == ["old"] * OLD_NODES + ["new"]
    assert castray("nodes", "old", "--filter", "state:dead", "--json").json["count"] == 0


def test_an_unreachable_address_hides_no_other(clusters: dict[str, OwnCluster]) -> None:
    ran = castray("nodes", "127.0.0.1:9", clusters["new"].dashboard_address, "--json")
    assert ran.code == 4
    assert ran.json["count"] == 2
    assert [each["address"] for each in ran.json["errors"]] == ["127.0.0.1:9"]
    assert "127.0.0.1:9" in ran.err


def test_cp_to_every_node_is_verified(source: Path, tmp_path: Path) -> None:
    ran = castray("cp", str(source), f"old/*:{tmp_path}/there/", "--json")
    assert ran.code == 0, ran.err
    transfer = ran.json
    assert (transfer["kind"], transfer["state"]) == ("broadcast", "done")
    assert len(transfer["targets"]) == OLD_NODES
    # All nodes are on this host and the path is one file: whoever comes later may find it there.
    assert {each["verdict"] for each in transfer["targets"]} <= {"verified", "identical"}
    assert {each["digest"] for each in transfer["targets"]} == {f"sha256:{sha256(source)}"}
    assert sha256(tmp_path / "there" / source.name) == sha256(source)

    again = castray("cp", str(source), f"old/head:{tmp_path}/there/", "--json")
    assert again.code == 0
    assert again.json["targets"][0]["verdict"] == "identical"
    assert again.json["targets"][0]["bytes"] == 0

    kept = castray("transfers", "--json").json["transfers"]
    assert [each["id"] for each in kept] == [again.json["id"], transfer["id"]]
    one = castray("transfers", transfer["id"][:10], "--json")
    assert one.json["targets"] == transfer["targets"]


def test_cp_between_clusters_and_back(source: Path, tmp_path: Path) -> None:
    across = castray("cp", f"old/head:{source}", f"new/head:{tmp_path}/across/", "--json")
    assert across.code == 0, across.err
    assert sha256(tmp_path / "across" / source.name) == sha256(source)
    back = castray("cp", f"new/head:{tmp_path}/across/{source.name}", f"{tmp_path}/back", "--json")
    assert back.code == 0, back.err
    assert sha256(tmp_path / "back") == sha256(source)


def test_a_dry_run_sends_nothing(source: Path, tmp_path: Path) -> None:
    ran = castray("cp", str(source), f"new/head:{tmp_path}/dry/", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["dry_run"] is True
    assert ran.json["targets"][0]["action"] == "send"
    assert not (tmp_path / "dry").exists()


def test_failures_have_reasons_and_exit_codes(source: Path, tmp_path: Path) -> None:
    missing = castray("cp", f"{tmp_path}/nosuch", f"new/head:{tmp_path}/x", "--json")
    assert missing.code == 1
    assert "nosuch" in missing.err
    assert not (tmp_path / "x").exists()

    unwritable = castray("cp", str(source), "new/head:/proc/castray/", "--json")
    assert unwritable.code == 1
    assert unwritable.json["targets"][0]["reason"]

    some = castray(
        "cp", str(source), "new/head:/proc/castray/", "--to", f"old/head:{tmp_path}/some/", "--json"
    )
    assert some.code == 3, some.err
    assert [each["verdict"] for each in some.json["targets"]].count("failed") == 1
    assert sha256(tmp_path / "some" / source.name) == sha256(source)

    unknown = castray("cp", str(source), f"new/nosuch:{tmp_path}/x", "--json")
    assert unknown.code == 1
    assert unknown.json["error"]["code"] == "not_found"

    refused = castray("--read-only", "cp", str(source), f"new/head:{tmp_path}/x", "--json")
    assert refused.code == 1
    assert refused.json["error"]["code"] == "read_only"
    assert not (tmp_path / "x").exists()


def test_interrupting_cp_cancels_cleanly(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "slow"
    source.write_bytes(os.urandom(60_000_000))  # far more than what is under way at once
    running = subprocess.Popen(
        command("cp", str(source), f"new/head:{target}/", "--rate-limit", "1MB", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        # Another castray sees in the journal that it has begun; the target shows no file till then.
        while castray("transfers", "--state", "running", "--json").json["count"] == 0:
            assert running.poll() is None, "it ended before it could be interrupted"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, err
    assert '"verdict": "cancelled"' in out
    assert not target.exists() or not any(target.iterdir())
