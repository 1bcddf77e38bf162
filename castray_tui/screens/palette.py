"""The command palette: every action that has a key here, and the themes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.binding import ActiveBinding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

_HIDDEN = ("app.commands", "app.palette")
_MOVES = "table."


class ActionProvider(Provider):
    """Offers the active bindings of the screen, so that it never promises what does not work."""

    def _actions(self) -> Iterator[tuple[str, str, ActiveBinding]]:
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.id is None or binding.id in seen or binding.id in _HIDDEN:
                continue
            if binding.id.startswith(_MOVES) and binding.id != "table.choose":
                continue
            if not active.enabled or not binding.description:
                continue
            seen.add(binding.id)
            key = self.app.get_key_display(binding)
            yield f"{binding.description} ({key})", binding.tooltip, active

    async def _run(self, active: ActiveBinding) -> None:
        await self.app.run_action(active.binding.action, active.node)

    def _set_theme(self, name: str) -> None:
        self.app.theme = name

    async def discover(self) -> Hits:
        """Everything, before anything is typed."""
        for title, tooltip, active in self._actions():
            yield DiscoveryHit(Content(title), partial(self._run, active), title, tooltip)

    async def search(self, query: str) -> Hits:
        """Actions and themes whose words match."""
        matcher = self.matcher(query)
        for title, tooltip, active in self._actions():
            score = max(matcher.match(title), 0.9 * matcher.match(tooltip))
            if score > 0:
                yield Hit(
                    score, matcher.highlight(title), partial(self._run, active), title, tooltip
                )
        for name in sorted(self.app.available_themes):
            title = f"Theme {name}"
            score = matcher.match(title)
            if score > 0:
                yield Hit(
                    score, matcher.highlight(title), partial(self._set_theme, name), title,
                    "Change the colours until castray ends",
                )  # fmt: skip
