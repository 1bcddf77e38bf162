"""Figures as they are printed: medians of rounds, and goals that are kept or not."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass
class Figures:
    """Collects what a script measures, prints it, and knows whether all goals were kept.

    Attributes:
        values: Every figure under its name, for ``write``.
        missed: The goals that were not kept.
    """

    values: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values["machine"] = {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        }

    def seconds(
        self, name: str, rounds: Sequence[float], *, size_bytes: int | None = None
    ) -> float:
        """Prints and returns the median of some rounds, with the throughput where there is one."""
        median = statistics.median(rounds)
        speed = f" {size_bytes / median / 1e6:8.0f} MB/s" if size_bytes else ""
        spread = f"[{min(rounds):.3f} to {max(rounds):.3f}]"
        print(f"{name:<44}{median:9.3f} s{speed}   {spread}", flush=True)
        self.values[name] = {"seconds": median, "rounds": list(rounds)}
        return median

    def tell(self, name: str, value: float | str, unit: str = "") -> None:
        """Prints a figure that no goal hangs on."""
        shown = f"{value:9.3f}" if isinstance(value, float) else f"{value!s:>9}"
        print(f"{name:<44}{shown} {unit}", flush=True)
        self.values[name] = value

    def goal(
        self,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        """Prints a figure beside its goal, and remembers whether the goal was kept."""
        kept = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        limit = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
        mark = "ok" if kept else "MISSED"
        print(f"{name:<44}{value:9.3f} {unit} ({limit})  {mark}", flush=True)
        self.values[name] = {"value": value, "goal": limit, "kept": kept}
        if not kept:
            self.missed.append(name)

    def end(self, json_path: Path | None) -> int:
        """Writes all figures as JSON where a path is given; the script's exit code."""
        if json_path is not None:
            json_path.write_text(json.dumps(self.values, indent=2) + "\n")
        if self.missed:
            print(f"missed: {', '.join(self.missed)}")
        return 1 if self.missed else 0


def write_random(path: Path, size_bytes: int) -> None:
    """Writes a file that neither compresses nor repeats."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, 16 * MIB):
            file.write(os.urandom(min(16 * MIB, size_bytes - start)))
