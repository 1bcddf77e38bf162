"""Agents in processes of their own, to be stopped and killed, and a proxy that meddles."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from castray_tui.agent.refusals import OrderRefusedError

Json = dict[str, Any]

_PROGRAM = """
import json, sys
from castray_tui.agent import wire
from castray_tui.agent.node_agent import NodeAgent
from castray_tui.agent.refusals import OrderRefusedError
wire.SILENCE_SECONDS, wire.PING_SECONDS = json.loads(sys.argv[1])
agent = NodeAgent("127.0.0.1", (0, 0))
for line in sys.stdin:
    order, arguments = json.loads(line)
    try:
        answer = {"answer": agent.call(order, arguments)}
    except OrderRefusedError as refused:
        answer = {"refused": [refused.code, refused.reason]}
    print(json.dumps(answer), flush=True)
agent.close()
"""


class AgentProcess:
    """An agent in a process of its own, used as a ``NodeAgent``.

    Args:
        silence_seconds: After which time its connections are given up.
        ping_seconds: How often it says something at least.
    """

    def __init__(self, silence_seconds: float = 8.0, ping_seconds: float = 1.5) -> None:
        settings = json.dumps([silence_seconds, ping_seconds])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, order: str, arguments: Json) -> Json:
        """One order, as ``NodeAgent.call``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([order, arguments]).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the agent's process is gone"
        answer = json.loads(line)
        if "refused" in answer:
            raise OrderRefusedError(*answer["refused"])
        return dict(answer["answer"])

    def hang(self) -> None:
        """It neither runs nor ends."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """It runs again."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once."""
        self.process.kill()
        self.process.wait()

    def anonymous_bytes(self) -> int:
        """What it holds in memory of its own, without files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """Ends it as its owner's end would."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.wake()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.stdout.close()


class Meddler:
    """Stands between two agents.

    Args:
        endpoint: Where to pass connections on to.
        flip_at: Which byte of what the dialer says to change, counted over all connections or,
            with ``always``, in each of them.
        cut_after: After how many bytes of what the dialer says each connection is cut.
    """

    def __init__(
        self,
        endpoint: list[Any],
        flip_at: int | None = None,
        cut_after: int | None = None,
        always: bool = False,
    ) -> None:
        self._target = (str(endpoint[0]), int(endpoint[1]))
        self._flip_at, self._cut_after, self._always = flip_at, cut_after, always
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.endpoint = list(self._server.getsockname())
        self.connections = 0
        self.flipped = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self._server.accept()
                other = socket.create_connection(self._target)
            except OSError:
                return
            self.connections += 1
            self._open += [one, other]
            threading.Thread(target=self._join, args=(one, other), daemon=True).start()

    def _join(self, one: socket.socket, other: socket.socket) -> None:
        back = threading.Thread(target=self._pass, args=(other, one, False), daemon=True)
        back.start()
        self._pass(one, other, True)
        back.join()
        one.close()
        other.close()

    def _pass(self, source: socket.socket, target: socket.socket, meddles: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := bytearray(source.recv(65536)):
                if meddles and self._flip_at is not None:
                    at = self._flip_at - (passed if self._always else 0)
                    if 0 <= at < len(data):
                        data[at] ^= 0x40
                        self.flipped += 1
                    if not self._always:
                        self._flip_at -= len(data)
                passed += len(data)
                target.sendall(data)
                if meddles and self._cut_after is not None and passed > self._cut_after:
                    break
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Breaks all connections that stand; others can be made."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Ends it."""
        self._server.close()
        self.cut()
