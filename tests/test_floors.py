"""The borders between the floors: that they hold, that breaking them is noticed, and that what the
engine imports at run time keeps to them as well."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts of the castray that lies in a folder."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A castray of its own to break."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / "castray_tui",
        tmp_path / "castray_tui",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def test_the_floors_hold() -> None:
    answer = lint_imports(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " 0 broken" in answer.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/errors.py", "import textual", "The engine knows nothing of terminals"),
        ("core/ray_api/__init__.py", "from rich.text import Text", "The engine knows nothing of"),
        ("core/fleet.py", "import castray_tui.cli", "The engine knows nothing of terminals"),
        ("core/config.py", "from castray_tui.core import journal", "Floors"),
        ("core/journal_store.py", "import castray_tui.core.engine", "Floors"),
        ("core/models.py", "def f():\n    import castray_tui.core.config", "Floors"),
        ("cli/__init__.py", "import castray_tui.screens", "Faces never import each other"),
        ("agent/__init__.py", "import castray_tui.core.errors", "What is shipped into clusters"),
        ("agent/__init__.py", "import psutil", "What is shipped into clusters"),
        ("core/engine.py", "import castray_tui.agent", "Only the transfer floor"),
    ],
)
def test_breaking_a_floor_is_noticed(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / "castray_tui" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    answer = lint_imports(copy)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    broken = [text for text in answer.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(contract in text for text in broken), answer.stdout


def modules_of(program: str) -> set[str]:
    """The top-level packages that a program has imported when it ends."""
    answer = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in answer.stdout.split()}


def test_the_engine_imports_neither_terminal_nor_ray() -> None:
    modules = modules_of("import castray_tui.core.engine")
    assert "castray_tui" in modules
    assert not {"textual", "rich", "ray", "pygments", "click"} & modules


def test_every_module_of_the_engine_does_without_terminal_and_ray() -> None:
    modules = modules_of(
        "import importlib, pkgutil, castray_tui.core as core\n"
        "for module in pkgutil.walk_packages(core.__path__, 'castray_tui.core.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    assert "castray_tui" in modules
    assert not {"textual", "rich", "ray", "pygments", "click"} & modules


def test_asking_over_http_brings_no_terminal_along() -> None:
    modules = modules_of("from castray_tui.core.ray_api.http import load_httpx\nload_httpx()")
    assert "httpx" in modules
    assert not {"textual", "rich", "pygments", "click"} & modules


@pytest.mark.parametrize(
    "path", sorted((ROOT / "castray_tui" / "agent").rglob("*.py")), ids=lambda path: path.name
)
def test_what_is_shipped_into_clusters_is_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
