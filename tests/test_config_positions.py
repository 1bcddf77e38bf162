"""Lines of keys: every form that TOML and JSON know, and the whole annotated example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli

from castray_tui.core.config_positions import KeyPath, json_lines, toml_lines

_TOML = '''\
# a = 1
top = 1

[table]   # [not.this]
bare = "x # no comment = [here]"
"quoted key" = 'y'
'literal.key' = 1
"esc\\u0041ped" = 1
dotted . "part".last = 1
multi = """
key = "not a key"
[not_a_table]
\\""" still inside """
literal = \'\'\'
key = 1
\'\'\'
array = [
  1,  # comment ]
  [2, 3],
  { inline = 1, deep.er = [
    4 ] },
]
inline = { a = 1, "b c" = { d = "}" } }
when = 1979-05-27 07:32:00

[ spaced . "header" ]
k = 1

[[many]]
name = "first"
[many.sub]
x = 1
[[many.list]]
y = 1
[[many.list]]
y = 2

[[many]]
name = "second"
[many.sub]
x = 2
'''

_EXPECTED: dict[KeyPath, int] = {
    ("top",): 2,
    ("table",): 4,
    ("table", "bare"): 5,
    ("table", "quoted key"): 6,
    ("table", "literal.key"): 7,
    ("table", "escAped"): 8,
    ("table", "dotted", "part", "last"): 9,
    ("table", "multi"): 10,
    ("table", "literal"): 14,
    ("table", "array"): 17,
    ("table", "array", 0): 18,
    ("table", "array", 1): 19,
    ("table", "array", 2, "inline"): 20,
    ("table", "array", 2, "deep", "er"): 20,
    ("table", "array", 2, "deep", "er", 0): 21,
    ("table", "inline", "b c", "d"): 23,
    ("table", "when"): 24,
    ("spaced", "header"): 26,
    ("spaced", "header", "k"): 27,
    ("many",): 29,
    ("many", 0, "name"): 30,
    ("many", 0, "sub", "x"): 32,
    ("many", 0, "list", 0, "y"): 34,
    ("many", 0, "list", 1, "y"): 36,
    ("many", 1): 38,
    ("many", 1, "name"): 39,
    ("many", 1, "sub", "x"): 41,
}


def paths_in(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """Every key and element of what a parser gave."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= paths_in(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found |= paths_in(item, (*path, number))
    return found


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_form_of_toml(ending: str) -> None:
    text = _TOML.replace("\n", ending)
    lines = toml_lines(text)
    assert {path: lines.get(path) for path in _EXPECTED} == _EXPECTED
    assert set(lines) == paths_in(tomli.loads(text))


def test_every_form_of_json() -> None:
    text = (
        '{\n"a": 1, "b":\n {"c\\u0041": [1,\n {"d" : "} ]\\" , "}]},\n"e": null, "f": [], "g": {}}'
    )
    lines = json_lines(text)
    assert set(lines) == paths_in(json.loads(text))
    assert lines["b",] == 2
    assert lines["b", "cA", 1, "d"] == 4
    assert lines["g",] == 5


def test_the_annotated_example() -> None:
    text = (Path(__file__).parent.parent / "castray.toml").read_text(encoding="utf-8")
    lines = toml_lines(text)
    assert set(lines) == paths_in(tomli.loads(text))
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in text.splitlines()[line - 1]


@pytest.mark.parametrize("text", ["[", "a = ", "a = 'x", "= 3", "[[a]", "a = {b", "\0", "a" * 5])
def test_text_that_no_parser_accepts_does_no_harm(text: str) -> None:
    toml_lines(text)
    json_lines(text)


def test_deep_nesting_does_no_harm() -> None:
    assert toml_lines("ok = 1\na = " + "[" * 50_000)["ok",] == 1
