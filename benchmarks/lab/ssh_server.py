"""An SSH server of its own for the rivals: own port, own keys, nobody's configuration touched."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_START_SECONDS = 10.0


def why_not(*programs: str) -> str | None:
    """Why no server can be started or some program used here; None where all is there."""
    missing = [name for name in ("ssh", "ssh-keygen", *programs) if shutil.which(name) is None]
    if _sshd() is None:
        missing.append("sshd")
    return f"not installed: {', '.join(missing)}" if missing else None


def _sshd() -> str | None:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


class SshServer:
    """One sshd and the key that opens it; a context manager.

    Args:
        address: Where it listens.
        prefix: Put before the server's command line, ``ip netns exec NAME`` for one.
    """

    def __init__(self, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self.address = address
        self.port = 0
        self._prefix = list(prefix)
        self._folder = Path()
        self._made_run_folder = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SshServer:
        self._folder = Path(tempfile.mkdtemp(prefix="castray-sshd-"))
        for name in ("host_key", "user_key"):
            path = str(self._folder / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        shutil.copy(self._folder / "user_key.pub", self._folder / "authorized_keys")
        if os.geteuid() == 0 and not Path("/run/sshd").exists():
            # sshd, as root, wants it for the separation of privileges.
            Path("/run/sshd").mkdir(mode=0o755)
            self._made_run_folder = True
        self.port = _free_port()
        settings = {
            "Port": self.port,
            "ListenAddress": self.address,
            "HostKey": self._folder / "host_key",
            "AuthorizedKeysFile": self._folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "Subsystem": "sftp internal-sftp",  # what scp uses since OpenSSH 9
        }
        config = self._folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._process = subprocess.Popen(
            [*self._prefix, str(_sshd()), "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("wb"),
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self._folder / "log").read_text(errors="replace")
                self.close()
                raise RuntimeError(f"sshd did not start: {words}")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server and removes its keys."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._made_run_folder:
            Path("/run/sshd").rmdir()

    def ssh(self) -> list[str]:
        """``ssh`` with this server's port and key, to which the host and a command are added."""
        return ["ssh", "-p", str(self.port), *self._options()]

    def scp(self) -> list[str]:
        """``scp`` with this server's port and key."""
        return ["scp", "-q", "-P", str(self.port), *self._options()]

    def rsync(self) -> list[str]:
        """``rsync -a`` over this server; whole files, as there is nothing there to compare with."""
        return ["rsync", "-a", "-W", "-e", shlex.join(self.ssh())]

    def _options(self) -> list[str]:
        options = {
            "IdentityFile": self._folder / "user_key",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "GlobalKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        words = ["-F", "/dev/null"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        return words

    def _answers(self) -> bool:
        probe = [*self.ssh(), self.address, "true"]
        return (
            subprocess.run([*self._prefix, *probe], capture_output=True, check=False).returncode
            == 0
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
