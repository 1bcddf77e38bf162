"""``castray completion SHELL``: a script that completes castray's command line in a shell."""

from __future__ import annotations

import argparse

from castray_tui.cli.output import print_line

_SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray completion``."""
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or tcsh")


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    import shtab  # noqa: PLC0415  # only this command needs it

    from castray_tui.cli.command_line import build_parser  # noqa: PLC0415  # it imports this module

    print_line(shtab.complete(build_parser(), shell=arguments.shell))
    return 0
