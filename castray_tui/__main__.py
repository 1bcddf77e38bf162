"""``castray`` and ``python -m castray_tui``."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs castray with the process's arguments and returns its exit code."""
    from castray_tui.cli.command_line import run  # noqa: PLC0415

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
