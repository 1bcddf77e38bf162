"""The colours of roles in the theme that is on."""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from textual.app import App
from textual.color import Color

from castray_tui.screens.widgets.cells import Role

_VARIABLES: Mapping[Role, str] = {
    "ok": "success",
    "warn": "warning",
    "bad": "error",
    "accent": "primary",
    "title": "secondary",
}
_BOLD: frozenset[Role] = frozenset({"strong", "title", "bad"})
_DIM_BLEND = 0.45

_known: dict[tuple[str, str], Mapping[Role, Style]] = {}


def role_styles(app: App[object]) -> Mapping[Role, Style]:
    """A style without background for each role, in the app's current theme."""
    theme = app.current_theme
    name = (theme.name, theme.primary)
    styles = _known.get(name)
    if styles is None:
        styles = _known[name] = _make(app.theme_variables, ansi=theme.ansi)
    return styles


def _make(variables: Mapping[str, str], *, ansi: bool) -> Mapping[Role, Style]:
    styles: dict[Role, Style] = {"": Style.null(), "strong": Style(bold=True)}
    for role, variable in _VARIABLES.items():
        color = Color.parse(variables[variable]).rich_color
        styles[role] = Style(color=color, bold=True if role in _BOLD else None)
    if ansi:
        styles["dim"] = Style(dim=True)
    else:
        foreground = Color.parse(variables["foreground"])
        background = Color.parse(variables["background"])
        styles["dim"] = Style(color=foreground.blend(background, _DIM_BLEND).rich_color)
    return styles
