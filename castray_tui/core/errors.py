"""Everything that castray reports as having gone wrong, as one tree.

CastrayError
├── UsageError                what was asked for makes no sense (exit code 2)
│   ├── ConfigError           a configuration file, variable or option is wrong
│   ├── AddressError          an address cannot be read
│   └── TerminalError         no terminal that a screen could be drawn on
├── NotFoundError             no such cluster, node, transfer or file is known (exit code 1)
├── ReadOnlyError             refused, because it would change a cluster that is only looked at
├── ConnectError              nothing usable stands at an address (exit code 4)
│   ├── UnreachableError      refused, timed out, no such host
│   ├── NotRayError           something answers there, but it is not Ray
│   └── AuthError             Ray answers and wants a token that is missing or wrong
├── RayAnswerError            Ray answered, but with an error or something unreadable
├── RayMismatchError          Ray's Python here cannot talk to that cluster's version
└── TransferError             a transfer could not be planned, started or finished
    └── PartialTransferError  some targets failed, others did not (exit code 3)

Exceptions of libraries are translated into one of these where they occur. A message says what
happened and where; ``remedy`` says what to do about it.
"""

from __future__ import annotations


class CastrayError(Exception):
    """The base of all errors that a user may see.

    Args:
        message: What happened and where, as one sentence without a final full stop.
        remedy: What the user can do about it, as one sentence, or None where nothing is known.
    """

    exit_code = 1
    code = "failed"
    """Short machine-readable name, as it appears in JSON."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}. {self.remedy}"


class UsageError(CastrayError):
    """What was asked for makes no sense as it stands."""

    exit_code = 2
    code = "usage"


class ConfigError(UsageError):
    """A configuration file, an environment variable or an option holds something wrong."""

    code = "config"


class AddressError(UsageError):
    """An address of a cluster, a node or a file cannot be read."""

    code = "address"


class TerminalError(UsageError):
    """There is no terminal that a screen could be drawn on."""

    code = "terminal"


class NotFoundError(CastrayError):
    """No such cluster, node, transfer or file is known."""

    code = "not_found"


class ReadOnlyError(CastrayError):
    """Refused, because it would change a cluster that is only looked at."""

    code = "read_only"


class ConnectError(CastrayError):
    """Nothing usable stands at an address."""

    exit_code = 4
    code = "connect"


class UnreachableError(ConnectError):
    """The address refused, did not answer in time, or does not exist."""

    code = "unreachable"


class NotRayError(ConnectError):
    """Something answers at the address, but it is not Ray."""

    code = "not_ray"


class AuthError(ConnectError):
    """Ray answers and wants a token that is missing or wrong."""

    code = "auth"


class RayAnswerError(CastrayError):
    """Ray answered with an error, or with something that cannot be read."""

    code = "ray_answer"


class RayMismatchError(CastrayError):
    """Ray's Python on this machine cannot talk to that cluster's version."""

    code = "ray_mismatch"


class TransferError(CastrayError):
    """A transfer could not be planned, started or finished."""

    code = "transfer"


class PartialTransferError(TransferError):
    """Some targets of a transfer failed, others did not."""

    exit_code = 3
    code = "partial"
