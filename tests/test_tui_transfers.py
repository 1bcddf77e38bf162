"""Transfers on the screen: what can be asked for, how they stand, what can be done with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from textual.events import Key
from textual.widgets import Input
from tui_fleet import GIB, NOW, Harness, small_fleet, transfer

from castray_tui.core.config import Settings, TransferSettings, UiSettings
from castray_tui.core.errors import TransferError, UsageError
from castray_tui.core.models import (
    PlannedTarget,
    Transfer,
    TransferLeg,
    TransferPlan,
    TransferRequest,
    TransferTarget,
)
from castray_tui.screens.confirm import ConfirmDialog
from castray_tui.screens.fleet import FleetScreen
from castray_tui.screens.transfer import TransferDialog
from castray_tui.screens.transfer_details import TransferDetails
from castray_tui.screens.transfer_request import (
    quoted,
    request_of,
    target_addresses,
    words_of,
)
from castray_tui.screens.widgets.place_text import place_label, row_label
from castray_tui.screens.widgets.route_text import folded_route, route_text
from castray_tui.screens.widgets.transfer_rates import TargetRates, TransferRates

SIZE = (80, 24)


def unwrapped(harness: Harness) -> str:
    """What is on the screen, without borders and line ends."""
    return " ".join(re.sub("[│▂-█]", " ", harness.text()).split())


# --- what is typed -------------------------------------------------------------------------------


def asked(**fields: str) -> TransferRequest:
    blank = {"path": "/tmp/", "exclude": "", "include": "", "limit": "", "link_limit": ""}
    values: dict[str, Any] = {**blank, "sources": "/x", "targets": "ml/head", **fields}
    return request_of(**values, overwrite="if-different", links="keep")


def test_fields_make_a_request() -> None:
    request = asked(
        sources="/data/a 'my file.bin' ml/*:/logs/",
        targets="ml/head,ml/10.0.0.2 web/head:/else/",
        exclude="*.log '.git/'",
        include="keep.log",
        limit="10MB",
        link_limit="1 MiB",
    )
    assert request == TransferRequest(
        ("/data/a", "my file.bin", "ml/*:/logs/"),
        ("ml/head:/tmp/", "ml/10.0.0.2:/tmp/", "web/head:/else/"),
        rate_limit_bytes_per_second=10_000_000,
        include=("keep.log",),
        exclude=("*.log", ".git/"),
        link_rate_limit_bytes_per_second=1024**2,
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sources": " "}, "Say what to send"),
        ({"targets": ""}, "Say where to"),
        ({"path": ""}, "Say the path"),
        ({"sources": "'open"}, "A quote is not closed in 'open"),
        ({"exclude": '"open'}, "A quote is not closed"),
        ({"limit": "fast"}, "'fast' is no rate"),
        ({"link_limit": "-3"}, "'-3' is no rate"),
    ],
)
def test_fields_that_make_no_request_say_why(fields: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(**fields)


@pytest.mark.parametrize(
    "words", [["/a"], ["/a b/", "c"], ["it's", '"', "\\"], ["ml/*:/x y"], ["a\nb", ""]]
)
def test_quoting_keeps_words(words: list[str]) -> None:
    assert words_of(quoted(words)) == words


def test_wildcards_are_shown_as_they_are_typed() -> None:
    assert quoted(["ml/*:/logs/", "*/*:/x"]) == "ml/*:/logs/ */*:/x"


def test_a_word_with_a_path_of_its_own_keeps_it() -> None:
    assert target_addresses("ml/head:/a,b, web/*", "/t/") == ("ml/head:/a,b", "web/*:/t/")


# --- the dialog ----------------------------------------------------------------------------------


def planned(
    names: Sequence[str] = ("head", "10.0.0.2"), route: Sequence[str] = (), **more: Any
) -> Any:
    async def plan(request: TransferRequest) -> TransferPlan:
        targets = tuple(
            PlannedTarget("ml", name, f"/tmp/{name}", "send", free_bytes=93 * GIB, send_bytes=GIB)
            for name in names
        )
        return TransferPlan(
            request.sources[0], "multicast", 3 * GIB, None, targets, tuple(route), **more
        )

    return plan


async def test_options_of_the_dialog_reach_the_engine() -> None:
    harness = Harness(answers={"plan": planned()})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t")
        await pilot.pause()
        dialog = harness.app.screen
        assert isinstance(dialog, TransferDialog)
        dialog.query_one("#source", Input).value = "/data/a '/data/b c'"
        await pilot.press("tab", "tab", "tab", *"*.log", "tab", *"a.log", "tab", *"5MB")
        await pilot.press("tab", *"1MB", "ctrl+l", "ctrl+o", "enter")
        await harness.settle(pilot)
        request = TransferRequest(
            ("/data/a", "/data/b c"),
            ("ml/head:/tmp/",),
            "never",
            5_000_000,
            include=("a.log",),
            exclude=("*.log",),
            links="follow",
            link_rate_limit_bytes_per_second=1_000_000,
        )
        assert harness.engine.orders == [("plan", request)]
        text = harness.text()
        assert "[x] follow" in text
        assert "[x] never" in text


async def test_the_dialog_begins_with_the_policy_of_the_settings() -> None:
    settings = Settings(
        ui=UiSettings(refresh_rate=1000), transfer=TransferSettings(overwrite="never")
    )
    harness = Harness(settings=settings)
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t")
        await pilot.pause()
        assert "[x] never" in harness.text()
        await pilot.press("ctrl+s")
        await harness.settle(pilot)
        ((_, request),) = harness.engine.orders
        assert request.overwrite == "never"


async def test_the_field_with_the_focus_is_explained() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t")
        await pilot.pause()
        for words in (
            "quote names with spaces",
            "wildcards work",
            "ends in /",
            "stays behind",
            "even where it is excluded",
            "of all together",
            "from one node to another",
        ):
            assert words in harness.text()
            await pilot.press("tab")
            await pilot.pause()


async def test_the_plan_shows_what_is_sent_the_way_and_how_long_it_takes() -> None:
    route = ("local → ml/head", "ml/head → ml/10.0.0.2 (by web/head)")
    plan = planned(route=route, predicted_seconds=65.2, files=120)
    harness = Harness(answers={"plan": plan})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t", "enter")
        await harness.settle(pilot)
        text = harness.text()
        assert "local → ml/head → ml/10.0.0.2 (by web/head)" in text
        assert "120 files, 3.0G to 2 of 2, about 1:05" in text
        for title in ("PLAN", "NODE", "SEND", "FREE", "PATH OR REASON"):
            assert title in text
        harness.engine.answers["plan"] = TransferError("No such file")
        await pilot.press("shift+tab", "shift+tab", "shift+tab", "shift+tab", "enter")
        await harness.settle(pilot)
        assert "No such file" in harness.text()
        assert "local → ml/head" not in harness.text()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 20)])
async def test_every_field_and_button_is_on_the_screen(size: tuple[int, int]) -> None:
    route = [f"ml/{i} → ml/{i + 1}" for i in range(40)]
    plan = planned([str(i) for i in range(41)], route, predicted_seconds=3.0)
    harness = Harness(answers={"plan": plan})
    async with harness.app.run_test(size=size) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t", "enter")
        await harness.settle(pilot)
        region = harness.app.screen.region
        for widget in harness.app.screen.query("Input, Button, #policy, #links, #plan, #answer"):
            assert widget.region.height >= 1, widget
            assert region.contains_region(widget.region), widget
        text = harness.text()
        assert "about 0:03" in text
        assert "ml/0" in text


async def test_fetching_from_marked_nodes_gathers_from_all_of_them() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "space", "space", "t")
        await pilot.pause()
        dialog = harness.app.screen
        dialog.query_one("#path", Input).value = "/var/my logs/"
        dialog.query_one("#source", Input).value = "/here/"
        await pilot.press("ctrl+r", "ctrl+s")
        await harness.settle(pilot)
        assert harness.engine.orders == [
            (
                "start_transfer",
                TransferRequest(
                    ("ml/head:/var/my logs/", "ml/10.0.0.2:/var/my logs/"), ("local:/here/",)
                ),
            )
        ]


async def test_an_unreadable_field_asks_nobody() -> None:
    harness = Harness()
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "t")
        await pilot.pause()
        harness.app.screen.query_one("#source", Input).value = "'/data"
        for key in ("enter", "ctrl+s"):
            await pilot.press(key)
            await harness.settle(pilot)
            assert "A quote is not closed" in harness.text()
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert harness.engine.orders == []


# --- orders --------------------------------------------------------------------------------------


def failed(**more: Any) -> Transfer:
    targets = (
        TransferTarget("ml", "head", "/tmp/x", verdict="verified", bytes=GIB),
        TransferTarget("ml", "10.0.0.2", "/tmp/x", verdict="failed", reason="disk full"),
    )
    return transfer("t1", state="partial", targets=targets, **more)


ORDERS = [
    (transfer("t1"), "p", ("pause", "t1"), "The transfer is paused."),
    (transfer("t1", state="paused"), "p", ("unpause", "t1"), "The transfer is running."),
    (transfer("t1", state="paused"), "u", ("unpause", "t1"), "The transfer is running."),
    (failed(), "R", ("retry", "t1"), "Sending again to 1 target."),
    (failed(), "u", ("resume", "t1"), "Sending again to 1 target."),
    (transfer("t1", state="cancelled"), "u", ("resume", "t1"), "Sending again to 1 target."),
]


@pytest.mark.parametrize("where", ["pane", "details"])
@pytest.mark.parametrize(("shown", "key", "order", "said"), ORDERS)
async def test_a_key_gives_the_order_and_says_what_came_of_it(
    where: str, shown: Transfer, key: str, order: tuple[str, str], said: str
) -> None:
    harness = Harness(small_fleet(transfers=(shown,)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3")
        if where == "details":
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(harness.app.screen, TransferDetails)
        await pilot.press(key)
        await harness.settle(pilot)
        assert harness.engine.orders == [order]
        assert said in harness.toasts()


@pytest.mark.parametrize(
    ("shown", "key", "said"),
    [
        (transfer("t1", state="done"), "p", "The transfer has ended already: done."),
        (transfer("t1", state="done"), "u", "Nothing is left to send"),
        (transfer("t1", state="done"), "R", "None of its targets failed."),
        (transfer("t1"), "R", "The transfer is still under way."),
        (transfer("t1"), "u", "The transfer is still under way."),
        (transfer("t1", state="failed"), "x", "The transfer has ended already: failed."),
        (None, "p", "Put the cursor on a transfer."),
        (None, "u", "Put the cursor on a transfer."),
        (None, "R", "Put the cursor on a transfer."),
        (None, "x", "Put the cursor on a transfer."),
    ],
)
async def test_an_order_that_makes_no_sense_is_declined(
    shown: Transfer | None, key: str, said: str
) -> None:
    harness = Harness(small_fleet(transfers=() if shown is None else (shown,)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", key)
        await harness.settle(pilot)
        assert harness.engine.orders == []
        assert [toast for toast in harness.toasts() if said in toast] != []
        assert len(harness.toasts()) == 1


@pytest.mark.parametrize("where", ["pane", "details"])
async def test_cancelling_asks_first(where: str) -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", *(["enter"] if where == "details" else []), "x")
        await pilot.pause()
        assert isinstance(harness.app.screen, ConfirmDialog)
        assert "Cancel this transfer to ml/head:/tmp/model.bin?" in unwrapped(harness)
        assert "targets without a verdict" in harness.text()
        assert "held before" in harness.text()
        await pilot.press("enter")  # stands on No
        await pilot.pause()
        assert harness.engine.orders == []
        await pilot.press("x", "y")
        await pilot.pause()
        await harness.settle(pilot)
        assert harness.engine.orders == [("cancel", "t1")]


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [("p", "pause", "Not paused"), ("R", "retry", "Not tried again"), ("u", "resume", "Not res")],
)
async def test_a_refused_order_is_told(key: str, name: str, said: str) -> None:
    shown = transfer("t1") if key == "p" else failed()
    error = TransferError("The source is gone", remedy="Bring it back.")
    harness = Harness(small_fleet(transfers=(shown,)), answers={name: error})
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", key)
        await harness.settle(pilot)
        (toast,) = harness.toasts()
        assert toast.startswith(said)
        assert "The source is gone. Bring it back." in toast


async def test_keys_of_transfers_do_nothing_elsewhere() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"), failed())))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("2", "p", "R", "u", "1", "p", "R", "u")
        await harness.settle(pilot)
        assert harness.engine.orders == []
        assert harness.toasts() == []


async def test_the_bottom_line_offers_what_makes_sense() -> None:
    def keys() -> str:
        return harness.text().splitlines()[-1]

    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3")
        await pilot.pause()
        for offered in ("p Pause", "R Retry", "u Resume", "x Cancel", "q Quit"):
            assert offered in keys()
        await pilot.press("2")
        await pilot.pause()
        assert "p Pause" not in keys()
        assert "x Cancel" not in keys()
        await pilot.press("3", "enter")
        await pilot.pause()
        assert "p Pause" in keys()
        assert "x Cancel" in keys()
        assert "R Retry" not in keys()
        await harness.push(pilot, small_fleet(transfers=(failed(),)))
        assert "p Pause" not in keys()
        assert "x Cancel" not in keys()
        assert "R Retry" in keys()
        assert "u Resume" in keys()


async def test_quitting_asks_while_files_come_here() -> None:
    here = transfer(
        "t1",
        source="ml/head:/x",
        legs=(TransferLeg("ml", "head", ("/x",)),),
        targets=(TransferTarget("local", "local", "/here/x"),),
    )
    harness = Harness(small_fleet(transfers=(here,)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("q")
        await pilot.pause()
        assert "would be cut off" in harness.text()
        await pilot.press("n")
        away = replace(here, targets=(TransferTarget("web", "head", "/x"),))
        await harness.push(pilot, small_fleet(transfers=(away,)))
        await pilot.press("q")
        await pilot.pause()
    assert harness.app.return_value == 0


async def test_disconnecting_from_a_source_says_that_it_is_one() -> None:
    from_ml = transfer(
        "t1",
        source="ml/head:/x",
        legs=(TransferLeg("ml", "head", ("/x",)),),
        targets=(TransferTarget("web", "head", "/x"),),
    )
    harness = Harness(small_fleet(transfers=(from_ml,)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("j", "x")
        await pilot.pause()
        assert "1 transfer(s) from or to it are under way" in harness.text()


# --- how it stands -------------------------------------------------------------------------------

MOVING = TransferTarget(
    "ml", "head", "/tmp/model.bin",
    bytes=GIB // 4, bytes_total=GIB, sent_bytes=GIB // 4, attempts=1, via=("local", "ml/head"),
)  # fmt: skip
AGAIN = TransferTarget(
    "ml", "10.0.0.2", "/tmp/model.bin",
    bytes=0, bytes_total=GIB, sent_bytes=GIB // 2, attempts=3,
    via=("local", "ml/head", "web/head", "ml/10.0.0.2"), reason="waiting for the node",
)  # fmt: skip
DONE = TransferTarget(
    "web", "head", "/tmp/model.bin",
    verdict="verified", bytes=GIB, bytes_total=GIB, sent_bytes=GIB, attempts=1, seconds=20.0,
    via=("local", "web/head"),
)  # fmt: skip


def three_targets(state: Any = "running", first: TransferTarget = MOVING) -> Transfer:
    return transfer(
        "t1",
        state=state,
        targets=(first, AGAIN, DONE),
        legs=(TransferLeg("local", "local", ("/data/model.bin",)),),
        files=1,
        route=("local → ml/head", "ml/head → ml/10.0.0.2 (by web/head)", "local → web/head"),
        request=TransferRequest(
            ("/data/model.bin",), ("ml/*:/tmp/",), exclude=("*.log",), links="follow"
        ),
        rate_limit_bytes_per_second=50_000_000,
    )


async def test_details_tell_each_targets_rate_attempts_bytes_and_way() -> None:
    fleet = small_fleet(transfers=(three_targets(),))
    harness = Harness(fleet)
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", "enter")
        await pilot.pause()
        faster = replace(MOVING, bytes=GIB // 2)
        await harness.push(
            pilot, replace(fleet, time=NOW + 2, transfers=(three_targets(first=faster),))
        )
        lines = harness.text().splitlines()
        [head] = [line for line in lines if "ml/head " in line and "under way" in line]
        assert "512M  50%" in head
        assert "128M/s" in head
        [again] = [line for line in lines if "ml/10.0.0.2 " in line and "waiting" in line]
        assert "0B   0%" in again
        assert " 3  512M " in again
        [done] = [line for line in lines if "verified" in line]
        assert "51M/s" in done
        await pilot.press("g")
        await pilot.pause()
        text = unwrapped(harness)
        assert "via local → ml/head → web/head → ml/10.0.0.2" in text
        assert "attempt 3" in text
        assert "local → ml/head → ml/10.0.0.2 (by web/head); local → web/head" in text


async def test_details_of_a_paused_transfer_say_so_for_every_target() -> None:
    harness = Harness(small_fleet(transfers=(three_targets("paused"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3")
        await pilot.pause()
        assert "paused" in harness.text()
        await pilot.press("enter")
        await pilot.pause()
        text = harness.text()
        assert "under way" not in text
        assert text.count("paused") == 3  # the transfer, and two targets without a verdict


async def test_facts_that_have_no_room_can_be_scrolled_to() -> None:
    harness = Harness(small_fleet(transfers=(three_targets(),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", "enter")
        await pilot.pause()
        assert "left out" not in harness.text()
        await pilot.press(*["J"] * 8)
        await pilot.pause()
        text = harness.text()
        assert "*.log" in text
        assert "follow" in text
        assert "48M/s" in text
        assert harness.app.screen.query_one("#targets").has_focus
        await pilot.press(*["K"] * 8)
        await pilot.pause()
        assert "running (unicast)" in harness.text()


async def test_gathering_names_each_rows_own_source() -> None:
    rows = tuple(
        TransferTarget("local", "local", f"/out/ml-{name}/x", leg=leg, source=f"ml/{name}:/x")
        for leg, name in enumerate(("head", "10.0.0.2"))
    )
    harness = Harness(small_fleet(transfers=(transfer("t1", targets=rows),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", "enter")
        await pilot.pause()
        details = harness.app.screen
        assert isinstance(details, TransferDetails)
        assert len(details.targets.rows) == 2
        assert "ml/head → local" in harness.text()
        assert "ml/10.0.0.2 → local" in harness.text()
        assert "from ml/head:/x" in harness.text()
        await pilot.press("j")
        await pilot.pause()
        assert "from ml/10.0.0.2:/x" in harness.text()


async def test_a_path_that_the_agent_worked_out_keeps_the_row() -> None:
    """The path changes between the request and the plan; the row and the cursor stay."""
    before = transfer("t1", targets=(replace(MOVING, path="/tmp/"), AGAIN))
    harness = Harness(small_fleet(transfers=(before,)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", "enter", "G")
        await pilot.pause()
        await harness.push(
            pilot, small_fleet(transfers=(replace(before, targets=(MOVING, AGAIN)),))
        )
        details = harness.app.screen
        assert isinstance(details, TransferDetails)
        assert details.targets.cursor_row == MOVING


def typed_in_one_go(harness: Harness, *keys: str) -> None:
    driver = harness.app._driver
    assert driver is not None
    for key in keys:
        character = {"enter": "\r", "slash": "/"}.get(key, key)
        driver.process_message(Key(key, character))


async def test_keys_typed_in_one_go_reach_the_pane_that_was_named() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        typed_in_one_go(harness, "3", "enter")
        await pilot.pause()
        await pilot.pause()
        assert isinstance(harness.app.screen, TransferDetails)


async def test_a_filter_typed_in_one_go_is_that_of_the_pane_that_was_named() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        for number, name in (("1", "clusters"), ("3", "transfers"), ("2", "nodes")):
            typed_in_one_go(harness, number, "slash", *"ml", "enter")
            await pilot.pause()
            await pilot.pause()
            assert harness.screen._filters[name] == "ml"
            assert name == harness.screen.pane.id


async def test_leaving_the_details_leads_back_to_the_transfers() -> None:
    harness = Harness(small_fleet(transfers=(transfer("t1"),)))
    async with harness.app.run_test(size=SIZE) as pilot:
        await harness.settle(pilot)
        await pilot.press("3", "enter")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(harness.app.screen, FleetScreen)
        assert harness.screen.transfers.has_focus


# --- rates and routes ----------------------------------------------------------------------------


def test_a_target_has_its_present_rate_and_in_the_end_its_mean() -> None:
    rates = TargetRates()
    rates.take(three_targets(), 10.0)
    assert rates.bytes_per_second(MOVING) is None
    rates.take(three_targets(first=replace(MOVING, bytes=GIB)), 12.0)
    assert rates.bytes_per_second(MOVING) == pytest.approx(0.375 * GIB)
    assert rates.bytes_per_second(AGAIN) == 0
    assert rates.bytes_per_second(DONE) == GIB / 20
    assert rates.bytes_per_second(replace(DONE, bytes=0)) is None


def test_what_is_paused_has_no_rate_and_starts_anew() -> None:
    rates, whole = TargetRates(), TransferRates()
    for moment, state in ((0.0, "running"), (1.0, "running"), (2.0, "paused")):
        shown = replace(three_targets(state), bytes_done=int(moment) * GIB)
        rates.take(shown, moment)
        whole.take([shown], moment)
    assert rates.bytes_per_second(MOVING) is None
    assert whole.bytes_per_second(shown) is None
    assert whole.seconds_left(shown) is None


@pytest.mark.parametrize(
    ("hops", "folded"),
    [
        ((), []),
        (("A → B", "B → C", "C → D"), ["A → B → C → D"]),
        (("A → B", "A → C", "B → D", "C → E"), ["A → B → D", "A → C → E"]),
        (("A → B (by X)", "B → C (by Y)"), ["A → B (by X) → C (by Y)"]),
        (("A → B", "B → C", "B → D"), ["A → B → C", "B → D"]),
        (("somehow", "A → B"), ["somehow", "A → B"]),
    ],
)
def test_hops_that_follow_each_other_are_one_line(hops: tuple[str, ...], folded: list[str]) -> None:
    assert folded_route(hops) == folded


def test_a_long_route_is_told_by_its_beginning() -> None:
    hops = [f"n{number} → n{number + 1}" for number in range(10_000)]
    text = route_text(hops)
    assert text.startswith("n0 → n1 → n2")
    assert text.endswith("→ n50; and 9950 more hops")
    assert route_text(hops[:2]) == "n0 → n1 → n2"


def test_a_place_is_told_in_few_words() -> None:
    assert place_label("local", "local") == "local"
    assert row_label("ml", "head", None, "→") == "ml/head"
    assert row_label("local", "local", "ml/head:/x:y", "→") == "ml/head → local"
    assert row_label("ml", "head", "web/[fe80::1]:/x", "->") == "web/[fe80::1] -> ml/head"
    assert row_label("ml", "head", "local:/x", "->") == "local -> ml/head"
