"""The signs that castray draws with, in Unicode and in ASCII, and the meters made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from castray_tui.screens.widgets.cells import Cell, Role
from castray_tui.screens.widgets.figures import UNKNOWN, percent

WARN_PERCENT = 75.0
BAD_PERCENT = 90.0


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs; each is one terminal cell wide unless its name says otherwise."""

    ascii_only: bool
    ellipsis: str
    mark: str
    local: str
    external: str
    alive: str
    dead: str
    draining: str
    stale: str
    unreachable: str
    waiting: str
    found: str
    bar_full: str
    bar_rest: str
    up: str
    down: str
    arrow: str
    sent: str
    received: str
    dot: str
    locked: str


UNICODE_GLYPHS = Glyphs(
    ascii_only=False,
    ellipsis="…",
    mark="▌",
    local="L",
    external="E",
    alive="●",
    dead="✗",
    draining="◐",
    stale="◌",
    unreachable="○",
    waiting="…",
    found="◇",
    bar_full="━",
    bar_rest="─",
    up="↑",
    down="↓",
    arrow="→",
    sent="↑",
    received="↓",
    dot="·",
    locked="▪",
)

ASCII_GLYPHS = Glyphs(
    ascii_only=True,
    ellipsis="~",
    mark="*",
    local="L",
    external="E",
    alive="+",
    dead="x",
    draining="%",
    stale="?",
    unreachable="!",
    waiting=".",
    found="o",
    bar_full="#",
    bar_rest="-",
    up="^",
    down="v",
    arrow="->",
    sent="^",
    received="v",
    dot="|",
    locked="#",
)


def glyphs_for(ascii_only: bool) -> Glyphs:
    """The set of signs for a terminal."""
    return ASCII_GLYPHS if ascii_only else UNICODE_GLYPHS


def load_role(value_percent: float | None) -> Role:
    """How a share in use is coloured: quiet until it matters."""
    if value_percent is None:
        return "dim"
    if value_percent >= BAD_PERCENT:
        return "bad"
    return "warn" if value_percent >= WARN_PERCENT else ""


def bar(value_percent: float, width: int, glyphs: Glyphs, role: Role) -> Cell:
    """A bar of ``width`` cells, filled to ``value_percent``; anything above nothing shows."""
    bounded = min(max(value_percent, 0.0), 100.0)
    full = int(bounded * width / 100 + 0.5)
    if bounded > 0 and full == 0:
        full = 1
    if bounded < 100 and full == width:
        full = width - 1
    return ((glyphs.bar_full * full, role), (glyphs.bar_rest * (width - full), "dim"))


def meter(value_percent: float | None, width: int, glyphs: Glyphs) -> Cell:
    """A share as a figure, with a bar before it where there is room for one.

    The figure always stands, so that the bar's colour says nothing that the text does not.
    """
    role = load_role(value_percent)
    figure = percent(value_percent)
    bar_width = width - 5
    if bar_width < 3:
        return ((figure.rjust(width), role),)
    if value_percent is None:
        return ((UNKNOWN.rjust(width), "dim"),)
    bar_role: Role = role or "accent"
    return (*bar(value_percent, bar_width, glyphs, bar_role), (f" {figure:>4}", role))


_ASCII_FOR = {
    **dict.fromkeys("─━═╌╍┄┅┈┉╴╶╸╺▁▂▃▄▔▀⎯", "-"),
    **dict.fromkeys("│┃║╎╏┆┇┊┋╵╷╹╻▏▎▍▌▐▕▊▉█▋", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋▘▝▖▗▛▜▙▟", "+"),
    **dict.fromkeys("←◀◂«", "<"),
    **dict.fromkeys("→▶▸»\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}", ">"),
    **dict.fromkeys("↑▲△▴", "^"),
    **dict.fromkeys("↓▼▽▾", "v"),
    **dict.fromkeys("●•◉■▪✓✔☑", "*"),
    **dict.fromkeys("○◌◇□▫", "o"),
    **dict.fromkeys("✗✘✖", "x"),
    **dict.fromkeys("\N{EN DASH}\N{EM DASH}", "-"),
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{NO-BREAK SPACE}": " ",
    "…": "~",
    "·": ".",
}


def ascii_text(text: str) -> str:
    """The text with every character outside ASCII replaced by ASCII of the same width."""
    if text.isascii():
        return text
    return "".join(
        character if character.isascii() else _ASCII_FOR.get(character) or "?" * cell_len(character)
        for character in text
    )


class AsciiFilter(LineFilter):
    """Lets nothing but ASCII through to the terminal, whoever drew it.

    castray's own parts draw ASCII by themselves; this catches what Textual's widgets, borders and
    scrollbars draw, and names from clusters.
    """

    def apply(self, segments: Sequence[Segment], background: Color) -> list[Segment]:
        """The segments with their text in ASCII; ``background`` plays no part."""
        return [
            segment
            if segment.control or segment.text.isascii()
            else Segment(ascii_text(segment.text), segment.style, segment.control)
            for segment in segments
        ]
