"""Reads the address of a cluster in every form that people write it in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from castray_tui.core.errors import AddressError

DEFAULT_DASHBOARD_PORT = 8265
DEFAULT_GCS_PORT = 6379
DEFAULT_CLIENT_PORT = 10001

_FORMS = (
    "Write HOST:PORT, http://HOST:8265 for a dashboard, HOST:6379 for a GCS, "
    "ray://HOST:10001 for a Ray client server, or auto"
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_ZONE = re.compile(r"[A-Za-z0-9._-]+\Z")
_PATH = re.compile(r"(/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)*\Z")
_MAX_CHARACTERS = 1_000
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "::1"})
_ANY_ADDRESSES = frozenset({"0.0.0.0", "::", "0:0:0:0:0:0:0:0", "*"})  # noqa: S104


@dataclass(frozen=True, slots=True)
class Address:
    """An address as somebody wrote it, taken apart.

    Attributes:
        form: ``auto``; ``client`` for ``ray://``; ``http`` for a URL, with or without TLS;
            ``plain`` for ``host`` or ``host:port``, which may be anything.
        host: Without brackets; empty for ``auto``.
        port: None where a plain address names none.
        tls: Whether the URL says ``https``.
        path: The path under which a proxy serves a dashboard, without a final slash.
    """

    form: Literal["auto", "client", "http", "plain"]
    host: str = ""
    port: int | None = None
    tls: bool = False
    path: str = ""

    def __str__(self) -> str:
        if self.form == "auto":
            return "auto"
        place = bracketed(self.host) if self.port is None else host_port(self.host, self.port)
        if self.form == "client":
            return f"ray://{place}"
        if self.form == "http":
            return f"{'https' if self.tls else 'http'}://{place}{self.path}"
        return place


def parse_address(text: str) -> Address:
    """Takes an address apart.

    Args:
        text: ``auto``, ``ray://host:10001``, ``http(s)://host:port/path``, ``host:port``, ``host``,
            IPv6 addresses with or without brackets.

    Returns:
        The address. A ``ray://`` without a port has Ray's own, 10001; a URL without one that of
        its scheme.

    Raises:
        AddressError: It is empty, holds a user name or password, or cannot be read.
    """
    text = text.strip()
    if not text:
        raise AddressError("The address is empty", remedy=f"{_FORMS}.")
    if len(text) > _MAX_CHARACTERS or not text.isprintable() or " " in text:
        raise AddressError(
            "The address holds spaces or control characters, or is far too long",
            remedy=f"{_FORMS}.",
        )
    if text.lower() == "auto":
        return Address("auto")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _plain(text)
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    place, slash, path = rest.partition("/")
    # Said without the text: what stands before an @ may be a password.
    if "@" in place:
        raise AddressError(
            "The address holds a user name or password",
            remedy="Leave it out; a token belongs into RAY_AUTH_TOKEN or a token_file.",
        )
    host, port = _host_and_port(place, text)
    if scheme == "ray":
        return Address("client", host, DEFAULT_CLIENT_PORT if port is None else port)
    if scheme in ("http", "https"):
        path = (slash + path).rstrip("/")
        if not _PATH.match(path):
            raise AddressError(f"The path of {text!r} cannot be read", remedy=f"{_FORMS}.")
        default = 443 if scheme == "https" else 80
        tls = scheme == "https"
        return Address("http", host, default if port is None else port, tls, path)
    raise AddressError(f"{scheme!r} in {text!r} is no known scheme", remedy=f"{_FORMS}.")


def _plain(text: str) -> Address:
    if "@" in text:
        raise AddressError(
            "The address holds a user name or password",
            remedy="Leave it out; clusters behind SSH need a tunnel whose local end you name.",
        )
    host, port = _host_and_port(text.rstrip("/"), text)
    return Address("plain", host, port)


def _host_and_port(place: str, text: str) -> tuple[str, int | None]:
    if place.startswith("["):
        host, bracket, after = place[1:].partition("]")
        if not bracket or not _is_ipv6(host):
            raise AddressError(f"{text!r} holds no IPv6 address", remedy="Write [::1]:8265.")
        if after and not after.startswith(":"):
            raise AddressError(f"{text!r} cannot be read", remedy="Write [::1]:8265.")
        return host, _port(after[1:], text) if after else None
    if place.count(":") > 1:
        if not _is_ipv6(place):
            raise AddressError(f"{text!r} cannot be read", remedy=f"{_FORMS}.")
        return place, None
    host, colon, port = place.partition(":")
    if not _HOST.match(host):
        raise AddressError(f"{text!r} names no host", remedy=f"{_FORMS}.")
    return host, _port(port, text) if colon else None


def _is_ipv6(text: str) -> bool:
    import socket  # noqa: PLC0415 - 15 ms, and seldom needed

    host, percent, zone = text.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return not percent or bool(_ZONE.match(zone))


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits[:6]) <= 65_535:
        raise AddressError(
            f"{digits!r} in {text!r} is no port", remedy="A port is a number from 1 to 65535."
        )
    return int(digits)


def bracketed(host: str) -> str:
    """The host as it stands before a colon: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """``host:port``, with IPv6 addresses in brackets."""
    return f"{bracketed(host)}:{port}"


def split_host_port(text: str) -> tuple[str, int] | None:
    """The host and port of text that Ray wrote; None where it holds no such thing."""
    try:
        address = parse_address(text)
    except AddressError:
        return None
    if address.form != "plain" or address.port is None:
        return None
    return address.host, address.port


def is_loopback(host: str) -> bool:
    """Whether the host means the very machine that says it."""
    return host.lower() in _LOOPBACK_NAMES or (
        host.startswith("127.") and host.replace(".", "").isdigit()
    )


def is_any_address(host: str) -> bool:
    """Whether the host stands for every interface, as a server's bind address."""
    return host in _ANY_ADDRESSES
