"""What an agent knows of one leg: its secret, who of it is here, and which bridges it makes."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

from . import bridge, wire
from .member import Member
from .source_member import SourceMember
from .target_member import TargetMember


class Leg:
    """One leg at one agent.

    Args:
        transfer: The leg's wire id.
        secret: What everybody of the leg proves to know when connecting.
    """

    def __init__(self, transfer: str, secret: bytes) -> None:
        self.identity = bytes.fromhex(transfer)
        self.secret = secret
        self.last_used = time.monotonic()
        self.source: Optional[SourceMember] = None
        self.targets: Dict[int, TargetMember] = {}
        self.bridges: Dict[str, bridge.Bridge] = {}

    def members(self) -> List[Member]:
        """Everybody of the leg at this agent."""
        source: List[Member] = [self.source] if self.source else []
        return source + list(self.targets.values())

    def dial(
        self, endpoints: List[Any], timeout_seconds: float = wire.HANDSHAKE_SECONDS
    ) -> wire.Channel:
        """Connects to another agent of the leg.

        Raises:
            OSError, WireError: There is no way, or whoever is there does not know the secret.
        """
        address_pairs = pairs(endpoints)
        return wire.dial(address_pairs, self.secret, wire.DATA, self.identity, timeout_seconds)


def pairs(endpoints: List[Any]) -> List[Tuple[str, int]]:
    """Endpoints as they came in JSON, as ``wire.dial`` wants them."""
    return [(str(host), int(port)) for host, port in endpoints]
