"""The castray machine's own agent: a process of its own, so that hashing never slows the screen.

Orders come as lines of JSON on standard input, answers and events go as lines to standard output.
The end of standard input is the end of the process: what it was sending is aborted, what it was
receiving is removed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import IO, Any, Dict

from .node_agent import NodeAgent
from .ownership import Desk, Nodes
from .refusals import OrderRefusedError

Json = Dict[str, Any]


class _OwnNode(Nodes):
    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent

    def call(self, node_id: str, order: str, arguments: Json) -> Json:
        return self._agent.call(order, arguments)


class LocalProcess:
    """Reads orders, carries each out in a thread of its own, writes what comes of it."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        self._orders = orders
        self._answers = answers
        self._lock = threading.Lock()
        self._agent = NodeAgent("127.0.0.1", (0, 0), is_dialable=False)
        self._desk = Desk(_OwnNode(self._agent), self._write, lambda result: None)

    def run(self) -> None:
        """Returns at the end of the orders."""
        for line in self._orders:
            threading.Thread(target=self._carry_out, args=(json.loads(line),), daemon=True).start()
        self._agent.close()

    def _carry_out(self, message: Json) -> None:
        try:
            answer = self._desk.answer(message)
        except OrderRefusedError as refused:
            answer = {"refused": {"code": refused.code, "reason": refused.reason}}
        self._write(dict(answer, id=message["id"]))

    def _write(self, message: Json) -> None:
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                self._answers.write(line)
                self._answers.flush()
            except (OSError, ValueError):
                os._exit(1)  # Nobody listens any more.


def main() -> None:
    """Runs until standard input ends. The only argument is how far to stand back for others."""
    # ctrl-c is for castray, which ends this process itself, in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    LocalProcess(sys.stdin.buffer, sys.stdout.buffer).run()


if __name__ == "__main__":
    main()
