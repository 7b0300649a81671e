"""Keys and commands, read from the registry."""

from __future__ import annotations

from textwrap import wrap
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
            yield Static("", id="page", markup=False)

    def on_resize(self) -> None:
        """Fit the page into the window."""
        box = min(100, int(self.size.width * 0.96))
        self.query_one("#page", Static).update(_page(box - 6))


def _page(width: int) -> Content:
    lines = [_heading("Prompt")]
    lines += [_row(keys, "", what, width) for keys, what in PROMPT_KEYS]
    for group in GROUPS:
        lines += [Content(""), _heading(group)]
        lines += [_command(command, width) for command in COMMANDS if command.group == group]
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


def _command(command: Command, width: int) -> Content:
    keys = ", ".join(key_words(key) for key in command.keys + command.reply_keys)
    return _row(keys, command.usage if command.slash else command.title, command.help, width)


def _row(keys: str, usage: str, what: str, width: int) -> Content:
    """Keys, usage, and the sentence wrapped beside them, or below them where there is no room."""
    if width < 60:
        head = Content.assemble((f"{keys}  " if keys else "", "bold $primary"), (usage, "$secondary"))
        return Content("\n").join([head, *[Content("  " + line) for line in wrap(what, max(width - 2, 10))]])
    if usage:
        left = Content.assemble((f"{keys:<8}", "bold $primary"), (f"{usage:<24}", "$secondary"))
    else:
        left = Content.styled(f"{keys:<32}", "bold $primary")
    first, *others = wrap(what, max(width - 32, 20))
    return Content("\n").join([left + first, *[Content(" " * 32 + line) for line in others]])
