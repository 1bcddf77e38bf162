"""Finds the line that each key of a TOML or JSON text stands on.

Parsers give values without lines. This walks over a text that a parser has already accepted, so it
need not judge, only find its way: tables, arrays of tables, dotted and quoted keys, inline tables,
lists over many lines, strings of every form.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_BARE_KEY = re.compile(r"[^\s.=\[\]{}\"'#,:]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def toml_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key, table and list element of a valid TOML text."""
    return _walked(text, _Walk.toml)


def json_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key and list element of a valid JSON text."""
    return _walked(text, _Walk.json)


def _walked(text: str, way: Callable[[_Walk], None]) -> dict[KeyPath, int]:
    walk = _Walk(text)
    with suppress(_LostError, RecursionError):  # what was found up to there is no less true
        way(walk)
    return walk.lines


class _LostError(Exception):
    """The text is not what the walk expects."""


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._array_sizes: dict[KeyPath, int] = {}

    # --- whole texts --------------------------------------------------------------------------

    def toml(self) -> None:
        table: KeyPath = ()
        for char in self._characters():
            if char == "[":
                table = self._header()
            else:
                self._pair(table, "=")

    def json(self) -> None:
        self._blank()
        self._value((), ":")

    # --- parts --------------------------------------------------------------------------------

    def _header(self) -> KeyPath:
        """``[a.b]`` or ``[[a.b]]``; returns the path of what follows."""
        line = self._line()
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        self._blank()
        names = list(self._key())
        self._expect("]")
        if is_array:
            self._expect("]")
        path: KeyPath = ()
        for name in names[:-1]:
            path = self._inside((*path, name))
        path = (*path, names[-1])
        if is_array:
            self.lines.setdefault(path, line)
            number = self._array_sizes.get(path, 0)
            self._array_sizes[path] = number + 1
            path = (*path, number)
        self._note(path, line)
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """A path through an array of tables means its newest table."""
        size = self._array_sizes.get(path)
        return path if size is None else (*path, size - 1)

    def _pair(self, table: KeyPath, sign: str) -> None:
        line = self._line()
        path = (*table, *(self._key() if sign == "=" else (self._string_key(),)))
        self._note(path, line)
        self._expect(sign)
        self._blank()
        self._value(path, sign)

    def _value(self, path: KeyPath, sign: str) -> None:
        char = self.text[self.at : self.at + 1]
        if char == "[":
            self.at += 1
            for number, _ in enumerate(self._items("]")):
                self._note((*path, number), self._line())
                self._value((*path, number), sign)
        elif char == "{":
            self.at += 1
            for _ in self._items("}"):
                self._pair(path, sign)
        elif char in ('"', "'"):
            self._string()
        else:
            self._take(_BARE_VALUE)

    def _items(self, end: str) -> Iterator[None]:
        """Stands before each item of a list or inline table in turn, then after its end."""
        for char in self._characters():
            if char == end:
                self.at += 1
                return
            if char == ",":
                self.at += 1
            else:
                yield
        raise _LostError

    def _key(self) -> Iterator[str]:
        """The parts of a dotted key."""
        while True:
            char = self.text[self.at : self.at + 1]
            yield self._string_key() if char in ('"', "'") else self._take(_BARE_KEY)
            self._blank()
            if not self.text.startswith(".", self.at):
                return
            self.at += 1
            self._blank()

    def _string_key(self) -> str:
        text = self._string()
        return text[1:-1] if text[0] == "'" else _ESCAPE.sub(_unescaped, text[1:-1])

    def _string(self) -> str:
        for pattern in _STRINGS:
            match = pattern.match(self.text, self.at)
            if match is not None:
                self.at = match.end()
                return match[0]
        raise _LostError

    # --- steps --------------------------------------------------------------------------------

    def _characters(self) -> Iterator[str]:
        while True:
            self._blank()
            if self.at >= len(self.text):
                return
            yield self.text[self.at]

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _LostError
        self.at = match.end()
        return match[0]

    def _expect(self, sign: str) -> None:
        self._blank()
        if not self.text.startswith(sign, self.at):
            raise _LostError
        self.at += 1

    def _line(self) -> int:
        return bisect_right(self._starts, self.at)

    def _note(self, path: KeyPath, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return chr(int(code, 16))
    return _ESCAPED.get(match[4], match[4])
