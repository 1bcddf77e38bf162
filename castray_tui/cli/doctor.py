"""``castray doctor``: why a cluster is not found or does not connect, and what to do about it."""

from __future__ import annotations

import argparse

from castray_tui.cli.output import print_json, print_line
from castray_tui.cli.running import run_until_done
from castray_tui.cli.screen import terminal_problem
from castray_tui.cli.settings import settings_for
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.doctor.examination import examine_address, examine_surroundings
from castray_tui.core.doctor.finding import Finding
from castray_tui.core.errors import ConfigError, ConnectError
from castray_tui.core.text_safety import safe_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of ``castray doctor``."""
    parser.add_argument(
        "address",
        metavar="ADDR",
        nargs="?",
        help="look at what stands at this address (default: at everything that can be found)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings; 1 where something fails, 4 where the address is no cluster."""
    try:
        loaded = settings_for(arguments)
    except ConfigError as error:
        _print([Finding("configuration", "fail", error.message, error.remedy)], arguments)
        return error.exit_code
    return run_until_done(_doctor(arguments, loaded))


async def _doctor(arguments: argparse.Namespace, loaded: LoadedSettings) -> int:
    if arguments.address is not None:
        findings = await examine_address(loaded, arguments.address)
    else:
        findings = [_terminal(), *await examine_surroundings(loaded)]
    _print(findings, arguments)
    if not any(finding.level == "fail" for finding in findings):
        return 0
    return 1 if arguments.address is None else ConnectError.exit_code


def _terminal() -> Finding:
    problem = terminal_problem()
    if problem is None:
        return Finding("terminal", "ok", "the screen can be drawn here")
    return Finding(
        "terminal", "warn", problem, "The commands work without one; see `castray --help`"
    )


def _print(findings: list[Finding], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(
            {
                "findings": [
                    {
                        "check": finding.check,
                        "level": finding.level,
                        "message": finding.message,
                        "remedy": finding.remedy,
                    }
                    for finding in findings
                ],
                "failed": sum(finding.level == "fail" for finding in findings),
            }
        )
        return
    for finding in findings:
        line = f"{finding.level:<4}  {finding.check}: {finding.message}"
        print_line(safe_text(line, limit=4_000), ascii_only=arguments.ascii)
        if finding.remedy is not None:
            print_line(
                safe_text(f"      {finding.remedy}", limit=4_000), ascii_only=arguments.ascii
            )
