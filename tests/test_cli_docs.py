"""The documents name what the command line has, and nothing that it has not."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from castray_tui.cli.command_line import COMMANDS, build_parser
from castray_tui.core.models import (
    PlannedTarget,
    Transfer,
    TransferLeg,
    TransferPlan,
    TransferRequest,
    TransferTarget,
)
from castray_tui.core.node_filter import FILTER_FIELDS, SORT_COLUMNS
from castray_tui.core.wire_format import plan_json, transfer_json

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


def json_names(document: object) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*(json_names(value) for value in document.values()))
    if isinstance(document, list):
        return set().union(*(json_names(value) for value in document))
    return set()


def test_every_field_of_a_transfer_is_documented() -> None:
    target = TransferTarget("ml", "head", "/a")
    request = TransferRequest(("a",), ("b",))
    transfer = Transfer(
        id="t",
        kind="unicast",
        state="done",
        source="local:/a",
        targets=(target,),
        legs=(TransferLeg("local", "local", ("/a",)),),
        request=request,
    )
    plan = TransferPlan(
        "local:/a", "unicast", None, None, (PlannedTarget("ml", "head", "/a", "send"),)
    )
    names = json_names(transfer_json(transfer)) | json_names(plan_json(plan))
    documented = set(re.findall(r"`([a-z_]+)`", section("cp")))
    assert names - json_names(transfer_json(transfer)["request"]) <= documented
