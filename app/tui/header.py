"""The top line: forkpoint · model · ⎇ branch."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from app.tui.plain import one_line

ROOM_FOR_KEYS = 50  # columns


class Header(Horizontal):
    """Says which program, which model, which branch; a click on the right opens the tree."""

    model: reactive[str] = reactive("")
    branch: reactive[str] = reactive("")
    warning: reactive[str] = reactive("")

    def compose(self) -> ComposeResult:
        """Left the words, right the keys."""
        yield Static("", id="where", markup=False)
        yield Static(Content.assemble(("^T", "$primary bold"), " tree  ", ("F1", "$primary bold"), " help"), id="hints")

    def _paint(self) -> None:
        if not self.is_attached:
            return
        dot = (" · ", "$foreground 55%")
        parts: list[str | tuple[str, str]] = [("● forkpoint", "$accent bold")]
        if self.model:
            parts += [dot, (one_line(self.model, 40), "$foreground")]
        if self.branch:
            parts += [dot, (f"⎇ {one_line(self.branch, 32)}", "$primary bold")]
        if self.warning:
            parts += [dot, (self.warning, "$warning bold")]
        self.query_one("#where", Static).update(Content.assemble(*parts))

    def on_resize(self) -> None:
        """Keep the keys off where the branch needs the room."""
        self.query_one("#hints").display = self.size.width >= ROOM_FOR_KEYS

    def on_mount(self) -> None:
        """Paint what was set before."""
        self._paint()

    def watch_model(self) -> None:
        """Paint again."""
        self._paint()

    def watch_branch(self) -> None:
        """Paint again."""
        self._paint()

    def watch_warning(self) -> None:
        """Paint again."""
        self._paint()

    def on_click(self) -> None:
        """Open the tree."""
        self.call_later(self.run_action, "screen.deed('tree')")
