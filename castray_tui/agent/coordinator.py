"""One cluster's coordinator: a Ray driver that places agents and owns the cluster's transfers.

Started as a Ray job, or as a process beside castray where a cluster has no dashboard. What it
prints is its log, which anybody with the dashboard can read: one line when castray may connect,
one for each transfer that ended, no secrets.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from . import keys
from .control import CONTROL_CONTEXT, ControlPort
from .listening import bind_host_for
from .ownership import Desk
from .placing import RayNodes

Json = Dict[str, Any]

LINE_MARK = '{"castray": '
_LOOK_SECONDS = 1.0
_INIT_SECONDS = 60.0


class Coordinator:
    """Lives for as long as transfers run, and then for the idle time.

    Args:
        config: ``public_key`` (castray's, hex), ``idle_seconds``, ``port_range``, ``niceness`` and
            ``gcs_address`` (None inside a job, where Ray says it).
    """

    def __init__(self, config: Json) -> None:
        self._idle_seconds = float(config["idle_seconds"])
        ports = config["port_range"]
        self._niceness = int(config["niceness"])
        self._port_range: Tuple[int, int] = (int(ports[0]), int(ports[1]))
        self._address = config.get("gcs_address") or os.environ.get("RAY_ADDRESS") or "auto"
        private = keys.new_private_key()
        self._public = keys.public_key(private)
        key = keys.agree(private, int(config["public_key"], 16), CONTROL_CONTEXT)
        host = "127.0.0.1" if config.get("gcs_address") else self._address.rpartition(":")[0]
        self._control = ControlPort(key, bind_host_for(host), self._port_range)
        self._nodes: Optional[RayNodes] = None
        self._desk: Optional[Desk] = None
        self._print_lock = threading.Lock()

    def run(self) -> None:
        """Returns when nothing was to do for the idle time, or castray said that all is done."""
        # Said before Ray is imported: castray connects meanwhile, and its orders wait.
        self._print({"castray": "ready", "port": self._control.port, "key": "%x" % self._public})
        threading.Timer(_INIT_SECONDS, self._give_up_unless_up).start()
        try:
            self._connect()
        except Exception as error:  # Ray raises anything here, and castray must hear why.
            self._control.refuse(
                "Ray does not let the coordinator in: {}".format(str(error).split("\n")[0][:300])
            )
            time.sleep(2.0)
            raise
        self._wait_until_idle()
        self._control.close()

    def _connect(self) -> None:
        import ray  # noqa: PLC0415  castray connects while this is still under way

        ray.init(
            address=self._address,
            namespace="castray-{:x}".format(int(time.time() * 1000)),
            log_to_driver=False,
            configure_logging=False,
        )
        self._nodes = RayNodes(self._port_range, self._niceness)
        self._desk = Desk(self._nodes, self._control.tell, self._note_result)
        self._control.open(self._desk, self._is_busy)

    def _is_busy(self) -> bool:
        is_owner = self._desk is not None and self._desk.is_busy
        return is_owner or (self._nodes is not None and self._nodes.idle_seconds() == 0.0)

    def _give_up_unless_up(self) -> None:
        if self._desk is None:
            self._control.refuse("Ray did not let the coordinator in within 60 s")
            time.sleep(2.0)
            os._exit(1)  # ray.init may hang where no exception reaches it.

    def _wait_until_idle(self) -> None:
        while not self._control.stop_wanted.wait(_LOOK_SECONDS):
            if self._desk is not None and self._desk.is_busy:
                self._control.last_active = time.monotonic()
            if time.monotonic() - self._control.last_active < self._idle_seconds:
                continue
            # Nobody asked for anything; agents may still be taking in what others send them.
            if self._nodes is None or self._nodes.idle_seconds() >= self._idle_seconds:
                return
        time.sleep(0.2)  # The answer to the last order is still on its way.

    def _note_result(self, result: Json) -> None:
        self._print({"castray": "result", "result": result})

    def _print(self, line: Json) -> None:
        with self._print_lock:
            try:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            except (OSError, ValueError):
                pass  # The log is gone; the transfer is not.


def read_lines(log: str) -> List[Json]:
    """The lines that a coordinator printed, out of a log in which others print too."""
    found = []
    for line in log.splitlines():
        if line.startswith(LINE_MARK):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # Cut off while it was being written.
    return found


def main(config_text: Optional[str] = None) -> None:
    """Runs a coordinator; the configuration comes from standard input where none is given."""
    if config_text is None:
        # A process beside castray: it must not end with castray's terminal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        config_text = sys.stdin.readline()
    config = json.loads(config_text)
    # Set here and not by whoever starts this process, where it would stand in /proc for all to see.
    os.environ.update(config.pop("environment", {}))
    Coordinator(config).run()
    os._exit(0)  # Ray's own way out takes seconds, and the actors go with the driver either way.


if __name__ == "__main__":
    main()
