"""A reply's thinking, folded: one line that says how long it is, and opens by a click, Enter or its key."""

from __future__ import annotations

from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from app.tui.plain import literal


class ThoughtLine(Static, can_focus=True):
    """The line. Enter or a click folds and unfolds."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "fold", "Fold or unfold the thinking", show=False)]

    def action_fold(self) -> None:
        """Tell the section."""
        if isinstance(self.parent, Thought):
            self.parent.toggle()

    def on_click(self) -> None:
        """A click is Enter."""
        self.action_fold()


class Thought(Vertical):
    """A thinking section. Its text is plain: what a model says to itself is no Markdown to be laid out."""

    def __init__(self) -> None:
        super().__init__()
        self._line = ThoughtLine("", markup=False)
        self._words = Static("", classes="thought", markup=False)
        self._words.display = False
        self._text = ""
        self._tokens: int | None = None
        self._began_at: float | None = None
        self._spent_s: float | None = None
        self._open = False

    def compose(self) -> ComposeResult:
        """The line above the words."""
        yield self._line
        yield self._words

    @property
    def summary(self) -> str:
        """What the line says: thinking · 412 tokens · 12 s."""
        spent = self._spent_s if self._spent_s is not None else monotonic() - self._began_at if self._began_at else None
        words = ["thinking…" if self._open else "thinking"]
        if self._tokens is not None:
            words.append(f"{self._tokens} token{'' if self._tokens == 1 else 's'}")
        if spent is not None:
            words.append(f"{spent:.0f} s" if spent >= 1 else "<1 s")
        return " · ".join(words)

    @property
    def unfolded(self) -> bool:
        """Whether the words are seen."""
        return bool(self._words.display)

    def begin(self) -> None:
        """Count the time from now on, until a text comes that is not open."""
        self._began_at, self._spent_s = monotonic(), None

    def show(self, text: str, tokens: int | None, *, open: bool = False) -> None:
        """Show the thinking so far; `open` while it goes on. None keeps the number of tokens."""
        if not open and self._began_at is not None and self._spent_s is None:
            self._spent_s = monotonic() - self._began_at
        self._open = open
        self._tokens = self._tokens if tokens is None else tokens
        if text != self._text:
            self._text = text
            if self.unfolded:
                self._words.update(literal(text.strip()))
        self._paint_line()

    def toggle(self) -> None:
        """Fold or unfold."""
        self._words.display = not self.unfolded
        if self.unfolded:
            self._words.update(literal(self._text.strip()))
        self._paint_line()

    def on_mount(self) -> None:
        """Paint the line."""
        self._paint_line()

    def _paint_line(self) -> None:
        if self._line.is_attached:
            self._line.update(Content(f"{'▾' if self.unfolded else '▸'} {self.summary}"))
