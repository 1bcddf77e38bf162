"""One node's agent: listens for streams, and carries out what its coordinator or castray asks."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from . import files, wire
from .listening import Listener, bind_host_for
from .receiving import Receiving
from .sending import Sending

Json = Dict[str, Any]

# Threads hand over to each other for every chunk; Python's 5 ms would be felt.
SWITCH_INTERVAL_SECONDS = 0.0005
_FORGET_AFTER_SECONDS = 3600.0


class OrderRefusedError(Exception):
    """An order that cannot be carried out. ``code`` is short, the message is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Known:
    """What the agent knows of one transfer."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.last_used = time.monotonic()
        self.sending: Optional[Sending] = None
        self.targets: Dict[int, Json] = {}


class NodeAgent:
    """The agent of one node. ``call`` may be used from any thread.

    Args:
        address: The node's address as Ray knows it; what others will dial.
        port_range: Ports to listen on, (0, 0) for any.
    """

    def __init__(self, address: str, port_range: Tuple[int, int]) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        self._address = address
        self._port_range = port_range
        self._lock = threading.Lock()
        self._transfers: Dict[str, _Known] = {}
        self._reserved_bytes: Dict[int, int] = {}
        self._streams = 0
        self._calls = 0
        self._last_active = time.monotonic()
        self._listener: Optional[Listener] = None
        self._orders = {
            "hello": self._hello,
            "probe": self._probe,
            "digest": self._digest,
            "plan": self._plan,
            "allow": self._allow,
            "reach": self._reach,
            "dial": self._dial,
            "send": self._send,
            "status": self._status,
            "cancel": self._cancel,
            "forget": self._forget,
            "idle": self._idle,
        }

    def call(self, order: str, arguments: Json) -> Json:
        """Carries out one order.

        Raises:
            OrderRefusedError: It cannot be; the reason is for people.
        """
        known_order = self._orders.get(order)
        if known_order is None:
            raise OrderRefusedError("order", "this agent knows no order {!r}".format(order))
        with self._lock:
            self._calls += order != "idle"
        try:
            return known_order(arguments)
        except files.FileRefusedError as refusal:
            raise OrderRefusedError(refusal.code, refusal.reason) from refusal
        except (OSError, wire.WireError) as error:
            raise OrderRefusedError("os", wire.describe(error)) from error
        finally:
            with self._lock:
                self._calls -= order != "idle"
                if order not in ("idle", "status"):
                    self._last_active = time.monotonic()

    def close(self) -> None:
        """Stops listening and cancels what runs."""
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            sendings = [known.sending for known in self._transfers.values() if known.sending]
        for sending in sendings:
            sending.cancel()

    # --- orders -------------------------------------------------------------------------------

    def _hello(self, arguments: Json) -> Json:
        return {
            "endpoints": [[self._address, self._listening_port()]],
            "machine": files.machine_id(),
            "python": platform.python_version(),
            "pid": os.getpid(),
        }

    def _listening_port(self) -> int:
        with self._lock:
            if self._listener is None:
                self._listener = Listener(
                    bind_host_for(self._address), self._port_range, self._key_of, self._on_channel
                )
            return self._listener.port

    def _probe(self, arguments: Json) -> Json:
        return files.probe_source(arguments["path"], arguments["roots"])

    def _digest(self, arguments: Json) -> Json:
        return files.digest_file(arguments["path"])

    def _plan(self, arguments: Json) -> Json:
        return files.plan_target(arguments, lambda device: self._reserved_bytes.get(device, 0))

    def _allow(self, arguments: Json) -> Json:
        """Takes in a transfer's secret and the targets that may be written for it here."""
        with self._lock:
            self._forget_old()
            known = self._transfers.get(arguments["transfer"])
            if known is None:
                known = _Known(bytes.fromhex(arguments["secret"]))
                self._transfers[arguments["transfer"]] = known
            for target in arguments.get("targets", []):
                known.targets[target["index"]] = target
        return self._hello({})

    def _reach(self, arguments: Json) -> Json:
        """Which of several agents can be dialed: for each None, or why not."""
        known = self._known(arguments["transfer"])
        identity = bytes.fromhex(arguments["transfer"])
        timeout_seconds = float(arguments["timeout_seconds"])
        results: List[Optional[str]] = [None] * len(arguments["agents"])

        def try_one(place: int, endpoints: List[Any]) -> None:
            try:
                channel = wire.dial(
                    _pairs(endpoints), known.secret, wire.DATA, identity, timeout_seconds
                )
                channel.send({"role": "probe"})
                channel.close()
            except (OSError, wire.WireError) as error:
                results[place] = wire.describe(error)

        threads = [
            threading.Thread(target=try_one, args=(place, endpoints), daemon=True)
            for place, endpoints in enumerate(arguments["agents"])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"results": results}

    def _dial(self, arguments: Json) -> Json:
        """Connects to the source's agent to take in one target."""
        known = self._known(arguments["transfer"])
        order = known.targets[arguments["index"]]
        channel = wire.dial(
            _pairs(arguments["endpoints"]),
            known.secret,
            wire.DATA,
            bytes.fromhex(arguments["transfer"]),
        )
        channel.send({"role": "target", "index": arguments["index"]})
        threading.Thread(
            target=self._receive, args=(channel, known, order), name="castray-target", daemon=True
        ).start()
        return {}

    def _send(self, arguments: Json) -> Json:
        """Starts to send a source to its targets."""
        known = self._known(arguments["transfer"])
        identity = bytes.fromhex(arguments["transfer"])
        sending = Sending(
            arguments,
            lambda endpoints: wire.dial(_pairs(endpoints), known.secret, wire.DATA, identity),
        )
        known.sending = sending
        sending.start()
        return {}

    def _status(self, arguments: Json) -> Json:
        sending = self._known(arguments["transfer"]).sending
        if sending is None:
            raise OrderRefusedError("unknown", "this agent sends nothing for that transfer")
        return sending.status()

    def _cancel(self, arguments: Json) -> Json:
        sending = self._known(arguments["transfer"]).sending
        if sending is not None:
            sending.cancel()
        return {}

    def _forget(self, arguments: Json) -> Json:
        with self._lock:
            known = self._transfers.pop(arguments["transfer"], None)
        if known is not None and known.sending is not None:
            known.sending.cancel()
        return {}

    def _idle(self, arguments: Json) -> Json:
        """For how long nothing was asked of this agent and nothing ran in it."""
        with self._lock:
            is_busy = self._streams > 0 or self._calls > 0
            is_busy = is_busy or any(
                known.sending is not None and not known.sending.is_done
                for known in self._transfers.values()
            )
            if is_busy:
                self._last_active = time.monotonic()
            return {"seconds": time.monotonic() - self._last_active, "busy": is_busy}

    # --- streams ------------------------------------------------------------------------------

    def _known(self, transfer: str) -> _Known:
        with self._lock:
            known = self._transfers.get(transfer)
            if known is None:
                raise OrderRefusedError("unknown", "this agent does not know that transfer")
            known.last_used = time.monotonic()
            return known

    def _key_of(self, purpose: bytes, identity: bytes) -> Optional[bytes]:
        with self._lock:
            known = self._transfers.get(identity.hex()) if purpose == wire.DATA else None
            return None if known is None else known.secret

    def _on_channel(self, channel: wire.Channel, purpose: bytes, identity: bytes) -> None:
        known = self._known(identity.hex())
        hello = channel.receive_message()
        role, index = hello.get("role"), hello.get("index")
        if role == "source" and index in known.targets:
            self._receive(channel, known, known.targets[index])
        elif role == "target" and known.sending is not None:
            for stream in known.sending.streams:
                if stream.index == index:
                    stream.arrive(channel)

    def _receive(self, channel: wire.Channel, known: _Known, order: Json) -> None:
        device = _device_of(order["path"])
        left = [order["size"]]
        with self._lock:
            self._streams += 1
            self._reserved_bytes[device] = self._reserved_bytes.get(device, 0) + left[0]

        def on_bytes(count: int) -> None:
            with self._lock:
                left[0] -= count
                self._reserved_bytes[device] -= count

        try:
            Receiving(channel, order, on_bytes).run()
        finally:
            channel.close()
            with self._lock:
                self._streams -= 1
                self._reserved_bytes[device] -= left[0]
                self._last_active = known.last_used = time.monotonic()

    def _forget_old(self) -> None:
        """Drops secrets that nobody used for long (their castray died before it could say so)."""
        oldest = time.monotonic() - _FORGET_AFTER_SECONDS
        for transfer, known in list(self._transfers.items()):
            is_running = known.sending is not None and not known.sending.is_done
            if known.last_used < oldest and not is_running and not self._streams:
                del self._transfers[transfer]


def _pairs(endpoints: List[Any]) -> List[Tuple[str, int]]:
    return [(str(host), int(port)) for host, port in endpoints]


def _device_of(path: str) -> int:
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        try:
            return os.stat(folder).st_dev
        except OSError:
            folder = os.path.dirname(folder)
    return 0
