"""A route for eyes: hops that follow each other as one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ARROW = " → "
_MOST_HOPS = 50
"""More would be read by nobody, and cost time with every snapshot."""


def route_text(hops: Sequence[str]) -> str:
    """The whole route in a few lines, or its beginning and how much more there is."""
    lines = folded_route(hops[:_MOST_HOPS])
    if len(hops) > _MOST_HOPS:
        lines.append(f"and {len(hops) - _MOST_HOPS} more hops")
    return "; ".join(lines)


def folded_route(hops: Iterable[str]) -> list[str]:
    """Hops such as ``A → B`` and ``B → C`` as ``A → B → C``; a branch begins a line of its own.

    What is no hop between two ends stays as it is.
    """
    chains: list[str] = []
    ending_in: dict[str, int] = {}
    for hop in hops:
        giver, arrow, rest = hop.partition(_ARROW)
        taker = rest.partition(" (by ")[0]
        at = ending_in.pop(giver, None) if arrow else None
        if at is None:
            at = len(chains)
            chains.append(hop)
        else:
            chains[at] += _ARROW + rest
        if arrow:
            ending_in[taker] = at
    return chains
