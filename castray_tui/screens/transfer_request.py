"""From what is typed into the transfer dialog to what is asked of the engine, and back."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from castray_tui.core.config_values import size_bytes
from castray_tui.core.errors import UsageError
from castray_tui.core.models import Fleet, LinkPolicy, Node, Overwrite, TransferRequest


def target_words(chosen: Sequence[Node], fleet: Fleet) -> str:
    """Nodes as addresses without a path; a whole cluster is ``CLUSTER/*``."""
    words: list[str] = []
    by_cluster: dict[str, list[Node]] = {}
    for node in chosen:
        by_cluster.setdefault(node.cluster, []).append(node)
    for cluster, nodes in by_cluster.items():
        living = {
            node.key for node in fleet.nodes if node.cluster == cluster and node.status != "dead"
        }
        if len(nodes) > 1 and {node.key for node in nodes} == living:
            words.append(f"{cluster}/*")
        else:
            words += [node.name if node.is_local else f"{cluster}/{node.name}" for node in nodes]
    return " ".join(words)


def words_of(text: str) -> list[str]:
    """Words apart by spaces; quotes and backslashes keep spaces in them, as in a shell.

    Raises:
        UsageError: A quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise UsageError(f"A quote is not closed in {text.strip()}") from None


def quoted(words: Sequence[str]) -> str:
    """The words as ``words_of`` reads them; wildcards are not quoted, as nothing expands them."""
    return " ".join(
        word if word and not any(sign in word for sign in " \t\n'\"\\") else shlex.quote(word)
        for word in words
    )


def target_addresses(words: str, path: str) -> tuple[str, ...]:
    """Addresses from what was typed: a word with a path of its own keeps it, others get ``path``.

    Raises:
        UsageError: A quote is not closed.
    """
    addresses: list[str] = []
    for word in words_of(words):
        if ":" in word:
            addresses.append(word.rstrip(","))
        else:
            addresses += [f"{name}:{path}" for name in word.split(",") if name]
    return tuple(addresses)


def request_of(
    *,
    sources: str,
    targets: str,
    path: str,
    exclude: str,
    include: str,
    limit: str,
    link_limit: str,
    overwrite: Overwrite,
    links: LinkPolicy,
) -> TransferRequest:
    """The request that the fields make.

    Raises:
        UsageError: Something is missing or cannot be read.
    """
    source_addresses = tuple(words_of(sources))
    addresses = target_addresses(targets, path.strip())
    if not source_addresses:
        raise UsageError("Say what to send.")
    if not addresses:
        raise UsageError("Say where to: name nodes, or close and mark some.")
    if any(address.endswith(":") for address in addresses):
        raise UsageError("Say the path on the targets.")
    return TransferRequest(
        sources=source_addresses,
        targets=addresses,
        overwrite=overwrite,
        rate_limit_bytes_per_second=_rate(limit),
        include=tuple(words_of(include)),
        exclude=tuple(words_of(exclude)),
        links=links,
        link_rate_limit_bytes_per_second=_rate(link_limit),
    )


def _rate(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return size_bytes(text)
    except ValueError:
        raise UsageError(f"{text.strip()!r} is no rate; write 10MB, for example.") from None
