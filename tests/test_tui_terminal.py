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
