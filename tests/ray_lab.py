"""Real Ray clusters of any version for the tests, each started for a test and ended after it.

Other Ray versions live in virtual environments of their own, made on first use below
``$CASTRAY_TEST_VENVS`` (default ``~/.cache/castray-tests``) with ``uv`` or ``pip``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OLD_RAY = "2.9.3"
MIDDLE_RAY = "2.49.2"
# Read at import: each test has a home folder of its own.
_ROOT = Path(os.environ.get("CASTRAY_TEST_VENVS", Path.home() / ".cache" / "castray-tests"))
_SETUPTOOLS = "setuptools<81"  # Ray up to 2.38 imports pkg_resources


def python_with_ray(version: str | None = None) -> str:
    """An interpreter that has ``ray[default]`` of that version; None is castray's own.

    Skips the test where the version cannot be had here.
    """
    if version is None:
        return sys.executable
    _ROOT.mkdir(parents=True, exist_ok=True)
    folder = _ROOT / f"ray-{version}"
    python = folder / "bin" / "python"
    with (_ROOT / f"ray-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _make_venv(folder, version)
    return str(python)


def _make_venv(folder: Path, version: str) -> None:
    # Ray 2.9 has wheels for Python 3.8 to 3.11 only.
    base = shutil.which("python3.11")
    if sys.version_info[:2] == (3, 11):
        base = sys.executable
    if base is None:
        pytest.skip(f"Ray {version} needs Python 3.11, which is not on this machine")
    shutil.rmtree(folder, ignore_errors=True)
    packages = [f"ray[default]=={version}", _SETUPTOOLS]
    uv = shutil.which("uv")
    try:
        subprocess.run([base, "-m", "venv", str(folder)], check=True, capture_output=True)
        python = str(folder / "bin" / "python")
        installer = (
            [uv, "pip", "install", "--quiet", "--python", python]
            if uv
            else [python, "-m", "pip", "install", "--quiet"]
        )
        subprocess.run([*installer, *packages], check=True, capture_output=True, timeout=900)
        subprocess.run([python, "-c", "import ray"], check=True, capture_output=True)
        subprocess.run([python, "-m", "compileall", "-q", str(folder)], check=False)
    except (subprocess.SubprocessError, OSError) as error:
        detail = getattr(error, "stderr", b"") or b""
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Ray {version} could not be installed: {detail.decode()[-300:] or error}")
    (folder / "complete").touch()
