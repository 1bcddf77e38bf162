"""castray in a real terminal (tmux): drawn, driven by keys, the terminal as before afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from conftest import StartCluster

pytestmark = [
    pytest.mark.terminal,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
WAIT_SECONDS = 30.0
# Test runners set the size, which would keep programs from asking the terminal.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}
}


class Terminal:
    """One tmux session of its own server, with a shell in it."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    async def tmux(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "tmux", "-S", self._socket, *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def start(self, size: tuple[int, int], environment: dict[str, str]) -> None:
        variables = [
            part for name, value in environment.items() for part in ("-e", f"{name}={value}")
        ]
        width, height = map(str, size)
        await self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, *variables,
            "sh -i",
        )  # fmt: skip
        await self.type("PS1='READY '; clear")
        await self.until(lambda screen: screen.strip().startswith("READY"))

    async def type(self, line: str) -> None:
        await self.tmux("send-keys", "-l", line)
        await self.tmux("send-keys", "Enter")

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.tmux("send-keys", key)

    async def screen(self) -> str:
        return await self.tmux("capture-pane", "-p")

    async def until(self, holds: Callable[[str], bool]) -> str:
        """The screen, as soon as something holds of it; tmux has no event to await."""
        screen = ""
        for _ in range(int(WAIT_SECONDS / 0.1)):
            screen = await self.screen()
            if holds(screen):
                return screen
            await asyncio.sleep(0.1)
        raise AssertionError(f"never came on the screen; it shows:\n{screen}")

    async def modes(self) -> str:
        """What of the terminal a program may leave changed."""
        return await self.tmux(
            "display-message", "-p",
            "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{mouse_button_flag} "
            "#{mouse_sgr_flag} #{keypad_cursor_flag} #{insert_flag} #{wrap_flag}",
        )  # fmt: skip

    async def line_settings(self) -> str:
        """What ``stty -a`` says in the terminal."""
        await self.type("clear; stty -a; echo END")
        screen = await self.until(
            lambda text: "END" in text.splitlines()[-1:][0:] or "\nEND" in text
        )
        return screen[: screen.index("\nEND")]

    async def castray_pid(self) -> int:
        shell = (await self.tmux("display-message", "-p", "#{pane_pid}")).strip()
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(children[0])


@pytest.fixture
async def terminal(own_home: Path) -> AsyncIterator[Callable[..., object]]:
    started: list[Terminal] = []

    async def start(size: tuple[int, int] = (80, 24), **environment: str) -> Terminal:
        # A socket's path must be short, and tmp_path is long.
        terminal = Terminal(Path(f"/tmp/castray-{uuid.uuid4().hex[:8]}"))
        base = {
            "HOME": str(own_home),
            "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],
            "XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"],
        }
        await terminal.start(size, {**base, **environment})
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        await terminal.tmux("kill-server")


CASTRAY = f"{sys.executable} -m castray_tui --no-discover"


async def opened(terminal: Terminal, arguments: str = "") -> str:
    await terminal.type(f"{CASTRAY} {arguments}")
    return await terminal.until(lambda text: "3 Transfers" in text and " L local" in text)


async def test_drawn_driven_and_left_as_it_was(terminal: Callable[..., object]) -> None:
    tty: Terminal = await terminal()  # type: ignore[misc]
    modes, settings = await tty.modes(), await tty.line_settings()
    screen = await opened(tty)
    assert " L local" in screen
    assert "q Quit" in screen
    await tty.press("?")
    await tty.until(lambda text: "Everywhere" in text or "Look for clusters now" in text)
    # A key right after escape would be read as one pressed with alt.
    await tty.press("Escape")
    await tty.until(lambda text: "Look for clusters now" not in text)
    await tty.press("/", "x", "y", "z")
    await tty.until(lambda text: "0 of 1" in text)
    await tty.press("Escape")
    await tty.until(lambda text: "0 of 1" not in text)
    await tty.press("c")
    await tty.until(lambda text: "Connect to a cluster" in text)
    await tty.press("1", "2", "7", ".", "0", ".", "0", ".", "1", ":", "1", "Enter")
    await tty.until(lambda text: "Connecting" not in text and "127.0.0.1:1" in text)
    await tty.press("Escape")
    await tty.until(lambda text: "Connect to a cluster" not in text)
    await tty.press("q")
    await tty.until(lambda text: text.rstrip().endswith("READY"))
    assert await tty.modes() == modes
    assert await tty.line_settings() == settings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_terminal_is_restored_after_a_signal(
    terminal: Callable[..., object], number: signal.Signals
) -> None:
    tty: Terminal = await terminal()  # type: ignore[misc]
    modes, settings = await tty.modes(), await tty.line_settings()
    await opened(tty)
    os.kill(await tty.castray_pid(), number)
    await tty.until(lambda text: text.rstrip().endswith("READY"))
    assert await tty.modes() == modes
    await tty.type("echo code $?")
    await tty.until(lambda text: f"code {128 + number}" in text)
    assert await tty.line_settings() == settings


async def test_suspended_and_resumed(terminal: Callable[..., object]) -> None:
    tty: Terminal = await terminal()  # type: ignore[misc]
    modes = await tty.modes()
    await opened(tty)
    await tty.press("C-z")
    await tty.until(lambda text: "3 Transfers" not in text and "READY" in text)
    assert await tty.modes() == modes
    await tty.type("fg")
    await tty.until(lambda text: "3 Transfers" in text)
    await tty.press("q")
    await tty.until(lambda text: text.rstrip().endswith("READY"))


async def test_ascii_and_resize(terminal: Callable[..., object]) -> None:
    tty: Terminal = await terminal(LANG="C")  # type: ignore[misc]
    assert (await opened(tty, "--ascii")).isascii()
    await tty.tmux("resize-window", "-x", "120", "-y", "40")
    screen = await tty.until(lambda text: len(text.splitlines()) == 40 and "STORE" in text)
    assert screen.isascii()
    await tty.press("q")
    await tty.until(lambda text: text.rstrip().endswith("READY"))


async def test_no_color_sends_no_colour(terminal: Callable[..., object]) -> None:
    tty: Terminal = await terminal(NO_COLOR="1")  # type: ignore[misc]
    await opened(tty)
    coloured = await tty.tmux("capture-pane", "-p", "-e")
    assert "\x1b[38" not in coloured
    assert "\x1b[48" not in coloured
    assert "\x1b[7m" in coloured or ";7m" in coloured or "\x1b[1;7" in coloured
    await tty.press("q")
    await tty.until(lambda text: text.rstrip().endswith("READY"))


class Fleet:
    """castray in a terminal, connected to one real cluster by its keys alone."""

    def __init__(self, tty: Terminal, name: str) -> None:
        self.tty = tty
        self.name = name

    def state(self, screen: str) -> str:
        """What the clusters pane says of the cluster."""
        rows = [line for line in screen.splitlines() if line.startswith("│")]
        return next((row for row in rows if f" {self.name} " in row and row[2] != "E"), "")

    async def connect(self) -> None:
        """Discovers, finds the cluster among all of this host's, and connects to it."""
        await self.tty.press("d")
        await self.tty.until(lambda text: "found in" in text)
        await self.tty.press("1")
        await self.filter(self.name)
        await self.tty.until(lambda text: "found" in self.state(text))
        await self.connect_again()

    async def filter(self, words: str) -> None:
        await self.tty.press("/")
        await self.tty.tmux("send-keys", "-l", words)
        await self.tty.press("Enter")
        # The keys of the pane come back when the line has gone.
        await self.tty.until(lambda text: f"filter: {words} " in text and "enter Details" in text)

    async def connect_again(self) -> None:
        await self.tty.press("c")
        await self.tty.until(lambda text: f"Enter connects to {self.name}." in text)
        # A head that has only just started may not answer for its GCS yet: once more, then.
        for _ in range(5):
            await self.tty.press("Enter")
            screen = await self.tty.until(
                lambda text: "connected" in self.state(text) or "the cluster may be" in text
            )
            if "connected" in self.state(screen):
                return
            await asyncio.sleep(1)  # it says nothing when it comes to
        raise AssertionError(screen)

    async def fill_in_transfer(self, source: Path, target: str) -> None:
        """Fills in the transfer dialog: what to send, and the path on the targets."""
        await self.tty.press("t")
        await self.tty.until(lambda text: "quote names with spaces" in text)
        await self._fill_in("Source", str(source))
        await self.tty.press("Tab", "Tab")
        await self._fill_in("Path", target)

    async def _fill_in(self, label: str, text: str) -> None:
        def is_empty(screen: str) -> bool:
            [value] = [
                line.partition(f"│ {label} ")[2]
                for line in screen.splitlines()
                if f"│ {label} " in line
            ]
            return not value.strip("│╭╮╰╯ ")

        await self.tty.press("End", "C-u")
        await self.tty.until(is_empty)
        await self.tty.tmux("send-keys", "-l", text)
        await self.tty.until(lambda screen: not is_empty(screen) and text[-8:] in screen)


@pytest.mark.ray
async def test_a_file_reaches_the_nodes_of_a_real_cluster_by_keyboard_alone(
    terminal: Callable[..., object], start_cluster: StartCluster, tmp_path: Path
) -> None:
    ours = await start_cluster(node_count=2)
    source, arrived = tmp_path / "weights.bin", tmp_path / "arrived"
    source.write_bytes(os.urandom(3_000_000))
    tty: Terminal = await terminal()  # type: ignore[misc]
    modes, settings = await tty.modes(), await tty.line_settings()
    await opened(tty)
    fleet = Fleet(tty, f"localhost-{ours.dashboard_address.rpartition(':')[2]}")
    await fleet.connect()

    await tty.press("2")
    await fleet.filter(f"cluster:{fleet.name}")
    await tty.until(lambda text: "Nodes 2 of 3" in text and text.count("alive") >= 3)
    await tty.press("s")
    await tty.until(lambda text: "cluster ↑" in text)
    await tty.press("g", "Space", "Space")
    await tty.until(lambda text: "2 marked" in text)
    await fleet.fill_in_transfer(source, f"{arrived}/")
    await tty.press("Enter")
    await tty.until(lambda text: "2.9M to 2 of 2" in text)
    await tty.press("Enter")
    await tty.until(lambda text: "2/2 ok" in text)
    assert (arrived / "weights.bin").read_bytes() == source.read_bytes()

    await tty.press("3", "Enter")
    details = await tty.until(lambda text: text.count("verified") + text.count("identical") == 2)
    assert "sha256:" in details
    await tty.press("Escape")
    await tty.until(lambda text: "3 Transfers" in text)
    await tty.press("?")
    await tty.until(lambda text: "Cancel the transfer under the cursor" in text)
    await tty.press("Escape")
    await tty.until(lambda text: "3 Transfers" in text and "Cancel the transfer" not in text)

    await tty.press("1", "x")
    await tty.until(lambda text: f"Disconnect from {fleet.name}?" in text)
    await tty.press("y")
    await tty.until(lambda text: "found" in fleet.state(text))
    await fleet.connect_again()

    await tty.press("q")
    await tty.until(lambda text: text.rstrip().endswith("READY"))
    assert await tty.modes() == modes
    assert await tty.line_settings() == settings


@pytest.mark.ray
async def test_a_signal_amid_a_transfer_leaves_nothing_half_written(
    terminal: Callable[..., object], start_cluster: StartCluster, tmp_path: Path
) -> None:
    ours = await start_cluster()
    source, arrived = tmp_path / "large.bin", tmp_path / "arrived"
    arrived.mkdir()
    with source.open("wb") as file:
        file.truncate(8 * 1024**3)
    tty: Terminal = await terminal()  # type: ignore[misc]
    modes, settings = await tty.modes(), await tty.line_settings()
    await opened(tty)
    fleet = Fleet(tty, f"localhost-{ours.dashboard_address.rpartition(':')[2]}")
    await fleet.connect()

    await tty.press("2", "G")
    await fleet.fill_in_transfer(source, f"{arrived}/")
    await tty.press("C-s")
    await tty.until(lambda text: "running" in text and "M/s" in text)
    await tty.press("q")
    await tty.until(lambda text: "Quit while files are being sent" in text)
    await tty.press("n")
    await tty.until(lambda text: "3 Transfers" in text)
    os.kill(await tty.castray_pid(), signal.SIGTERM)
    await tty.until(lambda text: text.rstrip().endswith("READY"))
    assert await tty.modes() == modes
    await tty.type("echo code $?")
    await tty.until(lambda text: f"code {128 + signal.SIGTERM}" in text)
    assert await tty.line_settings() == settings
    # The agents on the nodes notice by themselves that their castray is gone.
    await tty.until(lambda _: not any(arrived.iterdir()))
