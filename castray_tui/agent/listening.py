"""Listening on a port: accepting connections, and keeping strangers short."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time
from typing import Callable, Optional, Tuple

from . import wire

STRANGERS_AT_ONCE = 64
_REMEMBERED_NONCES = 8192
_NO_ROOM_SECONDS = 0.1


class Listener:
    """A listening port whose connections are handed on once they proved to hold a key.

    Args:
        bind_host: Address to listen on.
        port_range: Lowest and highest port to take, (0, 0) for any.
        key_of: The key for a purpose and an identity, None where nobody of that name is expected.
        on_channel: Called with channel, purpose and identity, in a thread of the connection's own;
            the channel is closed when it returns.
        on_dialed: Called with every connection, whoever it is.
    """

    def __init__(
        self,
        bind_host: str,
        port_range: Tuple[int, int],
        key_of: Callable[[bytes, bytes], Optional[bytes]],
        on_channel: Callable[[wire.Channel, bytes, bytes], None],
        json_limit_bytes: int = wire.DATA_JSON_LIMIT_BYTES,
        *,
        on_dialed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_dialed = on_dialed
        self._key_of = key_of
        self._on_channel = on_channel
        self._json_limit_bytes = json_limit_bytes
        self._nonces: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._strangers = threading.Semaphore(STRANGERS_AT_ONCE)
        self._socket = _bound_socket(bind_host, port_range)
        self._socket.listen(128)
        self._is_closed = False
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, name="castray-accept", daemon=True).start()

    def close(self) -> None:
        """Stops listening; connections that stand go on."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                if self._is_closed:
                    return
                time.sleep(_NO_ROOM_SECONDS)  # Out of descriptors, which passes.
                continue
            self._on_dialed()
            if not self._strangers.acquire(blocking=False):
                sock.close()
                continue
            connection = threading.Thread(
                target=self._serve, args=(sock,), name="castray-connection", daemon=True
            )
            try:
                connection.start()
            except RuntimeError:  # Out of threads, which passes as well.
                self._strangers.release()
                sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            channel, purpose, identity = wire.answer_dialer(
                sock, self._key_of, self._is_new_nonce, self._json_limit_bytes
            )
        except (OSError, wire.WireError):
            sock.close()
            return
        finally:
            self._strangers.release()
        try:
            self._on_channel(channel, purpose, identity)
        except (OSError, wire.WireError, ValueError, LookupError, TypeError):
            # The other side went away, or says what makes no sense; what hung on it has been told
            # by its own reader.
            pass
        finally:
            channel.close()

    def _is_new_nonce(self, nonce: bytes) -> bool:
        with self._lock:
            if nonce in self._nonces:
                return False
            self._nonces[nonce] = None
            if len(self._nonces) > _REMEMBERED_NONCES:
                self._nonces.popitem(last=False)
            return True


def _bound_socket(bind_host: str, port_range: Tuple[int, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind_host else socket.AF_INET
    low, high = port_range
    last_error = OSError("no port in an empty range")
    for port in range(low, high + 1) if high else [0]:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((bind_host, port))
            return sock
        except OSError as error:
            sock.close()
            last_error = error
    raise OSError(
        last_error.errno or 0,
        "no free port from {} to {} ({})".format(low, high, wire.describe(last_error)),
    )


def bind_host_for(node_address: str) -> str:
    """Where to listen on a node: loopback if that is all Ray knows of it, else everywhere."""
    if node_address == "localhost" or node_address.startswith("127."):
        return "127.0.0.1"
    if node_address == "::1":
        return "::1"
    return "::" if ":" in node_address else "0.0.0.0"  # noqa: S104  (strangers are kept out above)
