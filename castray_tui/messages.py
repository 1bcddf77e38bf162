"""What the app and its screens tell each other. Facts in the past tense, requests as orders.

Screens post; the app alone answers, by calling the engine in workers.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from castray_tui.core.models import Fleet


@dataclass
class FleetChanged(Message):
    """The engine has a newer snapshot. Adjacent ones merge into the newest."""

    fleet: Fleet

    def can_replace(self, message: Message) -> bool:
        """A newer snapshot makes an older one needless."""
        return isinstance(message, FleetChanged)


@dataclass
class DiscoverClusters(Message):
    """Look for clusters now."""


@dataclass
class ConnectCluster(Message):
    """Connect to a cluster by its name or an address."""

    address: str


@dataclass
class DisconnectCluster(Message):
    """Stop watching a cluster; the user has been asked where that was due."""

    name: str


@dataclass
class RefreshClusters(Message):
    """Ask all clusters now rather than at their next turn."""


@dataclass
class DismissDeadNode(Message):
    """Take a dead node off the list."""

    cluster_key: str
    node_id: str
    name: str


@dataclass
class CancelTransfer(Message):
    """Cancel a transfer; the user has been asked."""

    transfer_id: str


@dataclass
class PauseTransfer(Message):
    """Let a transfer stand still; what its targets have stays where it is."""

    transfer_id: str


@dataclass
class UnpauseTransfer(Message):
    """Let a paused transfer go on."""

    transfer_id: str


@dataclass
class ResumeTransfer(Message):
    """Go on with a transfer that ended before all its targets had everything."""

    transfer_id: str


@dataclass
class RetryTransfer(Message):
    """Send again to the targets of a transfer that failed."""

    transfer_id: str
