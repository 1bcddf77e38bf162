"""Where something comes from or goes to, in few words."""

from __future__ import annotations

from castray_tui.core.models import LOCAL


def place_label(cluster: str, node: str) -> str:
    """``CLUSTER/NODE``; ``local`` for the machine that castray runs on."""
    return LOCAL if cluster == LOCAL else f"{cluster}/{node}"


def row_label(cluster: str, node: str, source: str | None, arrow: str) -> str:
    """A target's place; where it has a source of its own, that one before it.

    Args:
        source: An address such as ``CLUSTER/NODE:PATH``, or None.
        arrow: What stands between the two.
    """
    place = place_label(cluster, node)
    if source is None:
        return place
    # A node that is named by an IPv6 address has colons in it, between brackets.
    bracketed, bracket, _ = source.partition("]:")
    giver = bracketed + "]" if bracket else source.partition(":")[0]
    return f"{giver} {arrow} {place}"
