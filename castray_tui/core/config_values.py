"""The kinds of values that settings hold: what each accepts, and how it is read and written back.

A kind reads the plain values that TOML, JSON and the command line give, and, by ``from_text``, the
text of an environment variable. What it refuses raises ValueError with a clause that goes on from
"<key> is <value>, "; where it came from and what to do is added by ``config_loading``.

Plain classes: making a dozen dataclasses costs milliseconds of every start.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

_TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
_FALSE_WORDS = frozenset({"false", "no", "off", "0"})
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)(b?)|b)?(?:/s)?", re.IGNORECASE)
_SIZE_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_IPV6 = re.compile(r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]?")
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Folders:
    """What paths in a value start from: ``base`` for relative ones, ``home`` for ``~``."""

    def __init__(self, base: Path, home: Path) -> None:
        self.base = base
        self.home = home


class ValueKind(Protocol):
    """What a setting may hold."""

    @property
    def accepts(self) -> str:
        """What is accepted, in words that follow "it takes"."""

    def read(self, value: object, folders: Folders) -> object:
        """The value as settings hold it; ValueError where it is not accepted."""

    def from_text(self, text: str) -> object:
        """The plain value that the text of an environment variable stands for."""

    def write(self, value: object) -> object:
        """The plain value, as JSON and the configuration file can hold it."""


def size_bytes(text: str) -> int:
    """Reads a size such as ``4MiB``, ``100MB``, ``1.5 GB/s`` or ``65536``, in bytes.

    ``kB`` counts in thousands; ``KiB``, and ``K`` alone, in 1,024. Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("which is no size")
    number, prefix, binary, byte = match.groups()
    unit: int = (1000 if byte and not binary else 1024) ** _SIZE_POWERS[(prefix or "b").lower()]
    return round(float(number) * unit) if "." in number else int(number) * unit


class Switch:
    """True or false; with ``optional``, also none."""

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return "true or false"

    def read(self, value: object, folders: Folders) -> bool | None:
        """A boolean, as it is."""
        if value is None and self.optional:
            return None
        if not isinstance(value, bool):
            raise ValueError("which is neither true nor false")
        return value

    def from_text(self, text: str) -> object:
        """``true``, ``yes``, ``on``, ``1`` and their opposites, in any case."""
        word = text.strip().lower()
        return True if word in _TRUE_WORDS else False if word in _FALSE_WORDS else text

    def write(self, value: object) -> object:
        """As it is."""
        return value


class Text:
    """One line of text that is not empty."""

    def __init__(self, what: str = "text", spaces: bool = True) -> None:
        self.what = what
        self.spaces = spaces

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return self.what

    def read(self, value: object, folders: Folders) -> str:
        """The text without blanks around it."""
        if not isinstance(value, str):
            raise ValueError("which is no text")
        text = value.strip()
        if not text:
            raise ValueError("which is empty")
        if not text.isprintable() or (not self.spaces and any(map(str.isspace, text))):
            raise ValueError("which holds blanks or control characters")
        return text

    def from_text(self, text: str) -> object:
        """As it is."""
        return text

    def write(self, value: object) -> object:
        """As it is."""
        return value


class ClusterName:
    """The name of a cluster, as it may stand in a node address."""

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return 'letters, digits, ".", "_" and "-", a letter or digit first, and not "local"'

    def read(self, value: object, folders: Folders) -> str:
        """The name, as it is."""
        if not isinstance(value, str) or not _CLUSTER_NAME.fullmatch(value):
            raise ValueError("which is no cluster name")
        if value == "local":
            raise ValueError("which is the name of the machine that castray runs on")
        return value

    def from_text(self, text: str) -> object:
        """As it is."""
        return text

    def write(self, value: object) -> object:
        """As it is."""
        return value


class Choice:
    """One of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def read(self, value: object, folders: Folders) -> str:
        """The word, as it is."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError("which is none of its words")
        return value

    def from_text(self, text: str) -> object:
        """Without blanks around it."""
        return text.strip()

    def write(self, value: object) -> object:
        """As it is."""
        return value


class Number:
    """A number between two others, both included; ``zero`` adds 0 to a range that starts above."""

    def __init__(
        self, low: float, high: float, unit: str = "", whole: bool = False, zero: bool = False
    ) -> None:
        self.low = low
        self.high = high
        self.unit = unit
        self.whole = whole
        self.zero = zero

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        noun = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        zero = ", or 0" if self.zero else ""
        return f"{noun} from {self.low:,g} to {self.high:,g}{unit}{zero}"

    def read(self, value: object, folders: Folders) -> float:
        """The number, whole where it must be."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("which is no number")
        if isinstance(value, float) and (
            not math.isfinite(value) or (self.whole and not value.is_integer())
        ):
            raise ValueError("which is no whole number" if self.whole else "which is no number")
        if not (self.low <= value <= self.high or (self.zero and value == 0)):
            raise ValueError("which is out of range")
        return int(value) if self.whole else float(value)

    def from_text(self, text: str) -> object:
        """The number that the text shows, else the text."""
        try:
            return int(text)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            return text

    def write(self, value: object) -> object:
        """Without a fraction where there is none."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


class Size:
    """A number of bytes, or of bytes a second."""

    def __init__(self, low: int, high: int, per_second: bool = False, zero: bool = False) -> None:
        self.low = low
        self.high = high
        self.per_second = per_second
        self.zero = zero

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        what = "bytes a second" if self.per_second else "bytes"
        zero = ", or 0" if self.zero else ""
        return (
            f'{what} as a whole number or such as "4MiB" or "100MB", '
            f"from {written_size(self.low)} to {written_size(self.high)}{zero}"
        )

    def read(self, value: object, folders: Folders) -> int:
        """The size in bytes."""
        if isinstance(value, str):
            size = size_bytes(value)
        elif isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("which is no size")
        else:
            size = value
        if not (self.low <= size <= self.high or (self.zero and size == 0)):
            raise ValueError("which is out of range")
        return size

    def from_text(self, text: str) -> object:
        """As it is."""
        return text

    def write(self, value: object) -> object:
        """``4MiB`` where that is exact, else the number of bytes."""
        size = int(str(value))
        text = written_size(size)
        return size if text == str(size) else text


def written_size(size: int) -> str:
    """A size as short as it can be said exactly: ``4MiB``, ``100MB``, ``1234``."""
    if size:
        for base, ending in ((1024, "iB"), (1000, "B")):
            for prefix, power in reversed(_SIZE_POWERS.items()):
                if power and size % base**power == 0:
                    letter = "k" if (prefix, base) == ("k", 1000) else prefix.upper()
                    return f"{size // base**power}{letter}{ending}"
    return str(size)


class PortRange:
    """Two ports, both included; with ``zero``, ``[0, 0]`` leaves the choice to the system."""

    def __init__(self, zero: bool = False) -> None:
        self.zero = zero

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        zero = ", or [0, 0]" if self.zero else ""
        return f'two ports from 1 to 65535 such as [8265, 8275] or "8265-8275"{zero}'

    def read(self, value: object, folders: Folders) -> tuple[int, int]:
        """(first, last)."""
        plain = self.from_text(value) if isinstance(value, str) else value
        if not isinstance(plain, list | tuple) or len(plain) != 2:
            raise ValueError("which is not two ports")
        low, high = plain
        if not all(isinstance(port, int) and not isinstance(port, bool) for port in (low, high)):
            raise ValueError("which is not two ports")
        if self.zero and low == high == 0:
            return (0, 0)
        if not (1 <= low <= 65535 and 1 <= high <= 65535):
            raise ValueError("which is out of range")
        if low > high:
            raise ValueError("of which the first is above the last")
        return (low, high)

    def from_text(self, text: str) -> object:
        """``A-B``, ``A,B``, ``[A, B]`` or a single port."""
        ports = re.split(r"\s*[-,]\s*", text.strip().strip("[]").strip())
        if not all(re.fullmatch(r"\d{1,6}", port) for port in ports):
            return text if len(ports) != 2 else tuple(ports)
        return tuple(int(port) for port in (ports * 2 if len(ports) == 1 else ports))

    def write(self, value: object) -> object:
        """A list of two."""
        return list(value) if isinstance(value, tuple) else value


class ListOf:
    """A list of values of one kind, none of them twice."""

    def __init__(self, kind: ValueKind) -> None:
        self.kind = kind

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return f"a list, each {self.kind.accepts}"

    def read(self, value: object, folders: Folders) -> tuple[object, ...]:
        """The values in their order, repeated ones once."""
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise ValueError("which is no list")
        items: dict[object, None] = {}
        for item in value:
            try:
                items[self.kind.read(item, folders)] = None
            except ValueError:
                raise ValueError(f"in which {shown(item)} is wrong") from None
        return tuple(items)

    def from_text(self, text: str) -> object:
        """A JSON list, else values with commas between them."""
        if text.lstrip().startswith("["):
            return _json_or_text(text)
        return [self.kind.from_text(part.strip()) for part in text.split(",") if part.strip()]

    def write(self, value: object) -> object:
        """A list."""
        return [self.kind.write(item) for item in value] if isinstance(value, tuple) else value


class Host:
    """A host by name or IP address, nothing around it."""

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return 'a host name or IP address such as "gpu1" or "10.0.0.5", without scheme or port'

    def read(self, value: object, folders: Folders) -> str:
        """The host, IPv6 addresses without brackets."""
        if not isinstance(value, str):
            raise ValueError("which is no host")
        host = value.strip()
        if _IPV6.fullmatch(host) and host.count(":") >= 2 and ("[" in host) == ("]" in host):
            return host.strip("[]")
        if len(host) > 253 or not _HOST.fullmatch(host):
            raise ValueError("which is no host name or IP address")
        return host

    def from_text(self, text: str) -> object:
        """As it is."""
        return text

    def write(self, value: object) -> object:
        """As it is."""
        return value


class FilePath:
    """A path on this machine; with ``optional``, empty text stands for none.

    With ``absolute`` a relative one is refused rather than completed, because it is meant for other
    machines too.
    """

    def __init__(self, optional: bool = False, absolute: bool = False) -> None:
        self.optional = optional
        self.absolute = absolute

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        kind = "an absolute path" if self.absolute else "a path"
        return f"{kind}{', or empty for none' if self.optional else ''}"

    def read(self, value: object, folders: Folders) -> Path | None:
        """An absolute path, or None."""
        if self.optional and (value is None or value == ""):
            return None
        if not isinstance(value, str | os.PathLike):
            raise ValueError("which is no path")
        text = os.fspath(value)
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise ValueError("which is no path")
        path = Path(text)
        if path.parts[:1] == ("~",):
            path = folders.home.joinpath(*path.parts[1:])
        elif self.absolute and not path.is_absolute():
            raise ValueError("which is not absolute")
        if ".." in path.parts and self.absolute:
            raise ValueError('which leads through ".."')
        return folders.base / path

    def from_text(self, text: str) -> object:
        """As it is."""
        return text

    def write(self, value: object) -> object:
        """As text; empty for none."""
        return "" if value is None else str(value)


class TextTable:
    """A table of names to text."""

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return 'a table of text, such as {discover = "d,ctrl+d"}'

    def read(self, value: object, folders: Folders) -> dict[str, str]:
        """The table."""
        if not isinstance(value, Mapping):
            raise ValueError("which is no table")
        table = {}
        for name, text in value.items():
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                raise ValueError(f"of which {shown(name)} is {shown(text)}, which is no text")
            table[str(name)] = text.strip()
        return table

    def from_text(self, text: str) -> object:
        """A JSON object."""
        return _json_or_text(text)

    def write(self, value: object) -> object:
        """A plain table."""
        return dict(value) if isinstance(value, Mapping) else value


def shown(value: object) -> str:
    """A refused value as it may stand in a message: short, on one line, text in quotes."""
    from castray_tui.core.text_safety import safe_text  # noqa: PLC0415

    text = safe_text(value, limit=60)
    if isinstance(value, bool):
        return text.lower()
    return f'"{text}"' if isinstance(value, str | Path) else text


def _json_or_text(text: str) -> object:
    import json  # noqa: PLC0415  costs start-up time that only a list in the environment needs

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
