"""Finding transfers among those that the journal keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from castray_tui.core.models import LOCAL, Transfer, TransferState

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which transfers are wanted; what is None lets all pass.

    Attributes:
        cluster: Name of a cluster that takes part, ``local`` for this machine; may hold wildcards.
        node: Name of a node that takes part; may hold wildcards.
        since: The earliest start, in seconds since the epoch.
        source: Text that the source's address contains, whatever its case.
    """

    state: TransferState | None = None
    cluster: str | None = None
    node: str | None = None
    since: float | None = None
    source: str | None = None

    @property
    def exact_cluster(self) -> str | None:
        """The cluster where it is one name: the journal itself can look for that."""
        if self.cluster is None or self.cluster == LOCAL or _WILDCARDS & set(self.cluster):
            return None
        return self.cluster

    @property
    def is_for_the_journal(self) -> bool:
        """Whether the journal itself can look for all of it."""
        has_name = self.cluster is None or self.exact_cluster is not None
        return has_name and self.node is None and self.source is None

    def matches(self, transfer: Transfer) -> bool:
        """Whether a transfer is wanted."""
        if self.state is not None and transfer.state != self.state:
            return False
        if self.since is not None and (transfer.started is None or transfer.started < self.since):
            return False
        if self.source is not None and self.source.lower() not in transfer.source.lower():
            return False
        if self.cluster is None and self.node is None:
            return True
        return any(self._is_of(cluster, node) for cluster, node in _places(transfer))

    def select(self, transfers: Iterable[Transfer], limit: int) -> list[Transfer]:
        """The first of the transfers that are wanted."""
        found: list[Transfer] = []
        for transfer in transfers:
            if len(found) >= limit:
                break
            if self.matches(transfer):
                found.append(transfer)
        return found

    def _is_of(self, cluster: str, node: str) -> bool:
        is_cluster = self.cluster is None or fnmatchcase(cluster, self.cluster)
        return is_cluster and (self.node is None or fnmatchcase(node, self.node))


def _places(transfer: Transfer) -> Iterable[tuple[str, str]]:
    """Cluster and node of everybody who takes part."""
    for target in transfer.targets:
        yield target.cluster, target.node
    for leg in transfer.legs:
        yield leg.cluster, leg.node
    if not transfer.legs:  # an older castray's
        head = transfer.source.partition(":")[0]
        cluster, _, node = head.partition("/")
        yield cluster, node or cluster
