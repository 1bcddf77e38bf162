"""The node table: its rows keep their places, its cursor keeps its node, whatever data comes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from textual.events import Key
from tui_fleet import Harness, changed, local_node, node, small_fleet

from castray_tui.screens.filter_line import FilterLine

SIZES = [(80, 24), (120, 40), (220, 60)]


@pytest.mark.parametrize("size", SIZES)
async def test_local_node_first_then_clusters_by_name_heads_first(size: tuple[int, int]) -> None:
    harness = Harness()
    async with harness.app.run_test(size=size) as pilot:
        await harness.settle(pilot)
        assert harness.names() == [
            "local/local",
            "ml/head",
            "ml/10.0.0.2",
            "ml/10.0.0.3",
            "web/head",
            "web/10.0.1.2",
        ]
        lines = harness.text().splitlines()
        assert any(" L local" in line and "alive" in line for line in lines)
        assert sum(" E ml" in line for line in lines) == 3


@pytest.mark.parametrize("size", SIZES)
async def test_death_moves_no_row_and_not_the_cursor(size: tuple[int, int]) -> None:
    harness = Harness()
    async with harness.app.run_test(size=size) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "j", "j")
        assert harness.cursor() == "ml/10.0.0.3"
        before = harness.names()
        dead = changed(harness.engine.fleet, "10.0.0.2", status="dead", reason="raylet was killed")
        await harness.push(pilot, dead)
        assert harness.names() == before
        assert harness.cursor() == "ml/10.0.0.3"
        [line] = [line for line in harness.text().splitlines() if "10.0.0.2 " in line]
        assert "dead" in line
        assert "raylet was" in line


async def test_rows_stay_while_the_sorted_value_changes_and_r_sorts_again() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(120, 40)) as pilot:
        await harness.settle(pilot)
        harness.screen.nodes.sort_by("cpu")
        await pilot.pause()
        assert harness.names() == [
            "ml/10.0.0.2",
            "web/head",
            "ml/head",
            "local/local",
            "web/10.0.1.2",
            "ml/10.0.0.3",  # unknown comes last
        ]
        hot = node("web", "10.0.1.2", cpu=100.0)
        await harness.push(
            pilot, changed(harness.engine.fleet, "10.0.1.2", "web", hardware=hot.hardware)
        )
        assert harness.names()[4] == "web/10.0.1.2"
        await pilot.press("r")
        await harness.settle(pilot)
        assert harness.names()[0] == "web/10.0.1.2"
        assert ("refresh", None) in harness.engine.orders
        await pilot.press("S")
        assert harness.names()[-2:] == ["web/10.0.1.2", "ml/10.0.0.3"]


async def test_sort_key_walks_the_columns_and_comes_back() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(120, 40)) as pilot:
        await harness.settle(pilot)
        natural = harness.names()
        seen = []
        for _ in range(30):
            await pilot.press("s")
            if harness.screen.nodes.sort_title is None:
                break
            seen.append(harness.screen.nodes.sort_title)
            assert harness.screen.nodes.sort_title in str(harness.screen.nodes.border_title)
        assert {"cluster", "node", "state", "cpu", "memory", "disk"} <= set(seen)
        assert harness.names() == natural


async def test_joining_nodes_go_where_they_belong_and_the_cursor_stays_in_its_line() -> None:
    fleet = small_fleet(nodes=(local_node(), *(node("ml", f"n{n:03}") for n in range(0, 200, 2))))
    harness = Harness(fleet)
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        await pilot.press("G", *["k"] * 30)
        name, table = harness.cursor(), harness.screen.nodes
        line = table._cursor_index - table.scroll_offset.y
        joined = tuple(node("ml", f"n{n:03}") for n in range(1, 60, 2))
        await harness.push(pilot, replace(fleet, nodes=(*fleet.nodes, *joined)))
        assert harness.names() == ["local/local", *(f"ml/n{n:03}" for n in range(60)),
            *(f"ml/n{n:03}" for n in range(60, 200, 2))]  # fmt: skip
        assert harness.cursor() == name
        assert table._cursor_index - table.scroll_offset.y == line


async def test_cursor_goes_to_a_neighbour_when_its_cluster_is_disconnected() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "j")
        fleet = harness.engine.fleet
        left = tuple(one for one in fleet.nodes if one.cluster != "ml")
        await harness.push(pilot, replace(fleet, nodes=left))
        assert harness.cursor() == "web/10.0.1.2"
        await harness.push(pilot, replace(fleet, nodes=()))
        assert harness.screen.nodes.cursor_key is None
        await pilot.press("j", "space", "enter", "t")
        await harness.push(pilot, fleet)
        assert harness.screen.nodes.cursor_key is not None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("web", ["web/head", "web/10.0.1.2"]),
        ("!web !local", ["ml/head", "ml/10.0.0.2", "ml/10.0.0.3"]),
        ("/10\\.0\\.[01]\\.2/", ["ml/10.0.0.2", "web/10.0.1.2"]),
        ("state:dead", ["ml/10.0.0.3"]),
        ("cluster:ml !head", ["ml/10.0.0.2", "ml/10.0.0.3"]),
    ],
)
async def test_filter_grammar(text: str, names: list[str]) -> None:
    fleet = changed(small_fleet(), "10.0.0.3", status="dead")
    # Every node has the same address, which a plain text would find.
    fleet = replace(fleet, nodes=tuple(replace(one, address=None) for one in fleet.nodes))
    harness = Harness(fleet)
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        harness.screen.apply_filter(harness.screen.nodes, text)
        await pilot.pause()
        assert harness.names() == names
        assert f"{len(names)} of 6" in str(harness.screen.nodes.border_title)


async def test_filter_is_live_as_typed_shows_its_error_and_esc_clears() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        await pilot.press("slash", "w", "e")
        await pilot.pause()
        assert harness.names() == ["web/head", "web/10.0.1.2"]
        await pilot.press("backspace", "backspace", "slash", "left_parenthesis")
        await pilot.pause()
        assert "cannot be read" in harness.text()
        assert len(harness.names()) == 6
        await pilot.press("escape")
        await pilot.pause()
        assert harness.screen.nodes.has_focus
        assert "cannot be read" not in harness.text()
        await pilot.press("slash", *"head", "enter")
        await pilot.pause()
        assert harness.names() == ["ml/head", "web/head"]
        assert "filter: head" in harness.text()
        await pilot.press("escape")
        assert len(harness.names()) == 6


async def test_a_node_that_begins_to_match_the_filter_comes_in() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        harness.screen.apply_filter(harness.screen.nodes, "state:dead")
        assert harness.names() == []
        await harness.push(pilot, changed(harness.engine.fleet, "head", status="dead"))
        assert harness.names() == ["ml/head"]


async def test_marks() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "space", "space")
        table = harness.screen.nodes
        assert [table.rows[key].name for key in table.marked_keys] == ["head", "10.0.0.2"]
        assert harness.cursor() == "ml/10.0.0.3"
        assert "2 marked" in harness.text()
        await pilot.press("asterisk")
        assert len(table.marked_keys) == 6
        await pilot.press("asterisk")
        assert not table.marked_keys
        harness.screen.apply_filter(table, "cluster:web")
        await pilot.press("asterisk")
        assert [table.rows[key].cluster for key in table.marked_keys] == ["web", "web"]
        await pilot.press("escape", "escape")
        assert not table.marked_keys


async def test_keys_that_move() -> None:
    fleet = small_fleet(nodes=tuple(node("ml", f"n{n:03}") for n in range(100)))
    harness = Harness(fleet)
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        for key, name in [
            ("G", "n099"), ("k", "n098"), ("g", "n000"), ("j", "n001"), ("end", "n099"),
            ("home", "n000"), ("down", "n001"), ("up", "n000"),
        ]:  # fmt: skip
            await pilot.press(key)
            assert harness.cursor() == f"ml/{name}", key
            assert name in harness.text()
        await pilot.press("pagedown")
        assert harness.cursor() > "ml/n003"
        await pilot.press("1")
        assert harness.screen.clusters.has_focus
        await pilot.press("3")
        assert harness.screen.transfers.has_focus
        await pilot.press("2")
        assert harness.screen.nodes.has_focus
        await pilot.press("tab")
        assert harness.screen.transfers.has_focus
        await pilot.press("shift+tab")
        assert harness.screen.nodes.has_focus


async def test_a_thousand_nodes_answer_keys_at_once() -> None:
    fleet = small_fleet(nodes=tuple(node("ml", f"n{n:04}", cpu=n % 100) for n in range(1000)))
    harness = Harness(fleet)
    async with harness.app.run_test(size=(120, 40)) as pilot:
        await harness.settle(pilot)
        table = harness.screen.nodes
        churned = [
            replace(
                fleet,
                nodes=tuple(
                    replace(one, last_seen=one.last_seen + turn) if n % 10 == turn else one  # type: ignore[operator]
                    for n, one in enumerate(fleet.nodes)
                ),
            )
            for turn in range(5)
        ]
        slowest = 0.0
        for snapshot in churned:
            rows = {one.key: one for one in snapshot.nodes}
            start = time.process_time()
            table.set_rows(rows)
            slowest = max(slowest, time.process_time() - start)
        # A DataTable takes 50 ms for 4 cells of 1,000 rows; this is 100 rows changed.
        assert slowest < 0.05
        assert len(table._drawn) <= 40


async def test_a_tick_without_changes_draws_nothing_and_ages_only_their_cells() -> None:
    now = [1_767_225_600.0]
    harness = Harness(clock=lambda: now[0])
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        table = harness.screen.nodes
        drawn: list[object] = []
        original = table.refresh

        def refresh(*regions: object, **more: bool) -> object:
            drawn.extend(regions or ("all",))
            return original(*regions, **more)  # type: ignore[arg-type]

        table.refresh = refresh  # type: ignore[method-assign,assignment]
        table.redraw_changes()
        assert drawn == []
        now[0] += 2
        table.redraw_changes()
        assert drawn == [], "fresh figures are drawn again for their age alone"
        now[0] += 8
        table.redraw_changes()
        assert len(drawn) == 6
        assert all(getattr(region, "width", 99) == 4 for region in drawn)


async def test_what_is_typed_in_one_go_with_the_slash_is_text_and_no_order() -> None:
    harness = Harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        for key, character in (("slash", "/"), ("c", "c"), ("x", "x"), ("e", "e")):
            harness.app.post_message(Key(key, character))
        await harness.settle(pilot)
        assert isinstance(harness.app.focused, FilterLine)
        assert len(harness.app.screen_stack) == 1
        await pilot.press("m", "l")
        assert harness.app.focused.value == "cxeml"
