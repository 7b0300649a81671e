"""The frame around the prompt: says what Enter would do, and which keys matter now."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from app.tui.message_view import MessageView
from app.tui.plain import one_line
from app.tui.prompt import Prompt
from app.tui.shown import Shown
from app.tui.tree_panel import TreePanel

IDLE = "/ commands · F5 save · F9 load"
BUSY = "Esc stops · F5 saves here · Enter sends next"
REPLY = "r another · e edit · f fork · y copy · n name · [ ] siblings"
TREE = "↑ ↓ preview · Enter goes there · Esc back"
ONCE_MORE = "Esc again: choose an earlier message"


class PromptBox(Vertical):
    """Holds the prompt."""

    def compose(self) -> ComposeResult:
        """The mark and the text field."""
        with Horizontal():
            yield Static("❯", classes="mark")
            yield Prompt()

    def on_mount(self) -> None:
        """Nothing is going on at first."""
        self.hint(IDLE)

    def hint(self, words: str) -> None:
        """Show keys on the lower edge."""
        self.border_subtitle = Content(words)

    def hint_for(self, focused: Widget | None, busy: bool) -> None:
        """Show the keys that matter where the focus is."""
        if isinstance(focused, MessageView):
            self.hint(REPLY)
        elif isinstance(focused, TreePanel):
            self.hint(TREE)
        else:
            self.hint(BUSY if busy else IDLE)

    def title(self, editing: Shown | None, queue: Sequence[str]) -> None:
        """Show on the upper edge what is edited, or what is sent next."""
        title = ""
        if editing is not None:
            what = "the reply; Enter keeps it as another version" if editing.role == "assistant" else "a message"
            title = f"editing {what} · Esc leaves it"
        elif queue:
            title = f"next: {one_line(queue[0], 40)}" + (f" (+{len(queue) - 1})" if queue[1:] else "")
        self.border_title = Content(title) if title else None
        self.set_class(editing is not None, "-editing")
