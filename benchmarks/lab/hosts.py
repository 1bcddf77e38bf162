"""The hosts that the tests use too, from ``tests/host_lab.py``."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)

from host_lab import Host, HostCluster, HostLab, why_not  # noqa: E402

__all__ = ["Host", "HostCluster", "HostLab", "why_not"]
