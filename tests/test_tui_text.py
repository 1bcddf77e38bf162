"""Names from clusters are data on every screen, and ``--ascii`` lets only ASCII through."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from tui_fleet import Harness, cluster, found, node, small_fleet, transfer

from castray_tui.core.config import UiSettings
from castray_tui.core.models import Event, TransferTarget
from castray_tui.screens.widgets.cells import cell_width, cut, fit
from castray_tui.screens.widgets.glyphs import ascii_text

HOSTILE = [
    "[bold red]markup[/]",
    "[@click=app.quit]quit[/]",
    "\x1b]0;owned\x07\x1b[31mred",
    "日本語のノード名前",
    "e\u0301\u0301\u0301 combining",
    "x" * 60,
    "\u202eevil\u200b",
    "$error [/]",
    "",
]


def hostile_harness(**ui: object) -> Harness:
    nodes = tuple(
        replace(
            node("ml", f"n{number}", status="dead"), name=text, cluster=text, reason=text,
            hostname=text, address=text,
        )
        for number, text in enumerate(HOSTILE)
    )  # fmt: skip
    fleet = small_fleet(
        nodes=nodes,
        clusters=tuple(
            replace(cluster(f"c{n}"), name=text, error=text, ray_version=text)
            for n, text in enumerate(HOSTILE)
        ),
        discovered=tuple(replace(found(f"f{n}"), name=text) for n, text in enumerate(HOSTILE)),
        transfers=tuple(
            transfer(f"t{n}", source=text, targets=(TransferTarget(text, text, text),), error=text)
            for n, text in enumerate(HOSTILE)
        ),
        last_event=Event(1, "node_died", 0.0, HOSTILE[0] + HOSTILE[2]),
    )
    return Harness(fleet, ui=UiSettings(refresh_rate=1000, **ui))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (220, 60)])
async def test_hostile_names_are_drawn_as_they_stand_and_nothing_is_out_of_line(
    size: tuple[int, int],
) -> None:
    harness = hostile_harness()
    async with harness.app.run_test(size=size) as pilot:
        await harness.settle(pilot)
        for key in ("1", "2", "3"):
            await pilot.press(key, "G", "g")
            text = harness.text()
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\u200b]", text)
            assert {cell_len(line) for line in text.splitlines()} == {size[0]}
        await pilot.press("2")
        assert "[bold re" in harness.text()
        for _ in HOSTILE:
            await pilot.press("enter")
            await pilot.pause()
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", harness.text())
            await pilot.press("escape", "j")
        assert harness.app.is_running


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (220, 60)])
async def test_ascii_screens_hold_only_ascii(size: tuple[int, int]) -> None:
    harness = hostile_harness(ascii=True)
    async with harness.app.run_test(size=size) as pilot:
        await harness.settle(pilot)
        assert harness.text().isascii()
        assert "+-" in harness.text()
        for keys in (
            ["c"], ["t"], ["question_mark"], ["colon"], ["enter"], ["1", "enter"], ["3", "enter"],
            ["e"], ["2", "slash", "x"], ["x"], ["2", "s", "space"],
        ):  # fmt: skip
            await pilot.press(*keys)
            await pilot.pause()
            text = harness.text()
            assert text.isascii(), (keys, [c for c in text if not c.isascii()])
            assert {len(line) for line in text.splitlines()} == {size[0]}
            if len(harness.app.screen_stack) > 1:
                await pilot.press("escape")
                await pilot.pause()


async def test_unicode_screens_would_fail_that_test() -> None:
    harness = hostile_harness()
    async with harness.app.run_test(size=(80, 24)) as pilot:
        await harness.settle(pilot)
        assert not harness.text().isascii()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 12, 80])
def test_fit_takes_exactly_the_width(text: str, width: int) -> None:
    for right in (False, True):
        assert cell_width(fit(((text, ""), (text, "dim")), width, right=right)) == width
    assert cell_len(cut(text, width)) <= max(width, 0) or "\x1b" in text


def test_ascii_text_keeps_the_width() -> None:
    for text in ["─│╭", "日本", "a…b", "●✗→", "…"]:
        assert ascii_text(text).isascii()
        assert len(ascii_text(text)) == cell_len(text)
