"""What an empty conversation shows: three things to try."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

_LOGO = ("●━━┳━━● ", "   ┗━━○ ")
_TRIES = (
    ("Enter", "send a message", "the model answers here, on this machine"),
    ("F5  F9", "quicksave, quickload", "also in the middle of a reply"),
    ("Ctrl+S", "save under a name", "then /fork and try another way"),
    ("Ctrl+T", "the tree of all branches", "Enter on one of them goes there"),
    ("F1", "all keys and commands", "type / to search them as you write"),
)


class Welcome(Static):
    """Greets, and says which keys to try first."""

    def __init__(self) -> None:
        lines = [
            Content.assemble((_LOGO[0], "$accent bold"), ("forkpoint", "bold $foreground")),
            Content.assemble((_LOGO[1], "$accent bold"), ("savestates for conversations", "$foreground 55%")),
            Content(""),
        ]
        lines += [
            Content.assemble((f"{keys:<8}", "bold $primary"), (f"{what:<26}", "$foreground"), (why, "$foreground 55%"))
            for keys, what, why in _TRIES
        ]
        super().__init__(Content("\n").join(lines))
