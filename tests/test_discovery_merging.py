"""One cluster of everything that was seen of it: identity, sources, names."""

from __future__ import annotations

import random
import re
from typing import Any

from castray_tui.core.discovery.merging import legal_name, merge
from castray_tui.core.discovery.sightings import Sighting
from castray_tui.core.models import DiscoveredCluster, Source

ID_A, ID_B = "aa" * 28, "bb" * 28
SESSION_A, SESSION_B = "session_2026-01-01_10-00-00_1_11", "session_2026-01-01_10-00-00_2_22"


def seen(source: Source, **values: Any) -> Sighting:
    places = frozenset(values.pop("places", ()))
    return Sighting(
        **{
            "sources": (source,),
            "places": places,
            "name_host": "localhost",
            "name_port": 8265,
            **values,
        }
    )


def only(*sightings: Sighting) -> DiscoveredCluster:
    clusters = merge(sightings)
    assert len(clusters) == 1, clusters
    return clusters[0]


def test_the_same_cluster_seen_by_all_methods_is_one_with_all_sources() -> None:
    sightings = [
        seen("dashboard_scan", cluster_id=ID_A, session_name=SESSION_A, ray_version="2.60.0"),
        seen("temp_dir", session_name=SESSION_A, temp_dir="/tmp/ray"),
        seen("ray_status", cluster_id=ID_A),
        seen("process_scan", cluster_id=ID_A, session_name=SESSION_A, owner="ann", node_count=3),
    ]
    for _ in range(5):
        random.shuffle(sightings)
        cluster = only(*sightings)
        assert cluster.sources == ("ray_status", "process_scan", "dashboard_scan", "temp_dir")
        assert cluster.key == ID_A
        assert (cluster.owner, cluster.temp_dir, cluster.ray_version, cluster.node_count) == (
            "ann",
            "/tmp/ray",
            "2.60.0",
            3,
        )


def test_a_sighting_without_identity_joins_what_stands_at_its_place() -> None:
    locked = seen(
        "dashboard_scan",
        needs_token=True,
        dashboard_url="http://127.0.0.1:8265",
        places=["dashboard|here:8265"],
    )
    known = seen("process_scan", cluster_id=ID_A, places=["dashboard|here:8265", "gcs|here:6379"])
    cluster = only(locked, known)
    assert cluster.key == ID_A
    assert cluster.needs_token is True
    assert cluster.sources == ("process_scan", "dashboard_scan")


def test_a_place_never_joins_two_identities() -> None:
    old = seen("temp_dir", session_name=SESSION_A, places=["gcs|here:6379"])
    new = seen("process_scan", session_name=SESSION_B, places=["gcs|here:6379"])
    assert {cluster.key for cluster in merge([old, new])} == {SESSION_A, SESSION_B}
    old = seen("temp_dir", cluster_id=ID_A, places=["gcs|here:6379"])
    new = seen("process_scan", cluster_id=ID_B, places=["gcs|here:6379"])
    assert {cluster.key for cluster in merge([old, new])} == {ID_A, ID_B}


def test_equal_sessions_with_other_cluster_ids_stay_apart() -> None:
    one = seen("temp_dir", cluster_id=ID_A, session_name=SESSION_A)
    other = seen("process_scan", cluster_id=ID_B, session_name=SESSION_A)
    assert len(merge([one, other])) == 2


def test_what_nobody_can_identify_is_known_by_its_address() -> None:
    locked = seen("dashboard_scan", needs_token=True, dashboard_url="http://10.0.0.1:8265")
    assert only(locked).key == "address:10.0.0.1:8265"


def test_names_are_host_and_dashboard_port_else_gcs_port() -> None:
    with_dashboard = [
        seen(
            "process_scan",
            cluster_id=ID_A,
            name_host="10.0.0.1",
            name_port=8266,
            places=["dashboard|10.0.0.1:8266"],
        ),
        # A method that saw no dashboard does not decide, however much else it knows.
        seen("ray_status", cluster_id=ID_A, name_port=6379, places=["gcs|10.0.0.1:6379"]),
    ]
    assert only(*with_dashboard).name == "10.0.0.1-8266"
    assert only(seen("temp_dir", cluster_id=ID_B, name_port=6379)).name == "localhost-6379"


def test_an_alias_of_the_configuration_names_and_is_a_source() -> None:
    sighting = seen("process_scan", cluster_id=ID_A, places=["gcs|here:6379"])
    (cluster,) = merge([sighting], {"gcs|here:6379": "ml", "gcs|here:6380": "other"})
    assert cluster.name == "ml"
    assert cluster.sources == ("process_scan", "config")
    client = seen("process_scan", cluster_id=ID_B, client_places=frozenset({"here:10001"}))
    assert merge([client], {"client|here:10001": "ml"})[0].name == "ml"


def test_names_are_unique_legal_and_stay_with_their_cluster() -> None:
    sightings = [
        seen("process_scan", cluster_id=ID_A),
        seen("process_scan", cluster_id=ID_B),
        seen("process_scan", cluster_id="cc" * 28, name_host="fe80::1%eth0", name_port=1),
        seen("process_scan", cluster_id="dd" * 28, name_host="\x1b[31m evil/../*", name_port=2),
        seen("process_scan", cluster_id="ee" * 28, name_host="local", name_port=None),
    ]
    names = {cluster.key: cluster.name for cluster in merge(sightings)}
    assert names[ID_A] == "localhost-8265-aaaa"
    assert names[ID_B] == "localhost-8265-bbbb"
    assert names["ee" * 28] != "local"
    assert len(set(names.values())) == len(sightings)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names.values())
    assert {c.key: c.name for c in merge(reversed(sightings))} == names


def test_legal_names_are_never_empty_or_endless() -> None:
    assert legal_name("***") == "unknown"
    assert len(legal_name("x" * 500)) == 80


IMPOSTOR = "http://127.0.0.1:8270"


def test_a_dashboard_that_only_says_whose_it_is_is_not_vouched_for() -> None:
    """Anybody on the host can read a cluster's ID in its processes' arguments and repeat it."""
    cluster = only(
        seen("process_scan", cluster_id=ID_A, owned_by_me=True, on_this_host=True),
        seen(
            "dashboard_scan",
            cluster_id=ID_A,
            dashboard_url=IMPOSTOR,
            places=["dashboard|here:8270"],
        ),
    )
    assert cluster.owned_by_me
    assert cluster.dashboard_url == IMPOSTOR
    assert not cluster.dashboard_vouched


def test_the_dashboard_that_processes_or_the_user_name_goes_first_and_is_vouched_for() -> None:
    impostor = seen(
        "dashboard_scan", cluster_id=ID_A, dashboard_url=IMPOSTOR, places=["dashboard|here:8270"]
    )
    true = "http://127.0.0.1:8271"
    by_process = seen(
        "process_scan", cluster_id=ID_A, dashboard_url=true, places=["dashboard|here:8271"]
    )
    by_scan = seen(
        "dashboard_scan", cluster_id=ID_A, dashboard_url=true, places=["dashboard|here:8271"]
    )
    for sightings, aliases in (
        ([impostor, by_process], {}),
        ([impostor, by_scan], {"dashboard|here:8271": "mine"}),
    ):
        (cluster,) = merge(sightings, aliases)
        assert cluster.dashboard_url == true
        assert cluster.dashboard_vouched
