"""Which nodes send what to whom, for one source, several, and for a transfer of the journal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from castray_tui.core.errors import UsageError
from castray_tui.core.models import Cluster, Fleet, Node, TransferRequest
from castray_tui.core.transfer.opening import new_transfer, transfer_again
from castray_tui.core.transfer.selection import Selection, node_again, select, select_again


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
        for name in ("ml", "web")
    ),
    nodes=(
        Node("local", "local", "local", "local", "alive"),
        node("ml", "head", "aaaa11", is_head=True, address="10.0.0.1"),
        node("ml", "10.0.0.2", "bbbb22", address="10.0.0.2"),
        node("ml", "fd00::3", "cccc33", address="fd00::3"),
        node("web", "head", "eeee55", is_head=True, address="10.1.0.1"),
    ),
)


def chosen(sources: tuple[str, ...], *targets: str) -> Selection:
    return select(TransferRequest(sources, targets), FLEET)


def targets_of(selection: Selection) -> list[tuple[int, str]]:
    return [(target.leg, str(target.place)) for target in selection.targets]


def test_one_source_is_one_leg_and_its_targets_stay_as_they_were_named() -> None:
    selection = chosen(("ml/head:/x",), "web/head:/data/", "local:/y")
    assert [(leg.label, leg.paths) for leg in selection.legs] == [("ml/head", ("/x",))]
    assert targets_of(selection) == [(0, "web/head:/data/"), (0, "local:/y")]


def test_several_sources_of_one_node_go_side_by_side_into_a_folder() -> None:
    selection = chosen(("ml/head:/x", "ml/aaaa:/y/", "ml/head:/x"), "web/*:/data")
    assert [(leg.label, leg.paths) for leg in selection.legs] == [("ml/head", ("/x", "/y"))]
    assert targets_of(selection) == [(0, "web/head:/data/")]


def test_each_of_several_source_nodes_gets_a_folder_of_its_own() -> None:
    selection = chosen(("ml/*:/log",), "local:/out", "web/head:/all/")
    assert [leg.label for leg in selection.legs] == ["ml/head", "ml/10.0.0.2", "ml/fd00::3"]
    assert targets_of(selection) == [
        (0, "local:/out/ml-head/"),
        (0, "web/head:/all/ml-head/"),
        (1, "local:/out/ml-10.0.0.2/"),
        (1, "web/head:/all/ml-10.0.0.2/"),
        (2, "local:/out/ml-fd00__3/"),
        (2, "web/head:/all/ml-fd00__3/"),
    ]
    assert selection.kind == "multicast"
    assert chosen(("ml/*:/log",), "local:/out").kind == "unicast"


def test_what_a_wildcard_writes_where_does_not_depend_on_how_many_nodes_are_up() -> None:
    assert targets_of(chosen(("web/*:/log",), "local:/out/")) == [(0, "local:/out/web-head/")]
    mixed = chosen(("/here", "ml/head:/there"), "web/head:/d/")
    assert targets_of(mixed) == [(0, "web/head:/d/local/"), (1, "web/head:/d/ml-head/")]


def test_two_nodes_of_one_name_do_not_share_a_folder() -> None:
    twin = node("ml", "fd00__3", "dddd44")
    fleet = replace(FLEET, nodes=(*FLEET.nodes, twin))
    selection = select(TransferRequest(("ml/fd*:/x",), ("local:/out/",)), fleet)
    assert [target.place.path for target in selection.targets] == [
        "/out/ml-fd00__3/",
        "/out/ml-fd00__3-dddd44/",
    ]


def test_a_transfer_of_the_journal_names_the_same_rows_again() -> None:
    request = TransferRequest(("ml/*:/log",), ("local:/out/", "web/head:/all/"))
    selection = select(request, FLEET)
    transfer = new_transfer(request, selection)
    assert select_again(transfer, FLEET) == selection

    # Since then one node came back under another ID, and another went for good.
    moved = node("ml", "10.0.0.2", "ffff66", address="10.0.0.2")
    nodes = [one for one in FLEET.nodes if one.node_id not in ("bbbb22", "eeee55")]
    later = replace(FLEET, nodes=(*nodes, moved))
    again = select_again(transfer, later)
    assert [leg.node.node_id for leg in again.legs] == ["aaaa11", "ffff66", "cccc33"]
    assert [target.place.node.status for target in again.targets] == ["alive", "dead"] * 3


def test_a_node_that_comes_back_takes_no_other_targets_place() -> None:
    twins = tuple(node("ml", name, name, address="10.0.0.9") for name in ("n1", "n2"))
    fleet = replace(FLEET, nodes=twins)
    found = node_again("ml", "gone", "10.0.0.9", fleet, {"n1"})
    assert found is not None
    assert found.node_id == "n2"
    assert node_again("ml", "gone", "10.0.0.9", fleet, {"n1", "n2"}) is None
    dead = tuple(replace(one, status="dead") for one in twins)
    assert node_again("ml", "n1", "10.0.0.9", replace(FLEET, nodes=dead)) is None


def test_going_on_leaves_what_is_good_and_retrying_leaves_what_was_cancelled() -> None:
    request = TransferRequest(("ml/head:/x",), ("web/head:/1", "web/head:/2", "web/head:/3"))
    transfer = new_transfer(request, select(request, FLEET))
    verdicts = ("verified", "failed", "cancelled")
    ended = replace(
        transfer,
        state="partial",
        error="something",
        ended=9.0,
        targets=tuple(
            replace(target, verdict=verdict, attempts=1)
            for target, verdict in zip(transfer.targets, verdicts, strict=True)
        ),
    )
    resumed = transfer_again(ended, only_failed=False)
    assert [target.verdict for target in resumed.targets] == ["verified", None, None]
    assert (resumed.state, resumed.error, resumed.ended) == ("planning", None, None)
    assert resumed.started == ended.started
    retried = transfer_again(ended, only_failed=True)
    assert [target.verdict for target in retried.targets] == ["verified", None, "cancelled"]
    with pytest.raises(UsageError, match="Nothing is left"):
        transfer_again(replace(ended, targets=ended.targets[:1]), only_failed=False)
    with pytest.raises(UsageError, match="older castray"):
        select_again(replace(ended, legs=(), request=None), FLEET)
