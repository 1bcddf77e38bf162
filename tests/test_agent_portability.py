"""The agent runs where it is sent: old Pythons, nothing installed, one argument of a process."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import castray_tui.agent
from castray_tui.agent import bundle
from castray_tui.core.config import TransferSettings
from castray_tui.core.transfer import shipping

PACKAGE = Path(castray_tui.agent.__file__).parent
SOURCES = sorted(PACKAGE.glob("*.py"))
# One argument of a Linux process holds 128 KiB.
LIMIT_BYTES = 100_000
_HOME = Path.home()  # read at import: each test has a home folder of its own

LOOPBACK_COPY = """
import os, sys, time
from castray_agent.node_agent import NodeAgent
source, target = sys.argv[1:]
agents = [NodeAgent("127.0.0.1", (0, 0)) for _ in range(3)]
transfer = {"transfer": "ab" * 16}
found = agents[0].call("scan", dict(transfer, paths=[source], roots=[], links="keep", include=[],
                                    exclude=[]))
secret = dict(transfer, secret="11" * 32)
agents[0].call("allow", dict(secret, targets=[]))
tree = []
for index in range(2):
    path = target + str(index)
    order = dict(path=path, manifest=found["manifest"], overwrite="if-different", roots=[],
                 reserve_bytes=0, index=index, machine=found["machine"], device=found["device"],
                 inode=found["inode"])
    plan = agents[index + 1].call("plan", dict(order, **transfer))
    assert plan["action"] == "send", plan
    hello = agents[index + 1].call("allow", dict(
        secret, manifest=found["manifest"], chunk_bytes=65536, targets=[dict(
            index=index, path=path, overwrite="if-different", roots=[], reserve_bytes=0,
            part_id="x%d" % index, skip=[], skip_digests={})]))
    tree.append(dict(index=index, parent=index - 1, mode="dial", endpoints=hello["endpoints"]))
agents[0].call("send", dict(transfer, token=found["token"], chunk_bytes=65536, rate_limit=0,
    link_rate_limit=0, patience_seconds=5, skip={}, tree=tree))
while True:
    status = agents[0].call("status", dict(transfer, wait=True))
    if status["done"]:
        break
assert [row["verdict"] for row in status["targets"]] == ["verified"] * 2, status
for agent in agents:
    agent.close()
print("verified by", sys.version.split()[0])
"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_reads_as_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_imports_the_standard_library_ray_and_itself(path: Path) -> None:
    imported = set()
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            imported.add(str(statement.module).split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"ray", bundle.PACKAGE}
    assert foreign == set()


def copies(python: str, tmp_path: Path, source: Path) -> str:
    done = subprocess.run(
        [python, "-I", "-c", bundle.program(LOOPBACK_COPY), str(source), str(tmp_path / "dst")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr
    return done.stdout


def copies_a_file_and_a_tree(python: str, tmp_path: Path) -> str:
    """From a source through a relay to a leaf."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(700_000))
    said = copies(python, tmp_path, file)
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "large").write_bytes(os.urandom(300_000))
    for number in range(50):
        (tree / f"small{number}").write_bytes(b"x" * number)
    (tree / "link").symlink_to("folder/large")
    (tmp_path / "trees").mkdir()
    copies(python, tmp_path / "trees", tree)
    for index in range(2):
        assert (tmp_path / f"dst{index}").read_bytes() == file.read_bytes()
        arrived = tmp_path / "trees" / f"dst{index}"
        assert _content(arrived) == _content(tree)
    return said


def _content(tree: Path) -> dict[str, object]:
    return {
        str(path.relative_to(tree)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in tree.rglob("*")
        if not path.is_dir()
    }


def test_copies_from_memory_alone(tmp_path: Path) -> None:
    assert "verified" in copies_a_file_and_a_tree(sys.executable, tmp_path)


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.12", "3.13"])
def test_copies_under_other_pythons(version: str, tmp_path: Path) -> None:
    python = next((path for path in _pythons(version) if _runs(path)), None)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    assert f"verified by {version}." in copies_a_file_and_a_tree(python, tmp_path)


def _pythons(version: str) -> Iterator[str]:
    """Where that Python may be: on the path, or beside others that pyenv or uv keep."""
    if (on_path := shutil.which(f"python{version}")) is not None:
        yield on_path
    kept_by = (os.environ.get("PYENV_ROOT", _HOME / ".pyenv"), _HOME / ".local/share/uv/python")
    for folder, pattern in zip(
        kept_by, (f"versions/{version}.*", f"cpython-{version}.*"), strict=True
    ):
        for found in sorted(Path(folder).glob(pattern)):
            yield str(found / "bin" / f"python{version}")


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-V"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def test_the_entry_point_is_one_argument_and_holds_no_secret(own_home: Path) -> None:
    key = shipping.CastrayKey(own_home / "state")
    command = shipping.entrypoint(
        "/opt/a python/bin/python", shipping.coordinator_config(key, TransferSettings())
    )
    assert len(command.encode()) < LIMIT_BYTES
    assert f"{key.private:x}" not in command
    assert f"{key.public:x}" in command
    assert command.startswith("'/opt/a python/bin/python' -c ")
    key_file = own_home / "state" / "transfer.key"
    assert key_file.stat().st_mode & 0o077 == 0
    assert shipping.CastrayKey(own_home / "state").private == key.private
