"""The grammar by which nodes are filtered and sorted, on the screen and on the command line.

A filter is any number of terms apart by spaces; a node passes if every term holds:

================  ==============================================================================
``gpu``           some text of the node holds it (name, cluster, address, host, state, ID, reason)
``"no answer"``   the same, with a space in it
``!term``         the term does not hold
``/10\\.0\\.[12]/``  a regular expression finds something in one of those texts
``field:value``   that field holds the value; ``*``, ``?``, ``[…]`` make it a pattern of the whole
``field:/re/``    a regular expression finds something in that field
================  ==============================================================================

Upper and lower case are the same everywhere. A sort order is the name of a column, with ``-`` in
front for the reverse; what is unknown always comes last.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from castray_tui.core.errors import UsageError
from castray_tui.core.models import Node, NodeStatus

_STATES: tuple[str, ...] = get_args(NodeStatus)
_FIELD = re.compile(r"[A-Za-z_]+(?=:)")
_WILDCARDS = frozenset("*?[")


def _type_of(node: Node) -> str:
    return "local" if node.is_local else "external"


def _labels_of(node: Node) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in node.labels.items())


def _resources_of(node: Node) -> tuple[str, ...]:
    return tuple(name for name, amount in node.resources_total.items() if amount > 0)


def _gpus_of(node: Node) -> tuple[str, ...]:
    if node.hardware is None:
        return ()
    return tuple(gpu.name for gpu in node.hardware.gpus if gpu.name is not None)


FILTER_FIELDS: Mapping[str, Callable[[Node], tuple[str | None, ...]]] = {
    "state": lambda node: (node.status,),
    "cluster": lambda node: (node.cluster,),
    "node": lambda node: (node.name,),
    "address": lambda node: (node.address,),
    "host": lambda node: (node.hostname,),
    "id": lambda node: (node.node_id,),
    "type": lambda node: (_type_of(node),),
    "reason": lambda node: (node.reason,),
    "label": _labels_of,
    "resource": _resources_of,
    "gpu": _gpus_of,
}
"""Each field of ``field:value`` and the texts that it is looked for in."""

_FIELD_ALIASES: Mapping[str, str] = {
    "status": "state",
    "name": "node",
    "ip": "address",
    "hostname": "host",
    "labels": "label",
    "resources": "resource",
}

_TEXT_FIELDS = ("node", "cluster", "address", "host", "state", "id", "reason")


@dataclass(frozen=True, slots=True)
class _Term:
    """One term: which texts it looks at, and what it finds in them."""

    fields: tuple[str, ...]
    found_in: Callable[[str], bool]
    inverse: bool

    def holds(self, node: Node) -> bool:
        found = any(
            self.found_in(text)
            for field in self.fields
            for text in FILTER_FIELDS[field](node)
            if text is not None
        )
        return found != self.inverse


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """A filter that has been read. ``NodeFilter()`` lets every node pass."""

    text: str = ""
    terms: tuple[_Term, ...] = ()

    def matches(self, node: Node) -> bool:
        """Whether every term holds for the node."""
        return all(term.holds(node) for term in self.terms)

    def select(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that pass, in the order they came in."""
        return [node for node in nodes if self.matches(node)]


def parse_filter(text: str) -> NodeFilter:
    """Reads a filter.

    Args:
        text: As the user typed it; empty or blank lets every node pass. A quote or a regular
            expression that is not closed yet reaches to the end, so that a filter can be applied
            while it is typed.

    Returns:
        The filter.

    Raises:
        UsageError: An unknown field or state, or a regular expression that cannot be read.
    """
    terms: list[_Term] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        term, position = _parse_term(text, position)
        if term is not None:
            terms.append(term)
    return NodeFilter(text=text.strip(), terms=tuple(terms))


def _parse_term(text: str, position: int) -> tuple[_Term | None, int]:
    """One term from ``position`` on, None if it is still empty, and where the next may be."""
    inverse = text[position] == "!"
    if inverse:
        position += 1
    fields: tuple[str, ...] = _TEXT_FIELDS
    field = None
    match = _FIELD.match(text, position)
    if match is not None:
        field = _field_named(match.group())
        fields = (field,)
        position = match.end() + 1
    opening = text[position : position + 1]
    if opening in {"/", '"', "'"}:
        value, position = _until(text, position + 1, opening)
        if opening == "/":
            return _expression_term(fields, value, inverse), position
    else:
        end = position
        while end < len(text) and not text[end].isspace():
            end += 1
        value, position = text[position:end], end
    if not value:
        return None, position
    return _value_term(fields, field, value, inverse), position


def _until(text: str, start: int, closing: str) -> tuple[str, int]:
    r"""What stands up to the closing character, ``\`` before it keeping it, and what follows."""
    characters: list[str] = []
    position = start
    while position < len(text) and text[position] != closing:
        if text[position] == "\\" and text[position + 1 : position + 2] == closing:
            position += 1
        characters.append(text[position])
        position += 1
    return "".join(characters), position + 1


def _field_named(word: str) -> str:
    name = _FIELD_ALIASES.get(word.lower(), word.lower())
    if name in FILTER_FIELDS:
        return name
    raise UsageError(
        f"The filter has no field {word!r}",
        remedy=_nearest(name, (*FILTER_FIELDS, *_FIELD_ALIASES))
        + f"The fields are {', '.join(FILTER_FIELDS)}; put text with a colon in quotes.",
    )


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def expression_finder(source: str) -> Callable[[str], bool]:
    """Whether a regular expression is found in a text, upper and lower case alike.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        expression = re.compile(source, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"The regular expression /{source}/ cannot be read: {error}",
            remedy="Put the text in quotes to look for it as it stands.",
        ) from error
    return lambda text: expression.search(text) is not None


def _expression_term(fields: tuple[str, ...], source: str, inverse: bool) -> _Term | None:
    if not source:
        return None
    return _Term(fields, expression_finder(source), inverse)


def _value_term(fields: tuple[str, ...], field: str | None, value: str, inverse: bool) -> _Term:
    wanted = value.casefold()
    if field is not None and _WILDCARDS.intersection(wanted):
        whole = re.compile(fnmatch.translate(wanted), re.DOTALL)
        return _Term(fields, lambda text: whole.match(text.casefold()) is not None, inverse)
    if field == "state":
        if not any(state.startswith(wanted) for state in _STATES):
            raise UsageError(
                f"No node is ever in the state {value!r}",
                remedy=_nearest(wanted, _STATES) + f"The states are {', '.join(_STATES)}.",
            )
        return _Term(fields, lambda text: text.casefold().startswith(wanted), inverse)
    if field in {"id", "type"}:
        return _Term(fields, lambda text: text.casefold().startswith(wanted), inverse)
    if field == "resource":
        return _Term(fields, lambda text: text.casefold() == wanted, inverse)
    return _Term(fields, lambda text: wanted in text.casefold(), inverse)


# --- order ------------------------------------------------------------------------------------

_SortValue = tuple[float | str, ...]

_DIGITS = re.compile(r"(\d+)")


def _natural(text: str | None) -> _SortValue | None:
    """Text in an order where 10.0.0.9 comes before 10.0.0.10; None stays None."""
    if text is None:
        return None
    # Text and numbers take turns, text first, so that equal places always hold the same type.
    return tuple(
        float(part) if index % 2 else part.casefold()
        for index, part in enumerate(_DIGITS.split(text))
    )


def _number(value: float | None) -> _SortValue | None:
    return None if value is None else (float(value),)


def _share(used: float | None, total: float | None) -> _SortValue | None:
    return (100.0 * used / total,) if used is not None and total else None


def _disk_percent(node: Node) -> _SortValue | None:
    disk = node.hardware.main_disk if node.hardware else None
    return _share(disk.used_bytes, disk.total_bytes) if disk else None


def _disk_free(node: Node) -> _SortValue | None:
    disk = node.hardware.main_disk if node.hardware else None
    return _number(disk.free_bytes) if disk else None


def _gpu_percent(node: Node) -> _SortValue | None:
    used = [
        gpu.utilization_percent
        for gpu in (node.hardware.gpus if node.hardware else ())
        if gpu.utilization_percent is not None
    ]
    return (sum(used) / len(used),) if used else None


def _network(node: Node) -> _SortValue | None:
    if node.hardware is None:
        return None
    rates = (
        node.hardware.network_sent_bytes_per_second,
        node.hardware.network_received_bytes_per_second,
    )
    known = [rate for rate in rates if rate is not None]
    return (sum(known),) if known else None


def _object_store(node: Node) -> _SortValue | None:
    if node.hardware is None:
        return None
    return _share(node.hardware.object_store_used_bytes, node.hardware.object_store_total_bytes)


SORT_COLUMNS: Mapping[str, Callable[[Node], _SortValue | None]] = {
    # The local node before all clusters, whatever they are called.
    "cluster": lambda node: (0.0 if node.is_local else 1.0, *(_natural(node.cluster) or ())),
    "node": lambda node: _natural(node.name),
    "state": lambda node: (float(_STATES.index(node.status)),),
    "address": lambda node: _natural(node.address),
    "host": lambda node: _natural(node.hostname),
    "cpu": lambda node: _number(node.hardware.cpu_percent if node.hardware else None),
    "memory": lambda node: _number(node.hardware.memory_percent if node.hardware else None),
    "disk": _disk_percent,
    "free": _disk_free,
    "gpu": _gpu_percent,
    "net": _network,
    "store": _object_store,
    "cpus": lambda node: _number(node.resources_total.get("CPU")),
    "seen": lambda node: _number(node.last_seen),
}
"""What each column sorts by; None where the node does not tell."""


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """A column of ``SORT_COLUMNS`` and a direction."""

    column: str = "cluster"
    reverse: bool = False

    def sort(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes in this order; unknown values last, equal ones by cluster, head and name."""
        value_of = SORT_COLUMNS[self.column]
        known: list[tuple[_SortValue, Node]] = []
        unknown: list[Node] = []
        for node in sorted(nodes, key=_tie_break):
            value = value_of(node)
            if value is None:
                unknown.append(node)
            else:
                known.append((value, node))
        known.sort(key=lambda pair: pair[0], reverse=self.reverse)
        return [node for _, node in known] + unknown


def _tie_break(node: Node) -> tuple[bool, _SortValue, bool, _SortValue, str]:
    return (
        not node.is_local,
        _natural(node.cluster) or (),
        not node.is_head,
        _natural(node.name) or (),
        node.node_id,
    )


def parse_order(text: str) -> NodeOrder:
    """Reads a sort order such as ``cpu`` or ``-cpu``.

    Raises:
        UsageError: No such column.
    """
    word = text.strip()
    reverse = word.startswith("-")
    column = word.removeprefix("-").lower()
    if column not in SORT_COLUMNS:
        raise UsageError(
            f"Nodes cannot be sorted by {column!r}",
            remedy=_nearest(column, SORT_COLUMNS)
            + f"The columns are {', '.join(SORT_COLUMNS)}; '-' in front reverses.",
        )
    return NodeOrder(column=column, reverse=reverse)
