"""Keys and commands, read from the registry."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from app.commands import COMMANDS, GROUPS, PROMPT_KEYS, Command, key_words


class HelpScreen(ModalScreen[None]):
    """One page that scrolls; Esc, F1 or q closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,f1,q", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """Prompt keys first, then the commands by group."""
        with VerticalScroll(classes="box") as box:
            box.border_title = "HELP"
            box.border_subtitle = "↑ ↓ scroll · Esc closes"
            yield Static(_page(), markup=False)


def _page() -> Content:
    lines = [_heading("Prompt")]
    lines += [_row(keys, "", what) for keys, what in PROMPT_KEYS]
    for group in GROUPS:
        lines += [Content(""), _heading(group)]
        lines += [_command(command) for command in COMMANDS if command.group == group]
    lines += [
        Content(""),
        Content.styled(
            "r e f y n [ ] work on a message that has the focus: Shift+Tab, or a click, gives it.\n"
            "A savepoint is called by its name, by the start of its id, or NAME~2 for two turns before.",
            "$foreground 55%",
        ),
    ]
    return Content("\n").join(lines)


def _heading(words: str) -> Content:
    return Content.styled(words.upper(), "bold $accent")


def _command(command: Command) -> Content:
    keys = ", ".join(key_words(key) for key in command.keys + command.reply_keys)
    return _row(keys, command.usage if command.slash else command.title, command.help)


def _row(keys: str, usage: str, what: str) -> Content:
    if not usage:
        return Content.assemble((f"{keys:<34}", "bold $primary"), (what, "$foreground"))
    return Content.assemble((f"{keys:<9}", "bold $primary"), (f"{usage:<25}", "$secondary"), (what, "$foreground"))
