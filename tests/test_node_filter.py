"""The grammar of filters and sort orders."""

from __future__ import annotations

import pytest

from castray_tui.core.errors import UsageError
from castray_tui.core.models import LOCAL, Disk, Gpu, Node, NodeHardware
from castray_tui.core.node_filter import FILTER_FIELDS, SORT_COLUMNS, parse_filter, parse_order


def node(name: str, *, cluster: str = "ml", **more: object) -> Node:
    fields: dict[str, object] = {
        "cluster_key": f"key-{cluster}",
        "cluster": cluster,
        "node_id": f"{name}-id",
        "name": name,
        "status": "alive",
    }
    return Node(**{**fields, **more})  # type: ignore[arg-type]


HEAD = node("head", address="10.0.0.1", hostname="alpha", is_head=True, node_id="abcd1234")
DEAD = node("10.0.0.10", address="10.0.0.10", status="dead", reason="no answer for 10 s")
GPU = node(
    "10.0.0.9",
    cluster="ml-dev",
    address="10.0.0.9",
    labels={"zone": "eu"},
    resources_total={"CPU": 4.0, "GPU": 1.0, "TPU": 0.0},
    hardware=NodeHardware(
        cpu_percent=90.0,
        disks=(Disk("/", total_bytes=100, used_bytes=40, free_bytes=60),),
        gpus=(Gpu(name="NVIDIA L4", utilization_percent=10.0),),
    ),
)
HERE = node("local", cluster=LOCAL, cluster_key=LOCAL, node_id=LOCAL)
ALL = [HEAD, DEAD, GPU, HERE]


def names(filter_text: str) -> list[str]:
    return [found.name for found in parse_filter(filter_text).select(ALL)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["head", "10.0.0.10", "10.0.0.9", "local"]),
        ("   ", ["head", "10.0.0.10", "10.0.0.9", "local"]),
        ("alpha", ["head"]),
        ("ALPHA", ["head"]),
        ("!alpha", ["10.0.0.10", "10.0.0.9", "local"]),
        ("state:dead", ["10.0.0.10"]),
        ("status:DEAD", ["10.0.0.10"]),
        ("state:d", ["10.0.0.10"]),
        ("!state:dead", ["head", "10.0.0.9", "local"]),
        ("cluster:ml", ["head", "10.0.0.10", "10.0.0.9"]),
        ("cluster:/^ml$/", ["head", "10.0.0.10"]),
        ("cluster:ml-*", ["10.0.0.9"]),
        ("cluster:m?", ["head", "10.0.0.10"]),
        ("cluster:ml !state:dead", ["head", "10.0.0.9"]),
        ("type:local", ["local"]),
        ("type:ext", ["head", "10.0.0.10", "10.0.0.9"]),
        (r"/10\.0\.0\.(9|10)$/", ["10.0.0.10", "10.0.0.9"]),
        ("/^10.0.0.1$", ["head"]),
        ("!/10/", ["local"]),
        ("/no answer/", ["10.0.0.10"]),
        ('"no answer"', ["10.0.0.10"]),
        ('reason:"no answer" state:dead', ["10.0.0.10"]),
        ("id:abcd", ["head"]),
        ("id:bcd", []),
        ("label:zone=eu", ["10.0.0.9"]),
        ("resource:gpu", ["10.0.0.9"]),
        ("resource:tpu", []),
        ("gpu:l4", ["10.0.0.9"]),
        ("address:10.0.0.1", ["head", "10.0.0.10"]),
        ("10.0.0.9:8080", []),
        ("!", ["head", "10.0.0.10", "10.0.0.9", "local"]),
        ("cluster:", ["head", "10.0.0.10", "10.0.0.9", "local"]),
    ],
)
def test_filter(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clutser:ml", "'cluster'"),
        ("state:daed", "'dead'"),
        ("/[/", "cannot be read"),
        ("node:/(/", "cannot be read"),
    ],
)
def test_filter_that_makes_no_sense(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    assert said in str(caught.value)


def test_every_field_can_be_asked_of_a_bare_node() -> None:
    for field, texts_of in FILTER_FIELDS.items():
        assert isinstance(texts_of(HEAD), tuple), field


def test_expressions_may_hold_an_escaped_slash() -> None:
    slashed = node("a/b")
    assert parse_filter(r"/a\/b/").matches(slashed)
    assert not parse_filter(r"/a\/c/").matches(slashed)


def ordered(text: str) -> list[str]:
    return [found.name for found in parse_order(text).sort(ALL)]


def test_local_first_then_clusters_then_heads_by_default() -> None:
    assert ordered("cluster") == ["local", "head", "10.0.0.10", "10.0.0.9"]


def test_names_sort_by_their_numbers() -> None:
    assert ordered("address")[:3] == ["head", "10.0.0.9", "10.0.0.10"]


def test_unknown_values_come_last_both_ways() -> None:
    assert ordered("cpu")[0] == "10.0.0.9"
    assert ordered("-cpu")[0] == "10.0.0.9"
    assert ordered("free")[0] == "10.0.0.9"


def test_reverse_keeps_equal_rows_in_place() -> None:
    assert ordered("-state")[0] == "10.0.0.10"
    assert ordered("-state")[1:] == ["local", "head", "10.0.0.9"]


def test_every_column_sorts_every_node() -> None:
    for column in SORT_COLUMNS:
        assert sorted(ordered(column)) == sorted(found.name for found in ALL)


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'memory'"):
        parse_order("memroy")
