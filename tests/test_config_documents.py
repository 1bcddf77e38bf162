"""The annotated example and the documentation show exactly the settings that there are."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import tomli

from castray_tui.core import config
from castray_tui.core.config import Settings
from castray_tui.core.config_keys import CLUSTER_KEYS, KEYS, OTHER_VARIABLES, TABLES, ConfigKey
from castray_tui.core.config_loading import effective_settings, load_settings

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "castray.toml"
DOCUMENT = ROOT / "docs" / "configuration.md"


def test_the_example_holds_every_key_at_its_default() -> None:
    loaded = load_settings(
        config_path=EXAMPLE, overrides={}, environ={"HOME": "/home/x"}, working_dir=ROOT
    )
    assert loaded.settings == Settings()
    left_out = {key for key, origin in loaded.origins.items() if origin == "default"}
    assert left_out == {"clusters"}  # there are none by default


def test_every_key_of_the_example_is_explained() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            assert lines[number - 1].startswith("#"), f"line {number + 1} has no comment above it"


def test_the_clusters_of_the_example_can_be_switched_on(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    start = text.index("# [[clusters]]")
    entry = re.sub(r"(?m)^# ", "", text[start:])
    [cluster] = tomli.loads(entry)["clusters"]
    assert set(cluster) == {key.name for key in CLUSTER_KEYS}
    (tmp_path / "c.toml").write_text(text[:start] + entry, encoding="utf-8")
    loaded = load_settings(
        config_path=tmp_path / "c.toml", overrides={}, environ={}, working_dir=tmp_path
    )
    assert loaded.settings.clusters[0].name == "ml"


def test_every_setting_has_a_key() -> None:
    attributes = {key.attribute or key.name for key in KEYS}
    fields = set()
    for field in dataclasses.fields(Settings):
        value = getattr(Settings(), field.name)
        if dataclasses.is_dataclass(value):
            fields |= {f"{field.name}.{inner.name}" for inner in dataclasses.fields(value)}
        elif field.name != "clusters":
            fields.add(field.name)
    assert attributes == fields
    assert {key.name for key in CLUSTER_KEYS} == {
        field.name for field in dataclasses.fields(config.KnownClusterSettings)
    }
    assert set(TABLES) == {name.partition(".")[0] for name in fields if "." in name}


def table_rows() -> dict[str, list[str]]:
    """The rows of the document's tables by their first cell, without back quotes."""
    rows = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def documented_row(key: ConfigKey, default: object) -> list[str]:
    """What the document's row for a key must say."""
    variables = ", ".join(f"`{name}`" for name in (key.variable, *key.other_variables))
    meaning = f"{key.meaning}. Takes {key.kind.accepts}"
    return [f"`{json.dumps(default)}`", variables, meaning]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_the_document_has_a_true_row_for_every_key(key: ConfigKey) -> None:
    loaded = load_settings(config_path=None, overrides={}, environ={}, working_dir=Path("/"))
    defaults = {name: value for name, value, _ in effective_settings(loaded)}
    assert table_rows()[key.name] == documented_row(key, defaults[key.name])


def test_the_document_has_no_row_too_many() -> None:
    names = {key.name for key in KEYS}
    names |= {f"clusters.{key.name}" for key in CLUSTER_KEYS}
    names |= set(OTHER_VARIABLES) | {"CASTRAY_CLUSTERS"}
    assert set(table_rows()) == names


def test_the_document_tells_of_clusters_and_other_variables() -> None:
    rows = table_rows()
    for key in CLUSTER_KEYS:
        assert rows[f"clusters.{key.name}"] == [f"{key.meaning}. Takes {key.kind.accepts}"]
    for name, meaning in OTHER_VARIABLES.items():
        assert rows[name] == [meaning]


def test_every_setting_that_a_document_names_exists() -> None:
    """A sentence about ``transfer.something`` must not outlive a renamed key."""
    known = {key.name for key in KEYS}
    # Bindings have IDs of the same look there, and file names are no settings either.
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if document.name == "keys.md":
            continue
        text = document.read_text(encoding="utf-8")
        for table, name in re.findall(r"`([a-z_]+)\.([a-z_]+)`", text):
            if table in TABLES and name != "key":
                assert f"{table}.{name}" in known, f"{document.name} names {table}.{name}"
