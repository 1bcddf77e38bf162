"""How commands tell of addresses that could not be connected to."""

from __future__ import annotations

from collections.abc import Sequence

from castray_tui.cli.fleet_session import Failure
from castray_tui.cli.output import print_message
from castray_tui.core.errors import ConnectError, UsageError
from castray_tui.core.wire_format import JsonValue

_NOTHING_REACHABLE = ConnectError.exit_code


def tell(failures: Sequence[Failure]) -> None:
    """Prints a line for every address that failed."""
    for failure in failures:
        print_message(f"castray: {failure.error}")


def raise_if_nothing_is_left(failures: Sequence[Failure], addresses: Sequence[str]) -> None:
    """Raises the first error where every address that the user named has failed."""
    if not addresses or len(failures) < len(dict.fromkeys(addresses)):
        return
    tell(failures[1:])
    first = failures[0].error
    if first.exit_code == 1:
        # Not a failure of the command: there is nothing at that address that it could work with.
        raise ConnectError(first.message, remedy=first.remedy) from first
    raise first


def exit_code_of(failures: Sequence[Failure], addresses: Sequence[str]) -> int:
    """0 where all went well or nothing was named; else 2 for a bad address, 4 for a dead one."""
    if not addresses or not failures:
        return 0
    if any(isinstance(failure.error, UsageError) for failure in failures):
        return UsageError.exit_code
    return _NOTHING_REACHABLE


def failures_json(failures: Sequence[Failure]) -> list[JsonValue]:
    """The addresses that failed, for ``errors`` of a JSON document."""
    return [
        {
            "address": failure.address,
            "code": failure.error.code,
            "message": str(failure.error),
        }
        for failure in failures
    ]
