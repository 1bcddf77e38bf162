"""Runs castray as users do: as a process of its own, with its output and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOTHING_EXTERNAL = {"EXTERNAL_CLUSTER_ENABLED": "false"}
"""For tests that must not meet the clusters that happen to run on the machine."""


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "castray_tui", *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", **(more or {})}


def castray(*arguments: str, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> Ran:
    """Runs castray without a terminal and waits for it."""
    done = subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(env),
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
