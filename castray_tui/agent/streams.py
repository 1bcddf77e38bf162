"""The connections of one agent with others, for all its legs, straight or over bridges."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from . import bridge, wire
from .leg import Leg
from .probe import answer_probe
from .refusals import OrderRefusedError

Json = Dict[str, Any]

_MEET_LOOK_SECONDS = 0.05


class Streams:
    """What dials this agent, and what it dials because of bridges.

    Args:
        leg_of: The leg with that id; raises OrderRefusedError where the agent does not know it.
        key_of: What whoever dials for a purpose with an identity must know; None for nobody.

    Attributes:
        running: How many connections there are.
        last_active: When the last one ended, by the monotonic clock.
    """

    def __init__(
        self, leg_of: Callable[[str], Leg], key_of: Callable[[bytes, bytes], Optional[bytes]]
    ) -> None:
        self._leg_of = leg_of
        self._key_of = key_of
        self._lock = threading.Lock()
        self.running = 0
        self.last_active = time.monotonic()

    def serve_dialed(self, channel: wire.Channel, purpose: bytes, identity: bytes) -> None:
        """Somebody dialed; returns when the connection is no longer used."""
        # A leg may have ended while somebody was dialing.
        with self._counted(), contextlib.suppress(OrderRefusedError):
            self._serve(channel, self._leg_of(identity.hex()))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1
                self.last_active = time.monotonic()

    def _in_thread(self, work: Callable[[], None]) -> None:
        def run() -> None:
            with self._counted():
                work()

        threading.Thread(target=run, name="castray-stream", daemon=True).start()

    def _serve(self, channel: wire.Channel, leg: Leg) -> None:
        hello = channel.receive_message()
        role = hello.get("role")
        if role == "feeder" and hello["index"] in leg.targets:
            leg.targets[hello["index"]].serve_feeder(channel, [])
        elif role == "taker":
            for member in leg.members():
                if member.accept_taker(channel, hello):
                    return
        elif role == "bridge":
            meeting = leg.bridges.get(hello["bridge"])
            if meeting is not None:
                meeting.arrive(hello["side"], channel)
        elif role == "tunnel" and hello["side"] == bridge.FEEDER:
            self._feed_across(channel, leg, int(hello["index"]))
        elif role == "tunnel":
            self._be_met(channel, leg)
        elif role == "probe":
            answer_probe(channel, int(hello["bytes"]))

    # --- over a bridge ----------------------------------------------------------------------------

    def join(self, leg: Leg, arguments: Json) -> None:
        """Joins a feeder and a taker that cannot reach each other. Sides without endpoints dial.

        Raises:
            OSError, WireError: A side that is to be dialed cannot be.
        """
        meeting = leg.bridges.setdefault(arguments["bridge"], bridge.Bridge())
        for side in (bridge.TAKER, bridge.FEEDER):
            if arguments[side]:
                channel = leg.dial(arguments[side])
                channel.send({"role": "tunnel", "side": side, "index": arguments["index"]})
                self._in_thread(functools.partial(_meet, meeting, side, channel))

    def dial_feeder_across(self, leg: Leg, endpoints: List[Any], meeting: str) -> None:
        """The taker's way to a feeder: dials the bridge, and is fed once the feeder is there too.

        Raises:
            OSError, WireError: The bridge cannot be dialed.
        """
        channel = leg.dial(endpoints)
        channel.send({"role": "bridge", "bridge": meeting, "side": bridge.TAKER})
        self._in_thread(functools.partial(self._be_met, channel, leg))

    def _be_met(self, channel: wire.Channel, leg: Leg) -> None:
        """The taker's end of a bridge: its feeder shakes hands through it."""
        with contextlib.closing(channel), contextlib.suppress(OSError, wire.WireError):
            bridge.wait_until_joined(channel)
            across, _, _ = wire.answer_dialer(channel.sock, self._key_of, lambda nonce: True)
            with contextlib.closing(across):
                self._serve(across, leg)

    def _feed_across(self, channel: wire.Channel, leg: Leg, index: int) -> None:
        """The feeder's end of a bridge that dialed here, maybe before anything is to be sent."""
        deadline = time.monotonic() + bridge.MEET_SECONDS
        while True:
            feeder = next((one for one in leg.members() if one.can_feed(index)), None)
            if feeder is not None:
                break
            if time.monotonic() > deadline:
                return
            time.sleep(_MEET_LOOK_SECONDS)
        channel.send({"ready": 1})
        with contextlib.closing(_across(channel, leg)) as across:
            across.send({"role": "feeder", "index": index})
            feeder.accept_taker(across, {"index": index, "epoch": 0})


def dial_taker_across(leg: Leg, endpoints: List[Any], meeting: str) -> wire.Channel:
    """The feeder's way to a taker: dials the bridge, and shakes hands through it.

    Raises:
        OSError, WireError: The bridge cannot be dialed, or the taker did not come.
    """
    channel = leg.dial(endpoints)
    try:
        channel.send({"role": "bridge", "bridge": meeting, "side": bridge.FEEDER})
        channel.send({"ready": 1})
        return _across(channel, leg)
    except BaseException:
        channel.close()
        raise


def _across(channel: wire.Channel, leg: Leg) -> wire.Channel:
    """The feeder's end of a bridge, once its taker is there."""
    bridge.wait_until_joined(channel)
    return wire.dial_over(channel.sock, leg.secret, wire.DATA, leg.identity, wire.HANDSHAKE_SECONDS)


def _meet(meeting: bridge.Bridge, side: str, channel: wire.Channel) -> None:
    with contextlib.closing(channel), contextlib.suppress(OSError, wire.WireError):
        meeting.arrive(side, channel)
