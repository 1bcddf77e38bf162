"""The coordinator's control port: castray's orders come in, answers and events go out."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import keys, wire
from .listening import Listener
from .ownership import Desk
from .refusals import OrderRefusedError

Json = Dict[str, Any]

CONTROL_IDENTITY = b"castray control "
CONTROL_CONTEXT = b"castray control port"
_PING_SECONDS = 5.0


class ControlPort:
    """Serves any number of castrays that hold the control key.

    Args:
        key: The control key that both derived.
    """

    def __init__(self, key: bytes, bind_host: str, port_range: Tuple[int, int]) -> None:
        self._key = key
        self._desk: Optional[Desk] = None
        self._desk_ready = threading.Event()
        self._failure: Optional[str] = None
        self._lock = threading.Lock()
        self._channels: List[wire.Channel] = []
        self.last_active = time.monotonic()
        self.stop_wanted = threading.Event()
        self._listener = Listener(
            bind_host, port_range, self._key_of, self._on_channel, wire.CONTROL_JSON_LIMIT_BYTES
        )
        self.port = self._listener.port
        threading.Thread(target=self._ping, name="castray-ping", daemon=True).start()

    def open(self, desk: Desk, is_busy: Callable[[], bool]) -> None:
        """Ray is up: orders that wait are carried out from now on.

        Args:
            is_busy: Whether any transfer runs through this cluster.
        """
        self._is_busy = is_busy
        self._desk = desk
        self._desk_ready.set()

    def refuse(self, reason: str) -> None:
        """Ray did not come up: every order is refused with the reason."""
        self._failure = reason
        self._desk_ready.set()

    def tell(self, event: Json) -> None:
        """Sends an event to every castray that is connected."""
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            try:
                channel.send(event)
            except (OSError, wire.WireError):
                channel.close()

    def close(self) -> None:
        """Stops listening and hangs up."""
        self._listener.close()
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            channel.close()

    def _key_of(self, purpose: bytes, identity: bytes) -> Optional[bytes]:
        is_ours = purpose == wire.CONTROL and identity == CONTROL_IDENTITY
        return self._key if is_ours else None

    def _on_channel(self, channel: wire.Channel, purpose: bytes, identity: bytes) -> None:
        with self._lock:
            self._channels.append(channel)
        try:
            while True:
                message = channel.receive_message()
                if "ping" in message:
                    continue
                self.last_active = time.monotonic()
                threading.Thread(
                    target=self._answer, args=(channel, message), name="castray-order", daemon=True
                ).start()
        finally:
            with self._lock:
                self._channels.remove(channel)

    def _answer(self, channel: wire.Channel, message: Json) -> None:
        try:
            answer = self._carry_out(message)
        except OrderRefusedError as refused:
            answer = {"refused": {"code": refused.code, "reason": refused.reason}}
        self.last_active = time.monotonic()
        try:
            channel.send(dict(answer, id=message.get("id")))
        except (OSError, wire.WireError):
            channel.close()

    def _carry_out(self, message: Json) -> Json:
        self._desk_ready.wait()
        if self._desk is None:
            raise OrderRefusedError("ray", self._failure or "Ray is not there")
        if "leave" in message:
            return {"answers": [{"stopping": self._leave()}]}
        for call in message.get("calls", []):
            wrapped = call["arguments"].pop("wrapped_secret", None)
            if wrapped is not None:
                call["arguments"]["secret"] = keys.unwrap(self._key, wrapped).hex()
        return self._desk.answer(message)

    def _leave(self) -> bool:
        """A castray goes; without another one or a transfer, so does everything here."""
        with self._lock:
            is_last = len(self._channels) <= 1
        if is_last and not self._is_busy():
            self.stop_wanted.set()
            return True
        return False

    def _ping(self) -> None:
        while True:
            time.sleep(_PING_SECONDS)
            self.tell({"ping": 1})
