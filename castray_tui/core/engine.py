"""The one object that faces talk to: commands go in, snapshots and events come out.

Plain asyncio, one event loop, no terminal. Faces get frozen ``Fleet`` snapshots and ``Event``
records and give orders through the methods of ``Engine``; everything that crosses the border can be
serialised, so that a face may one day sit at the other end of a wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from castray_tui.core.config import Settings
from castray_tui.core.models import (
    Cluster,
    DiscoveryReport,
    Event,
    Fleet,
    LogFile,
    Transfer,
    TransferPlan,
    TransferRequest,
)


class Engine:
    """Finds clusters, watches those it is connected to, and moves files between their nodes.

    Use as ``async with Engine(settings) as engine``; ``start`` and ``close`` do the same by hand.
    """

    def __init__(self, settings: Settings) -> None: ...

    # --- life ---------------------------------------------------------------------------------

    async def start(self, *, background: bool = True) -> None:
        """Opens the journal and, with ``background``, begins what the settings ask for at the
        start: discovery, connections, the local node, periodic discovery."""

    async def close(self) -> None:
        """Ends polls, agents and own clusters; returns when nothing of this engine runs."""

    # --- what is known ------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """The newest snapshot; never blocks."""

    def changes(self) -> AsyncIterator[Fleet]:
        """Snapshots as they change, the newest only: a slow reader skips, it does not queue."""

    def events(self) -> AsyncIterator[Event]:
        """Every event from now on, in order."""

    async def past_events(self, *, limit: int = 200, before_id: int | None = None) -> list[Event]:
        """Events from the journal, newest first."""

    async def past_transfers(self, *, limit: int = 200) -> list[Transfer]:
        """Transfers from the journal, newest first, those under way included."""

    async def transfer(self, transfer_id: str) -> Transfer:
        """One transfer by its ID or a unique prefix of it; NotFoundError otherwise."""

    # --- clusters -----------------------------------------------------------------------------

    async def discover(
        self,
        *,
        methods: Sequence[str] | None = None,
        ports: tuple[int, int] | None = None,
        hosts: Sequence[str] | None = None,
        timeout_seconds: float | None = None,
        connect: bool = False,
    ) -> DiscoveryReport:
        """Looks for clusters; None takes the settings' value. A discovery under way is joined, not
        started twice. With ``connect``, what is found is connected to."""

    async def connect(self, address: str) -> Cluster:
        """Connects to a discovered cluster's name, a configured name, or any address form; returns
        when the first answer is in. Raises ConnectError and its kinds."""

    async def disconnect(self, name: str) -> None:
        """Stops watching a cluster; its agents of this castray leave."""

    def refresh(self, name: str | None = None) -> None:
        """Polls one cluster, or all, at once rather than at the next interval."""

    def dismiss_dead(self, cluster_key: str, node_id: str) -> None:
        """Takes a dead node off the list."""

    async def log_files(self, cluster: str, node_id: str) -> list[LogFile]:
        """The log files that a node offers."""

    async def read_log(
        self, cluster: str, node_id: str, file_name: str, *, lines: int = 500
    ) -> str:
        """The last lines of a node's log file, made safe to draw."""

    # --- transfers ----------------------------------------------------------------------------

    async def plan_transfer(self, request: TransferRequest) -> TransferPlan:
        """What the transfer would do, target by target, found out without sending a byte."""

    async def start_transfer(self, request: TransferRequest) -> Transfer:
        """Starts a transfer; its progress is in ``fleet.transfers`` and in events."""

    async def wait_transfer(self, transfer_id: str) -> Transfer:
        """Returns when the transfer has ended, whichever way."""

    async def cancel_transfer(self, transfer_id: str) -> Transfer:
        """Cancels; targets without a verdict get ``cancelled`` and leave nothing behind."""
