"""Trees on their way through chains of agents: many small files, sparse ones, interrupted ones."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_lab import Leg, verdicts
from agent_processes import Meddler

from castray_tui.agent.manifest import Manifest, TreeDigest
from castray_tui.agent.node_agent import NodeAgent

Json = dict[str, Any]
MakeLeg = Callable[..., Leg]
MIB = 1024 * 1024
CHUNK = 256 * 1024


@pytest.fixture
def make_leg() -> Iterator[MakeLeg]:
    """Makes legs that end with the test."""
    made: list[Leg] = []

    def make(*args: Any, **options: Any) -> Leg:
        made.append(Leg(*args, **options))
        return made[-1]

    yield make
    for leg in made:
        leg.close()


def content_of(tree: Path) -> dict[str, tuple[object, ...]]:
    """All there is in a tree: kinds, contents, modes and times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [tree, *tree.rglob("*")]:
        status = path.lstat()
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("folder", status.st_mode & 0o777)
        else:
            mode = status.st_mode & 0o777
            found[name] = ("file", mode, status.st_mtime_ns, path.read_bytes())
    return found


def row_of(status: Json, place: int) -> Json:
    return dict(next(row for row in status["targets"] if row["index"] == place))


def begun(leg: Leg, place: int, least_bytes: int) -> None:
    leg.until(lambda status: row_of(status, place).get("bytes", 0) >= least_bytes)


def nothing_temporary(folder: Path) -> bool:
    return not list(folder.rglob(".castray*"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """2,000 small files, empty ones and folders, links, and two large ones among them."""
    chance = random.Random(7)
    top = tmp_path / "tree"
    for folder in range(20):
        here = top / f"folder{folder}" / "inner"
        here.mkdir(parents=True)
        for number in range(100):
            path = here / f"file{number}"
            path.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 4096, 9000])))
            path.chmod(chance.choice([0o644, 0o600, 0o755]))
            os.utime(path, ns=(0, chance.randrange(10**18)))
    (top / "empty").mkdir()
    (top / "link").symlink_to("folder0/inner/file1")
    (top / "dangling").symlink_to("nowhere")
    (top / "folder3" / "large").write_bytes(chance.randbytes(2 * MIB + 7))
    (top / "folder9" / "larger").write_bytes(chance.randbytes(3 * MIB))
    return top


@pytest.mark.parametrize("parents", [[-1, 0, 1], [-1, 0, 0]])
def test_a_tree_goes_whole_through_relays(
    make_leg: MakeLeg, tree: Path, tmp_path: Path, parents: list[int]
) -> None:
    leg = make_leg(3, parents)
    targets = [tmp_path / "out" / f"t{place}" for place in range(3)]
    status = leg.cast(tree, *targets)
    assert verdicts(status) == ["verified"] * 3
    manifest = Manifest.unpack(leg.scanned["manifest"])
    digest = TreeDigest(manifest)
    numbers = [str(number) for number in range(len(manifest.files))]
    order = {"transfer": leg.transfer, "files": [int(number) for number in numbers]}
    by_number = leg.source.call("digests", order)["digests"]
    for number in numbers:
        digest.add(int(number), by_number[number])
    wanted = content_of(tree)
    for place, target in enumerate(targets):
        assert content_of(target) == wanted
        row = row_of(status, place)
        assert row["digest"] == status["digest"] == digest.hexdigest()
        assert row["bytes"] == row["sent"] == manifest.total_bytes
    assert nothing_temporary(tmp_path)


def test_an_interrupted_tree_goes_on_where_it_stopped(
    make_leg: MakeLeg, tree: Path, tmp_path: Path
) -> None:
    leg = make_leg(2)
    leg.scan(tree)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send(rate_limit=6 * MIB)
    begun(leg, 1, 6 * MIB)
    leg.source.close()
    leg.source = NodeAgent("127.0.0.1", (0, 0))
    leg.scan(tree)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send()
    status = leg.ended()
    assert verdicts(status) == ["verified"] * 2
    for place in range(2):
        assert content_of(tmp_path / f"t{place}") == content_of(tree)
        assert row_of(status, place)["sent"] <= leg.scanned["size"] - 5 * MIB


def test_a_beginning_that_has_become_another_is_sent_again(
    make_leg: MakeLeg, tmp_path: Path
) -> None:
    """The source was rewritten in between, in a way that its times and sizes do not show."""
    tree = tmp_path / "tree"
    tree.mkdir()
    large = tree / "large"
    large.write_bytes(os.urandom(4 * MIB))
    (tree / "a small one").write_bytes(b"small")
    leg = make_leg(2)
    leg.scan(tree)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send(rate_limit=3 * MIB)
    begun(leg, 1, 2 * MIB)
    leg.source.close()
    status = large.stat()
    large.write_bytes(os.urandom(4 * MIB))
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    leg.source = NodeAgent("127.0.0.1", (0, 0))
    leg.scan(tree)
    for place in range(2):
        leg.allow(place, tmp_path / f"t{place}")
    leg.send()
    assert verdicts(leg.ended()) == ["verified"] * 2
    for place in range(2):
        assert content_of(tmp_path / f"t{place}") == content_of(tree)


@pytest.mark.parametrize("at_byte", [200_000, 3 * MIB, 6 * MIB])
def test_a_flipped_byte_in_a_tree_is_repaired(
    make_leg: MakeLeg, tree: Path, tmp_path: Path, at_byte: int
) -> None:
    leg = make_leg(2)
    leg.scan(tree)
    hello = leg.allow(0, tmp_path / "t0")
    leg.allow(1, tmp_path / "t1")
    meddler = Meddler(hello["endpoints"][0], flip_at=at_byte)
    leg.send([leg.row(0, endpoints=[meddler.endpoint]), leg.row(1)])
    status = leg.ended()
    meddler.close()
    assert meddler.flipped == 1
    assert verdicts(status) == ["verified"] * 2
    for place in range(2):
        assert content_of(tmp_path / f"t{place}") == content_of(tree)


def test_targets_that_have_some_of_the_files_are_sent_the_others(
    make_leg: MakeLeg, tree: Path, tmp_path: Path
) -> None:
    """Each has another one, as many as the other: what a relay remembers is not what all want."""
    leg = make_leg(2)
    leg.scan(tree)
    manifest = Manifest.unpack(leg.scanned["manifest"])
    skips = [[3, 50], [4, 51]]
    large = next(n for n, entry in enumerate(manifest.files) if entry.path.endswith("larger"))
    skips[0].append(large)  # The relay has to read what it was not sent.
    skips[1].append(1500)
    for place, skip in enumerate(skips):
        for number in skip:
            entry = manifest.files[number]
            there = tmp_path / f"t{place}" / entry.path
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes((tree / entry.path).read_bytes())
            there.chmod(entry.mode)
            os.utime(there, ns=(0, entry.mtime_ns))
        order = {"transfer": leg.transfer, "files": skip}
        digests = leg.source.call("digests", order)["digests"]
        leg.allow(
            place,
            tmp_path / f"t{place}",
            skip=skip,
            skip_digests=digests,
            overwrite="if-different",
        )
    leg.send()
    status = leg.ended()
    assert verdicts(status) == ["verified"] * 2, status
    for place, skip in enumerate(skips):
        assert content_of(tmp_path / f"t{place}") == content_of(tree)
        skipped = sum(manifest.files[number].size for number in skip)
        row = row_of(status, place)
        assert row["bytes"] == row["sent"] == manifest.total_bytes - skipped


def has_holes(folder: Path) -> bool:
    """Whether files can have holes there."""
    probe = folder / "probe"
    with probe.open("wb") as file:
        file.truncate(MIB)
    is_sparse = probe.stat().st_blocks * 512 < MIB
    probe.unlink()
    return is_sparse


@pytest.mark.parametrize("is_tree", [False, True])
def test_holes_are_not_sent_and_stay_holes(
    make_leg: MakeLeg, tmp_path: Path, is_tree: bool
) -> None:
    if not has_holes(tmp_path):
        pytest.skip("files have no holes on this file system")
    folder = tmp_path / "source"
    folder.mkdir()
    source = folder / "sparse"
    size = 40 * MIB
    with source.open("wb") as file:
        file.seek(10 * MIB)
        file.write(os.urandom(MIB))
        file.seek(30 * MIB + 1000)
        file.write(b"x")
        file.truncate(size)
    leg = make_leg(2)
    leg.chunk_bytes = MIB
    status = leg.cast(folder if is_tree else source, tmp_path / "t0", tmp_path / "t1")
    assert verdicts(status) == ["verified"] * 2
    for place in range(2):
        arrived = tmp_path / f"t{place}"
        arrived = arrived / "sparse" if is_tree else arrived
        assert arrived.read_bytes() == source.read_bytes()
        assert arrived.stat().st_blocks * 512 < 8 * MIB
        row = row_of(status, place)
        assert row["bytes"] == size
        assert row["sent"] < 8 * MIB  # The relay did not make bytes of them either.


def test_a_relay_whose_tree_is_spoilt_costs_those_below_nothing(
    make_leg: MakeLeg, tree: Path, tmp_path: Path
) -> None:
    """Files that it has under their names already are taken away while it still feeds."""
    leg = make_leg(2)
    leg.scan(tree)
    manifest = Manifest.unpack(leg.scanned["manifest"])
    large = next(n for n, entry in enumerate(manifest.files) if entry.path.endswith("larger"))
    there = tmp_path / "t0" / manifest.files[large].path
    there.parent.mkdir(parents=True)
    there.write_bytes((tree / manifest.files[large].path).read_bytes())
    order = {"transfer": leg.transfer, "files": [large]}
    digests = leg.source.call("digests", order)["digests"]
    leg.allow(0, tmp_path / "t0", skip=[large], skip_digests=digests, overwrite="if-different")
    leg.allow(1, tmp_path / "t1")
    leg.send(rate_limit=4 * MIB)
    begun(leg, 1, 300_000)
    there.unlink()
    status = leg.ended()
    assert row_of(status, 1)["verdict"] == "verified", status
    assert content_of(tmp_path / "t1") == content_of(tree)


def test_cancelling_a_tree_leaves_what_was_there(
    make_leg: MakeLeg, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "t0").mkdir()
    (tmp_path / "t0" / "mine").write_bytes(b"mine")
    leg = make_leg(2)
    leg.scan(tree)
    leg.allow(0, tmp_path / "t0")
    leg.allow(1, tmp_path / "new" / "t1")
    leg.send(rate_limit=3 * MIB)
    begun(leg, 1, MIB)
    leg.source.call("cancel", {"transfer": leg.transfer})
    assert verdicts(leg.ended()) == ["cancelled"] * 2
    deadline = time.monotonic() + 10
    while (tmp_path / "new").exists() or not nothing_temporary(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((tmp_path / "t0").iterdir()) == [tmp_path / "t0" / "mine"]
