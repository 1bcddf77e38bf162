"""A host's link led through this process, which flips a byte of what passes.

The bridge's end of the host's link is taken off the bridge, and frames are carried between it and
the bridge by hand. Frames come and go with the kernel's ``virtio_net_hdr``, so that large ones (not
yet cut into packets, their checksum not yet filled in) pass as they are: a byte flipped in such a
frame gets a right checksum afterwards. In a frame whose checksum stands already, it is mended. So
no layer below the transfer's own protocol can notice.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import subprocess
import threading
from types import TracebackType

from lab.hosts import Host

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ALL_PROTOCOLS = 0x0003
_VNET_BYTES = 10
_NEEDS_CHECKSUM = 1
_ETHERNET_BYTES = 14
_MIN_PAYLOAD_BYTES = 1000
_FRAME_BYTES = 70_000


class WireTap:
    """Carries a host's frames; a context manager.

    Args:
        host: The host whose link is led through here.
        bridge: Its lab's bridge.
        token: Its lab's random word.
        ports: Only frames from or to these TCP ports are touched.
    """

    def __init__(self, host: Host, bridge: str, token: str, ports: range) -> None:
        self._host = host
        self._bridge = bridge
        self._inner, self._outer = f"cv{token}t1", f"cv{token}t2"
        self._ports = ports
        self._to_flip = 0
        self.flipped = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._sockets: list[socket.socket] = []

    def flip(self, count: int = 1) -> None:
        """Flips a byte in each of the next ``count`` frames that carry content."""
        with self._lock:
            self._to_flip += count

    def __enter__(self) -> WireTap:
        _ip("link", "add", self._inner, "type", "veth", "peer", "name", self._outer)
        _ip("link", "set", self._outer, "master", self._bridge, "up")
        # Without ARP: this machine's own addresses are not to be answered for at these ends.
        _ip("link", "set", self._inner, "arp", "off", "up")
        _ip("link", "set", self._host.port, "arp", "off")
        self._sockets = [_packets(name) for name in (self._host.port, self._inner)]
        _ip("link", "set", self._host.port, "nomaster")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._sockets:
            each.close()
        _ip("link", "set", self._host.port, "arp", "on")
        self._host.mend()
        _ip("link", "del", self._inner)

    def _carry(self) -> None:
        host_side, bridge_side = self._sockets
        with selectors.DefaultSelector() as selector:
            selector.register(host_side, selectors.EVENT_READ, bridge_side)
            selector.register(bridge_side, selectors.EVENT_READ, host_side)
            while not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    taken_from = key.fileobj
                    assert isinstance(taken_from, socket.socket)
                    with contextlib.suppress(OSError):  # a lost frame is what networks have
                        frame = bytearray(taken_from.recv(_FRAME_BYTES))
                        if self._to_flip:
                            self._maybe_flip(frame)
                        key.data.send(frame)

    def _maybe_flip(self, frame: bytearray) -> None:
        """Flips a byte in the middle of a frame's TCP payload, if it is one that is wanted."""
        network = _VNET_BYTES + _ETHERNET_BYTES
        if frame[network - 2 : network] != b"\x08\x00" or frame[network + 9] != socket.IPPROTO_TCP:
            return
        transport = network + (frame[network] & 15) * 4
        ports = struct.unpack_from(">HH", frame, transport)
        payload = transport + (frame[transport + 12] >> 4) * 4
        length = len(frame) - payload
        if length < _MIN_PAYLOAD_BYTES or not any(port in self._ports for port in ports):
            return
        place = payload + length // 2
        frame[place] ^= 0xFF
        if not frame[0] & _NEEDS_CHECKSUM:
            _mend_checksum(frame, transport, place)
        with self._lock:
            self._to_flip -= 1
            self.flipped += 1


def _mend_checksum(frame: bytearray, transport: int, place: int) -> None:
    """Brings the TCP checksum into line with a flipped byte (RFC 1624)."""
    word_at = place - (place - transport) % 2
    (new,) = struct.unpack_from(">H", frame, word_at)
    flipped = 0xFF00 if word_at == place else 0x00FF
    (before,) = struct.unpack_from(">H", frame, transport + 16)
    total = (~before & 0xFFFF) + (~(new ^ flipped) & 0xFFFF) + new
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", frame, transport + 16, ~total & 0xFFFF)


def _packets(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
    made.bind((interface, _ALL_PROTOCOLS))
    made.setblocking(False)
    return made


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
