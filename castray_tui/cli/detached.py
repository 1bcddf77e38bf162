"""The background of ``castray cp --detach``: a castray that outlives its terminal.

Started by ``detaching`` in a session of its own. It talks to the terminal until the transfer is
planned, gives the exit code on a pipe, lets go of the terminal and sees the transfer through.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any

from castray_tui.cli import cp
from castray_tui.cli.command_line import report_failure
from castray_tui.cli.fleet_session import engine_of
from castray_tui.cli.following import cancel_and_print, print_transfer
from castray_tui.cli.output import print_message
from castray_tui.cli.running import run_until_done
from castray_tui.cli.transfer_clusters import connect_named
from castray_tui.cli.transfer_text import ENDED, EXIT_CODES, summary
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.engine import Engine
from castray_tui.core.models import Transfer, TransferRequest
from castray_tui.log_file import logging_to_file

_LOG = logging.getLogger(__name__)
_SOME_REFUSED = 3


class Terminal:
    """The standard streams of the foreground, and the pipe on which it waits for an exit code.

    Args:
        report: The pipe's descriptor.
    """

    def __init__(self, report: int) -> None:
        self._report = report

    @property
    def is_held(self) -> bool:
        """Whether the foreground still waits."""
        return self._report >= 0

    def let_go(self, code: int) -> None:
        """Gives the exit code, and writes nothing to the terminal from here on."""
        if not self.is_held:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        # Nobody may be there any more to read it.
        with contextlib.suppress(OSError):
            os.write(self._report, f"{code}\n".encode())
        os.close(self._report)
        self._report = -1


def main() -> None:
    """Makes the transfer that standard input tells of."""
    told: dict[str, Any] = json.load(sys.stdin)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir(told["working_dir"])
    terminal = Terminal(told["report"])
    arguments = argparse.Namespace(**told["arguments"])
    try:
        loaded = cp.settings_of(arguments)
        with logging_to_file(loaded.settings):
            try:
                code = run_until_done(
                    _transfer(arguments, loaded, terminal), ends_with_terminal=False
                )
            except Exception:
                if not terminal.is_held:
                    _LOG.exception("A transfer in the background failed")
                raise
    except Exception as error:  # the border to the user, as for every command
        code = report_failure(error, as_json=arguments.json, debug=arguments.debug)
    terminal.let_go(code)


async def _transfer(
    arguments: argparse.Namespace, loaded: LoadedSettings, terminal: Terminal
) -> int:
    request = cp.request_of(arguments, loaded)
    ascii_only = loaded.settings.ui.ascii
    async with engine_of(loaded.settings, for_transfer=True) as engine:
        transfer = await _planned(arguments, loaded, engine, request)
        print_transfer(transfer, as_json=arguments.json, ascii_only=ascii_only)
        if transfer.state in ENDED:
            return EXIT_CODES[transfer.state]
        print_message(
            f"castray: It goes on in the background: `castray transfers {transfer.id[:8]}` shows "
            f"how far it is, `castray cancel {transfer.id[:8]}` ends it",
            ascii_only=ascii_only,
        )
        is_partly_refused = any(target.verdict == "failed" for target in transfer.targets)
        terminal.let_go(_SOME_REFUSED if is_partly_refused else 0)
        ended = await engine.wait_transfer(transfer.id)
    if ended.state != "done":
        _LOG.warning("Transfer in the background: %s; %s", summary(ended), ended.error or "")
    return EXIT_CODES[ended.state]


async def _planned(
    arguments: argparse.Namespace,
    loaded: LoadedSettings,
    engine: Engine,
    request: TransferRequest,
) -> Transfer:
    """The transfer once it is known what becomes of every target."""
    await connect_named(engine, loaded, (*request.sources, *request.targets))
    transfer = await engine.start_transfer(request)
    try:
        async for _ in engine.changes():
            transfer = await engine.transfer(transfer.id)
            if transfer.state != "planning":
                break
    except asyncio.CancelledError:
        await cancel_and_print(
            engine, transfer.id, as_json=arguments.json, ascii_only=loaded.settings.ui.ascii
        )
        raise
    return transfer


if __name__ == "__main__":
    main()
