"""Reads the command line, runs the command that it names, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from castray_tui import __version__
from castray_tui.cli.arguments import Parser, add_common_options
from castray_tui.core.errors import CastrayError, UsageError

if TYPE_CHECKING:
    from castray_tui.cli.screen import OpenScreen

EXIT_CODES = """exit codes:
  0 done   1 failed   2 wrong usage or configuration   3 some targets failed
  4 nothing reachable at that address   130 interrupted"""

_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as the shell reports a program that SIGPIPE ended


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: a line of help, and whether it can print JSON. Its module has its name."""

    summary: str
    has_json: bool = True


COMMANDS: dict[str, Command] = {
    "discover": Command("the Ray clusters that can be found from here"),
    "status": Command("clusters and totals"),
    "nodes": Command("the nodes of the fleet"),
    "cp": Command("send files and folders to nodes, or get them from nodes"),
    "transfers": Command("transfers of now and before"),
    "resume": Command("go on with a transfer that was paused or interrupted"),
    "retry": Command("send again to the targets of a transfer that failed"),
    "pause": Command("hold a transfer until it is resumed"),
    "cancel": Command("end a transfer"),
    "doctor": Command("why a cluster is not found or does not connect"),
    "demo": Command("two small Ray clusters to try castray on", has_json=False),
    "config": Command("every setting and where it came from"),
    "completion": Command("completion for a shell", has_json=False),
}


def run(argv: list[str], *, open_screen: OpenScreen) -> int:
    """Runs castray.

    Args:
        argv: The arguments without the program's name.
        open_screen: Draws the screen, for the commands that want one.

    Returns:
        The exit code. Whatever goes wrong is told on standard error, without a traceback unless
        ``--debug`` is among the arguments.
    """
    debug = "--debug" in argv
    try:
        code = _run(argv, open_screen)
        _flush()
    except SystemExit as leaving:  # --help and --version
        return _exit_code_of(leaving)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_standard_output()
        return _BROKEN_PIPE
    except Exception as error:  # the border to the user: nobody is helped by a traceback
        return report_failure(error, as_json="--json" in argv, debug=debug)
    return code


def report_failure(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Tells the user that a command failed, and how; to be called where it is handled.

    Args:
        error: What a command raised.
        as_json: Whether to tell it on standard output too, as JSON.
        debug: Whether to print the traceback.

    Returns:
        The exit code.
    """
    if debug:
        _print_traceback()
    return _report(error if isinstance(error, CastrayError) else _own_fault(error), as_json=as_json)


def build_parser(words: list[str] | None = None) -> Parser:
    """The parser of the whole command line.

    Args:
        words: The arguments that it will get; only commands that are named in them get their own
            options, because reading a command's module takes time. None for all commands.
    """
    parser = Parser(
        prog="castray",
        description="Every Ray cluster in reach live in one terminal, and files sent to their "
        "nodes. Without a command: the screen.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"castray {__version__}")
    screen = parser.add_argument_group("options of the screen")
    screen.add_argument(
        "--connect",
        metavar="ADDR",
        action="append",
        default=[],
        help="connect to this address at the start (repeatable)",
    )
    screen.add_argument(
        "--no-discover", action="store_true", help="do not look for clusters at the start"
    )
    screen.add_argument("--theme", metavar="NAME", default=None, help="colours of the screen")
    add_common_options(parser, at_the_top=True)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", prog=parser.prog
    )
    for name, command in COMMANDS.items():
        command_parser = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[:1].upper() + command.summary[1:] + ".",
            epilog=EXIT_CODES,
        )
        if words is None or name in words:
            module = import_module(f"castray_tui.cli.{name}")
            module.add_arguments(command_parser)
            command_parser.set_defaults(run=module.run, parser=command_parser)
            add_common_options(command_parser, at_the_top=False)
    return parser


def _run(argv: list[str], open_screen: OpenScreen) -> int:
    parser = build_parser(argv)
    arguments, extra = parser.parse_known_args(_with_reverse_order(argv))
    chosen = getattr(arguments, "parser", parser)
    chosen.refuse_unknown(extra)
    arguments.open_screen = open_screen
    if arguments.command is None:
        from castray_tui.cli import screen  # noqa: PLC0415  # only where a screen is wanted

        return screen.run(arguments)
    if (
        arguments.connect
        or arguments.no_discover
        or (arguments.theme is not None and arguments.command != "demo")
    ):
        raise UsageError(
            "--connect, --no-discover and --theme are options of the screen",
            remedy=f"Leave them out with `castray {arguments.command}`",
        )
    command = COMMANDS[arguments.command]
    if arguments.json and not command.has_json:
        raise UsageError(f"`castray {arguments.command}` prints no JSON", remedy="Leave out --json")
    code = arguments.run(arguments)
    assert isinstance(code, int)
    return code


def _with_reverse_order(argv: list[str]) -> list[str]:
    """``--sort -cpu`` as ``--sort=-cpu``: argparse would take ``-cpu`` for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sort" and word.startswith("-") and word[1:].isalpha():
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


def _own_fault(error: Exception) -> CastrayError:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return CastrayError(f"{error.strerror}{where}")
    return CastrayError(
        f"castray failed by an error of its own: {type(error).__name__}: {error}",
        remedy="Run it again with --debug to see where, and please report it",
    )


def _report(error: CastrayError, *, as_json: bool) -> int:
    """Tells of an error on standard error, and as JSON where JSON was asked for."""
    from castray_tui.cli.output import print_json, print_message  # noqa: PLC0415  # off the fast path
    from castray_tui.core.wire_format import error_json  # noqa: PLC0415

    try:
        if as_json:
            print_json(error_json(error.code, str(error)))
        print_message(f"castray: {error}")
    except BrokenPipeError:
        _silence_standard_output()
    return error.exit_code


def _print_traceback() -> None:
    import traceback  # noqa: PLC0415  # only ever needed here

    traceback.print_exc(file=sys.stderr)


def _exit_code_of(leaving: SystemExit) -> int:
    try:
        _flush()
    except BrokenPipeError:
        _silence_standard_output()
    return leaving.code if isinstance(leaving.code, int) else 0


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _silence_standard_output() -> None:
    """Nobody reads any more; Python would complain again when it flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
