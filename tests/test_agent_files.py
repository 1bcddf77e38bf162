"""What the agent does to a file system: plans that change nothing, and files that appear whole."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castray_tui.agent import files, written_file
from castray_tui.agent.files import FileRefusedError
from castray_tui.agent.manifest import Entry, Manifest
from castray_tui.agent.part_file import PartFile
from castray_tui.agent.scanning import scan
from castray_tui.agent.target_plan import plan_target

CONTENT = b"content"


@pytest.fixture(params=["unnamed", "named"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with O_TMPFILE, and those without."""
    if request.param == "named":
        monkeypatch.setattr(PartFile, "_open_unnamed", lambda self: -1)
    return str(request.param)


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine mounts nothing for tests: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "small", "-o", "size=1m")


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "read-only", "-o", "ro,size=1m")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(path: Path, content: bytes = CONTENT) -> PartFile:
    part = PartFile(str(path), "test-0", 0)
    part.write(memoryview(content))
    return part


def test_the_real_name_appears_with_the_whole_content(either_way: str, tmp_path: Path) -> None:
    part = written(tmp_path / "new" / "deep" / "file")
    assert not (tmp_path / "new" / "deep" / "file").exists()
    part.publish(0o100751, 1_500_000_000_123_456_789, may_replace=True)
    path = tmp_path / "new" / "deep" / "file"
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o7777 == 0o751
    assert path.stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert names(path.parent) == ["file"]


def test_what_is_discarded_leaves_neither_file_nor_folder(either_way: str, tmp_path: Path) -> None:
    written(tmp_path / "new" / "deep" / "file").discard()
    assert names(tmp_path) in ([], ["home"])
    (tmp_path / "old").write_bytes(b"before")
    written(tmp_path / "old").discard()
    assert (tmp_path / "old").read_bytes() == b"before"


def test_setuid_does_not_travel(either_way: str, tmp_path: Path) -> None:
    written(tmp_path / "file").publish(0o104755, 0, may_replace=True)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755


def test_a_name_that_was_taken_meanwhile_is_left_alone(either_way: str, tmp_path: Path) -> None:
    part = written(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"quicker")
    with pytest.raises(FileRefusedError, match="exists"):
        part.publish(0o644, 0, may_replace=False)
    assert (tmp_path / "file").read_bytes() == b"quicker"
    assert [name for name in names(tmp_path) if name != "home"] == ["file"]


def test_a_free_name_is_taken_without_replacing(either_way: str, tmp_path: Path) -> None:
    written(tmp_path / "file").publish(0o644, 0, may_replace=False)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [name for name in names(tmp_path) if name != "home"] == ["file"]


def test_a_link_is_replaced_and_what_it_leads_to_is_not(either_way: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    written(tmp_path / "link").publish(0o644, 0, may_replace=True)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == CONTENT
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_the_part_of_a_dead_writer_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartFile, "_open_unnamed", lambda self: -1)
    dead = tmp_path / ".castray-dead-0.part"
    dead.write_bytes(b"half")
    hour_ago = time.time() - 3600
    os.utime(dead, (hour_ago, hour_ago))
    living = PartFile(str(tmp_path / "a"), "living-0", 0)
    (part,) = tmp_path.glob(".castray-living-0-*.part")
    os.utime(part, (hour_ago, hour_ago))
    other = PartFile(str(tmp_path / "b"), "other-0", 0)
    parts = [name for name in names(tmp_path) if name.endswith(".part")]
    assert [name.split("-")[1] for name in parts] == ["living", "other"]
    living.discard()
    other.discard()


def test_nothing_has_a_name_while_it_is_written(tmp_path: Path) -> None:
    part = written(tmp_path / "file")
    if part._is_named:
        pytest.skip("this file system knows no O_TMPFILE")
    assert [name for name in names(tmp_path) if name != "home"] == []
    part.discard()


def test_a_full_disk_is_a_reason_and_leaves_nothing(either_way: str, small_disk: Path) -> None:
    part = PartFile(str(small_disk / "file"), "test-0", 0)
    with pytest.raises(FileRefusedError, match="No space left on device") as caught:
        part.write(memoryview(bytes(2 * 1024 * 1024)))
    assert caught.value.code == "full"
    part.discard()
    assert names(small_disk) == []


def test_a_read_only_disk_is_a_reason(read_only_disk: Path) -> None:
    planned = plan(read_only_disk / "file")
    assert planned["action"] == "refuse"
    assert "Read-only file system" in planned["reason"]
    with pytest.raises(FileRefusedError, match="Read-only file system"):
        PartFile(str(read_only_disk / "file"), "test-0", 0)


# --- plans -----------------------------------------------------------------------------------


def plan(path: Path | str, *, name: str = "src", size: int = 7, **order: Any) -> dict[str, Any]:
    source = Manifest(name, False, (Entry("file", "", size, 0o644, 0, "", False),), size)
    return plan_target(
        {
            "path": str(path),
            "manifest": source.pack(),
            "overwrite": "if-different",
            "roots": [],
            "reserve_bytes": 0,
            "machine": files.machine_id(),
            "device": 0,
            "inode": 0,
            **order,
        },
        lambda device: 0,
    )


def test_a_path_that_ends_in_a_slash_is_a_folder_to_put_into(tmp_path: Path) -> None:
    planned = plan(f"{tmp_path}/new/")
    assert (planned["path"], planned["action"]) == (f"{tmp_path}/new/src", "send")
    assert planned["free_bytes"] > 0
    assert planned["existing_bytes"] is None
    assert not (tmp_path / "new").exists()


def test_home_is_that_of_the_node(own_home: Path) -> None:
    assert plan("~/x")["path"] == str(own_home / "x")


@pytest.mark.parametrize(
    ("overwrite", "size", "action"),
    [
        ("never", 7, "refuse"),
        ("if-different", 7, "compare"),
        ("if-different", 8, "send"),
        ("always", 7, "send"),
    ],
)
def test_an_existing_file_is_handled_by_the_policy(
    tmp_path: Path, overwrite: str, size: int, action: str
) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    planned = plan(tmp_path / "file", overwrite=overwrite)
    assert (planned["action"], planned["existing_bytes"]) == (action, size)


def refused(planned: dict[str, Any], words: str) -> bool:
    return planned["action"] == "refuse" and words in planned["reason"]


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing" / "folder")
    os.mkfifo(tmp_path / "pipe")
    assert refused(plan(tmp_path), "is a folder; end the path in /")
    assert refused(plan(tmp_path / "file" / "x"), "Not a directory")
    assert refused(plan(f"{tmp_path}/file/"), "Not a directory")
    assert refused(plan(tmp_path / "nowhere" / "x"), "link to nowhere")
    assert refused(plan(tmp_path / "pipe"), "no regular file")
    assert refused(plan("/dev/null", overwrite="always"), "no regular file")
    assert refused(plan("relative/x"), "must be absolute")
    assert refused(plan(f"{tmp_path}/x", size=1 << 60), "no space")
    assert refused(plan(f"{tmp_path}/", name=""), "no name")
    assert refused(plan(tmp_path / ("n" * 300)), "File name too long")
    status = (tmp_path / "file").stat()
    itself = {"device": status.st_dev, "inode": status.st_ino}
    assert refused(plan(tmp_path / "file", **itself), "is the source itself")


def test_the_reserve_stays_free(small_disk: Path) -> None:
    size = 512 * 1024
    assert plan(small_disk / "x", size=size)["action"] == "send"
    assert refused(plan(small_disk / "x", size=size, reserve_bytes=700 * 1024), "reserve")
    assert names(small_disk) == []


def test_only_allowed_roots_and_no_way_around_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (root / "link").symlink_to(tmp_path / "out")
    roots = [str(root)]
    assert plan(root / "in" / "x", roots=roots)["action"] == "send"
    for path in ("out/x", "root/link/x", "root/../out/x", "root/in/../../out/x", "rootless/x"):
        assert refused(plan(f"{tmp_path}/{path}", roots=roots), "allowed_roots"), path
    (tmp_path / "out" / "secret").write_bytes(CONTENT)
    (root / "in" / "way").symlink_to(tmp_path / "out" / "secret")
    for path in (tmp_path / "out" / "secret", root / "link" / "secret", root / "in" / "way"):
        with pytest.raises(FileRefusedError, match="allowed_roots"):
            scan([str(path)], roots)


def test_a_source_of_one_file_is_readable_and_regular(tmp_path: Path) -> None:
    (tmp_path / "src").write_bytes(CONTENT)
    (tmp_path / "src").chmod(0o640)
    found = scan([str(tmp_path / "src")], []).manifest
    assert (found.name, found.total_bytes, found.entries[0].mode) == ("src", 7, 0o640)
    os.mkfifo(tmp_path / "pipe")
    for name, code in (("none", "missing"), ("pipe", "not-a-file")):
        with pytest.raises(FileRefusedError) as caught:
            scan([str(tmp_path / name)], [])
        assert caught.value.code == code


def test_the_flusher_tells_of_a_disk_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written_file, "FLUSH_EVERY_BYTES", 1)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    part = written(tmp_path / "file")
    assert part._file is not None and part._file._flusher is not None
    part._file._flusher._thread.join(5)
    with pytest.raises(FileRefusedError, match="Input/output error"):
        part.publish(0o644, 0, may_replace=True)
    assert [name for name in names(tmp_path) if name != "home"] == []
