"""Dialogs and other screens: every action gives an answer, and failures are shown in place."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest
from textual.screen import Screen
from textual.widgets import Input
from tui_fleet import NOW, Harness, changed, cluster, found, small_fleet, transfer

from castray_tui.core.config import ExternalClusterSettings, Settings, UiSettings
from castray_tui.core.errors import ConfigError, TransferError, UnreachableError
from castray_tui.core.models import (
    DiscoveryReport,
    Event,
    LogFile,
    PlannedTarget,
    TransferPlan,
    TransferRequest,
)
from castray_tui.screens.confirm import ConfirmDialog
from castray_tui.screens.connect import ConnectDialog
from castray_tui.screens.fleet import FleetScreen
from castray_tui.screens.help import HelpScreen
from castray_tui.screens.transfer import TransferDialog

SIZE = (80, 24)


async def test_connect_failure_is_shown_in_the_dialog_which_stays() -> None:
    error = UnreachableError("Nothing answers at 10.9.9.9:8265", remedy="Start the dashboard.")
    harness = Harness(answers={"connect": error})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("c")
        await pilot.press(*"10.9.9.9:8265", "enter")
        await harness.settle(pilot)
        assert ("connect", "10.9.9.9:8265") in harness.engine.orders
        assert isinstance(harness.app.screen, ConnectDialog)
        assert "Nothing answers at 10.9.9.9:8265" in harness.text()
        assert "Start the dashboard." in harness.text()
        harness.engine.answers["connect"] = cluster("new")
        await pilot.press("enter")
        await harness.settle(pilot)
        assert isinstance(harness.app.screen, FleetScreen)
        assert "Connected to new." in harness.toasts()


def with_found(*names: str) -> Harness:
    return Harness(replace(small_fleet(), discovered=tuple(map(found, names))))


async def test_connect_picks_the_first_found_cluster_unless_another_is_chosen() -> None:
    harness = with_found("lab", "lab2", "lab3")
    harness.engine.answers["connect"] = UnreachableError("Nothing answers")
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("c")
        await pilot.pause()
        assert "Enter connects to lab." in harness.text()
        await pilot.press("enter")
        await harness.settle(pilot)
        await pilot.press("down")
        await pilot.pause()
        assert "Enter connects to lab2." in harness.text()
        await pilot.press("down", "enter")
        await harness.settle(pilot)
        await pilot.press("up", "up", "up", *"typed:1")
        await pilot.pause()
        assert "Enter connects" not in harness.text()
        await pilot.press("enter")
        await harness.settle(pilot)
        connects = [order for order in harness.engine.orders if order[0] == "connect"]
        assert connects == [("connect", "lab"), ("connect", "lab3"), ("connect", "typed:1")]


async def test_down_from_a_typed_address_goes_to_the_first_found_cluster() -> None:
    harness = with_found("lab", "lab2")
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("c", "x", "down", "enter")
        await harness.settle(pilot)
        assert harness.engine.orders == [("connect", "lab")]


async def test_connect_with_nothing_found_and_nothing_typed_says_what_to_do() -> None:
    harness = with_found()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("c", "down", "up", "enter")
        await harness.settle(pilot)
        assert "type an address" in harness.text()
        assert harness.engine.orders == []


async def test_connect_begins_with_the_found_cluster_under_the_cursor() -> None:
    harness = with_found("lab", "lab2", "lab3")
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("1", "G", "k", "c", "enter")
        await harness.settle(pilot)
        assert harness.engine.orders == [("connect", "lab2")]


async def test_details_of_a_found_cluster_offer_to_connect() -> None:
    harness = with_found("lab", "lab2")
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("1", "enter")
        await pilot.pause()
        assert "c Connect" not in harness.text()
        await pilot.press("escape", "G", "enter")
        await pilot.pause()
        assert "found, not connected" in harness.text()
        assert "c Connect" in harness.text()
        await pilot.press("c")
        await pilot.pause()
        assert "Enter connects to lab2." in harness.text()
        await pilot.press("enter")
        await harness.settle(pilot)
        assert harness.engine.orders == [("connect", "lab2")]


async def test_a_cluster_that_was_disconnected_shows_as_found_and_comes_back() -> None:
    lab = cluster("lab")
    fleet = replace(small_fleet(), clusters=(lab,), discovered=(found("lab"),))
    harness = Harness(fleet)
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("1", "x")
        await pilot.pause()
        await pilot.press("y")
        await harness.settle(pilot)
        assert harness.engine.orders == [("disconnect", "lab")]
        await harness.push(pilot, replace(fleet, clusters=()))
        row = harness.screen.clusters.cursor_row
        assert row is not None
        assert row.state_word == "found"
        await pilot.press("c", "enter")
        await harness.settle(pilot)
        assert harness.engine.orders[-1] == ("connect", "lab")
        await harness.push(pilot, fleet)
        row = harness.screen.clusters.cursor_row
        assert row is not None
        assert row.state_word == "connected"


@pytest.mark.parametrize(
    ("auto_discover", "discover", "connects"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
async def test_discover_connects_unless_told_not_to(
    auto_discover: bool, discover: bool, connects: bool
) -> None:
    settings = Settings(
        ui=UiSettings(refresh_rate=1000),
        external_cluster=ExternalClusterSettings(auto_discover=auto_discover),
    )
    harness = Harness(settings=settings, discover=discover)
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("d")
        await harness.settle(pilot)
        assert harness.engine.orders == [("discover", connects)]


async def test_keys_answer_while_a_connection_hangs() -> None:
    hangs = asyncio.Event()

    async def never(_: Any) -> Any:
        await hangs.wait()

    harness = Harness(answers={"connect": never})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("c", *"host", "enter")
        await pilot.pause()
        assert "Connecting to host" in harness.text()
        await pilot.press("escape", "j")
        assert harness.cursor() == "ml/head"
        hangs.set()


def a_plan(request: TransferRequest) -> TransferPlan:
    return TransferPlan(
        request.sources[0],
        "multicast",
        1024,
        None,
        (
            PlannedTarget("ml", "head", "/tmp/x", "send", free_bytes=10**9),
            PlannedTarget("ml", "10.0.0.2", "/tmp/x", "refuse", "The folder is not writable"),
        ),
    )


async def test_transfer_takes_the_marked_nodes_shows_the_plan_and_starts() -> None:
    async def plan(request: TransferRequest) -> TransferPlan:
        return a_plan(request)

    harness = Harness(answers={"plan": plan})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "space", "space", "t")
        await pilot.pause()
        dialog = harness.app.screen
        assert isinstance(dialog, TransferDialog)
        assert dialog.query_one("#targets", Input).value == "ml/head ml/10.0.0.2"
        dialog.query_one("#source", Input).value = "/data/x"
        await pilot.press("ctrl+o", "enter")
        await harness.settle(pilot)
        request = TransferRequest(("/data/x",), ("ml/head:/tmp/", "ml/10.0.0.2:/tmp/"), "never")
        assert harness.engine.orders == [("plan", request)]
        text = harness.text()
        assert "refuse" in text
        assert "The folder is not writable" in text
        assert "1 refused" in text
        assert dialog.focused is not None
        assert dialog.focused.id == "start"
        await pilot.press("enter")
        await harness.settle(pilot)
        assert harness.engine.orders[-1] == ("start_transfer", request)
        assert isinstance(harness.app.screen, FleetScreen)
        assert any("started" in toast for toast in harness.toasts())


async def test_transfer_errors_stay_in_the_dialog() -> None:
    error = TransferError("There is no file /nowhere", remedy="Check the path.")
    harness = Harness(answers={"plan": error, "start_transfer": error})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t", "enter")
        await harness.settle(pilot)
        assert "There is no file /nowhere. Check the path." in harness.text()
        await pilot.press("ctrl+s")
        await harness.settle(pilot)
        assert isinstance(harness.app.screen, TransferDialog)
        harness.app.screen.query_one("#targets", Input).value = ""
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert "Say where to" in harness.text()


async def test_a_whole_cluster_marked_becomes_a_wildcard_and_fetching_swaps() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        harness.screen.apply_filter(harness.screen.nodes, "cluster:ml")
        await pilot.press("asterisk", "t")
        await pilot.pause()
        dialog = harness.app.screen
        assert dialog.query_one("#targets", Input).value == "ml/*"
        dialog.query_one("#targets", Input).value = "ml/head:/logs/a.txt"
        dialog.query_one("#source", Input).value = "/here/"
        await pilot.press("ctrl+r")
        assert dialog.query_one("#source", Input).value == "ml/head:/logs/a.txt"
        assert dialog.query_one("#targets", Input).value == "local"
        assert dialog.query_one("#path", Input).value == "/here/"


async def test_read_only_refuses_transfers_and_says_so() -> None:
    harness = Harness(settings=Settings(read_only=True, ui=UiSettings(refresh_rate=1000)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        assert "READ-ONLY" in harness.text()
        await pilot.press("t")
        assert isinstance(harness.app.screen, FleetScreen)
        assert any("read-only" in toast for toast in harness.toasts())


async def test_disconnect_asks_first() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "x")
        await pilot.pause()
        assert isinstance(harness.app.screen, ConfirmDialog)
        assert "1 transfer(s) from or to it are under way" in harness.text()
        await pilot.press("enter")  # stands on No
        await pilot.pause()
        assert harness.engine.orders == []
        await pilot.press("x", "y")
        await pilot.pause()
        await harness.settle(pilot)
        assert harness.engine.orders == [("disconnect", "ml")]
        assert "Disconnected from ml." in harness.toasts()


async def test_cancel_and_dismiss() -> None:
    fleet = changed(small_fleet(transfers=(transfer("t1"),)), "head", status="dead")
    harness = Harness(fleet)
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("delete")
        assert any("Only dead nodes" in toast for toast in harness.toasts())
        await pilot.press("j", "delete")
        await harness.settle(pilot)
        assert harness.engine.orders == [("dismiss", ("key-ml", "head-id"))]
        await pilot.press("3", "x", "y")
        await pilot.pause()
        await harness.settle(pilot)
        assert harness.engine.orders[-1] == ("cancel", "t1")


async def test_quitting_asks_only_while_files_leave_from_here() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("q")
        await pilot.pause()
        assert "Quit while files are being sent" in harness.text()
        await pilot.press("n")
        await pilot.pause()
        assert harness.app.is_running
        done = transfer("t1", state="done")
        await harness.push(pilot, small_fleet(transfers=(done,)))
        await pilot.press("q")
        await pilot.pause()
    assert harness.app.return_value == 0
    await harness.app.close_engine()
    assert harness.engine.closed


async def test_discovery_tells_what_it_came_to() -> None:
    harness = Harness(answers={"discover": DiscoveryReport(seconds=0.12)})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("d")
        await harness.settle(pilot)
        assert "0 clusters found in 0.1 s." in harness.toasts()


async def test_an_unexpected_error_is_told_and_ends_nothing() -> None:
    harness = Harness(answers={"discover": RuntimeError("[red]boom[/]")})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("d")
        await harness.settle(pilot)
        assert any("[red]boom[/]" in toast for toast in harness.toasts())
        await pilot.press("j")
        assert harness.cursor() == "ml/head"


async def test_an_engine_that_does_not_start_is_told() -> None:
    harness = Harness(answers={"start": UnreachableError("No journal", remedy="Free some space.")})
    async with harness.app.run_test(size=SIZE) as pilot:
        with pytest.raises(UnreachableError):
            await harness.app.engine_ready()
        await pilot.pause()
        assert any("No journal. Free some space." in toast for toast in harness.toasts())
        await pilot.press("d")
        await pilot.pause()
        assert harness.app.is_running


async def test_events_and_their_details() -> None:
    events = [Event(n, "node_joined", NOW + n, f"[b]n{n}[/b] joined", "ml") for n in (3, 2, 1)]
    harness = Harness(answers={"past_events": events})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("e")
        await harness.settle(pilot)
        text = harness.text()
        assert text.index("[b]n3[/b]") < text.index("[b]n1[/b]")
        await pilot.press("j", "enter")
        await pilot.pause()
        assert "[b]n2[/b] joined" in harness.text()
        await pilot.press("escape", "q")
        assert isinstance(harness.app.screen, FleetScreen)


async def test_logs_list_open_and_failure() -> None:
    harness = Harness(
        answers={"log_files": [LogFile("raylet.out", "raylet")], "read_log": "one\n\x1b[31mtwo\n"}
    )
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("l")
        assert any("Logs are those of a cluster" in toast for toast in harness.toasts())
        await pilot.press("j", "l")
        await harness.settle(pilot)
        assert "raylet.out" in harness.text()
        await pilot.press("enter")
        await harness.settle(pilot)
        assert "one" in harness.text()
        assert "\x1b" not in harness.text()
        await pilot.press("escape", "escape")
        harness.engine.answers["log_files"] = UnreachableError("The agent does not answer")
        await pilot.press("l")
        await harness.settle(pilot)
        assert "The agent does not answer" in harness.text()


async def test_details_follow_the_fleet() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "enter")
        await pilot.pause()
        assert "alive" in harness.text()
        dead = changed(harness.engine.fleet, "head", status="dead", reason="out of memory")
        await harness.push(pilot, dead)
        assert "out of memory" in harness.text()
        await pilot.press("escape", "1", "enter")
        await pilot.pause()
        assert "2.49.2" in harness.text()
        await pilot.press("escape", "3", "enter")
        await pilot.pause()
        assert "/tmp/model.bin" in harness.text()


async def test_help_lists_every_key_that_works() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        active = list(harness.app.screen.active_bindings.values())
        await pilot.press("question_mark")
        await pilot.pause()
        screen = harness.app.screen
        assert isinstance(screen, HelpScreen)
        listed = screen.content().plain
        ours = [one.binding for one in active if one.binding.id and not one.binding.system]
        assert len(ours) > 30
        for binding in ours:
            assert harness.app.get_key_display(binding) in listed
            assert binding.description in listed
            assert " ".join(binding.tooltip.split()) in " ".join(listed.split())


async def test_palette_does_what_a_key_does() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("colon", *"mark all")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause()
        assert len(harness.screen.nodes.marked_keys) == 6


async def test_keymap_from_the_settings() -> None:
    keymap = {"fleet.mark_all": "m"}
    harness = Harness(ui=UiSettings(refresh_rate=1000, keymap=keymap))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("m")
        assert len(harness.screen.nodes.marked_keys) == 6


@pytest.mark.parametrize(
    ("ui", "said"),
    [
        (UiSettings(theme="castray-drak"), "Did you mean 'castray-dark'"),
        (UiSettings(theme="nowhere"), "castray-light"),
        (UiSettings(keymap={"fleet.markall": "m"}), "Did you mean 'fleet.mark_all'"),
        (UiSettings(keymap={"discover": "f5"}), "Did you mean 'fleet.discover'"),
        (UiSettings(keymap={"fleet.discover": "f5,"}), "empty key"),
    ],
)
def test_unknown_themes_and_bindings_are_refused_with_the_nearest(
    ui: UiSettings, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Harness(ui=ui)


@pytest.mark.parametrize("theme", ["castray-dark", "castray-light", "castray-ansi", "nord"])
async def test_themes_draw(theme: str) -> None:
    harness = Harness(ui=UiSettings(refresh_rate=1000, theme=theme))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        assert "ml" in harness.text()
        assert isinstance(harness.app.screen, Screen)


async def test_every_state_of_a_cluster_has_a_word() -> None:
    states = ("connecting", "connected", "stale", "unreachable", "refused", "lost")
    clusters = tuple(cluster(f"c-{state}", state=state) for state in states)
    fleet = replace(small_fleet(), clusters=clusters, discovered=())
    harness = Harness(fleet)
    async with harness.app.run_test(size=(120, 40)) as pilot:
        await harness.settle(pilot)
        for state in states:
            [line] = [line for line in harness.text().splitlines() if f"c-{state} " in line]
            assert f" {state} " in line
