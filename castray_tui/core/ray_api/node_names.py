"""Short names for the nodes of one cluster, stable from poll to poll."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from castray_tui.core.ray_api.node_records import NodeRow

HEAD = "head"
_SHORTEST_PREFIX = 6
# What can stand in an address CLUSTER/NODE:PATH without quoting; so no IPv6, whose colons end it.
_USABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_RESERVED = frozenset({HEAD, "local"})


def node_names(rows: Sequence[NodeRow], hostnames: Mapping[str, str]) -> dict[str, str]:
    """A name for each node by node ID: ``head`` for the head, else its IP or host name where no
    other node has it, else the shortest unique prefix of its node ID, of 6 characters or more.

    Dead nodes come last: they do not take a name from one that lives.

    Args:
        rows: All nodes of the cluster that are listed.
        hostnames: Host names by node ID, as far as they are known.
    """
    prefixes = _prefixes(row.node_id for row in rows)
    names: dict[str, str] = {}
    taken: set[str] = set()
    head = _head(rows)
    if head is not None:
        names[head.node_id] = HEAD
        taken.add(HEAD)
    living = [row for row in rows if row.alive]
    for group, others in ((living, living), ([row for row in rows if not row.alive], rows)):
        addresses = Counter(row.address for row in others)
        hosts = Counter(hostnames.get(row.node_id) for row in others)
        for row in group:
            if row.node_id in names:
                continue
            name = prefixes[row.node_id]
            hostname = hostnames.get(row.node_id)
            if _fits(row.address, addresses, taken):
                name = str(row.address)
            elif _fits(hostname, hosts, taken):
                name = str(hostname)
            names[row.node_id] = name
            taken.add(name)
    return names


def _head(rows: Sequence[NodeRow]) -> NodeRow | None:
    """The head that lives, else the one that started last."""
    heads = [row for row in rows if row.is_head]
    return max(heads, key=lambda row: (row.alive, row.started_at or 0.0), default=None)


def _fits(candidate: str | None, counts: Mapping[str | None, int], taken: set[str]) -> bool:
    return (
        candidate is not None
        and counts[candidate] == 1
        and candidate not in taken
        and candidate not in _RESERVED
        and _USABLE.fullmatch(candidate) is not None
    )


def _prefixes(node_ids: Iterable[str]) -> dict[str, str]:
    """The shortest unique prefix of each ID; neighbours in sorted order decide."""
    ordered = sorted(set(node_ids))
    prefixes: dict[str, str] = {}
    for position, node_id in enumerate(ordered):
        around = ordered[max(position - 1, 0) : position] + ordered[position + 1 : position + 2]
        shared = max((_shared(node_id, other) for other in around), default=0)
        prefixes[node_id] = node_id[: max(_SHORTEST_PREFIX, shared + 1)]
    return prefixes


def _shared(one: str, other: str) -> int:
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
