"""The panel of branches and savepoints. Moving in it previews; Enter goes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events, on
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from app.events import ConversationRow, TreeRow
from app.tui.plain import one_line
from app.tui.tree_layout import Line, lines


class TreePanel(OptionList):
    """The tree of this conversation, and below it the other conversations."""

    @dataclass
    class Looked(Message):
        """The highlight came to a savepoint: paint its text, change nothing. None: the look is over."""

        node_id: str | None

    @dataclass
    class Chosen(Message):
        """The person wants to go to a savepoint."""

        node_id: str

    @dataclass
    class ConversationChosen(Message):
        """The person wants to go to another conversation."""

        conversation_id: str

    def __init__(self) -> None:
        super().__init__(id="tree", markup=False)
        self.border_title = "TREE"
        self._drawn: list[Line] = []
        self._others: list[ConversationRow] = []
        self._drawn_width = 0

    def show(self, rows: Sequence[TreeRow], conversations: Sequence[ConversationRow]) -> None:
        """Paint the tree anew; the highlight goes to the live position."""
        self._drawn = lines(rows)
        self._others = [row for row in conversations if not row.is_here and row.turns]
        self._draw()

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the lines into the new width."""
        if self._drawn_width != self.content_size.width:
            self._draw()

    def _draw(self) -> None:
        self._drawn_width = width = self.content_size.width or 28
        options = [Option(_line(line, width), f"node:{line.row.node_id}") for line in self._drawn]
        if not options:
            options = [Option(Content.styled("nothing yet", "$foreground 55%"), "none", disabled=True)]
        if self._others:
            options.append(Option(Content.styled("\nother conversations", "$foreground 55%"), "head", disabled=True))
            options += [Option(_other(row, width), f"talk:{row.conversation_id}") for row in self._others]
        with self.prevent(OptionList.OptionHighlighted):
            self.clear_options()
            self.add_options(options)
        self._go_here()

    def _go_here(self) -> None:
        """Put the highlight on the live position."""
        with self.prevent(OptionList.OptionHighlighted):
            self.highlighted = next((place for place, line in enumerate(self._drawn) if line.row.is_here), None)
        if self.highlighted is not None:
            self.call_after_refresh(self.scroll_to_highlight)

    @on(OptionList.OptionHighlighted)
    def _look(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        kind, _, key = (event.option_id or "").partition(":")
        if self.has_focus:
            here = any(line.row.is_here and line.row.node_id == key for line in self._drawn)
            self.post_message(self.Looked(key if kind == "node" and not here else None))

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        kind, _, key = (event.option_id or "").partition(":")
        if kind == "node":
            self.post_message(self.Chosen(key))
        elif kind == "talk":
            self.post_message(self.ConversationChosen(key))

    def on_blur(self) -> None:
        """A look ends when the focus goes."""
        self._go_here()
        self.post_message(self.Looked(None))


def _line(line: Line, width: int) -> Content:
    row = line.row
    right = "◀ here" if row.is_here else f"t{row.turn} {row.total_tokens:>5}"
    room = width - cell_len(line.rails) - 3 - cell_len(right)
    words = ", ".join(row.labels) if row.labels else f"“{row.preview}”" if row.preview else "(empty)"
    if not row.labels:
        words = one_line(row.preview, room - 2) if row.preview else "…"
        words = f"“{words}”" if row.role == "user" else words
    words = one_line(words, room)
    style = "$accent bold" if row.labels else "$foreground" if row.on_path else "$foreground 55%"
    mark_style = "$accent" if row.labels else "$primary" if row.on_path else "$foreground 55%"
    return Content.assemble(
        (line.rails, "$primary 50%"), (line.mark, mark_style), " ", (words, style),
        " " * max(room - cell_len(words) + 1, 1), (right, "$success bold" if row.is_here else "$foreground 55%"),
    )  # fmt: skip


def _other(row: ConversationRow, width: int) -> Content:
    right = f"t{row.turns}"
    room = width - 3 - len(right)
    words = one_line(row.title, room)
    return Content.assemble(
        ("◇", "$secondary"),
        " ",
        (words, "$foreground"),
        " " * max(room - cell_len(words) + 1, 1),
        (right, "$foreground 55%"),
    )
