"""The list above the prompt while a slash command is typed: commands first, then what their argument is chosen from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from app.commands import BY_NAME, Completes, complete, key_words, rank
from app.tui.plain import one_line

Choices = Callable[[Completes], Sequence[str]]
MOST = 8


class Completion(OptionList, can_focus=False):
    """Shows what the line could become. The prompt keeps the focus; its Up, Down and Tab arrive here."""

    @dataclass
    class Picked(Message):
        """Put this line into the prompt; `run` when it is complete."""

        line: str
        run: bool

    def __init__(self) -> None:
        super().__init__(id="completion", markup=False)
        self.display = False
        self._choices_shown: list[str] = []

    def follow(self, text: str, choices: Choices) -> None:
        """Show what fits the text so far, or nothing. `choices` lists what an argument is chosen from."""
        rows = _rows(text, choices)
        self._choices_shown = [line for line, _ in rows]
        self.clear_options()
        self.add_options([Option(content) for _, content in rows])
        self.display = bool(rows)
        self.highlighted = 0 if rows else None

    def close(self) -> None:
        """Show nothing until the text changes."""
        self.display = False

    @property
    def line(self) -> str:
        """The line that is highlighted, "" where nothing is."""
        if not self.display or self.highlighted is None:
            return ""
        return self._choices_shown[self.highlighted]

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click takes the line."""
        event.stop()
        self.post_message(self.Picked(self._choices_shown[event.option_index], run=True))


def completions(text: str, choices: Choices) -> list[str]:
    """What a text could become, best first."""
    return [line for line, _ in _rows(text, choices)]


def _rows(text: str, choices: Choices) -> list[tuple[str, Content]]:
    if not text.startswith("/") or "\n" in text:
        return []
    name, space, argument = text[1:].partition(" ")
    if not space:
        if "/" in name:
            return []
        found = complete(name)
        return [(f"/{c.name}" + (" " if c.argument else ""), _command_row(c.name)) for c in found]
    command = BY_NAME.get(name.lower())
    if command is None or not command.slash or not command.completes:
        return []
    options = rank(argument.strip(), choices(command.completes))
    if options == [argument.strip()]:
        return []
    return [(f"/{command.name} {option}", Content(one_line(option, 60))) for option in options[:MOST]]


def _command_row(name: str) -> Content:
    command = BY_NAME[name]
    keys = ", ".join(key_words(key) for key in command.keys)
    return Content.assemble(
        (f"{command.usage:<19}", "bold $primary"), (f" {keys:<8}", "$foreground 55%"), (command.help, "$foreground")
    )
