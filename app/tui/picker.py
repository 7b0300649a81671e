"""A list to choose from by a few letters: savepoints, earlier messages, themes. Nothing changes until Enter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from app.commands import rank
from app.tui.plain import one_line

WIDTH = 66


@dataclass(frozen=True)
class Pick:
    """One thing to choose: its key, the words that are searched and shown, and a note on the right."""

    key: str
    words: str
    note: str = ""
    mark: str = " "


class Picker(ModalScreen[str | None]):
    """Asks for one of several; gives its key, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Close"),
        ("down", "move(1)", "Next"),
        ("up", "move(-1)", "Previous"),
        ("pagedown", "move(8)", "Further down"),
        ("pageup", "move(-8)", "Further up"),
    ]

    def __init__(
        self, title: str, picks: Sequence[Pick], *, hint: str = "", looked: Callable[[str], None] | None = None
    ) -> None:
        """`looked` is called with the key that is highlighted, for what can be tried on at once."""
        super().__init__()
        self._title = title
        self._hint = hint or "Enter chooses · Esc closes"
        self._picks = list(picks)
        self._looked = looked
        self._found: list[Pick] = []

    def compose(self) -> ComposeResult:
        """A search line above the list."""
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            yield Input(placeholder="type to search", compact=True, id="search")
            yield OptionList(markup=False, compact=True)
            yield Static(Content(self._hint), classes="hint")

    def on_mount(self) -> None:
        """Show everything at first."""
        self.query_one(OptionList).can_focus = False
        self._search("")

    def _search(self, query: str) -> None:
        fitting: dict[str, list[Pick]] = {}
        for pick in self._picks:
            fitting.setdefault(pick.words, []).append(pick)
        self._found = [pick for words in rank(query, fitting) for pick in fitting[words]] if query else self._picks
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options([Option(_row(pick)) for pick in self._found])
        if not self._found:
            listed.add_option(Option(Content.styled("nothing fits", "$foreground 55%"), disabled=True))
        listed.highlighted = 0 if self._found else None

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search as letters come."""
        self._search(event.value)

    def on_input_submitted(self) -> None:
        """Enter takes what is highlighted."""
        place = self.query_one(OptionList).highlighted
        if place is not None and place < len(self._found):
            self.dismiss(self._found[place].key)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click takes a line."""
        self.dismiss(self._found[event.option_index].key)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show what would be taken."""
        if self._looked and event.option_index < len(self._found):
            self._looked(self._found[event.option_index].key)

    def action_move(self, by: int) -> None:
        """Move the highlight."""
        listed = self.query_one(OptionList)
        if self._found:
            place = listed.highlighted if listed.highlighted is not None else 0
            listed.highlighted = min(max(place + by, 0), len(self._found) - 1)

    def action_dismiss(self, result: None = None) -> None:  # type: ignore[override]
        """Choose nothing."""
        self.dismiss(None)


def _row(pick: Pick) -> Content:
    room = WIDTH - 6 - cell_len(pick.note)
    words = one_line(pick.words, room)
    return Content.assemble(
        (pick.mark, "$accent"), " ", words, " " * max(room - cell_len(words) + 1, 1), (pick.note, "$foreground 55%")
    )
