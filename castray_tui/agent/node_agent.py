"""One node's agent: listens for streams, and carries out what its coordinator or castray asks."""

from __future__ import annotations

import functools
import os
import platform
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import files, wire
from .content import SourceContent
from .intake import Intake
from .layout import Layout, fitting_chunk_bytes
from .leg import Leg
from .listening import Listener, bind_host_for
from .manifest import Manifest, ManifestError
from .probe import try_agents
from .refusals import OrderRefusedError
from .scans import Scans
from .source_member import SourceMember
from .streams import Streams, dial_taker_across
from .target_member import TargetMember
from .target_plan import existing_digests, plan_target

Json = Dict[str, Any]

# Threads hand over to each other for every chunk; Python's 5 ms would be felt.
SWITCH_INTERVAL_SECONDS = 0.0005
_FORGET_AFTER_SECONDS = 3600.0
_NEWS_SECONDS = 0.2
_READ_AHEAD_BYTES = 32 * 1024 * 1024


class NodeAgent:
    """The agent of one node. ``call`` may be used from any thread.

    Args:
        address: The node's address as Ray knows it; what others will dial.
        port_range: Ports to listen on, (0, 0) for any.
    """

    def __init__(self, address: str, port_range: Tuple[int, int], is_dialable: bool = True) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        self._address = address
        self._port_range = port_range
        self._lock = threading.Lock()
        self._transfers: Dict[str, Leg] = {}
        self._scans = Scans()
        self._streams = Streams(self._leg, self._key_of)
        self._calls = 0
        self._last_active = time.monotonic()
        self._listener: Optional[Listener] = None
        self.on_dialed: Callable[[], None] = lambda: None
        # Nobody can be sure to reach castray's own machine: it dials.
        self._is_dialable = is_dialable
        self._orders = {
            "hello": self._hello,
            "scan": self._scans.scan,
            "digests": self._scans.digests,
            "plan": self._plan,
            "existing": self._existing,
            "allow": self._allow,
            "reach": self._reach,
            "dial": self._dial,
            "bridge": self._bridge,
            "send": self._send,
            "status": self._status,
            "pause": self._pause,
            "unpause": self._unpause,
            "cancel": self._cancel,
            "drop": self._drop,
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
        except (OSError, ManifestError, wire.WireError) as error:
            raise OrderRefusedError("os", wire.describe(error)) from error
        finally:
            with self._lock:
                self._calls -= order != "idle"
                if order not in ("idle", "status"):
                    self._last_active = time.monotonic()

    def close(self) -> None:
        """Hangs up everywhere and removes what is not whole here; others keep what they have."""
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            members = [member for leg in self._transfers.values() for member in leg.members()]
        for member in members:
            member.stop()

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
                    bind_host_for(self._address),
                    self._port_range,
                    self._key_of,
                    self._streams.serve_dialed,
                    on_dialed=self._note_dialed,
                )
            return self._listener.port

    def _note_dialed(self) -> None:
        self.on_dialed()

    def _plan(self, arguments: Json) -> Json:
        answer: Json = plan_target(arguments, self._reserved_bytes)
        with self._lock:
            leg = self._transfers.get(arguments.get("transfer", ""))
            member = leg.targets.get(arguments["index"]) if leg is not None else None
        held = member.content if member is not None else None
        answer["held_bytes"] = held.taken_bytes if held is not None else 0
        answer["held_verdict"] = held.verdict if held is not None else None
        answer["held_digest"] = held.digest if held is not None else None
        return answer

    def _reserved_bytes(self, device: int) -> int:
        """What transfers through this agent have still to write to a device."""
        with self._lock:
            intakes = [
                member.content
                for leg in self._transfers.values()
                for member in leg.targets.values()
            ]
        return sum(
            one.bytes_to_come() for one in intakes if _device_of(one.order["path"]) == device
        )

    def _existing(self, arguments: Json) -> Json:
        manifest = Manifest.unpack(arguments["manifest"])
        found = existing_digests(arguments["path"], manifest, arguments["files"])
        return {"digests": {str(number): digest for number, digest in found.items()}}

    def _allow(self, arguments: Json) -> Json:
        """Takes in a leg's secret and the targets that may be written for it here."""
        transfer = arguments["transfer"]
        with self._lock:
            self._forget_old()
            leg = self._transfers.get(transfer)
            if leg is None:
                leg = self._transfers[transfer] = Leg(transfer, bytes.fromhex(arguments["secret"]))
            leg.secret = bytes.fromhex(arguments["secret"])
        if arguments.get("targets"):
            manifest = Manifest.unpack(arguments["manifest"])
            chunk_bytes = fitting_chunk_bytes(manifest.total_bytes, arguments["chunk_bytes"])
            layout = Layout([entry.size for entry in manifest.files], chunk_bytes)
            for target in arguments["targets"]:
                self._expect(leg, target, manifest, layout)
        return self._hello({})

    def _expect(self, leg: Leg, target: Json, manifest: Manifest, layout: Layout) -> None:
        """One target may come. What an earlier attempt left of it is gone on with."""
        index = int(target["index"])
        before = leg.targets.pop(index, None)
        intake: Optional[Intake] = None
        if before is not None:
            held = before.content
            is_same = (
                held.manifest.digest == manifest.digest
                and held.layout.chunk_bytes == layout.chunk_bytes
                and held.order["path"] == target["path"]
                and held.skip == set(target["skip"])
                and not target.get("fresh")
            )
            before.detach()
            if is_same and held.go_on():
                intake = held
            else:
                held.close()
        if intake is None:
            intake = Intake(manifest, layout, target)
        leg.targets[index] = TargetMember(
            index, intake, leg.dial, functools.partial(dial_taker_across, leg), self._endpoints()
        )

    def _endpoints(self) -> List[Any]:
        """Where others of a leg can dial this agent."""
        return [[self._address, self._listening_port()]] if self._is_dialable else []

    def _reach(self, arguments: Json) -> Json:
        return try_agents(self._leg(arguments["transfer"]), arguments)

    def _dial(self, arguments: Json) -> Json:
        """Connects to a target's feeder, which waits for it, or to a bridge that leads there."""
        leg = self._leg(arguments["transfer"])
        if arguments.get("bridge"):
            self._streams.dial_feeder_across(leg, arguments["endpoints"], arguments["bridge"])
        else:
            leg.targets[arguments["index"]].seek(arguments["endpoints"])
        return {}

    def _bridge(self, arguments: Json) -> Json:
        self._streams.join(self._leg(arguments["transfer"]), arguments)
        return self._hello({})

    def _send(self, arguments: Json) -> Json:
        """Starts to send a source to its targets."""
        transfer = arguments["transfer"]
        leg = self._leg(transfer)
        found = self._scans.of(transfer)
        if found.token != arguments["token"]:
            raise OrderRefusedError("changed", "the source has changed since the plan")
        if leg.source is not None:
            leg.source.stop()
        sizes = [entry.size for entry in found.manifest.files]
        most_bytes = int(arguments["chunk_bytes"])
        layout = Layout(sizes, fitting_chunk_bytes(found.manifest.total_bytes, most_bytes))
        skip = {int(number): str(digest) for number, digest in arguments["skip"].items()}
        window = max(_READ_AHEAD_BYTES // layout.chunk_bytes, 2)
        content = SourceContent(found, layout, skip, window)
        source = SourceMember(
            content, leg.dial, functools.partial(dial_taker_across, leg), self._endpoints()
        )
        leg.source = source
        content.start()
        source.set_out(arguments["tree"], arguments)
        return {}

    def _source(self, transfer: str) -> SourceMember:
        source = self._leg(transfer).source
        if source is None:
            raise OrderRefusedError("unknown", "this agent sends nothing for that transfer")
        return source

    def _status(self, arguments: Json) -> Json:
        source = self._source(arguments["transfer"])
        if arguments.get("wait"):
            source.wait_for_news(_NEWS_SECONDS)
        return source.status()

    def _pause(self, arguments: Json) -> Json:
        self._source(arguments["transfer"]).pause(True)
        return {}

    def _unpause(self, arguments: Json) -> Json:
        self._source(arguments["transfer"]).pause(False)
        return {}

    def _cancel(self, arguments: Json) -> Json:
        for member in self._leg(arguments["transfer"]).members():
            member.cancel("cancelled")
        return {}

    def _drop(self, arguments: Json) -> Json:
        """Throws away what targets hold that nobody will go on with."""
        leg = self._leg(arguments["transfer"])
        for index in arguments["indexes"]:
            member = leg.targets.pop(index, None)
            if member is not None:
                member.stop()
        return {}

    def _forget(self, arguments: Json) -> Json:
        """A leg is over. What another attempt could go on with stays."""
        self._scans.forget(arguments["transfer"])
        with self._lock:
            leg = self._transfers.get(arguments["transfer"])
        if leg is None:
            return {}
        if leg.source is not None:
            source, leg.source = leg.source, None
            source.stop()
        for index, member in list(leg.targets.items()):
            if member.content.is_over:
                del leg.targets[index]
                member.stop()
        with self._lock:
            if not leg.members():
                self._transfers.pop(arguments["transfer"], None)
        return {}

    def _idle(self, arguments: Json) -> Json:
        """For how long nothing was asked of this agent and nothing ran in it."""
        with self._lock:
            is_busy = self._streams.running > 0 or self._calls > 0
            is_busy = is_busy or any(
                leg.source is not None and not leg.source.status()["done"]
                for leg in self._transfers.values()
            )
            if is_busy:
                self._last_active = time.monotonic()
            last_active = max(self._last_active, self._streams.last_active)
            return {"seconds": time.monotonic() - last_active, "busy": is_busy}

    def idle_seconds(self) -> float:
        """For how long nothing has happened here; 0 while something does."""
        idle = self._idle({})
        return 0.0 if idle["busy"] else float(idle["seconds"])

    # --- legs ---------------------------------------------------------------------------------

    def _leg(self, transfer: str) -> Leg:
        with self._lock:
            leg = self._transfers.get(transfer)
            if leg is None:
                raise OrderRefusedError("unknown", "this agent does not know that transfer")
            leg.last_used = time.monotonic()
            return leg

    def _key_of(self, purpose: bytes, identity: bytes) -> Optional[bytes]:
        with self._lock:
            leg = self._transfers.get(identity.hex()) if purpose == wire.DATA else None
            return None if leg is None else leg.secret

    def _forget_old(self) -> None:
        """Drops what nobody used for long (its castray died before it could say so)."""
        oldest = time.monotonic() - _FORGET_AFTER_SECONDS
        for transfer, leg in list(self._transfers.items()):
            if leg.last_used < oldest and not self._streams.running:
                for member in self._transfers.pop(transfer).members():
                    member.stop()
        self._scans.forget_old(self._transfers)


def _device_of(path: str) -> int:
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        try:
            return os.stat(folder).st_dev
        except OSError:
            folder = os.path.dirname(folder)
    return 0
