"""The palette's source: every command of the registry."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from app.commands import COMMANDS, Command, key_words


class Commands(Provider):
    """Finds commands by their names and by what they do."""

    async def discover(self) -> Hits:
        """Give all of them while nothing is typed."""
        for command in _listed():
            yield DiscoveryHit(Content(_words(command)), partial(self._run, command), command.title, command.help)

    async def search(self, query: str) -> Hits:
        """Give what fits the letters."""
        matcher = self.matcher(query)
        for command in _listed():
            words = _words(command)
            score = max(matcher.match(words), matcher.match(command.help) * 0.6)
            if score > 0:
                yield Hit(score, matcher.highlight(words), partial(self._run, command), command.title, command.help)

    async def _run(self, command: Command) -> None:
        await self.screen.run_action(f"screen.deed('{command.name}')")


def _listed() -> list[Command]:
    return [command for command in COMMANDS if command.palette]


def _words(command: Command) -> str:
    keys = ", ".join(key_words(key) for key in command.keys + command.reply_keys)
    return f"{command.title}  {keys}".rstrip()
