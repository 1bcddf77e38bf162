"""What targets are written into: whole files and whole trees, or what was there before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from castray_tui.agent import disk_sync, tree_staging
from castray_tui.agent.files import FileRefusedError
from castray_tui.agent.part_file import PartFile
from castray_tui.agent.scanning import Scan, scan
from castray_tui.agent.staging import Destination, open_destination

MIB = 1024 * 1024
ODD_NAMES = ["with space", "new\nline", "\udcff\udcfe", "ünï", "-rf", "*", "\\", "'\""]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders with odd modes, files, links, an empty folder and an empty file."""
    top = tmp_path / "source"
    (top / "a" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "z.txt").write_bytes(b"z")
    (top / "a" / "x.log").write_bytes(b"log")
    (top / "a" / "deep" / "nothing").write_bytes(b"")
    (top / "a" / "link").symlink_to("../z.txt")
    (top / "a" / "nowhere").symlink_to("/nowhere/at/all")
    (top / "z.txt").chmod(0o764)
    (top / "a" / "deep").chmod(0o555)
    (top / "empty").chmod(0o700)
    for path in [*top.rglob("*"), top]:
        os.utime(path, ns=(1, 1_400_000_000_000_000_000 + hash(path.name) % 10**9), **NO_FOLLOW)
    return top


NO_FOLLOW: dict[str, Any] = {"follow_symlinks": False}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    return folder


@pytest.fixture(params=["syncfs", "fsync"])
def either_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything to the disk by one call, and file by file."""
    if request.param == "fsync":
        monkeypatch.setattr(tree_staging, "sync_file_system", lambda fd: False)
    else:
        monkeypatch.setattr(tree_staging, "_SYNCED_SINGLY", 0)


def opened(scanned: Scan, path: Path | str, **order: Any) -> Destination:
    order = {"overwrite": "if-different", "skip": [], "reserve_bytes": 0, **order}
    return open_destination(
        {"path": str(path), "part_id": "test-0", "roots": [], **order}, scanned.manifest
    )


def fill(destination: Destination, scanned: Scan) -> None:
    for number, path in enumerate(scanned.paths):
        if number not in destination.skip:
            destination.write_whole(number, memoryview(Path(path).read_bytes()))


def sent(source: Path | list[Path], target: Path, **order: Any) -> None:
    paths = [str(one) for one in (source if isinstance(source, list) else [source])]
    patterns = {name: order[name] for name in ("include", "exclude") if name in order}
    scanned = scan(paths, [], **patterns)
    destination = opened(scanned, target, **order)
    try:
        fill(destination, scanned)
        destination.publish()
    finally:
        destination.discard()


def looks(top: Path) -> dict[str, Any]:
    """Everything in a folder: kind, mode, time and content of each entry."""
    found = {}
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(top))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def content_of(fd: int) -> bytes:
    try:
        return os.pread(fd, 10_000_000, 0)
    finally:
        os.close(fd)


# --- single files ----------------------------------------------------------------------------


@pytest.fixture(params=["unnamed", "named"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with O_TMPFILE, and those without."""
    if request.param == "named":
        monkeypatch.setattr(PartFile, "_open_unnamed", lambda self: -1)
    return str(request.param)


def test_a_file_is_written_in_pieces_and_read_meanwhile(either_way: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    content = os.urandom(1000) + bytes(3000) + os.urandom(1000)
    source.write_bytes(content)
    destination = opened(scan([str(source)], []), tmp_path / "new" / "file")
    destination.write(0, 0, memoryview(content[:1000]))
    assert content_of(destination.descriptor(0)) == content[:1000]
    destination.skip_hole(0, 1000, 3000)
    destination.write(0, 4000, memoryview(b"wrong"))
    assert destination.written_bytes == 4005
    destination.truncate_to(0, 4000)
    assert destination.written_bytes == 4000
    destination.write(0, 4000, memoryview(content[4000:]))
    destination.publish()
    assert (tmp_path / "new" / "file").read_bytes() == content
    assert content_of(destination.descriptor(0)) == content
    destination.discard()
    assert names(tmp_path / "new") == ["file"]
    with pytest.raises(FileRefusedError):
        destination.descriptor(0)


def test_what_is_not_whole_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    destination = opened(scan([str(tmp_path / "source")], []), tmp_path / "file")
    destination.write(0, 0, memoryview(b"con"))
    with pytest.raises(FileRefusedError, match="not whole"):
        destination.publish()
    destination.discard()
    assert not (tmp_path / "file").exists()


def test_holes_stay_holes(either_way: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
    if source.stat().st_blocks:
        pytest.skip("this file system keeps no holes")
    destination = opened(scan([str(source)], []), tmp_path / "file")
    destination.skip_hole(0, 0, 64 * MIB)
    destination.publish()
    destination.discard()
    status = (tmp_path / "file").stat()
    assert (status.st_size, status.st_blocks) == (64 * MIB, 0)


def test_a_skipped_file_is_read_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "file").write_bytes(b"content")
    destination = opened(scan([str(tmp_path / "source")], []), tmp_path / "file", skip=[0])
    assert content_of(destination.descriptor(0)) == b"content"
    with pytest.raises(FileRefusedError, match="skipped"):
        destination.write_whole(0, memoryview(b"content"))
    destination.publish()
    destination.discard()
    assert (tmp_path / "file").read_bytes() == b"content"


# --- trees where there was none --------------------------------------------------------------


def test_a_tree_appears_whole_with_modes_and_times(
    either_sync: None, tree: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "folder" / "tree"
    scanned = scan([str(tree)], [])
    destination = opened(scanned, target)
    fill(destination, scanned)
    assert not target.exists()
    destination.publish()
    assert looks(target) == looks(tree)
    assert names(target.parent) == ["tree", *(f"tree/{name}" for name in names(tree))]
    number = scanned.paths.index(str(tree / "z.txt"))
    assert content_of(destination.descriptor(number)) == b"z"
    destination.discard()
    assert looks(target) == looks(tree)


def test_others_read_on_while_the_disk_takes_its_time(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = scan([str(tree)], [])
    destination = opened(scanned, tmp_path / "tree")
    fill(destination, scanned)
    number = scanned.paths.index(str(tree / "z.txt"))

    def slow(fd: int) -> bool:
        with ThreadPoolExecutor() as pool:
            read = pool.submit(lambda: content_of(destination.descriptor(number)))
            assert read.result(timeout=10) == b"z"
        return True

    monkeypatch.setattr(tree_staging, "_SYNCED_SINGLY", 0)
    monkeypatch.setattr(tree_staging, "sync_file_system", slow)
    destination.publish()
    destination.discard()
    assert looks(tmp_path / "tree") == looks(tree)


def test_odd_names_arrive(tmp_path: Path) -> None:
    top = tmp_path / "source"
    for name in ODD_NAMES:
        (top / name).mkdir(parents=True)
        (top / name / name).write_bytes(os.fsencode(name))
    sent(top, tmp_path / "tree")
    assert looks(tmp_path / "tree") == looks(top)


def test_modes_hold_whatever_the_umask(tmp_path: Path, tree: Path) -> None:
    before = os.umask(0o077)
    try:
        sent(tree, tmp_path / "tree")
    finally:
        os.umask(before)
    assert looks(tmp_path / "tree") == looks(tree)


def test_several_sources_come_into_a_folder(tree: Path, tmp_path: Path) -> None:
    sent([tree / "a", tree / "z.txt"], tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert looks(folder / "a") == looks(tree / "a")
    assert (folder / "z.txt").read_bytes() == b"z"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "z.txt"]
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_discarded_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    scanned = scan([str(tree)], [])
    destination = opened(scanned, tmp_path / "new" / "tree")
    fill(destination, scanned)
    destination.discard()
    destination.discard()
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileRefusedError, match="ended"):
        destination.write_whole(0, memoryview(b"z"))


def test_a_tree_is_not_published_before_it_is_whole(tree: Path, tmp_path: Path) -> None:
    scanned = scan([str(tree)], [])
    destination = opened(scanned, tmp_path / "tree")
    destination.write_whole(0, memoryview(b"z"))
    with pytest.raises(FileRefusedError, match="not whole"):
        destination.publish()
    destination.discard()
    assert not (tmp_path / "tree").exists()


def test_large_files_in_trees_come_in_pieces(tmp_path: Path) -> None:
    top = tmp_path / "source"
    top.mkdir()
    contents = [os.urandom(300_000) for _ in range(12)]
    for number, content in enumerate(contents):
        (top / f"{number:02}").write_bytes(content)
    with (top / "sparse").open("wb") as file:
        file.truncate(8 * MIB)
    scanned = scan([str(top)], [])
    destination = opened(scanned, tmp_path / "tree")
    for number, content in enumerate(contents):  # More files than are kept open.
        destination.write(number, 0, memoryview(content)[:200_000])
    for number, content in enumerate(contents):
        assert content_of(destination.descriptor(number)) == content[:200_000]
        destination.write(number, 200_000, memoryview(b"wrong"))
        destination.truncate_to(number, 200_000)
        destination.write(number, 200_000, memoryview(content)[200_000:])
    destination.skip_hole(12, 0, 8 * MIB)
    assert destination.written_bytes == 12 * 300_000 + 8 * MIB
    destination.publish()
    destination.discard()
    assert looks(tmp_path / "tree") == looks(top)
    if not (top / "sparse").stat().st_blocks:
        assert (tmp_path / "tree" / "sparse").stat().st_blocks == 0


def test_a_file_that_comes_again_counts_once(tree: Path, tmp_path: Path) -> None:
    scanned = scan([str(tree)], [])
    destination = opened(scanned, tmp_path / "tree")
    fill(destination, scanned)
    fill(destination, scanned)
    assert destination.written_bytes == scanned.manifest.total_bytes
    destination.publish()
    destination.discard()
    assert looks(tmp_path / "tree") == looks(tree)


def test_a_folder_that_was_made_meanwhile_is_merged_into(tree: Path, tmp_path: Path) -> None:
    scanned = scan([str(tree)], [])
    destination = opened(scanned, tmp_path / "tree")
    fill(destination, scanned)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "other").write_bytes(b"other")
    destination.publish()
    destination.discard()
    assert names(tmp_path / "tree") == sorted(["other", *names(tree)])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".castray")]


# --- trees into folders that are there -------------------------------------------------------


def test_two_that_bring_the_same_folder_at_once_both_do(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raylets of one host that are sent the same: neither meets a folder when it looks."""
    (tree / "a" / "bound").mkdir()
    (tree / "a" / "bound" / "within").write_bytes(b"within")
    (tree / "a" / "bound").chmod(0o555)
    target = tmp_path / "into"
    target.mkdir()
    move_all = tree_staging.move_all

    def move_after_another(*arguments: Any) -> None:
        monkeypatch.setattr(tree_staging, "move_all", move_all)
        sent([tree, more], target)
        (target / tree.name / "a" / "other").write_bytes(b"other")
        move_all(*arguments)

    # A folder that is named with others is put beside what is there.
    more = tmp_path / "more"
    more.write_bytes(b"more")
    monkeypatch.setattr(tree_staging, "move_all", move_after_another)
    sent([tree, more], target)
    assert (target / tree.name / "a" / "other").read_bytes() == b"other"
    (target / tree.name / "a" / "other").unlink()
    expected, found = looks(tree), looks(target / tree.name)
    del expected["."], found["."], expected["a"], found["a"]
    assert found == expected
    (tree / "a" / "bound").chmod(0o755)
    assert not list(target.rglob(".castray*"))


def test_a_tree_is_merged_into_what_is_there(either_sync: None, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    (target / "a" / "own").mkdir(parents=True)
    (target / "z.txt").write_bytes(b"old")
    (target / "a" / "link").symlink_to("elsewhere")
    target.chmod(0o711)
    sent(tree, target)
    expected = looks(tree)
    found = looks(target)
    assert found.pop("a/own")
    assert found.pop(".")[:2] == (0o040711, tree.stat().st_mtime_ns)
    del expected["."]
    assert found == expected


def test_skipped_files_stay_as_they_are(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    sent(tree, target)
    inode = (target / "z.txt").stat().st_ino
    number = scan([str(tree)], []).paths.index(str(tree / "z.txt"))
    scanned = scan([str(tree)], [])
    destination = opened(scanned, target, skip=[number])
    assert content_of(destination.descriptor(number)) == b"z"
    fill(destination, scanned)
    destination.publish()
    destination.discard()
    assert (target / "z.txt").stat().st_ino == inode
    assert looks(target) == looks(tree)


def test_never_holds_to_the_last_moment(tree: Path, tmp_path: Path) -> None:
    scanned = scan([str(tree)], [])
    target = tmp_path / "tree"
    target.mkdir()
    destination = opened(scanned, target, overwrite="never")
    fill(destination, scanned)
    (target / "z.txt").write_bytes(b"quicker")
    with pytest.raises(FileRefusedError, match=r"exists: 1 of 5 files, first .*/z.txt") as caught:
        destination.publish()
    assert caught.value.code == "exists"
    destination.discard()
    assert names(target) == ["z.txt"]
    assert (target / "z.txt").read_bytes() == b"quicker"


def test_never_fills_in_what_is_missing(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    (target / "a").mkdir(parents=True)
    sent(tree, target, overwrite="never")
    assert names(target) == names(tree)
    assert (target / "a" / "x.log").stat().st_nlink == 1


def test_nothing_is_put_through_a_link(tree: Path, tmp_path: Path, outside: Path) -> None:
    target = tmp_path / "tree"
    target.mkdir()
    (target / "a").symlink_to(outside)
    before = looks(outside)
    with pytest.raises(FileRefusedError, match="is a link"):
        sent(tree, target)
    assert looks(outside) == before
    assert names(target) == ["a"]


def test_a_link_that_is_put_in_meanwhile_is_not_followed(
    tree: Path, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tree"
    (target / "a").mkdir(parents=True)
    scanned = scan([str(tree)], [])
    destination = opened(scanned, target)
    fill(destination, scanned)
    move_all = tree_staging.move_all

    def swapped(*arguments: Any) -> None:
        arguments[2][1].close_all_but_top()
        (target / "a").rename(target / "was-a")
        (target / "a").symlink_to(outside)
        move_all(*arguments)

    monkeypatch.setattr(tree_staging, "move_all", swapped)
    before = looks(outside)
    with pytest.raises(FileRefusedError, match="is a link or no folder"):
        destination.publish()
    destination.discard()
    assert looks(outside) == before


def test_a_top_that_is_a_link_is_refused(tree: Path, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "tree").symlink_to(outside)
    before = looks(outside)
    with pytest.raises(FileRefusedError):
        sent(tree, tmp_path / "tree")
    assert looks(outside) == before


@pytest.mark.parametrize("name", ["z.txt", "a/link", "a"])
def test_files_and_folders_do_not_take_each_others_place(
    name: str, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tree" / name
    path.parent.mkdir(parents=True)
    if name == "a":
        path.write_bytes(b"file")
    else:
        path.mkdir()
    before = looks(tmp_path / "tree")
    with pytest.raises(FileRefusedError):
        sent(tree, tmp_path / "tree", overwrite="always")
    after = looks(tmp_path / "tree")
    assert before.keys() == after.keys()


def test_roots_are_looked_at_again(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileRefusedError, match="allowed_roots"):
        opened(scan([str(tree)], []), tmp_path / "tree", roots=[str(tmp_path / "root")])


# --- removing what the source does not have --------------------------------------------------


def test_others_are_removed_only_where_asked(tree: Path, tmp_path: Path, outside: Path) -> None:
    target = tmp_path / "tree"
    (target / "a" / "old" / "deep").mkdir(parents=True)
    (target / "a" / "old" / "file").write_bytes(b"old")
    (target / "a" / "way-out").symlink_to(outside)
    (target / "a" / "old" / "way-out").symlink_to(outside)
    (target / "b").mkdir()
    sent(tree, target)
    assert set(names(tree)) < set(names(target))
    sent(tree, target, delete=True)
    assert names(target) == names(tree)
    assert names(outside) == ["precious"]
    assert (target / "a").stat().st_mtime_ns == (tree / "a").stat().st_mtime_ns


def test_what_the_patterns_leave_out_is_not_removed(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    (target / "cache" / "deep").mkdir(parents=True)
    (target / "old").mkdir(parents=True)
    (target / "cache" / "deep" / "file").write_bytes(b"kept")
    (target / "old" / "x.log").write_bytes(b"kept")
    (target / "old" / "x.txt").write_bytes(b"removed")
    (target / ".castray-other-1.part").write_bytes(b"kept")
    sent(tree, target, delete=True, exclude=["*.log", "cache/"])
    kept = {".castray-other-1.part", "cache", "cache/deep", "cache/deep/file", "old", "old/x.log"}
    assert set(names(target)) == kept | (set(names(tree)) - {"a/x.log"})


def test_several_sources_remove_nothing_beside_them(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "a").mkdir(parents=True)
    (target / "beside").write_bytes(b"kept")
    (target / "a" / "old").write_bytes(b"removed")
    sent([tree / "a", tree / "z.txt"], target, delete=True)
    assert "beside" in names(target)
    assert "a/old" not in names(target)


# --- disks and deaths ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine mounts nothing for tests: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_reason_and_leaves_nothing(tmp_path: Path, small_disk: Path) -> None:
    top = tmp_path / "source"
    top.mkdir()
    for number in range(20):
        (top / str(number)).write_bytes(os.urandom(100_000))
    with pytest.raises(FileRefusedError, match="No space left on device") as caught:
        sent(top, small_disk / "tree")
    assert caught.value.code == "full"
    assert names(small_disk) == []


def test_the_reserve_stays_free(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(600_000))
    with pytest.raises(FileRefusedError, match="reserve"):
        sent(tmp_path / "source", small_disk / "tree", reserve_bytes=700_000)
    with pytest.raises(FileRefusedError, match="reserve"):
        sent(tmp_path / "source" / "file", small_disk / "file", reserve_bytes=700_000)
    assert names(small_disk) == []


def test_a_sync_that_fails_is_told(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tree_staging, "_SYNCED_SINGLY", 0)
    monkeypatch.setattr(tree_staging, "sync_file_system", fail)
    with pytest.raises(FileRefusedError, match="Input/output error"):
        sent(tree, tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["source"]


def test_this_systems_own_sync_is_found(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("syncfs is Linux's")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert disk_sync._syncfs() is not None
    assert disk_sync.sync_file_system(fd) == disk_sync._tells_errors()
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk_sync.sync_file_system(fd)


KILLED = """
import os, sys
from castray_tui.agent.part_file import PartFile
from castray_tui.agent.scanning import scan
from castray_tui.agent.staging import open_destination
source, target, way = sys.argv[1:]
if way == "named":
    PartFile._open_unnamed = lambda self: -1
found = scan([source], [])
destination = open_destination(dict(path=target, part_id="dies-0", skip=[],
    overwrite="if-different", reserve_bytes=0), found.manifest)
destination.write(0, 0, memoryview(b"z"))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["tree", "tree-into", "named", "unnamed"])
def test_a_killed_writer_leaves_nothing(way: str, tree: Path, tmp_path: Path) -> None:
    source = tree if way.startswith("tree") else tree / "z.txt"
    target = tmp_path / "new" / "folder" / "target"
    if way == "tree-into":
        target.mkdir(parents=True)
    command = [sys.executable, "-c", KILLED, str(source), str(target), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if way != "unnamed":
            assert list(tmp_path.rglob(".castray-dies-0-*.part"))
        os.kill(process.pid, signal.SIGKILL)
    left = target if way == "tree-into" else tmp_path / "new"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not left.exists() or (way == "tree-into" and not names(left)):
            break
        time.sleep(0.01)  # The janitor is no child of this process: nothing tells of its end.
    assert left.exists() == (way == "tree-into")
    assert not list(tmp_path.rglob(".castray-*"))


def test_what_nobody_cleared_away_is_swept(tree: Path, tmp_path: Path) -> None:
    dead = tmp_path / ".castray-dead-0.part"
    (dead / "deep").mkdir(parents=True)
    (dead / "deep" / "file").write_bytes(b"half")
    scanned = scan([str(tree)], [])
    living = opened(scanned, tmp_path / "living", part_id="living-0")
    hour_ago = time.time() - 3600
    (part,) = tmp_path.glob(".castray-living-0-*.part")
    for old in (dead, part):
        os.utime(old, (hour_ago, hour_ago))
    sent(tree, tmp_path / "tree")
    assert not dead.exists()
    fill(living, scanned)
    living.publish()
    living.discard()
    assert looks(tmp_path / "living") == looks(tree)


AS_NOBODY = """
import os, sys
from castray_tui.agent.scanning import scan
from castray_tui.agent.staging import open_destination
source, target = sys.argv[1:]
for round in range(2):
    found = scan([source], [])
    destination = open_destination(dict(path=target, part_id="x-0", skip=[],
        overwrite="always", reserve_bytes=0), found.manifest)
    for number, path in enumerate(found.paths):
        destination.write_whole(number, memoryview(open(path, "rb").read()))
    if round:
        destination.discard()
    else:
        destination.publish()
        destination.discard()
"""


def test_modes_that_bind_their_owner_are_kept_too(tree: Path) -> None:
    python = Path("/usr/bin/python3")  # Anybody may run it, wherever these tests' own lies.
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("only root can become somebody else, who needs a Python too")
    folder = Path(tempfile.mkdtemp(prefix="castray-test-"))
    try:
        shutil.copytree(tree, folder / "source", symlinks=True)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        package = folder / "castray_tui"
        shutil.copytree(Path(tree_staging.__file__).parent, package / "agent")
        (package / "__init__.py").touch()
        (folder / "into").mkdir()
        os.chown(folder / "into", 65534, 65534)
        for target in ("new", "into"):
            path = str(folder / target)
            command = [str(python), "-c", AS_NOBODY, str(folder / "source"), path]
            done = subprocess.run(
                command,
                cwd=folder,
                user=65534,
                group=65534,
                extra_groups=[],
                env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            found, expected = looks(folder / target), looks(folder / "source")
            del found["."], expected["."]
            assert found == expected
            assert names(folder / target) == names(tree)
    finally:
        shutil.rmtree(folder)
