"""The documents name what the command line has, and nothing that it has not."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from castray_tui.cli.command_line import COMMANDS, build_parser
from castray_tui.core.node_filter import FILTER_FIELDS, SORT_COLUMNS

PROJECT = Path(__file__).resolve().parent.parent
TEXT = (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")


def parsers() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (
        action.choices
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(choices)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }


def section(command: str) -> str:
    match = re.search(rf"^## `castray {command}[ `].*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md has no section about {command}"
    return match.group()


def test_every_command_can_be_built_and_has_a_section() -> None:
    assert list(parsers()) == list(COMMANDS)
    for command in COMMANDS:
        assert section(command)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_is_documented(command: str) -> None:
    common = options(build_parser()) & options(parsers()[command])
    for option in options(parsers()[command]) - common:
        assert f"`{option}" in section(command), f"{command} {option}"


def test_no_option_is_documented_that_is_not_there() -> None:
    known = options(build_parser()).union(*(options(parser) for parser in parsers().values()))
    not_ours = {"--include-dashboard", "--dashboard-host", "--help"}
    for name in ("README.md", "docs/cli.md", "docs/troubleshooting.md"):
        text = (PROJECT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert named <= known | not_ours, name


def test_filter_fields_and_sort_columns_are_documented() -> None:
    text = section("nodes")
    for field in FILTER_FIELDS:
        assert f"{field}:" in text
    for column in SORT_COLUMNS:
        assert f"`{column}`" in text


def test_links_of_the_documents_lead_somewhere() -> None:
    for name in ("README.md", "docs/cli.md", "docs/troubleshooting.md"):
        path = PROJECT / name
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{name} → {target}"
