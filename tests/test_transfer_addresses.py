"""File addresses and the nodes that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from castray_tui.core.errors import AddressError, NotFoundError
from castray_tui.core.models import Cluster, Fleet, Node, TransferRequest
from castray_tui.core.transfer.addresses import FileAddress, parse_address, resolve_nodes
from castray_tui.core.transfer.selection import select

HERE = str(Path.cwd())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ml/head:/data/x", ("ml", "head", "/data/x")),
        ("ml/head:~/x", ("ml", "head", "~/x")),
        ("*/*:/data/", ("*", "*", "/data/")),
        ("ml/10.0.0.*:/with: colon and space", ("ml", "10.0.0.*", "/with: colon and space")),
        ("ml/[fd00::1]:/x", ("ml", "fd00::1", "/x")),
        ("local:/tmp/a:b", ("local", "local", "/tmp/a:b")),
        ("local:rel", ("local", "local", f"{HERE}/rel")),
        ("./a:b", ("local", "local", f"{HERE}/a:b")),
        ("plain name", ("local", "local", f"{HERE}/plain name")),
        ("folder/", ("local", "local", f"{HERE}/folder/")),
        (".", ("local", "local", f"{HERE}/")),
        ("/a/..", ("local", "local", "/")),
        ("~/x", ("local", "local", "~/x")),
        ("/etc/a:b/c", ("local", "local", "/etc/a:b/c")),
    ],
)
def test_reads_what_people_write(text: str, expected: tuple[str, str, str]) -> None:
    address = parse_address(text)
    assert (address.cluster_pattern, address.node_pattern, address.path) == expected


def test_a_drive_letter_is_no_cluster() -> None:
    assert parse_address("C:\\data\\x").is_local
    assert parse_address("C:/data/x").is_local


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("head:/data/x", "names no node"),
        ("ml/head:", "names no file"),
        ("local:", "names no file"),
        ("", "names no file"),
        ("ml/head:data/x", "absolute"),
        ("/:x\0", "no address"),
        ("a/b/c:/x", "names no node"),
    ],
)
def test_refuses_what_makes_no_sense(text: str, words: str) -> None:
    with pytest.raises(AddressError, match=words) as caught:
        parse_address(text)
    assert caught.value.remedy


def node(cluster: str, name: str, node_id: str, **more: object) -> Node:
    return Node(
        cluster_key=f"key-{cluster}",
        cluster=cluster,
        node_id=node_id,
        name=name,
        status=more.pop("status", "alive"),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


FLEET = Fleet(
    clusters=tuple(
        Cluster(key=f"key-{name}", name=name, address="", state="connected")
        for name in ("ml", "web", "empty")
    ),
    nodes=(
        Node("local", "local", "local", "local", "alive"),
        node("ml", "head", "aaaa11", is_head=True, address="10.0.0.1", hostname="boss"),
        node("ml", "10.0.0.2", "bbbb22", address="10.0.0.2"),
        node("ml", "cccc", "cccc33", address="10.0.0.3", status="dead", reason="gone"),
        node("ml", "dddd", "dddd44", address="10.0.0.3"),
        node("web", "head", "eeee55", is_head=True, address="10.1.0.1"),
    ),
)


def names(text: str) -> list[str]:
    return [f"{n.cluster}/{n.name}" for n in resolve_nodes(parse_address(text), FLEET)]


def test_names_nodes_by_every_name_they_have() -> None:
    assert names("ml/head:/x") == names("ml/boss:/x") == names("ml/aaaa:/x") == ["ml/head"]
    assert names("ml/10.0.0.2:/x") == names("ml/bbbb2:/x") == ["ml/10.0.0.2"]
    assert names("*/head:/x") == ["ml/head", "web/head"]
    assert names("local:/x") == ["local/local"]
    assert names("m?/*:/x") == ["ml/head", "ml/10.0.0.2", "ml/cccc", "ml/dddd"]


def test_wildcards_name_dead_nodes_too_and_never_this_machine() -> None:
    everything = names("*/*:/x")
    assert "ml/cccc" in everything
    assert "local/local" not in everything


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mll/head:/x", "did you mean ml"),
        ("web/haed:/x", "did you mean head"),
        ("empty/*:/x", "no node"),
        ("ml/10.0.0.3:/x", "fits 2 nodes of ml: cccc, dddd"),
        ("ml/bbb:/x", "no node bbb"),
    ],
)
def test_says_what_is_near_to_a_name_that_does_not_fit(text: str, words: str) -> None:
    with pytest.raises(NotFoundError, match=words):
        names(text)


def test_an_address_reads_as_it_was_written() -> None:
    for text in ("ml/head:/x", "ml/[fd00::1]:/x", "local:/tmp/x"):
        assert str(parse_address(text)) == text
    assert FileAddress("ml", "*", "/x/").has_wildcard


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (("ml/head:/x",), "unicast"),
        (("ml/head:/x", "web/head:/x"), "multicast"),
        (("ml/1*:/x", "ml/head:/x"), "multicast"),
        (("ml/*:/x/",), "broadcast"),
        (("*/*:/x/",), "broadcast"),
        (("ml/head:/x", "ml/head:/x"), "unicast"),
    ],
)
def test_tells_what_kind_of_transfer_it_is(targets: tuple[str, ...], kind: str) -> None:
    assert select(TransferRequest(("/src",), targets), FLEET).kind == kind


def test_refuses_two_targets_that_are_one_file_of_a_node() -> None:
    with pytest.raises(AddressError, match="twice"):
        select(TransferRequest(("/src",), ("ml/head:/x/", "ml/head:/x/src")), FLEET)
    two = select(TransferRequest(("/src",), ("ml/head:/x/", "ml/head:/y/")), FLEET)
    assert len(two.targets) == 2
