"""The journal: what it keeps, and that nothing wrong with its file takes castray down."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from castray_tui.core import journal_store
from castray_tui.core.errors import NotFoundError
from castray_tui.core.journal import Journal
from castray_tui.core.journal_store import SCHEMA_VERSION
from castray_tui.core.models import EventDraft, Transfer, TransferTarget

_WRITER = """
import asyncio, sys
from pathlib import Path
from castray_tui.core.journal import Journal
from castray_tui.core.models import EventDraft

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    for number in range(int(sys.argv[2])):
        event = await journal.add_event(EventDraft(type="node_joined", message=sys.argv[3]))
        print(event.id, flush=True)
    assert journal.problem is None, journal.problem
    await journal.close()

asyncio.run(main())
"""


def draft(message: str = "joined", **fields: object) -> EventDraft:
    return EventDraft(type="node_joined", message=message, **fields)  # type: ignore[arg-type]


def transfer(
    name: str, *, state: str = "running", started: float = 1.0, **more: object
) -> Transfer:
    target = TransferTarget(cluster="ml", node="head", path="/data/x", via=("local", "head"))
    return Transfer(
        id=name,
        kind="unicast",
        state=state,  # type: ignore[arg-type]
        source="local:/x",
        targets=(target,),
        started=started,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


# --- keeping ----------------------------------------------------------------------------------


async def test_events_come_back_newest_first_and_by_pages(path: Path) -> None:
    journal = Journal.open(path)
    written = [await journal.add_event(draft(str(n), data={"n": n})) for n in range(5)]
    assert [event.id for event in written] == sorted({event.id for event in written})
    await journal.close()

    again = Journal.open(path)
    assert await again.events(limit=10) == written[::-1]
    page = await again.events(limit=2)
    assert await again.events(limit=2, before_id=page[-1].id) == [written[2], written[1]]
    assert again.problem is None
    await again.close()


async def test_a_transfer_is_replaced_by_its_newer_state(path: Path) -> None:
    journal = Journal.open(path)
    await journal.save_transfer(transfer("aa11"))
    done = transfer("aa11", state="done", ended=2.0, bytes_done=10, route=("local → ml/head",))
    await journal.save_transfer(done)
    await journal.save_transfer(transfer("aa22", started=5.0))
    await journal.close()

    again = Journal.open(path)
    assert await again.transfers() == [transfer("aa22", started=5.0), done]
    assert await again.transfers(state="done") == [done]
    assert await again.transfer("aa1") == done
    await again.close()


async def test_a_prefix_must_mean_one_transfer(path: Path) -> None:
    journal = Journal.open(path)
    await journal.save_transfer(transfer("ab"))
    await journal.save_transfer(transfer("abc"))
    assert (await journal.transfer("ab")).id == "ab"
    for wrong in ("a", "x", "", "%", "_"):
        with pytest.raises(NotFoundError):
            await journal.transfer(wrong)
    await journal.close()


async def test_names_that_are_no_utf8_are_kept(path: Path) -> None:
    odd = os.fsdecode(b"/x/\xff\n")
    journal = Journal.open(path)
    kept = transfer("aa", digest=odd)
    await journal.save_transfer(kept)
    await journal.add_event(draft(odd, cluster=odd, data={"path": odd}))
    await journal.close()
    again = Journal.open(path)
    assert (await again.transfer("aa")).digest == odd
    [event] = await again.events()
    assert event.data["path"] == odd
    assert event.message == "/x/\\udcff\n"
    await again.close()


async def test_only_the_newest_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_store, "MAX_EVENTS", 30)
    monkeypatch.setattr(journal_store, "_PRUNE_EVERY_EVENTS", 10)
    monkeypatch.setattr(journal_store, "MAX_TRANSFERS", 3)
    journal = Journal.open(path)
    for number in range(100):
        await journal.add_event(draft(str(number)))
    await journal.save_transfer(transfer("under way", started=0.5))
    for number in range(6):
        await journal.save_transfer(
            transfer(f"t{number}", state="done", started=float(number + 1), ended=9.0)
        )
    kept = await journal.events(limit=1000)
    assert [event.message for event in kept] == [str(number) for number in range(99, 69, -1)]
    names = [entry.id for entry in await journal.transfers()]
    assert names == ["t5", "t4", "t3", "under way"]
    await journal.close()


async def test_transfers_are_bounded_in_bytes_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_store, "MAX_TRANSFER_BYTES", 40_000)
    journal = Journal.open(path)
    for number in range(4):
        big = transfer(f"t{number}", state="done", started=float(number), ended=9.0)
        await journal.save_transfer(
            Transfer(
                **{name: getattr(big, name) for name in big.__slots__} | {"error": "x" * 15000}
            )
        )
    assert [entry.id for entry in await journal.transfers()] == ["t3", "t2"]
    await journal.close()


async def test_the_file_is_for_its_owner_only(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o644)
    journal = Journal.open(path)
    await journal.add_event(draft())
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await journal.close()


async def test_its_folder_is_made_for_its_owner_only(path: Path) -> None:
    journal = Journal.open(path)
    await journal.add_event(draft())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await journal.close()


async def test_events_are_numbered_in_the_order_in_which_they_were_given(path: Path) -> None:
    journal = Journal.open(path)
    events = await asyncio.gather(*(journal.add_event(draft(str(n))) for n in range(200)))
    assert [event.id for event in events] == list(range(1, 201))
    await journal.close()


# --- other processes --------------------------------------------------------------------------


def start_writer(path: Path, events: int, word: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(events), word],
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_what_was_numbered_survives_a_kill(path: Path) -> None:
    writer = start_writer(path, 1_000_000, "w")
    assert writer.stdout is not None
    seen = [int(writer.stdout.readline()) for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().splitlines()[:-1]  # the last line may be cut
    writer.wait()
    seen += [int(line) for line in rest]

    journal = Journal.open(path)
    kept = {event.id for event in await journal.events(limit=1_000_000)}
    assert set(seen) <= kept
    event = await journal.add_event(draft("after"))
    assert event.id == max(kept) + 1
    assert journal.problem is None
    await journal.close()
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


async def test_two_castrays_at_once(path: Path) -> None:
    writers = [start_writer(path, 300, word) for word in ("a", "b")]
    numbers = []
    for writer in writers:
        output, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        numbers.append([int(line) for line in output.split()])
    assert all(own == sorted(own) for own in numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(1, 601))
    journal = Journal.open(path)
    words = [event.message for event in await journal.events(limit=1000)]
    assert (words.count("a"), words.count("b")) == (300, 300)
    await journal.close()


# --- wrong files ------------------------------------------------------------------------------


async def assert_works_in_memory(journal: Journal, *words: str) -> None:
    event = await journal.add_event(draft("kept"))
    assert (await journal.events())[0] == event
    await journal.save_transfer(transfer("aa"))
    assert (await journal.transfer("a")).id == "aa"
    assert journal.problem is not None
    for word in words:
        assert word in journal.problem
    await journal.close()


@pytest.mark.parametrize(
    "content", [b"this is no database " * 100, b"SQLite format 3\0" + b"x" * 4080]
)
async def test_a_corrupt_file_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    await assert_works_in_memory(Journal.open(path), str(path), "Move the file away")
    assert path.read_bytes() == content


async def test_a_file_that_is_corrupted_while_it_is_used(path: Path) -> None:
    journal = Journal.open(path)
    for number in range(2000):
        await journal.add_event(draft(f"{number} " + "x" * 200))
    await journal.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xa5" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    await assert_works_in_memory(Journal.open(path), "malformed", "Move the file away")


async def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    await assert_works_in_memory(Journal.open(tmp_path / "file" / "journal.sqlite3"), "state_dir")
    (tmp_path / "folder").mkdir()
    await assert_works_in_memory(Journal.open(tmp_path / "folder"), "state_dir")


@pytest.mark.parametrize("begin", ["before", "after"])
async def test_a_file_that_another_process_does_not_let_go_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    monkeypatch.setattr(journal_store, "_BUSY_TIMEOUT_SECONDS", 0.05)
    first = Journal.open(path)
    old = await first.add_event(draft("old"))
    holder = sqlite3.connect(path, isolation_level=None)
    journal = Journal.open(path) if begin == "before" else first
    holder.execute("BEGIN IMMEDIATE")
    new = await journal.add_event(draft("new"))
    assert journal.problem is not None
    assert "See which other castray holds it" in journal.problem
    assert await journal.events() == [new, old]
    holder.execute("ROLLBACK")
    holder.close()
    await journal.close()
    await first.close()


async def test_a_castray_that_was_stopped_while_it_opened_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="the lock needs POSIX")
    monkeypatch.setattr(journal_store, "_BUSY_TIMEOUT_SECONDS", 0.05)
    path.parent.mkdir()
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        journal = Journal.open(path)
        await journal.add_event(draft())
        assert journal.problem is None
        await journal.close()


async def test_a_newer_castrays_file_is_left_alone(path: Path) -> None:
    journal = Journal.open(path)
    await journal.add_event(draft("old"))
    await journal.close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    newer.close()
    before = path.read_bytes()

    journal = Journal.open(path)
    await journal.add_event(draft("new"))
    assert [event.message for event in await journal.events()] == ["new"]
    assert journal.problem is not None
    assert "newer castray" in journal.problem
    await journal.close()
    assert path.read_bytes() == before

    again = Journal.open(path)
    assert [event.message for event in await again.events()] == ["new"]
    await again.close()


@pytest.mark.parametrize("also", [(), ("-wal", "-shm")])
async def test_a_file_deleted_while_it_is_used_is_made_anew(
    path: Path, also: tuple[str, ...]
) -> None:
    journal = Journal.open(path)
    first = await journal.add_event(draft("before"))
    path.unlink()
    for ending in also:
        path.with_name(path.name + ending).unlink()
    second = await journal.add_event(draft("after"))
    assert second.id > first.id
    assert journal.problem is None
    await journal.close()
    again = Journal.open(path)
    assert await again.events() == [second]
    assert (await again.add_event(draft())).id == second.id + 1
    await again.close()


async def test_a_file_deleted_between_runs_leaves_nothing_odd(path: Path) -> None:
    writer = start_writer(path, 1_000_000, "w")
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.kill()
    writer.communicate()
    assert path.with_name(path.name + "-wal").exists()
    path.unlink()
    journal = Journal.open(path)
    event = await journal.add_event(draft("new"))
    assert await journal.events() == [event]
    assert journal.problem is None
    await journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_disk_that_fills_up(small_disk: Path) -> None:
    journal = Journal.open(small_disk / "journal.sqlite3")
    events = []
    while journal.problem is None:
        events.append(await journal.add_event(draft("x" * 2000)))
        assert len(events) < 1000
    assert "Make room" in journal.problem
    events += [await journal.add_event(draft("later")) for _ in range(5)]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    # What the disk still holds and what memory holds read as one.
    assert await journal.events(limit=10_000) == events[::-1]
    await journal.close()

    again = Journal.open(small_disk / "journal.sqlite3")
    kept = await again.events(limit=10_000)
    assert [event.id for event in kept] == list(range(len(kept), 0, -1))
    assert len(kept) > 20
    await again.close()


async def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(b"x" * 4096)
    await assert_works_in_memory(Journal.open(small_disk / "journal.sqlite3"), "Make room")


async def test_without_a_path_all_is_in_memory() -> None:
    journal = Journal.open(None)
    await journal.add_event(draft())
    assert len(await journal.events()) == 1
    assert journal.problem is None
    await journal.close()
    await journal.close()


def test_file_systems_of_the_network_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for kind, expected in (("nfs4", True), ("ext4", False)):
        line = f"36 35 {number} / /home rw - {kind} server:/home rw"
        monkeypatch.setattr(Path, "read_text", lambda *_, line=line, **__: line)
        assert journal_store.on_network_file_system(tmp_path) is expected


# --- what one castray asks of another ---------------------------------------------------------


async def test_an_order_is_taken_once_and_only_by_who_runs_the_transfer(path: Path) -> None:
    asking, running, other = (Journal.open(path) for _ in range(3))
    first = await asking.add_order("t1", "pause")
    second = await asking.add_order("t2", "cancel")
    assert await other.take_orders({"t3"}) == []
    taken = await running.take_orders({"t1", "t3"})
    assert [(order.id, order.transfer_id, order.kind) for order in taken] == [
        (first, "t1", "pause")
    ]
    assert await other.take_orders({"t1"}) == []
    assert not await asking.is_order_open(first)
    assert await asking.is_order_open(second)
    assert await asking.withdraw_order(second)
    assert not await asking.withdraw_order(second)
    assert await running.take_orders({"t1", "t2"}) == []
    for journal in (asking, running, other):
        await journal.close()


async def test_transfers_are_found_by_cluster_and_time(path: Path) -> None:
    journal = Journal.open(path)
    await journal.save_transfer(transfer("sent", started=1.0))
    web = TransferTarget("web", "head", '/data/"cluster": "db"')
    whole = transfer("web", started=2.0)
    fields = {name: getattr(whole, name) for name in whole.__slots__}
    await journal.save_transfer(Transfer(**fields | {"targets": (web,)}))
    back = Transfer(**fields | {"id": "back", "source": "db/head:/x", "started": 3.0})
    await journal.save_transfer(back)

    async def names(**only: object) -> list[str]:
        found = await journal.transfers(**only)  # type: ignore[arg-type]
        return [each.id for each in found]

    assert await names(cluster="web") == ["web"]
    assert await names(cluster="db") == ["back"]
    assert await names(cluster="ml") == ["back", "sent"]
    assert await names(cluster="m") == []
    assert await names(since=2.0) == ["back", "web"]
    assert await names(since=2.0, cluster="ml", state="running") == ["back"]
    await journal.close()


async def test_a_transfer_of_the_first_format_is_read(path: Path) -> None:
    path.parent.mkdir()
    body = (
        '{"id": "old", "kind": "unicast", "state": "done", "source": "local:/x", "targets":'
        ' [{"cluster": "ml", "node": "head", "path": "/x", "verdict": "verified", "reason": null,'
        ' "digest": null, "bytes": 3, "seconds": 1.5, "attempts": 1, "node_id": null,'
        ' "via": ["local", "ml/head"]}], "bytes_total": 3, "bytes_done": 3, "started": 1.0,'
        ' "ended": 2.0, "digest": null, "error": null, "route": [], "overwrite": "if-different",'
        ' "rate_limit_bytes_per_second": null}'
    )
    first = sqlite3.connect(path)
    for statement in journal_store.MIGRATIONS[0]:
        first.execute(statement)
    first.execute("PRAGMA user_version=1")
    first.execute("INSERT INTO transfers VALUES ('old', 'done', 1.0, 2.0, 9, ?)", (body,))
    first.commit()
    first.close()
    journal = Journal.open(path)
    (old,) = await journal.transfers()
    assert (old.bytes_wanted, old.legs, old.request) == (3, (), None)
    assert old.targets[0].bytes_per_second == 2.0
    assert await journal.add_order("old", "cancel") == 1
    await journal.close()
