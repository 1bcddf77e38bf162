"""A leg's tree, row by row: its branches, and who is below whom."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

Json = Dict[str, Any]


def below(rows: List[Json]) -> List[Json]:
    """The rows under the first one, with places of parents counted anew."""
    return [dict(row, parent=row["parent"] - 1) for row in rows[1:]]


def split(rows: List[Json]) -> List[List[Json]]:
    """The rows of each child (those with parent -1) with everybody below it."""
    top: List[int] = []
    places: List[int] = []
    groups: Dict[int, List[Json]] = {}
    for place, row in enumerate(rows):
        parent = row["parent"]
        if parent < 0:
            top.append(place)
            places.append(0)
            groups[place] = [dict(row)]
            continue
        head = top[parent]
        top.append(head)
        group = groups[head]
        places.append(len(group))
        group.append(dict(row, parent=places[parent]))
    return list(groups.values())


def spans(tree: List[Json]) -> Dict[int, Tuple[int, int]]:
    """By the index of each target of a tree: a range of numbers for it and all that are below it.

    Args:
        tree: Rows of ``index`` and ``parent`` (a place in the list, or -1), parents first.
    """
    sizes = [1] * len(tree)
    for place in range(len(tree) - 1, -1, -1):
        if tree[place]["parent"] >= 0:
            sizes[tree[place]["parent"]] += sizes[place]
    found: Dict[int, Tuple[int, int]] = {}
    free: List[int] = []
    free_top = 0
    for place, row in enumerate(tree):
        if row["parent"] < 0:
            start = free_top
            free_top += sizes[place]
        else:
            start = free[row["parent"]]
            free[row["parent"]] += sizes[place]
        free.append(start + 1)
        found[row["index"]] = (start, start + sizes[place])
    return found
