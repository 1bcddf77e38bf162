"""Plans of targets by manifest: what is there, what is in the way, what may be identical."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from castray_tui.agent import files
from castray_tui.agent.files import FileRefusedError
from castray_tui.agent.manifest import ManifestError
from castray_tui.agent.scanning import scan
from castray_tui.agent.target_plan import existing_digests, plan_target


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "a").mkdir(parents=True)
    (top / "a" / "x").write_bytes(b"xx")
    (top / "a" / "link").symlink_to("x")
    (top / "y").write_bytes(b"y")
    return top


def plan(source: Path | list[Path], path: Path | str, **order: Any) -> dict[str, Any]:
    paths = [str(one) for one in (source if isinstance(source, list) else [source])]
    manifest = scan(paths, []).manifest.pack()
    defaults = {"overwrite": "if-different", "roots": [], "reserve_bytes": 0}
    order = {**defaults, "path": str(path), "manifest": manifest, **order}
    reserved = order.pop("reserved", 0)
    return plan_target(order, lambda device: reserved)


def refused(planned: dict[str, Any], code: str, words: str) -> bool:
    assert planned["action"] == "refuse"
    assert words in planned["reason"]
    return bool(planned["code"] == code)


def numbers(tree: Path, *names: str) -> list[int]:
    paths = scan([str(tree)], []).paths
    return sorted(paths.index(str(tree / name)) for name in names)


def test_where_a_tree_goes(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for path, final in (
        ("there/", "there/source"),
        ("there", "there"),
        ("new", "new"),
        ("new/", "new/source"),
        ("new/deep/.", "new/deep/./source"),
    ):
        planned = plan(tree, f"{tmp_path}/{path}")
        assert (planned["path"], planned["action"]) == (f"{tmp_path}/{final}", "send"), planned
        assert planned["free_bytes"] > 0
        assert planned["existing_bytes"] is None
    assert not (tmp_path / "new").exists()


def test_where_a_file_and_several_sources_go(tree: Path, tmp_path: Path) -> None:
    assert plan(tree / "y", f"{tmp_path}/new/")["path"] == f"{tmp_path}/new/y"
    assert plan(tree / "y", f"{tmp_path}/new")["path"] == f"{tmp_path}/new"
    both = [tree / "y", tree / "a"]
    assert plan(both, f"{tmp_path}/new/")["path"] == f"{tmp_path}/new"
    assert refused(plan(both, f"{tmp_path}/new"), "path", "end the path in /")


@pytest.mark.parametrize(
    ("overwrite", "action", "candidates"),
    [("never", "refuse", []), ("if-different", "compare", ["y"]), ("always", "send", [])],
)
def test_what_is_there_is_handled_by_the_policy(
    overwrite: str, action: str, candidates: list[str], tree: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tree"
    (target / "a").mkdir(parents=True)
    (target / "y").write_bytes(b"z")
    (target / "a" / "x").write_bytes(b"other size")
    planned = plan(tree, target, overwrite=overwrite)
    assert (planned["action"], planned["existing_bytes"]) == (action, 11)
    assert planned["candidates"] == numbers(tree, *candidates)
    if overwrite == "never":
        assert refused(planned, "exists", "exists: 2 of 3 files, first ")


def test_nothing_in_the_way_is_nothing_to_compare(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "other").write_bytes(b"other")
    for overwrite in ("never", "if-different", "always"):
        assert plan(tree, tmp_path / "tree", overwrite=overwrite)["action"] == "send"


@pytest.mark.parametrize(("overwrite", "written"), [("if-different", []), ("always", ["", "a"])])
def test_folders_that_are_written_to_are_looked_at_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: str, written: list[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for top in (source, target):
        (top / "a").mkdir(parents=True)
        (top / "x").write_bytes(b"1")
        (top / "a" / "y").write_bytes(b"2")
    asked: list[str] = []
    monkeypatch.setattr(files, "check_writable", asked.append)
    assert plan(source, target, overwrite=overwrite)["action"] != "refuse"
    assert asked == [str(target / folder) for folder in written]


def test_one_file_is_handled_as_before(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"z")
    assert plan(tree / "y", path)["candidates"] == [0]
    assert plan(tree / "y", path)["action"] == "compare"
    assert plan(tree / "a" / "x", path)["action"] == "send"
    assert plan(tree / "y", path, overwrite="always")["action"] == "send"
    assert refused(plan(tree / "y", path, overwrite="never"), "exists", "exists: ")
    assert refused(plan(tree / "y", tmp_path), "folder", "end the path in /")


def test_what_stands_in_the_way_is_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    cases: list[tuple[str, str, Any]] = [
        ("a", "not-a-folder", lambda path: path.write_bytes(b"")),
        ("a", "link", lambda path: path.symlink_to(tmp_path / "outside")),
        ("y", "folder", lambda path: path.mkdir()),
        ("y", "not-a-file", os.mkfifo),
    ]
    for place, (name, code, make) in enumerate(cases):
        path = tmp_path / str(place) / name
        path.parent.mkdir()
        make(path)
        for overwrite in ("if-different", "always"):
            assert refused(plan(tree, path.parent, overwrite=overwrite), code, str(path))
    (tmp_path / "file").write_bytes(b"")
    assert refused(plan(tree, tmp_path / "file"), "not-a-folder", "is no folder")
    assert refused(plan(tree, "relative"), "path", "must be absolute")
    assert refused(plan(tree, tmp_path / ("n" * 300)), "os", "File name too long")


def test_a_link_is_followed_only_where_it_was_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "into").mkdir()
    (tmp_path / "named").symlink_to("real")
    (tmp_path / "into" / "source").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere").symlink_to("missing")
    assert plan(tree, tmp_path / "named")["path"] == str(tmp_path / "real")
    assert refused(plan(tree, f"{tmp_path}/into/"), "link", "is a link")
    assert refused(plan(tree, tmp_path / "nowhere"), "missing", "link to nowhere")
    roots = [str(tmp_path / "into")]
    (tmp_path / "into" / "way-out").symlink_to(tmp_path / "real")
    planned = plan(tree, tmp_path / "into" / "way-out", roots=roots)
    assert refused(planned, "roots", "allowed_roots")
    assert refused(plan(tree, tmp_path / "new", roots=roots), "roots", "allowed_roots")


def test_a_source_is_not_its_own_target(tree: Path) -> None:
    status = tree.stat()
    itself = {
        "machine": files.machine_id(),
        "device": status.st_dev,
        "inode": status.st_ino,
    }
    assert refused(plan(tree, tree, **itself), "same-file", "is the source itself")
    assert plan(tree, tree, **dict(itself, machine="other"))["action"] == "compare"


def test_space_is_for_what_is_not_there_yet(tree: Path, tmp_path: Path) -> None:
    huge = {"reserved": 1 << 60}
    assert refused(plan(tree, tmp_path / "new", **huge), "full", "no space")
    (tmp_path / "there" / "a").mkdir(parents=True)
    (tmp_path / "there" / "a" / "x").write_bytes(b"xx")
    assert refused(plan(tree, tmp_path / "there", **huge), "full", "no space")
    (tmp_path / "there" / "y").write_bytes(b"y")
    assert plan(tree, tmp_path / "there", **huge)["action"] == "compare"


def test_a_manifest_that_is_none_is_no_answer(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        plan(tree, tmp_path, manifest="nonsense")


def test_digests_are_those_of_what_is_there(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    (target / "a").mkdir(parents=True)
    (target / "a" / "x").write_bytes(b"zz")
    manifest = scan([str(tree)], []).manifest
    every = range(len(manifest.files))
    (x,) = numbers(tree, "a/x")
    zz = hashlib.sha256(b"zz").hexdigest()
    assert existing_digests(str(target), manifest, every) == {x: zz}
    assert existing_digests(str(target), manifest, []) == {}
    assert existing_digests(str(tmp_path / "new"), manifest, every) == {}
    (target / "a" / "x").write_bytes(b"longer than that")
    (target / "y").symlink_to(tree / "y")
    assert existing_digests(str(target), manifest, every) == {}
    with pytest.raises(FileRefusedError, match="cancelled"):
        existing_digests(str(tree), manifest, every, lambda: True)


def test_a_files_digest_is_that_of_what_is_there(tree: Path, tmp_path: Path) -> None:
    manifest = scan([str(tree / "y")], []).manifest
    path = tmp_path / "file"
    assert existing_digests(str(path), manifest, [0]) == {}
    path.write_bytes(b"z")
    assert existing_digests(str(path), manifest, [0]) == {0: hashlib.sha256(b"z").hexdigest()}


def test_links_on_the_way_to_a_file_are_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").symlink_to(tree / "a")
    manifest = scan([str(tree)], []).manifest
    assert existing_digests(str(tmp_path / "tree"), manifest, numbers(tree, "a/x")) == {}
