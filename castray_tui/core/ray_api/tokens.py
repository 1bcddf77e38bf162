"""Where a cluster's authentication token comes from, and which cluster may be shown it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.errors import ConfigError
from castray_tui.core.models import DiscoveredCluster

MAX_TOKEN_BYTES = 64 * 1024
_DEFAULT_TOKEN_FILE = Path(".ray") / "auth_token"
_NAMED_BY_USER = frozenset({"config", "manual", "env"})

REMEDY_FOR_MISSING = (
    "Put its token into RAY_AUTH_TOKEN, into ~/.ray/auth_token, or into a file named by "
    "token_file in the cluster's [[clusters]] entry"
)
REMEDY_FOR_WRONG = (
    "Compare the token that castray has (token_file of its [[clusters]] entry, RAY_AUTH_TOKEN, "
    "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, in this order) with the cluster's"
)


class Token:
    """A secret that never shows itself: neither repr, str, pickle nor comparison give it away.

    Args:
        value: The token itself.
        origin: Where it was read, in words for messages; never the value.
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, *, origin: str) -> None:
        self._value = value
        self.origin = origin

    def reveal(self) -> str:
        """The token itself, for the request that needs it and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"<Token from {self.origin}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a token is never serialised")


def may_have_token(found: DiscoveredCluster, *, named_by_user: bool = False) -> bool:
    """Whether a cluster may be shown the user's token at all.

    A token goes to an address that the user named, or to a cluster on this host whose processes
    belong to the user; never to whatever answers on a scanned port, whoever it says it is.

    Args:
        found: What discovery knows of the cluster.
        named_by_user: Whether the user gave its address in this run.
    """
    if named_by_user or "manual" in found.sources:
        return True
    if found.dashboard_url is not None and not found.dashboard_vouched:
        return False
    if _NAMED_BY_USER.intersection(found.sources):
        return True
    return found.on_this_host and found.owned_by_me is True


def token_for(
    found: DiscoveredCluster,
    *,
    entry: KnownClusterSettings | None = None,
    named_by_user: bool = False,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> Token | None:
    """The token to use for one cluster, or None where there is none or it may not be sent.

    Args:
        found: The cluster.
        entry: Its ``[[clusters]]`` entry, whose ``token_file`` wins over all else.
        named_by_user: Whether the user gave its address in this run.
        environ: The environment; castray's own by default.
        home: The home directory; the user's own by default.

    Raises:
        ConfigError: A token file that was named cannot be read.
    """
    if not may_have_token(found, named_by_user=named_by_user):
        return None
    if entry is not None and entry.token_file is not None:
        return read_token_file(entry.token_file.expanduser(), f"{entry.token_file}")
    return users_token(environ=environ, home=home)


def users_token(
    *, environ: Mapping[str, str] | None = None, home: Path | None = None
) -> Token | None:
    """The token that Ray's own commands would use: ``RAY_AUTH_TOKEN``, the file named by
    ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``; None where there is none of them.

    Raises:
        ConfigError: ``RAY_AUTH_TOKEN_PATH`` names a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    value = environ.get("RAY_AUTH_TOKEN", "").strip()
    if value:
        return _checked(value, "RAY_AUTH_TOKEN")
    named = environ.get("RAY_AUTH_TOKEN_PATH", "").strip()
    if named:
        return read_token_file(Path(named).expanduser(), f"RAY_AUTH_TOKEN_PATH ({named})")
    try:
        default = (home if home is not None else Path.home()) / _DEFAULT_TOKEN_FILE
        if not default.is_file():
            return None
        return read_token_file(default, "~/.ray/auth_token")
    except (OSError, RuntimeError, ConfigError):
        # Nobody named this file, so one that cannot be read is the same as none.
        return None


def read_token_file(path: Path, origin: str) -> Token:
    """The token that a file holds.

    Args:
        path: The file.
        origin: What to call it in messages.

    Raises:
        ConfigError: It cannot be read, or holds no token.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOKEN_BYTES + 1)
        value = raw.decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"The token file {path} cannot be read: {error.strerror or type(error).__name__}",
            remedy="Correct the path or its permissions",
        ) from error
    except UnicodeDecodeError:
        # No "from": the error would carry the file's bytes.
        raise ConfigError(f"The token file {path} is not text") from None
    if not value or len(raw) > MAX_TOKEN_BYTES:
        what = "is empty" if not value else "is too large to be a token"
        raise ConfigError(f"The token file {path} {what}", remedy="Put Ray's token into it")
    return _checked(value, origin)


def _checked(value: str, origin: str) -> Token:
    if not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"The token from {origin} holds characters that no HTTP header may carry",
            remedy="A token is one line of printable ASCII",
        )
    return Token(value, origin=origin)
