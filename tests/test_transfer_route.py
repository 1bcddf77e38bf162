"""The route planner: the tree as it should be, and what becomes of it in networks with walls."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from castray_tui.core.transfer.reach import Probe, Reach, RouteMember
from castray_tui.core.transfer.route import (
    Route,
    bridge_orders,
    dial_orders,
    plan_route,
    settle,
    to_tree,
)

GIB = 1 << 30
LINK = 400e6 / 8


def member(index: int, cluster: str = "A", address: str | None = None) -> RouteMember:
    address = address or f"10.{ord(cluster[0]) % 64}.{(index + 2) // 250}.{(index + 2) % 250}"
    return RouteMember(index, cluster, address, f"{cluster}/{address}")


def local(index: int, address: str | None = "192.168.1.2") -> RouteMember:
    return RouteMember(index, "local", address, "local", can_be_dialed=False, is_local=True)


SOURCE = RouteMember(-1, "A", "10.1.255.1", "A/head")


def plan(
    targets: Sequence[RouteMember],
    *,
    source: RouteMember = SOURCE,
    size: int = GIB,
    streams: int = 4,
    reach: Reach | None = None,
    bridges: Sequence[RouteMember] = (),
    is_final: bool = False,
    link: float | None = LINK,
    source_limit: float | None = None,
) -> Route:
    return plan_route(
        source,
        targets,
        size_bytes=size,
        chunk_bytes=4 << 20,
        link_bytes_per_second=link,
        source_bytes_per_second=source_limit,
        streams=streams,
        reach=reach or Reach(),
        bridges=bridges,
        is_final=is_final,
    )


def check(route: Route, targets: Sequence[RouteMember]) -> None:
    """What holds for every route: one edge a target, feeders first, castray's machine a leaf."""
    given = {-1}
    by_index = {m.index: m for m in route.members}
    for edge in route.edges:
        assert edge.parent in given, edge
        assert edge.child not in given, edge
        given.add(edge.child)
        assert edge.parent == -1 or not by_index[edge.parent].is_local
    lost = {unreached.index for unreached in route.unreached}
    assert lost.isdisjoint(given)
    assert lost | given == {-1, *(target.index for target in targets)}


def entries(route: Route) -> tuple[Counter[str], Counter[str]]:
    """How often each host and each cluster is entered from outside."""
    by_index = {m.index: m for m in route.members}
    hosts, clusters = Counter[str](), Counter[str]()
    for edge in route.edges:
        parent, child = by_index[edge.parent], by_index[edge.child]
        if parent.host != child.host:
            hosts[child.host] += 1
            if parent.cluster != child.cluster:
                clusters[child.cluster] += 1
    return hosts, clusters


def pairs(route: Route) -> list[tuple[int, int]]:
    return [(edge.parent, edge.child) for edge in route.edges]


# --- the tree as it should be --------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_few_hosts_are_one_chain(count: int) -> None:
    route = plan([member(i) for i in range(count)])
    assert pairs(route) == [(i - 1, i) for i in range(count)]
    assert {edge.mode for edge in route.edges} == {"dial"}
    assert (route.depth, route.width) == (count, 1)


@pytest.mark.parametrize("size", [256 << 20, GIB, 20 * GIB])
def test_seven_hosts_take_hardly_longer_than_one(size: int) -> None:
    one = plan([member(0)], size=size).predicted_seconds
    seven = plan([member(i) for i in range(7)], size=size).predicted_seconds
    assert size / LINK <= one < seven <= 1.15 * one


def test_two_clusters_of_four_hosts_are_one_chain_that_crosses_once() -> None:
    targets = [member(i, "A" if i < 3 else "B") for i in range(7)]
    random.Random(1).shuffle(targets)
    route = plan(targets)
    check(route, targets)
    assert route.width == 1
    assert entries(route)[1] == {"B": 1}
    last_of_a = [edge.child for edge in route.edges][2]
    assert {m.index: m.cluster for m in route.members}[last_of_a] == "A"


def test_many_targets_of_little_content_make_a_wide_and_shallow_tree() -> None:
    few, many = (plan([member(i) for i in range(n)], size=1 << 20) for n in (4, 1000))
    assert few.depth <= 4
    assert many.width >= 2
    assert many.depth <= 10
    big = plan([member(i) for i in range(60)], size=20 * GIB)
    assert (big.width, big.depth) == (1, 60)


def test_a_chain_that_would_be_too_long_to_be_robust_becomes_a_tree() -> None:
    targets = [member(i) for i in range(1000)]
    route = plan(targets, size=100 * GIB)
    assert route.width == 2
    assert route.depth <= 10
    assert plan(targets, size=100 * GIB, streams=1).depth == 1000


@pytest.mark.parametrize("size", [0, 1, 40_000_000, 100 * GIB])
@pytest.mark.parametrize("streams", [2, 4])
def test_ten_thousand_targets_make_a_shallow_tree_soon(size: int, streams: int) -> None:
    targets = [member(i, "ABCDEFG"[i % 7]) for i in range(10_000)]
    started = time.process_time()
    route = plan(targets, size=size, streams=streams)
    # Far from what it takes (0.3 s): what this finds is work that grows with the square.
    assert time.process_time() - started < 10
    check(route, targets)
    assert len(route.edges) == 10_000
    assert route.width <= streams
    assert route.depth <= 16
    hosts, clusters = entries(route)
    assert set(hosts.values()) == {1}
    assert clusters == dict.fromkeys("BCDEFG", 1)
    assert len(route.lines()) == 10_000
    assert len(route.ways()[9_999]) <= route.depth + 1


def test_a_host_is_entered_once_whatever_runs_on_it() -> None:
    for seed in range(60):
        dice = random.Random(seed)
        targets = []
        for index in range(dice.randint(1, 40)):
            host = dice.randint(0, 6)
            targets.append(member(index, "ABC"[host % 3], f"10.9.0.{host}"))
        source = RouteMember(-1, "A", dice.choice(["10.9.0.0", "10.9.0.77"]), "A/head")
        for streams in (1, 2, 3):
            route = plan(targets, source=source, streams=streams, size=dice.choice([1, GIB]))
            check(route, targets)
            assert not route.unreached
            assert route.width <= streams
            hosts, clusters = entries(route)
            assert set(hosts.values()) <= {1}
            assert source.host not in hosts
            assert set(clusters.values()) <= {1}
            assert "A" not in clusters


def test_a_source_that_is_held_back_sends_once() -> None:
    """What it may send is not divided by those on its host, though they could all have it."""
    raylets = [member(index, address=SOURCE.address) for index in range(3)]
    free = plan(raylets, size=40_000_000)
    assert [edge.parent for edge in free.edges] == [-1, -1, -1]
    held_back = plan(raylets, size=40_000_000, source_limit=4e6)
    assert [edge.parent for edge in held_back.edges].count(-1) == 1


def test_a_host_feeds_no_more_others_than_one_of_its_raylets_would() -> None:
    """The raylets of one host share its link."""
    targets = [member(i, "A", "10.1.255.1") for i in range(5)]
    targets += [member(i, "A") for i in range(5, 40)]
    for streams in (1, 2, 3, 4):
        route = plan(targets, size=1, streams=streams)
        check(route, targets)
        by_index = {m.index: m for m in route.members}
        given = Counter(
            by_index[edge.parent].host
            for edge in route.edges
            if by_index[edge.parent].host != by_index[edge.child].host
        )
        assert max(given.values()) <= streams


def test_hosts_in_two_clusters_cut_nobody_off() -> None:
    for seed in range(80):
        dice = random.Random(seed)
        targets = [
            member(i, dice.choice("ABC"), f"10.9.0.{dice.randint(0, 5)}")
            for i in range(dice.randint(1, 30))
        ]
        for streams in (1, 2, 4):
            route = plan(targets, streams=streams)
            check(route, targets)
            assert not route.unreached
            assert set(entries(route)[0].values()) <= {1}


def test_castrays_machine_is_a_leaf_at_the_end_and_dials() -> None:
    targets = [local(0), *(member(i) for i in range(1, 5))]
    route = plan(targets)
    check(route, targets)
    edge = next(edge for edge in route.edges if edge.child == 0)
    assert (edge.mode, edge.child_dials) == ("await", True)
    assert edge.parent == 4  # The end of the chain: a slow line home holds nobody up.


def test_several_files_for_castrays_machine_are_leaves_each() -> None:
    targets = [local(0), local(1), member(2)]
    route = plan(targets)
    check(route, targets)
    assert not route.unreached
    assert plan([local(0), local(1)]).width == 2


def test_castrays_machine_is_fed_by_a_node_on_the_same_host() -> None:
    targets = [local(0, "10.1.0.3"), member(1, "A", "10.1.0.2"), member(2, "A", "10.1.0.3")]
    targets += [member(3, "A", "10.1.0.4")]
    route = plan(targets)
    assert (2, 0) in pairs(route)


def test_from_castrays_machine_it_dials_everybody_also_itself() -> None:
    source = local(-1)
    targets = [member(0), member(1), local(2)]
    route = plan(targets, source=source)
    check(route, targets)
    modes = {edge.child: (edge.parent, edge.mode) for edge in route.edges}
    assert modes[0] == (-1, "dial")
    assert modes[1] == (0, "dial")
    assert modes[2] == (-1, "dial")


def test_several_paths_on_one_node_need_no_probe() -> None:
    targets = [member(0, "A", "10.1.0.9"), member(1, "A", "10.1.0.9")]
    route = plan(targets)
    assert [(p.dialer.node_label, p.listener.node_label) for p in route.probes] == [
        ("A/head", "A/10.1.0.9")
    ]


def test_the_same_question_has_the_same_answer() -> None:
    targets = [member(i, "ABC"[i % 3]) for i in range(50)]
    assert plan(targets) == plan(targets)


def test_an_unmeasured_link_still_gives_a_prediction() -> None:
    assert plan([member(0)], link=None).predicted_seconds == pytest.approx(GIB / 125e6, rel=0.05)


def test_nothing_to_send_to_is_no_route() -> None:
    route = plan([])
    assert (route.edges, route.unreached, route.depth) == ((), (), 0)


# --- networks with walls -------------------------------------------------------------------------


class Network:
    """A network whose walls are known to the test, and probed as castray would."""

    def __init__(self, can_dial: set[tuple[str, str]]) -> None:
        self.can_dial = can_dial
        self.reach = Reach()
        self.asked: list[tuple[str, str]] = []
        self.rounds = 0

    async def probe(self, probes: Sequence[Probe]) -> None:
        self.rounds += 1
        for probe in probes:
            pair = (probe.dialer.node_label, probe.listener.node_label)
            assert pair not in self.asked
            assert probe.listener.can_be_dialed
            self.asked.append(pair)
            self.reach.note(
                probe.dialer, probe.listener, None if pair in self.can_dial else "refused"
            )

    def holds(self, route: Route) -> None:
        """Every connection of the route exists, dialed by the one who can."""
        by_index = {m.index: m for m in route.members}

        def dialed(dialer: RouteMember, listener: RouteMember) -> None:
            pair = (dialer.node_label, listener.node_label)
            assert pair in self.can_dial or pair[0] == pair[1], pair

        for edge in route.edges:
            parent, child = by_index[edge.parent], by_index[edge.child]
            if edge.bridge is None:
                assert edge.child_dials == (edge.mode == "await")
                dialed(*((child, parent) if edge.child_dials else (parent, child)))
                continue
            bridge = by_index[edge.bridge]
            dialed(*((parent, bridge) if edge.mode == "tunnel" else (bridge, parent)))
            dialed(*((child, bridge) if edge.child_dials else (bridge, child)))


def open_network(members: Sequence[RouteMember]) -> set[tuple[str, str]]:
    return {
        (a.node_label, b.node_label)
        for a in members
        for b in members
        if a.node_label != b.node_label and b.can_be_dialed
    }


async def settled(
    network: Network,
    targets: Sequence[RouteMember],
    source: RouteMember = SOURCE,
    bridges: Sequence[RouteMember] = (),
    size: int = GIB,
) -> Route:
    def plan_again(is_final: bool) -> Route:
        return plan(
            targets,
            source=source,
            reach=network.reach,
            bridges=bridges,
            is_final=is_final,
            size=size,
        )

    route = await settle(plan_again, network.probe)
    check(route, targets)
    network.holds(route)
    return route


async def test_an_open_network_is_probed_once_and_keeps_the_tree() -> None:
    targets = [member(i, "AB"[i // 4]) for i in range(8)]
    network = Network(open_network([SOURCE, *targets]))
    route = await settled(network, targets)
    assert network.rounds == 1
    assert len(network.asked) == len(targets)
    assert pairs(route) == pairs(plan(targets))


async def test_who_cannot_be_dialed_dials() -> None:
    targets = [member(0), member(1)]
    network = Network(open_network([SOURCE, *targets]) - {("A/head", targets[0].node_label)})
    route = await settled(network, targets)
    edge = route.edges[0]
    assert (edge.parent, edge.child, edge.mode, edge.child_dials) == (-1, 0, "await", True)


async def test_a_part_whose_entry_is_walled_off_is_entered_elsewhere_and_stays_whole() -> None:
    targets = [member(i, "A" if i < 2 else "B") for i in range(6)]
    entry = targets[2].node_label
    inside_b = {target.node_label for target in targets[2:]}
    walls = {
        (one, other)
        for one, other in open_network([SOURCE, *targets])
        if entry in (one, other) and not {one, other} <= inside_b
    }
    network = Network(open_network([SOURCE, *targets]) - walls)
    route = await settled(network, targets)
    assert not route.unreached
    assert entries(route)[1] == {"B": 1}
    assert {edge.bridge for edge in route.edges} == {None}


async def test_a_wall_between_clusters_is_crossed_over_a_bridge_that_both_see() -> None:
    targets = [member(i, "B") for i in range(4)]
    between = member(100, "C")
    inside_b = open_network(targets)
    seen = {(between.node_label, other.node_label) for other in (SOURCE, *targets)}
    network = Network(inside_b | seen | {("local", m.node_label) for m in (SOURCE, *targets)})
    route = await settled(network, targets, bridges=[local(101), between])
    assert not route.unreached
    assert [edge.bridge for edge in route.edges] == [100, None, None, None]
    assert route.edges[0].mode == "await"  # The bridge dials both.
    assert not route.edges[0].child_dials
    first = route.edges[0].child
    assert route.lines()[0] == f"A/head → {targets[first].node_label} (by {between.node_label})"
    assert route.ways()[first] == ("A/head", between.node_label, targets[first].node_label)
    assert network.rounds <= 4


async def test_castrays_machine_is_the_bridge_where_there_is_no_other() -> None:
    targets = [member(0, "B"), member(1, "B")]
    network = Network(open_network(targets) | {("local", m.node_label) for m in (SOURCE, *targets)})
    route = await settled(network, targets, bridges=[local(101), member(100, "C")])
    assert not route.unreached
    assert [edge.bridge for edge in route.edges] == [101, None]


async def test_a_bridge_may_be_dialed_from_both_sides() -> None:
    target, between = member(0, "B"), member(100, "C")
    network = Network({("A/head", between.node_label), (target.node_label, between.node_label)})
    route = await settled(network, [target], bridges=[between])
    (edge,) = route.edges
    assert (edge.mode, edge.bridge, edge.child_dials) == ("tunnel", 100, True)


async def test_who_cannot_be_reached_at_all_is_told_why_and_others_are_served() -> None:
    targets = [member(i) for i in range(5)]
    lonely = targets[2].node_label
    network = Network({pair for pair in open_network([SOURCE, *targets]) if lonely not in pair})
    route = await settled(network, targets, bridges=[member(100, "C"), local(101)])
    (unreached,) = route.unreached
    assert unreached.index == 2
    assert unreached.reason == f"no route from A/head to {lonely}: refused; and back: refused"
    assert len(route.edges) == 4


async def test_many_dead_ones_among_many_targets_cost_few_rounds() -> None:
    targets = [member(i, "ABC"[i % 3]) for i in range(600)]
    dead = {target.node_label for target in targets[::9]}
    network = Network({p for p in open_network([SOURCE, *targets]) if dead.isdisjoint(p)})
    route = await settled(network, targets, bridges=[local(1000)], size=1 << 20)
    assert {targets[u.index].node_label for u in route.unreached} == dead
    assert network.rounds <= 4
    assert len(network.asked) < 10 * len(targets)
    assert route.width <= 12  # Four as planned, and more only where nobody else was tried.
    assert route.depth <= 20


def _everything_known(members: Sequence[RouteMember], can_dial: set[tuple[str, str]]) -> Reach:
    reach = Reach()
    for one in members:
        for other in members:
            if one.node_label != other.node_label and other.can_be_dialed:
                pair = (one.node_label, other.node_label)
                reach.note(one, other, None if pair in can_dial else "refused")
    return reach


def _reachable(
    source: RouteMember,
    targets: Sequence[RouteMember],
    bridges: Sequence[RouteMember],
    can_dial: set[tuple[str, str]],
) -> set[int]:
    """Which targets some way exists to, found by brute force."""

    def linked(one: RouteMember, other: RouteMember) -> bool:
        a, b = one.node_label, other.node_label
        return a == b or (a, b) in can_dial or (b, a) in can_dial

    have = [source]
    grew = True
    while grew:
        grew = False
        for target in targets:
            if target in have:
                continue
            feeders = [m for m in have if m is source or not m.is_local]
            if any(
                linked(feeder, target)
                or any(linked(feeder, b) and linked(b, target) for b in bridges)
                for feeder in feeders
            ):
                have.append(target)
                grew = True
    return {target.index for target in have} - {-1}


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize("density", [0.02, 0.08, 0.2, 0.6])
def test_whoever_can_be_reached_by_some_way_is_reached(density: float, is_final: bool) -> None:
    reached_some = lost_some = bridged = 0
    for seed in range(60):
        dice = random.Random(f"{seed} {density}")
        targets = [
            member(i, dice.choice("ABC"), dice.choice([None, None, f"10.9.0.{dice.randint(0, 3)}"]))
            for i in range(dice.randint(1, 14))
        ]
        if dice.random() < 0.3:
            targets.append(local(len(targets)))
        bridges = [member(100 + i, "D") for i in range(dice.randint(0, 3))]
        bridges.append(local(200))
        source = local(-1) if dice.random() < 0.2 else SOURCE
        everyone = [source, *targets, *bridges]
        can_dial = {p for p in sorted(open_network(everyone)) if dice.random() < density}
        network = Network(can_dial)
        network.reach = _everything_known(everyone, can_dial)
        route = plan(
            targets,
            source=source,
            reach=network.reach,
            bridges=bridges,
            is_final=is_final,
            size=dice.choice([1, GIB]),
        )
        check(route, targets)
        network.holds(route)
        assert route.probes == ()
        wanted = _reachable(source, targets, bridges, can_dial)
        assert {edge.child for edge in route.edges} == wanted
        reached_some += len(wanted)
        lost_some += len(route.unreached)
        bridged += sum(edge.bridge is not None for edge in route.edges)
    assert reached_some
    assert lost_some
    assert bridged or density > 0.5


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
async def test_probing_in_rounds_never_relies_on_what_was_not_tried(density: float) -> None:
    for seed in range(30):
        dice = random.Random(seed)
        targets = [member(i, dice.choice("AB")) for i in range(dice.randint(1, 12))]
        bridges = [member(100, "C"), local(101)]
        everyone = [SOURCE, *targets, *bridges]
        can_dial = {p for p in sorted(open_network(everyone)) if dice.random() < density}
        network = Network(can_dial)
        route = await settled(network, targets, bridges=bridges)
        reachable = _reachable(SOURCE, targets, bridges, can_dial)
        assert {edge.child for edge in route.edges} <= reachable
        if density == 0.9:
            assert {edge.child for edge in route.edges} == reachable
        assert network.rounds <= 4


async def test_clusters_that_only_castrays_machine_sees_are_joined_by_it_within_the_rounds() -> (
    None
):
    """Two NATs, and castray on a third network: nodes of a cluster see each other, no others."""
    targets = [member(i, "AB"[i % 2]) for i in range(40)]
    everyone = [SOURCE, *targets]
    inside = {
        (one.node_label, other.node_label)
        for one in everyone
        for other in everyone
        if one.cluster == other.cluster and one is not other
    }
    network = Network(inside | {("local", m.node_label) for m in everyone})
    strangers = [member(100 + i, "C") for i in range(5)]
    route = await settled(network, targets, bridges=[*strangers, local(200)])
    assert not route.unreached
    assert Counter(edge.bridge for edge in route.edges) == {None: 39, 200: 1}
    assert entries(route)[1] == {"B": 1}


# --- orders --------------------------------------------------------------------------------------


def _endpoints(index: int) -> list[tuple[str, int]]:
    return [(f"10.0.0.{index + 2}", 7000 + index)]


def test_the_tree_of_the_order_names_feeders_by_their_place_in_it() -> None:
    targets = [member(3), member(1), local(2)]
    tree = to_tree(plan(targets), _endpoints)
    assert tree == [
        {"index": 3, "parent": -1, "mode": "dial", "endpoints": [["10.0.0.5", 7003]]},
        {"index": 1, "parent": 0, "mode": "dial", "endpoints": [["10.0.0.3", 7001]]},
        {"index": 2, "parent": 1, "mode": "await", "endpoints": []},
    ]


def test_castrays_machine_sends_to_itself_over_its_own_port() -> None:
    tree = to_tree(plan([local(0)], source=local(-1)), _endpoints)
    assert tree == [{"index": 0, "parent": -1, "mode": "dial", "endpoints": [["10.0.0.2", 7000]]}]


def test_who_has_to_dial_is_told_where() -> None:
    targets = [member(0), local(1)]
    assert dial_orders(plan(targets), _endpoints) == [(1, _endpoints(0))]


def test_a_bridge_is_told_whom_to_dial_and_whom_to_wait_for() -> None:
    target, between = member(0, "B"), member(100, "C")
    reach = _everything_known(
        [SOURCE, target, between],
        {("A/head", between.node_label), (between.node_label, target.node_label)},
    )
    route = plan([target], reach=reach, bridges=[between], is_final=True)
    passage = {0: "ab" * 16}
    assert to_tree(route, _endpoints, passage) == [
        {
            "index": 0,
            "parent": -1,
            "mode": "tunnel",
            "endpoints": [["10.0.0.102", 7100]],
            "bridge": "ab" * 16,
        }
    ]
    assert bridge_orders(route, _endpoints, passage) == [
        (
            100,
            {"bridge": "ab" * 16, "feeder": None, "taker": [["10.0.0.2", 7000]], "index": 0},
        )
    ]
    assert dial_orders(route, _endpoints) == []


def test_where_castrays_machine_is_the_bridge_it_dials_both_sides() -> None:
    target = member(0, "B")
    reach = _everything_known(
        [SOURCE, target, local(9)], {("local", "A/head"), ("local", target.node_label)}
    )
    route = plan([target], reach=reach, bridges=[local(9)], is_final=True)
    tree = to_tree(route, _endpoints, {0: "cd" * 16})
    assert [(row["mode"], row["parent"]) for row in tree] == [("await", -1)]
    ((agent, order),) = bridge_orders(route, _endpoints, {0: "cd" * 16})
    assert agent == 9
    assert order["feeder"] == [["10.0.0.1", 6999]]
    assert order["taker"] == [["10.0.0.2", 7000]]
