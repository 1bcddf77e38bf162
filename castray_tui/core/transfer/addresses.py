"""File addresses, ``CLUSTER/NODE:PATH``, and the nodes that they name."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from castray_tui.core.errors import AddressError, NotFoundError
from castray_tui.core.models import LOCAL, Fleet, Node

_WILDCARDS = frozenset("*?[")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_BRACKETED = re.compile(
    r"(?P<cluster>[^/\[\]:]+)/\[(?P<node>[0-9A-Fa-f:.%\w]*:[^\]]*)\]:(?P<path>.*)"
)
_MIN_ID_PREFIX = 4
_FORM = "Write CLUSTER/NODE:PATH, local:PATH or a path on this machine"


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A path on the nodes that two patterns name; ``local`` and ``local`` for this machine.

    Attributes:
        path: Absolute, or beginning with ``~``; ends in ``/`` where it is a folder to put
            something into.
    """

    cluster_pattern: str
    node_pattern: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is on the machine that castray runs on."""
        return self.cluster_pattern == LOCAL

    @property
    def has_wildcard(self) -> bool:
        """Whether it may name several nodes."""
        return bool(_WILDCARDS & {*self.cluster_pattern, *self.node_pattern})

    def __str__(self) -> str:
        if self.is_local:
            return f"{LOCAL}:{self.path}"
        return format_address(self.cluster_pattern, self.node_pattern, self.path)


def format_address(cluster: str, node: str, path: str) -> str:
    """An address as it is written."""
    if cluster == LOCAL:
        return f"{LOCAL}:{path}"
    return f"{cluster}/{f'[{node}]' if ':' in node else node}:{path}"


def parse_address(text: str) -> FileAddress:
    """Reads an address.

    A bare path is on this machine; one with a colon in it begins with ``./``, ``/`` or ``~``.

    Raises:
        AddressError: It is none, or its path is missing, or relative on a node.
    """
    if "\0" in text:
        raise AddressError(f"{text!r} is no address", remedy=_FORM)
    if text.startswith(f"{LOCAL}:"):
        return _local(text, text.removeprefix(f"{LOCAL}:"))
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return _remote(text, bracketed["cluster"], bracketed["node"], bracketed["path"])
    head, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".", "~")) or _DRIVE.match(text):
        return _local(text, text)
    cluster, slash, node = head.partition("/")
    if not slash or not cluster or not node or "/" in node:
        raise AddressError(
            f"{text!r} names no node", remedy=f"{_FORM}; a path with a colon begins with ./"
        )
    return _remote(text, cluster, node, path)


def _local(text: str, path: str) -> FileAddress:
    if not path:
        raise AddressError(f"{text!r} names no file", remedy=_FORM)
    is_folder = path.endswith("/") or path.rsplit("/", 1)[-1] in (".", "..")
    if not path.startswith("~"):
        path = os.path.abspath(path)  # noqa: PTH100  Path would lose nothing but is slower to say
    if is_folder and not path.endswith("/"):
        path += "/"
    return FileAddress(LOCAL, LOCAL, path)


def _remote(text: str, cluster: str, node: str, path: str) -> FileAddress:
    if not path:
        raise AddressError(f"{text!r} names no file", remedy=_FORM)
    if not path.startswith(("/", "~")):
        raise AddressError(
            f"{text!r}: a path on a node is absolute, as agents have no folder of their own",
            remedy=f"Write {format_address(cluster, node, '/' + path)} or ~/{path}",
        )
    return FileAddress(cluster, node, path)


def resolve_nodes(address: FileAddress, fleet: Fleet) -> list[Node]:
    """The nodes that an address names, dead ones included, in the fleet's order.

    Raises:
        NotFoundError: There is none, or a name without wildcards fits several.
    """
    if address.is_local:
        return [local_node(fleet)]
    names = sorted({cluster.name for cluster in fleet.clusters})
    clusters = [name for name in names if fnmatchcase(name, address.cluster_pattern)]
    if not clusters:
        raise NotFoundError(
            f"No connected cluster is named {address.cluster_pattern}"
            + _near(address.cluster_pattern, names),
            remedy="Connect to it first; a path on this machine begins with ./ or local:",
        )
    nodes = [node for node in fleet.nodes if node.cluster in clusters and not node.is_local]
    pattern = address.node_pattern
    if _WILDCARDS & set(pattern):
        found = [node for node in nodes if any(fnmatchcase(n, pattern) for n in _names(node))]
    else:
        found = [node for node in nodes if _is_named(node, pattern)]
        _refuse_ambiguous(address, found)
    if not found:
        raise NotFoundError(
            f"{', '.join(clusters)} has no node {pattern}"
            + _near(pattern, [node.name for node in nodes]),
            remedy="castray nodes lists the names of all",
        )
    return found


def local_node(fleet: Fleet) -> Node:
    """The machine that castray runs on, also before it was measured."""
    for node in fleet.nodes:
        if node.is_local:
            return node
    return Node(cluster_key=LOCAL, cluster=LOCAL, node_id=LOCAL, name=LOCAL, status="alive")


def _names(node: Node) -> list[str]:
    names = [node.name, node.address, node.hostname, node.node_id]
    return [name for name in names if name] + (["head"] if node.is_head else [])


def _is_named(node: Node, name: str) -> bool:
    if name in _names(node):
        return True
    is_prefix = len(name) >= _MIN_ID_PREFIX and re.fullmatch("[0-9a-f]+", name) is not None
    return is_prefix and node.node_id.startswith(name)


def _refuse_ambiguous(address: FileAddress, found: list[Node]) -> None:
    """One name is one node of each cluster; a node's own short name goes before all others."""
    by_cluster: dict[str, list[Node]] = {}
    for node in found:
        by_cluster.setdefault(node.cluster_key, []).append(node)
    for nodes in by_cluster.values():
        exact = [node for node in nodes if node.name == address.node_pattern]
        if len(nodes) > 1 and len(exact) == 1:
            for node in nodes:
                if node is not exact[0]:
                    found.remove(node)
        elif len(nodes) > 1:
            raise NotFoundError(
                f"{address.node_pattern} fits {len(nodes)} nodes of {nodes[0].cluster}: "
                + ", ".join(node.name for node in nodes[:8]),
                remedy="Use one of these names, or a wildcard to name them all",
            )


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there is {', '.join(names[:5])}" if names else ""
