"""What a scan finds, which entries patterns take, and what unpacking a manifest refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from castray_tui.agent.files import FileRefusedError
from castray_tui.agent.manifest import Manifest, ManifestError, TreeDigest
from castray_tui.agent.patterns import Patterns
from castray_tui.agent.scanning import data_runs, scan

ODD_NAMES = ["with space", "new\nline", "tab\t", "\udcff\udcfe", "ünï", "-rf", "*", "\\", "'\""]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders, files, links, an empty folder and an empty file."""
    top = tmp_path / "tree"
    (top / "a" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "z.txt").write_bytes(b"z")
    (top / "a" / "x.log").write_bytes(b"log")
    (top / "a" / "deep" / "y.txt").write_bytes(b"")
    (top / "a" / "link").symlink_to("../z.txt")
    (top / "a" / "nowhere").symlink_to("/nowhere/at/all")
    return top


def found(top: Path, **options: Any) -> list[tuple[str, str]]:
    entries = scan([str(top)], [], **options).manifest.entries
    return [(entry.kind, entry.path) for entry in entries]


def refusal(top: Path | list[Path], **options: Any) -> FileRefusedError:
    paths = [str(one) for one in (top if isinstance(top, list) else [top])]
    with pytest.raises(FileRefusedError) as caught:
        scan(paths, options.pop("roots", []), **options)
    return caught.value


# --- scans -----------------------------------------------------------------------------------


def test_a_single_file_is_one_entry_without_a_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o4751)
    os.utime(path, ns=(5, 1_500_000_000_123_456_789))
    found = scan([str(path)], [], exclude=["*"])
    (entry,) = found.manifest.entries
    assert not found.manifest.is_tree
    assert found.manifest.name == "file"
    assert entry == ("file", "", 7, 0o751, 1_500_000_000_123_456_789, "", False)
    assert found.manifest.total_bytes == 7


def test_a_folder_comes_before_what_is_in_it_and_files_before_folders(tree: Path) -> None:
    assert found(tree) == [
        ("folder", ""),
        ("file", "z.txt"),
        ("folder", "a"),
        ("link", "a/link"),
        ("link", "a/nowhere"),
        ("file", "a/x.log"),
        ("folder", "a/deep"),
        ("file", "a/deep/y.txt"),
        ("folder", "empty"),
    ]


def test_links_are_kept_as_they_are(tree: Path) -> None:
    entries = scan([str(tree) + "/"], []).manifest.entries
    assert {entry.path: entry.link for entry in entries if entry.kind == "link"} == {
        "a/link": "../z.txt",
        "a/nowhere": "/nowhere/at/all",
    }


def test_links_are_followed_where_asked(tree: Path) -> None:
    (tree / "a" / "nowhere").unlink()
    (tree / "folder-link").symlink_to("a/deep")
    assert ("file", "a/link") in found(tree, links="follow")
    assert ("file", "folder-link/y.txt") in found(tree, links="follow")


def test_links_that_cannot_be_followed_are_refused_by_name(tree: Path) -> None:
    refused = refusal(tree, links="follow")
    assert refused.code == "missing"
    assert "a/nowhere" in refused.reason
    assert ("file", "a/link") in found(tree, links="follow", exclude=["nowhere"])
    assert refusal(tree, links="refuse").code == "link"


def test_a_link_into_its_own_folders_is_a_loop(tree: Path) -> None:
    (tree / "a" / "nowhere").unlink()
    (tree / "a" / "deep" / "up").symlink_to("../..")
    assert refusal(tree, links="follow").code == "loop"


def test_a_followed_link_does_not_leave_the_roots(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "nowhere").unlink()
    (tmp_path / "outside").write_bytes(b"secret")
    (tree / "way-out").symlink_to(tmp_path / "outside")
    assert refusal(tree, links="follow", roots=[str(tree)]).code == "roots"
    assert refusal(tree / "way-out", roots=[str(tree)]).code == "roots"
    assert len(scan([str(tree)], [str(tree)]).paths) == 3


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_refused_by_name_unless_excluded(
    kind: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "pipe":
        os.mkfifo(tree / "odd")
    else:
        monkeypatch.chdir(tree)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd")
    refused = refusal(tree)
    assert refused.code == "not-a-file"
    assert f"{tree}/odd is a {kind}" in refused.reason
    assert ("file", "z.txt") in found(tree, exclude=["odd"])


def test_several_sources_lie_side_by_side(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"b")
    both = scan([str(tree / "a"), str(tmp_path / "b")], []).manifest
    assert both.is_tree
    assert both.name == ""
    assert [entry.path for entry in both.entries][:2] == ["a", "a/link"]
    assert both.entries[-1].path == "b"
    (tree / "b").write_bytes(b"other")
    assert refusal([tree / "b", tmp_path / "b"]).code == "path"


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").code == "missing"
    (tmp_path / "yes").write_bytes(b"")
    assert refusal([tmp_path / "yes", tmp_path / "no"]).code == "missing"


def test_odd_names_survive_packing(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    for name in ODD_NAMES:
        (top / name).write_bytes(os.fsencode(name))
        (top / (name + " link")).symlink_to(name)
    manifest = scan([str(top)], []).manifest
    again = Manifest.unpack(manifest.pack())
    assert again.entries == manifest.entries
    assert again.digest == manifest.digest
    assert {entry.path for entry in again.files} == set(ODD_NAMES)


def test_a_changed_tree_has_another_token(tree: Path) -> None:
    first = scan([str(tree)], [])
    assert scan([str(tree)], []).token == first.token
    os.utime(tree / "z.txt", ns=(0, 0))
    assert scan([str(tree)], []).token != first.token


def test_a_file_that_changes_is_noticed(tree: Path) -> None:
    scanned = scan([str(tree)], [])
    number = scanned.paths.index(str(tree / "z.txt"))
    fd = scanned.open_file(number)
    scanned.check_file(number, fd)
    (tree / "other").write_bytes(b"z")
    os.utime(tree / "other", ns=(0, scanned.signatures[number][1]))
    (tree / "other").rename(tree / "z.txt")
    scanned.check_file(number, fd, by_name=False)
    for attempt in (lambda: scanned.check_file(number, fd), lambda: scanned.open_file(number)):
        with pytest.raises(FileRefusedError) as caught:
            attempt()
        assert caught.value.code == "changed"
    os.close(fd)


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tree: Path) -> None:
    scanned = scan([str(tree)], [])
    (tree / "z.txt").unlink()
    os.mkfifo(tree / "z.txt")
    with pytest.raises(FileRefusedError, match="changed"):
        scanned.open_file(scanned.paths.index(str(tree / "z.txt")))


def test_holes_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"x" * 65536)
        file.truncate(50 * 1024 * 1024)
        file.seek(20 * 1024 * 1024)
        file.write(b"y" * 65536)
    if path.stat().st_blocks * 512 >= path.stat().st_size:
        pytest.skip("this file system keeps no holes")
    manifest = scan([str(path)], []).manifest
    assert manifest.files[0].sparse
    assert 2 * 65536 <= manifest.allocated_bytes < 1024 * 1024
    with path.open("rb") as file:
        runs = list(data_runs(file.fileno(), path.stat().st_size))
    assert runs == [(0, 65536), (20 * 1024 * 1024, 65536)]


def test_parts_of_other_transfers_are_no_content(tree: Path) -> None:
    (tree / ".castray-1-2.part").mkdir()
    (tree / ".castray-1-2.part" / "half").write_bytes(b"half")
    assert not [path for _, path in found(tree) if "part" in path]


def test_ten_thousand_files_are_scanned_quickly(tmp_path: Path) -> None:
    top = tmp_path / "many"
    for folder in range(10):
        (top / str(folder)).mkdir(parents=True)
        for name in range(1000):
            os.close(os.open(f"{top}/{folder}/{name}", os.O_CREAT | os.O_WRONLY))
    started = time.perf_counter()
    scanned = scan([str(top)], [])
    assert time.perf_counter() - started < 1.0  # 0.06 where nothing else runs
    assert len(scanned.paths) == 10_000


# --- patterns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.log", ["x.log", "a/b/x.log", "a.log/"], ["x.logs", "log", "a/x.log.gz"]),
        ("a/b", ["a/b", "a/b/"], ["b", "x/a/b", "a/bc"]),
        ("/b", ["b"], ["a/b"]),
        ("build/", ["build/", "a/build/"], ["build", "a/build"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "b/a/z"]),
        ("**/z", ["z", "a/z"], ["az"]),
        ("a/**", ["a/b", "a/b/c"], ["b"]),
        ("a/*", ["a/b"], ["a", "b/a/b"]),
        ("x?", ["xy"], ["x", "xyz"]),
        ("[a-c]", ["b"], ["d"]),
        ("[!a-c]", ["d"], ["b"]),
        ("[]]", ["]"], ["["]),
        (r"\*", ["*"], ["a"]),
        ("new\nline", ["new\nline"], ["new"]),
    ],
)
def test_patterns_match_what_they_say(pattern: str, taken: list[str], left: list[str]) -> None:
    patterns = Patterns([], [pattern])
    for path in taken + left:
        is_excluded = patterns.judge(path.rstrip("/"), path.endswith("/"), (False, False))[0]
        assert is_excluded == (path in taken), path


def test_a_pattern_that_is_none_is_named(tree: Path) -> None:
    for pattern in ("[", "/", "", "[z-a]"):
        refused = refusal(tree, exclude=[pattern])
        assert refused.code == "pattern"
        assert repr(pattern) in refused.reason


def test_an_excluded_folder_is_left_out_with_all_in_it(tree: Path) -> None:
    assert found(tree, exclude=["a/"]) == [("folder", ""), ("file", "z.txt"), ("folder", "empty")]


def test_include_brings_back_files_and_the_folders_they_lie_in(tree: Path) -> None:
    assert found(tree, exclude=["a", "empty"], include=["y.*"]) == [
        ("folder", ""),
        ("file", "z.txt"),
        ("folder", "a"),
        ("folder", "a/deep"),
        ("file", "a/deep/y.txt"),
    ]


def test_include_alone_leaves_out_the_rest(tree: Path) -> None:
    expected = [("folder", ""), ("file", "z.txt"), ("folder", "a"), ("folder", "a/deep")]
    assert found(tree, include=["*.txt"]) == [*expected, ("file", "a/deep/y.txt")]
    assert [path for _, path in found(tree, include=["deep/"])] == [
        "",
        "a",
        "a/deep",
        "a/deep/y.txt",
    ]


def test_what_is_taken_can_be_asked_without_a_tree() -> None:
    patterns = Patterns(["keep/"], ["*.log", "old/"])
    assert patterns.takes("x.txt", False)
    assert not patterns.takes("old/x.txt", False)
    assert not patterns.takes("a/x.log", False)
    assert patterns.takes("old/keep/x.log", False)


def test_patterns_hold_for_several_sources_too(tree: Path, tmp_path: Path) -> None:
    paths = [tree / "a", tree / "z.txt"]
    entries = scan([str(one) for one in paths], [], exclude=["a"]).manifest.entries
    assert [entry.path for entry in entries] == ["z.txt"]
    assert refusal(paths, exclude=["*"]).code == "empty"


# --- unpacking -------------------------------------------------------------------------------


def packed(*rows: list[Any], name: str = "tree", is_tree: int = 1, allocated: int = 0) -> str:
    whole = [1, name, is_tree, allocated, list(rows)]
    return base64.b64encode(zlib.compress(json.dumps(whole).encode())).decode()


def file_row(path: str, **changed: Any) -> list[Any]:
    row = {"mode": 0o644, "mtime_ns": 1, "size": 1, "sparse": 0, **changed}
    return ["f", path, row["mode"], row["mtime_ns"], row["size"], row["sparse"]]


def folder_row(path: str) -> list[Any]:
    return ["d", path, 0o755, 1, ""]


def link_row(path: str, link: Any = "x") -> list[Any]:
    return ["l", path, 0o777, 1, link]


def test_a_good_manifest_is_taken() -> None:
    rows = [folder_row(""), folder_row("a"), file_row("a/..b"), link_row("a/l"), file_row("...")]
    manifest = Manifest.unpack(packed(*rows))
    assert [entry.path for entry in manifest.entries] == ["", "a", "a/..b", "a/l", "..."]


@pytest.mark.parametrize(
    "rows",
    [
        [file_row("/etc/passwd")],
        [file_row("..")],
        [file_row(".")],
        [folder_row("a"), file_row("a/../../b")],
        [folder_row("a"), file_row("a/..")],
        [folder_row("a"), file_row("a//b")],
        [folder_row("a"), file_row("a/")],
        [folder_row("a/")],
        [file_row("a\0b")],
        [file_row("a"), file_row("a")],
        [file_row("a"), folder_row("a")],
        [file_row("a"), file_row("a/b")],
        [link_row("a"), file_row("a/b")],
        [file_row("a/b"), folder_row("a")],
        [file_row("a"), folder_row("")],
        [folder_row(""), folder_row("")],
        [file_row("")],
        [file_row("a", size=-1)],
        [file_row("a", size=1.5)],
        [file_row("a", size="1")],
        [file_row("a", size=True)],
        [file_row("a", size=1 << 70)],
        [file_row("a", mode=0o4755)],
        [file_row("a", mode=-1)],
        [file_row("a", mtime_ns=None)],
        [file_row("a", mtime_ns=1 << 70)],
        [link_row("a", "")],
        [link_row("a", "x\0y")],
        [link_row("a", 7)],
        [["f", "a"]],
        [["x", "a", 0, 0, ""]],
        [["f", 7, 0, 0, 0, 0]],
        [file_row("\ud800")],
        ["row"],
        [7],
    ],
)
def test_a_hostile_manifest_is_refused(rows: list[Any]) -> None:
    with pytest.raises(ManifestError):
        Manifest.unpack(packed(*rows))


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/", "a\0", 7, None])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ManifestError):
        Manifest.unpack(packed(file_row("a"), name=name))


def test_one_file_is_one_file() -> None:
    assert not Manifest.unpack(packed(file_row(""), is_tree=0)).is_tree
    for rows in ([], [file_row("a")], [file_row(""), file_row("a")], [folder_row("")]):
        with pytest.raises(ManifestError):
            Manifest.unpack(packed(*rows, is_tree=0))


def test_what_is_no_manifest_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = packed(file_row("a"))
    cut = base64.b64encode(base64.b64decode(good)[:-4]).decode()
    deep = base64.b64encode(zlib.compress(b"[" * 100_000)).decode()
    for text in ("", "!", good[:-4], cut, "AAAA", packed(is_tree=2), deep):
        with pytest.raises(ManifestError):
            Manifest.unpack(text)
    monkeypatch.setattr("castray_tui.agent.manifest._LIMIT_BYTES", 1000)
    bomb = packed(*[file_row(str(number)) for number in range(1000)])
    with pytest.raises(ManifestError, match="too large"):
        Manifest.unpack(bomb)


def test_a_manifest_damaged_in_any_way_is_refused_or_harmless() -> None:
    """Thousands of damages: never another error, never a path that could lead out."""
    chance = random.Random(3)
    good = [1, "t", 1, 5, [folder_row(""), folder_row("a"), file_row("a/b"), link_row("c")]]
    odd: list[Any] = ["", "..", "/", "a/../..", "\0", -1, 1 << 80, None, [], {}, 1.5, True, "a/b/c"]
    for _ in range(5000):
        whole = json.loads(json.dumps(good))
        rows = whole[4]
        for _ in range(chance.randint(1, 3)):
            row = chance.choice(rows)
            if chance.random() < 0.3:
                whole[chance.randrange(4)] = chance.choice(odd)
            elif chance.random() < 0.5 and row:
                row[chance.randrange(len(row))] = chance.choice(odd)
            else:
                chance.shuffle(rows)
        text = base64.b64encode(zlib.compress(json.dumps(whole).encode())).decode()
        try:
            manifest = Manifest.unpack(text)
        except ManifestError:
            continue
        for entry in manifest.entries:
            assert os.path.normpath(f"/top/{entry.path}").startswith("/top")
            assert ".." not in entry.path.split("/")


# --- digests ---------------------------------------------------------------------------------


def test_a_files_digest_is_its_own() -> None:
    manifest = Manifest.unpack(packed(file_row(""), is_tree=0))
    digest = TreeDigest(manifest)
    with pytest.raises(ValueError, match="has not come"):
        digest.hexdigest()
    digest.add(0, "ab" * 32)
    assert digest.hexdigest() == "sha256:" + "ab" * 32


def test_a_trees_digest_is_over_every_entry_in_order() -> None:
    rows = [folder_row(""), link_row("l", "to"), file_row("a"), folder_row("d"), file_row("d/b")]
    digest = TreeDigest(Manifest.unpack(packed(*rows)))
    with pytest.raises(ValueError, match="in place of"):
        digest.add(1, "11")
    digest.add(0, "00")
    digest.add(1, "11")
    lines = b"folder\0\0\nlink\0l\0to\nfile\0a\x0000\nfolder\0d\0\nfile\0d/b\x0011\n"
    assert digest.hexdigest() == "sha256:" + hashlib.sha256(lines).hexdigest()


def test_what_may_not_be_read_is_refused_also_to_a_root_without_its_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "top" / "secret"
    file.parent.mkdir()
    file.touch(0o600)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(file))
    with pytest.raises(FileRefusedError, match=f"Permission denied: {file}"):
        scan([str(file.parent)], [])
