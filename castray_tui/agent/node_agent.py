"""One node's agent: listens for streams, and carries out what its coordinator or castray asks."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import bridge, files, wire
from .content import SourceContent, digest_of
from .intake import Intake
from .layout import Layout, fitting_chunk_bytes
from .listening import Listener, bind_host_for
from .manifest import Manifest, ManifestError
from .member import SOURCE_INDEX, Member, pairs
from .refusals import OrderRefusedError
from .scanning import Scan, scan
from .target_plan import existing_digests, plan_target

Json = Dict[str, Any]

# Threads hand over to each other for every chunk; Python's 5 ms would be felt.
SWITCH_INTERVAL_SECONDS = 0.0005
_FORGET_AFTER_SECONDS = 3600.0
_NEWS_SECONDS = 0.2
_READ_AHEAD_BYTES = 32 * 1024 * 1024
_PROBE_CHUNK_BYTES = 256 * 1024
_KEPT_SCANS = 8
_MEET_LOOK_SECONDS = 0.05


class _Known:
    """What the agent knows of one leg."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.last_used = time.monotonic()
        self.source: Optional[Member] = None
        self.targets: Dict[int, Member] = {}
        self.bridges: Dict[str, bridge.Bridge] = {}

    def members(self) -> List[Member]:
        """Everybody of the leg at this agent."""
        return ([self.source] if self.source else []) + list(self.targets.values())


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
        self._transfers: Dict[str, _Known] = {}
        self._scans: Dict[str, Scan] = {}
        self._streams = 0
        self._calls = 0
        self._last_active = time.monotonic()
        self._listener: Optional[Listener] = None
        self.on_dialed: Callable[[], None] = lambda: None
        # Nobody can be sure to reach castray's own machine: it dials.
        self._is_dialable = is_dialable
        self._orders = {
            "hello": self._hello,
            "scan": self._scan,
            "digests": self._digests,
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
            members = [member for known in self._transfers.values() for member in known.members()]
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
                    self._on_channel,
                    on_dialed=self._note_dialed,
                )
            return self._listener.port

    def _note_dialed(self) -> None:
        self.on_dialed()

    def _scan(self, arguments: Json) -> Json:
        """Looks at a source, without reading it, and remembers it for ``send``."""
        found = scan(
            arguments["paths"],
            arguments["roots"],
            arguments["links"],
            arguments["include"],
            arguments["exclude"],
        )
        with self._lock:
            self._scans[arguments["transfer"]] = found
        manifest = found.manifest
        kinds = [entry.kind for entry in manifest.entries]
        answer: Json = {
            "manifest": manifest.pack(),
            "manifest_digest": manifest.digest,
            "name": manifest.name,
            "is_tree": manifest.is_tree,
            "size": manifest.total_bytes,
            "files": len(manifest.files),
            "folders": kinds.count("folder"),
            "links": kinds.count("link"),
            "token": found.token,
            "machine": files.machine_id(),
            "device": None,
            "inode": None,
            "path": found.paths[0] if found.paths else arguments["paths"][0],
        }
        if not manifest.is_tree:
            _, _, answer["inode"], answer["device"] = found.signatures[0]
        return answer

    def _scanned(self, transfer: str) -> Scan:
        with self._lock:
            found = self._scans.get(transfer)
        if found is None:
            raise OrderRefusedError("unknown", "this agent has not looked at that source")
        return found

    def _digests(self, arguments: Json) -> Json:
        """The digests of some of the source's files, which stay as they were while it reads."""
        found = self._scanned(arguments["transfer"])
        return {"digests": {str(n): _digest_of(found, n) for n in arguments["files"]}}

    def _plan(self, arguments: Json) -> Json:
        answer: Json = plan_target(arguments, self._reserved_bytes)
        with self._lock:
            known = self._transfers.get(arguments.get("transfer", ""))
            member = known.targets.get(arguments["index"]) if known is not None else None
        held = member.content if member is not None else None
        answer["held_bytes"] = held.taken_bytes if isinstance(held, Intake) else 0
        answer["held_verdict"] = held.verdict if isinstance(held, Intake) else None
        answer["held_digest"] = held.digest if isinstance(held, Intake) else None
        return answer

    def _reserved_bytes(self, device: int) -> int:
        """What transfers through this agent have still to write to a device."""
        with self._lock:
            intakes = [
                member.content
                for known in self._transfers.values()
                for member in known.targets.values()
            ]
        return sum(
            one.bytes_to_come()
            for one in intakes
            if isinstance(one, Intake) and _device_of(one.order["path"]) == device
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
            known = self._transfers.get(transfer)
            if known is None:
                known = self._transfers[transfer] = _Known(bytes.fromhex(arguments["secret"]))
            known.secret = bytes.fromhex(arguments["secret"])
        if arguments.get("targets"):
            manifest = Manifest.unpack(arguments["manifest"])
            chunk_bytes = fitting_chunk_bytes(manifest.total_bytes, arguments["chunk_bytes"])
            layout = Layout([entry.size for entry in manifest.files], chunk_bytes)
            for target in arguments["targets"]:
                self._expect(transfer, known, target, manifest, layout)
        return self._hello({})

    def _expect(
        self, transfer: str, known: _Known, target: Json, manifest: Manifest, layout: Layout
    ) -> None:
        """One target may come. What an earlier attempt left of it is gone on with."""
        index = int(target["index"])
        before = known.targets.pop(index, None)
        intake: Optional[Intake] = None
        if before is not None:
            held = before.content
            is_same = (
                isinstance(held, Intake)
                and held.manifest.digest == manifest.digest
                and held.layout.chunk_bytes == layout.chunk_bytes
                and held.order["path"] == target["path"]
                and held.skip == set(target["skip"])
                and not target.get("fresh")
            )
            before.detach()
            if is_same and isinstance(held, Intake) and held.go_on():
                intake = held
            elif isinstance(held, Intake):
                held.close()
        if intake is None:
            intake = Intake(manifest, layout, target)
        known.targets[index] = self._member(transfer, known, index, intake)

    def _member(self, transfer: str, known: _Known, index: int, content: Any) -> Member:
        identity = bytes.fromhex(transfer)

        def dial(endpoints: List[Any], timeout_seconds: float) -> wire.Channel:
            return wire.dial(pairs(endpoints), known.secret, wire.DATA, identity, timeout_seconds)

        def dial_through(endpoints: List[Any], meeting: str) -> wire.Channel:
            channel = dial(endpoints, wire.HANDSHAKE_SECONDS)
            try:
                channel.send({"role": "bridge", "bridge": meeting, "side": bridge.FEEDER})
                channel.send({"ready": 1})
                return self._across(channel, known, identity)
            except BaseException:
                channel.close()
                raise

        endpoints = self._hello({})["endpoints"] if self._is_dialable else []
        return Member(index, content, dial, dial_through, endpoints)

    def _across(self, channel: wire.Channel, known: _Known, identity: bytes) -> wire.Channel:
        """The feeder's end of a bridge, once its taker is there."""
        bridge.wait_until_joined(channel)
        return wire.dial_over(
            channel.sock, known.secret, wire.DATA, identity, wire.HANDSHAKE_SECONDS
        )

    def _reach(self, arguments: Json) -> Json:
        """Which of several agents can be dialed: for each None, or why not; and how fast it is."""
        known = self._known(arguments["transfer"])
        identity = bytes.fromhex(arguments["transfer"])
        timeout_seconds = float(arguments["timeout_seconds"])
        probe_bytes = min(int(arguments.get("probe_bytes") or 0), _PROBE_CHUNK_BYTES * 64)
        results: List[Optional[str]] = [None] * len(arguments["agents"])
        rates: List[Optional[float]] = [None] * len(arguments["agents"])

        def try_one(place: int, endpoints: List[Any]) -> None:
            try:
                channel = wire.dial(
                    pairs(endpoints), known.secret, wire.DATA, identity, timeout_seconds
                )
                with contextlib.closing(channel):
                    rates[place] = _probe(channel, probe_bytes)
            except (OSError, wire.WireError) as error:
                results[place] = wire.describe(error)

        threads = [
            threading.Thread(target=try_one, args=(place, endpoints), daemon=True)
            for place, endpoints in enumerate(arguments["agents"])
        ]
        for thread in threads:
            thread.start()
            if probe_bytes:
                thread.join()  # One after another, so that they do not slow each other down.
        for thread in threads:
            thread.join()
        return {"results": results, "rates": rates}

    def _dial(self, arguments: Json) -> Json:
        """Connects to a target's feeder, which waits for it, or to a bridge that leads there."""
        known = self._known(arguments["transfer"])
        if arguments.get("bridge"):
            identity = bytes.fromhex(arguments["transfer"])
            channel = wire.dial(pairs(arguments["endpoints"]), known.secret, wire.DATA, identity)
            channel.send({"role": "bridge", "bridge": arguments["bridge"], "side": bridge.TAKER})
            self._in_thread(functools.partial(self._be_met, channel, known, identity))
            return {}
        known.targets[arguments["index"]].seek(arguments["endpoints"])
        return {}

    def _bridge(self, arguments: Json) -> Json:
        """Joins a feeder and a taker that cannot reach each other. Sides without endpoints dial."""
        known = self._known(arguments["transfer"])
        identity = bytes.fromhex(arguments["transfer"])
        meeting = known.bridges.setdefault(arguments["bridge"], bridge.Bridge())
        for side in (bridge.TAKER, bridge.FEEDER):
            if arguments[side]:
                channel = wire.dial(pairs(arguments[side]), known.secret, wire.DATA, identity)
                channel.send({"role": "tunnel", "side": side, "index": arguments["index"]})
                self._in_thread(functools.partial(_meet, meeting, side, channel))
        return self._hello({})

    def _in_thread(self, work: Any) -> None:
        def run() -> None:
            with self._lock:
                self._streams += 1
            try:
                work()
            finally:
                with self._lock:
                    self._streams -= 1
                    self._last_active = time.monotonic()

        threading.Thread(target=run, name="castray-stream", daemon=True).start()

    def _send(self, arguments: Json) -> Json:
        """Starts to send a source to its targets."""
        transfer = arguments["transfer"]
        known = self._known(transfer)
        found = self._scanned(transfer)
        if found.token != arguments["token"]:
            raise OrderRefusedError("changed", "the source has changed since the plan")
        if known.source is not None:
            known.source.stop()
        sizes = [entry.size for entry in found.manifest.files]
        most_bytes = int(arguments["chunk_bytes"])
        layout = Layout(sizes, fitting_chunk_bytes(found.manifest.total_bytes, most_bytes))
        skip = {int(number): str(digest) for number, digest in arguments["skip"].items()}
        window = max(_READ_AHEAD_BYTES // layout.chunk_bytes, 2)
        content = SourceContent(found, layout, skip, window)
        member = self._member(transfer, known, SOURCE_INDEX, content)
        known.source = member
        content.start()
        member.set_out(arguments["tree"], arguments)
        return {}

    def _source(self, transfer: str) -> Member:
        source = self._known(transfer).source
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
        for member in self._known(arguments["transfer"]).members():
            member.cancel("cancelled")
        return {}

    def _drop(self, arguments: Json) -> Json:
        """Throws away what targets hold that nobody will go on with."""
        known = self._known(arguments["transfer"])
        for index in arguments["indexes"]:
            member = known.targets.pop(index, None)
            if member is not None:
                member.stop()
        return {}

    def _forget(self, arguments: Json) -> Json:
        """A leg is over. What another attempt could go on with stays."""
        with self._lock:
            known = self._transfers.get(arguments["transfer"])
            self._scans.pop(arguments["transfer"], None)
        if known is None:
            return {}
        if known.source is not None:
            source, known.source = known.source, None
            source.stop()
        for index, member in list(known.targets.items()):
            if isinstance(member.content, Intake) and member.content.is_over:
                del known.targets[index]
                member.stop()
        with self._lock:
            if not known.members():
                self._transfers.pop(arguments["transfer"], None)
        return {}

    def _idle(self, arguments: Json) -> Json:
        """For how long nothing was asked of this agent and nothing ran in it."""
        with self._lock:
            is_busy = self._streams > 0 or self._calls > 0
            is_busy = is_busy or any(
                known.source is not None and not known.source.status()["done"]
                for known in self._transfers.values()
            )
            if is_busy:
                self._last_active = time.monotonic()
            return {"seconds": time.monotonic() - self._last_active, "busy": is_busy}

    def idle_seconds(self) -> float:
        """For how long nothing has happened here; 0 while something does."""
        idle = self._idle({})
        return 0.0 if idle["busy"] else float(idle["seconds"])

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
        with self._lock:
            self._streams += 1
        try:
            self._serve(channel, self._known(identity.hex()), identity)
        except OrderRefusedError:
            pass  # It ended while somebody was dialing.
        finally:
            with self._lock:
                self._streams -= 1
                self._last_active = time.monotonic()

    def _serve(self, channel: wire.Channel, known: _Known, identity: bytes) -> None:
        hello = channel.receive_message()
        role = hello.get("role")
        if role == "feeder" and hello["index"] in known.targets:
            known.targets[hello["index"]].serve_feeder(channel, [])
        elif role == "taker":
            for member in known.members():
                if member.accept_taker(channel, hello):
                    return
        elif role == "bridge":
            meeting = known.bridges.get(hello["bridge"])
            if meeting is not None:
                meeting.arrive(hello["side"], channel)
        elif role == "tunnel" and hello["side"] == bridge.FEEDER:
            self._feed_across(channel, known, identity, int(hello["index"]))
        elif role == "tunnel":
            self._be_met(channel, known, identity)
        elif role == "probe":
            _answer_probe(channel, int(hello["bytes"]))

    def _feed_across(
        self, channel: wire.Channel, known: _Known, identity: bytes, index: int
    ) -> None:
        """The feeder's end of a bridge that dialed here, maybe before anything is to be sent."""
        deadline = time.monotonic() + bridge.MEET_SECONDS
        while True:
            feeder = next((one for one in known.members() if one.can_feed(index)), None)
            if feeder is not None:
                break
            if time.monotonic() > deadline:
                return
            time.sleep(_MEET_LOOK_SECONDS)
        channel.send({"ready": 1})
        with contextlib.closing(self._across(channel, known, identity)) as across:
            across.send({"role": "feeder", "index": index})
            feeder.accept_taker(across, {"index": index, "epoch": 0})

    def _be_met(self, channel: wire.Channel, known: _Known, identity: bytes) -> None:
        """The taker's end of a bridge: its feeder shakes hands through it."""
        with contextlib.closing(channel), contextlib.suppress(OSError, wire.WireError):
            bridge.wait_until_joined(channel)
            across, _, _ = wire.answer_dialer(channel.sock, self._key_of, lambda nonce: True)
            with contextlib.closing(across):
                self._serve(across, known, identity)

    def _forget_old(self) -> None:
        """Drops what nobody used for long (its castray died before it could say so)."""
        oldest = time.monotonic() - _FORGET_AFTER_SECONDS
        for transfer, known in list(self._transfers.items()):
            if known.last_used < oldest and not self._streams:
                for member in self._transfers.pop(transfer).members():
                    member.stop()
        for transfer in list(self._scans):
            if len(self._scans) > _KEPT_SCANS and transfer not in self._transfers:
                del self._scans[transfer]


def _meet(meeting: bridge.Bridge, side: str, channel: wire.Channel) -> None:
    with contextlib.closing(channel), contextlib.suppress(OSError, wire.WireError):
        meeting.arrive(side, channel)


def _digest_of(found: Scan, number: int) -> str:
    fd = found.open_file(number)
    try:
        digest = digest_of(fd)
        found.check_file(number, fd)
    finally:
        os.close(fd)
    return digest


def _probe(channel: wire.Channel, length: int) -> Optional[float]:
    """Bytes per second over a connection, measured with that many; None for none."""
    channel.send({"role": "probe", "bytes": length})
    if not length:
        return None
    began = time.monotonic()
    chunk = memoryview(bytes(_PROBE_CHUNK_BYTES))
    for at in range(0, length, _PROBE_CHUNK_BYTES):
        channel.send_chunk(0, b"", chunk[: min(_PROBE_CHUNK_BYTES, length - at)])
    channel.receive_message()
    return length / max(time.monotonic() - began, 1e-6)


def _answer_probe(channel: wire.Channel, length: int) -> None:
    if not length:
        return
    scratch = memoryview(bytearray(_PROBE_CHUNK_BYTES))
    while length > 0:
        head = channel.receive()
        if isinstance(head, dict) or not 0 < head.length <= len(scratch):
            raise wire.WireError("a probe that makes no sense")
        wire.receive_exactly(channel.sock, scratch[: head.length])
        length -= head.length
    channel.send({"got": 1})


def _device_of(path: str) -> int:
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        try:
            return os.stat(folder).st_dev
        except OSError:
            folder = os.path.dirname(folder)
    return 0
