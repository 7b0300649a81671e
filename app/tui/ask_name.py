"""Asks for a name, and once more before a name is taken from another savepoint."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from app.tui.plain import literal, plain


class AskName(ModalScreen[str | None]):
    """A modal with one line; gives the name, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Close")]

    def __init__(
        self,
        title: str,
        what: str,
        *,
        suggested: str = "",
        taken: Collection[str] = (),
        movable: bool = True,
        does: str = "saves",
    ) -> None:
        """`taken` are names that now point elsewhere: one of them needs a second Enter, or cannot be had.

        `does` is what Enter does.
        """
        super().__init__()
        self._title = title
        self._what = what
        self._suggested = suggested
        self._taken = frozenset(taken)
        self._movable = movable
        self._does = does
        self._confirmed = ""

    def compose(self) -> ComposeResult:
        """The question, the line, the hint."""
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            yield Static(literal(self._what), classes="what")
            yield Input(plain(self._suggested), placeholder="name", compact=True, id="name", select_on_focus=True)
            yield Static(f"Enter {self._does} · Esc closes", classes="hint", markup=False)

    def on_input_changed(self) -> None:
        """Another name, another answer."""
        self._confirmed = ""
        self._say(f"Enter {self._does} · Esc closes", False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the name; the first Enter on a taken one only says so."""
        name = event.value.strip()
        if not name:
            self._say("A name has at least one letter.", True)
        elif name in self._taken and not self._movable:
            self._say(f"“{name}” is taken; a branch needs a name of its own.", True)
        elif name in self._taken and self._confirmed != name:
            self._confirmed = name
            self._say(f"“{name}” is taken. Enter again moves the name here.", True)
        else:
            self.dismiss(name)

    def _say(self, words: str, warn: bool) -> None:
        hint = self.query_one(".hint", Static)
        hint.update(literal(words))
        hint.set_class(warn, "-warning")

    def action_dismiss(self, result: None = None) -> None:  # type: ignore[override]
        """Choose nothing."""
        self.dismiss(None)
