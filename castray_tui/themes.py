"""castray's own themes. Any of Textual's can be chosen as well."""

from __future__ import annotations

from collections.abc import Collection

from textual.theme import Theme

from castray_tui.core.errors import ConfigError

DARK = Theme(
    name="castray-dark",
    primary="#6cb6ff",
    secondary="#96d0ff",
    accent="#daaa3f",
    success="#6bc46d",
    warning="#e0a03c",
    error="#f47067",
    foreground="#c6d0dc",
    background="#10151c",
    surface="#151b24",
    panel="#1e2631",
    variables={
        "block-cursor-background": "#24405f",
        "block-cursor-foreground": "#f0f4f8",
        "border-blurred": "#2c3643",
        "row-cursor": "#24405f",
        "row-cursor-blurred": "#1c2530",
    },
)
LIGHT = Theme(
    name="castray-light",
    primary="#0b5cad",
    secondary="#1f4e79",
    accent="#8a5a00",
    success="#1a7f37",
    warning="#9a5b00",
    error="#c62828",
    foreground="#1f2933",
    background="#fafbfc",
    surface="#f1f4f7",
    panel="#e4e9ee",
    dark=False,
    variables={
        "block-cursor-background": "#cfe3f7",
        "block-cursor-foreground": "#10202e",
        "border-blurred": "#c4ced8",
        "row-cursor": "#cfe3f7",
        "row-cursor-blurred": "#e9eef3",
    },
)
ANSI = Theme(
    name="castray-ansi",
    ansi=True,
    primary="ansi_cyan",
    secondary="ansi_bright_cyan",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    accent="ansi_yellow",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "block-cursor-background": "ansi_blue",
        "block-cursor-foreground": "ansi_bright_white",
        "border": "ansi_cyan",
        "border-blurred": "ansi_bright_black",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "row-cursor": "ansi_blue",
        "row-cursor-blurred": "ansi_default",
        "scrollbar": "ansi_cyan",
        "scrollbar-background": "ansi_default",
    },
)
OWN_THEMES = (DARK, LIGHT, ANSI)


def check_theme(name: str, known: Collection[str]) -> None:
    """Refuses a theme that does not exist.

    Args:
        name: What the settings say.
        known: The names of all themes there are.

    Raises:
        ConfigError: It names the nearest theme, and all.
    """
    if name in known:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only after a mistake

    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"There is no theme {name!r} (ui.theme)",
        remedy=f"{meant}There are {', '.join(sorted(known))}",
    )
