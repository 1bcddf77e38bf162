"""What is shown, told and kept of transfers, of this castray's own and of others'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from castray_tui.core.event_stream import EventStream
from castray_tui.core.fleet import FleetBoard, FleetParts
from castray_tui.core.journal import Journal
from castray_tui.core.models import Transfer, TransferTarget
from castray_tui.core.transfer_news import TransferNews

TRANSFER = Transfer(
    id="ab" * 16,
    kind="unicast",
    state="running",
    source="local:/x",
    bytes_total=100,
    targets=(TransferTarget("ml", "head", "/x", bytes_total=100),),
    started=1.0,
)


class Desk:
    """One castray's news, and everything behind it."""

    def __init__(self, path: Path) -> None:
        self.parts = FleetParts()
        self.journal = Journal.open(path)
        self.stream = EventStream(self.journal.add_event)
        self.stream.start()
        self.news = TransferNews(self.parts, FleetBoard(self.parts), self.stream, self.journal)

    def done(self, count: int) -> None:
        """So many bytes are there."""
        target = replace(TRANSFER.targets[0], bytes=count)
        self.news.changed(replace(TRANSFER, bytes_done=count, targets=(target,)))

    async def close(self) -> None:
        await self.news.saved()
        await self.stream.close()
        await self.journal.close()


@pytest.fixture
async def desks(tmp_path: Path) -> AsyncIterator[tuple[Desk, Desk]]:
    made = Desk(tmp_path / "journal.sqlite3"), Desk(tmp_path / "journal.sqlite3")
    yield made
    for desk in made:
        await desk.close()


async def test_a_transfer_that_goes_on_is_told_as_begun_again(desks: tuple[Desk, Desk]) -> None:
    desk, _ = desks
    desk.news.changed(TRANSFER)
    desk.done(50)
    desk.news.changed(replace(TRANSFER, state="failed"))
    desk.news.changed(replace(TRANSFER, state="planning"))
    desk.news.changed(replace(TRANSFER, state="done"))
    await desk.news.saved()
    await desk.stream.close()
    types = [event.type for event in reversed(await desk.journal.events())]
    assert types == [
        "transfer_started",
        "transfer_progressed",
        "transfer_finished",
        "transfer_started",
        "transfer_finished",
    ]
    assert (await desk.journal.transfer(TRANSFER.id)).state == "done"


async def test_only_the_newest_of_many_states_is_written(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = desks
    written: list[int] = []
    save = desk.journal.save_transfer

    async def slow(transfer: Transfer) -> None:
        await asyncio.sleep(0.05)
        written.append(transfer.bytes_done)
        await save(transfer)

    monkeypatch.setattr(desk.journal, "save_transfer", slow)
    desk.news.changed(TRANSFER)
    for count in range(10, 100, 10):
        await asyncio.sleep(0.001)
        desk.done(count)
    await desk.news.saved()
    assert written[-1] == 90
    assert len(written) <= 3
    assert (await desk.journal.transfer(TRANSFER.id)).bytes_done == 90


async def test_what_another_castray_does_is_shown_and_told_by_that_one_alone(
    desks: tuple[Desk, Desk],
) -> None:
    mine, other = desks
    own = replace(TRANSFER, id="cd" * 16)
    mine.news.changed(own)
    await mine.news.saved()
    looking = asyncio.create_task(
        mine.news.look_at_others(0.02, lambda transfer_id: transfer_id == own.id)
    )

    async def until(state: str) -> None:
        while mine.parts.transfers.get(TRANSFER.id, own).state != state:
            await asyncio.sleep(0.01)

    other.news.changed(replace(TRANSFER, state="paused"))
    await asyncio.wait_for(until("paused"), 10)
    other.news.changed(replace(TRANSFER, state="done"))
    await asyncio.wait_for(until("done"), 10)
    assert mine.parts.transfers[own.id] == own
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await other.stream.close()
    told = [event.data["id"] for event in await mine.journal.events()]
    assert told.count(TRANSFER.id) == 2
