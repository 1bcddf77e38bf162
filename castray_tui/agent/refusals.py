"""How an order is refused. By itself, as those who only give orders need none of what agents do."""

from __future__ import annotations


class OrderRefusedError(Exception):
    """An order that cannot be carried out. ``code`` is short, the message is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
