"""Parsing the command line: options that every command takes, value types, and did-you-mean."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from castray_tui.core.errors import UsageError

_HELP_COLUMNS = 100


class _HelpText(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, up to 100 columns.

    The width is found here because argparse would import ``shutil`` for it, even where no help is
    printed, and that costs a tenth of what ``castray discover`` takes.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _help_columns(), **options})


def _help_columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return min(int(columns), _HELP_COLUMNS) - 2
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns, _HELP_COLUMNS) - 2
    except (AttributeError, OSError, ValueError):  # no such stream, no terminal, a closed stream
        return 78


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``UsageError`` and names what was probably meant."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that works today may be ambiguous with the options of tomorrow.
        super().__init__(**{"allow_abbrev": False, "formatter_class": _HelpText, **options})

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise UsageError(
            message[:1].upper() + message[1:], remedy=f"See `{self.prog} --help`"
        ) from None

    def options(self) -> list[str]:
        """Every option that can stand here."""
        return [option for action in self._actions for option in action.option_strings]

    def refuse_unknown(self, extra: list[str]) -> None:
        """Raises for arguments that nothing takes."""
        if not extra:
            return
        unknown = extra[0].split("=", 1)[0]
        if unknown.startswith("-"):
            raise UsageError(
                f"There is no option {unknown}",
                remedy=f"{nearest(unknown, self.options())}See `{self.prog} --help`",
            )
        raise UsageError(
            f"{self.prog} takes no argument {extra[0]!r}", remedy=f"See `{self.prog} --help`"
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse does, with the nearest valid choice."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            if action.dest == "command":
                raise UsageError(
                    f"There is no command {str(value)!r}",
                    remedy=f"{nearest(str(value), choices)}Commands are {', '.join(choices)}",
                )
            what = action.metavar if isinstance(action.metavar, str) else None
            what = what or (action.option_strings[0] if action.option_strings else action.dest)
            raise UsageError(
                f"{what} cannot be {str(value)!r}",
                remedy=f"{nearest(str(value), choices)}Known are {', '.join(choices)}",
            )


def nearest(word: str, known: Iterable[str]) -> str:
    """``Did you mean X? `` with a space behind it, or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f"Did you mean {near[0]}? " if near else ""


def add_common_options(parser: argparse.ArgumentParser, *, at_the_top: bool) -> None:
    """Adds the options that may stand before or after the command.

    Args:
        parser: Where to add them.
        at_the_top: Whether this is the parser before the command, which sets the defaults. Those
            after the command set nothing where they are not given.
    """

    def default(value: object) -> Any:
        return value if at_the_top else argparse.SUPPRESS

    group = parser.add_argument_group("options of every command")
    complete_files(
        group.add_argument(
            "--config", metavar="PATH", default=default(None), help="the configuration file to read"
        )
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=default(False),
        help="print JSON, for commands that print data",
    )
    group.add_argument(
        "--read-only",
        action="store_true",
        default=default(False),
        help="refuse everything that would change a cluster",
    )
    group.add_argument(
        "--ascii",
        action="store_true",
        default=default(False),
        help="draw with ASCII characters only",
    )
    group.add_argument(
        "--debug",
        action="store_true",
        default=default(False),
        help="show the traceback of an error",
    )


def complete_files(action: argparse.Action) -> None:
    """Has shells complete names of files for an argument.

    What shtab looks for, in its words; shtab itself is imported for nothing but the script.
    """
    action.__dict__["complete"] = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def port_range(text: str) -> tuple[int, int]:
    """``8265-8275`` or one port, as the first and the last port."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text.strip())
    if match is not None:
        low = int(match[1])
        high = int(match[2] or match[1])
        if 1 <= low <= high <= 65535:
            return low, high
    raise argparse.ArgumentTypeError(f"{text!r} is no range of ports such as 8265-8275")


def positive_seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def positive_count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def bytes_per_second(text: str) -> int:
    """``10MB``, ``4MiB`` or a plain number of bytes, as bytes per second; 0 is no limit."""
    from castray_tui.core.config_values import size_bytes  # noqa: PLC0415  # only cp needs it

    try:
        return size_bytes(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate such as 10MB") from None


def comma_list(text: str) -> list[str]:
    """``a,b`` as its parts."""
    return [part for part in (piece.strip() for piece in text.split(",")) if part]
