"""One message of the transcript: a question or a reply, its siblings' badge, how it ended, its savepoint's ruler."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from app.commands import COMMANDS
from app.tui.plain import literal, plain
from app.tui.reply_markdown import ReplyMarkdown
from app.tui.shown import PENDING, Shown

_ENDINGS = {
    "cancelled": "■ stopped · /continue goes on",
    "length": "■ at the length limit · /continue goes on",
    "crashed": "■ cut off · /continue goes on",
    "saved": "■ saved in mid-reply · /continue goes on",
}


class Ruler(Widget):
    """The line of a savepoint: ──── ★ name · t4 · 388 tok ────."""

    names: tuple[str, ...] = ()
    detail = ""

    def show(self, names: tuple[str, ...], detail: str) -> None:
        """Set what stands on the line; without names it is not there."""
        self.names, self.detail = names, detail
        self.display = bool(names)
        self.refresh()

    def render(self) -> Content:
        """Draw the line over the whole width."""
        words = " · ".join(f"★ {plain(name)}" for name in self.names)
        rest = max(self.size.width - cell_len(words) - len(self.detail) - 9, 4)
        return Content.assemble(
            ("──── ", "$accent 40%"), (words, "$accent bold"), (f" · {self.detail} ", "$foreground 55%"),
            ("─" * rest, "$accent 40%"),
        )  # fmt: skip


class MessageView(Vertical, can_focus=True):
    """A message. Takes the focus; its keys are those of the registry, carried out by the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.focus('prompt')", "Go to the prompt", show=False),
        *(
            Binding(key, f"screen.deed('{command.name}')", command.help, show=False)
            for command in COMMANDS
            for key in command.reply_keys
        ),
    ]

    def __init__(self, shown: Shown | None, role: str) -> None:
        """Show a message; a reply that is about to be written has none yet."""
        super().__init__(classes=f"-{role}")
        self.shown = shown
        self.role = role
        self._streaming = shown is None
        self._laid_out = False

    def compose(self) -> ComposeResult:
        """Lay out mark, text, badge; below them how it ended and the ruler."""
        text = self.shown.text if self.shown else ""
        with Horizontal(classes="body"):
            if self.role == "assistant":
                yield ReplyMarkdown(text)
            else:
                yield Static("❯" if self.role == "user" else "§", classes="mark")
                yield Static(literal(text), classes="words")
            yield Static("", classes="badge", markup=False)
        yield Static("", classes="ending", markup=False)
        yield Ruler()

    def on_mount(self) -> None:
        """Paint what the nodes say beside their text."""
        self._laid_out = bool(self.query(Ruler))  # an app that is closing mounts without composing
        self._paint_edges()

    @property
    def node_id(self) -> str | None:
        """The node a savepoint of this message is; None until the reply is committed."""
        return self.shown.last_id if self.shown else None

    @property
    def markdown(self) -> ReplyMarkdown:
        """The text of a reply."""
        return self.query_one(ReplyMarkdown)

    @property
    def streaming(self) -> bool:
        """Whether the reply is being written."""
        return self._streaming

    def begin_stream(self) -> None:
        """Go on writing this reply; one that a crash cut off has its first node still to come."""
        self._streaming = True
        if self.node_id == PENDING:
            self.shown = None
        self._paint_edges()

    async def grow(self, text: str) -> None:
        """Add text at the end of the reply."""
        await self.markdown.grow(text)

    async def end_stream(self) -> None:
        """The reply is complete for now."""
        if self._laid_out:
            await self.markdown.settle()
        self._streaming = False
        self._paint_edges()

    async def take(self, shown: Shown) -> None:
        """Show the newest state of this message; the text is painted again only if it differs."""
        self.shown = shown
        if not self._streaming and self._laid_out:
            if self.role == "assistant":
                if self.markdown.source != plain(shown.text):
                    await self.markdown.replace(shown.text)
            else:
                self.query_one(".words", Static).update(literal(shown.text))
        self._paint_edges()

    def _paint_edges(self) -> None:
        if not self._laid_out:
            return
        shown = self.shown
        badge = self.query_one(".badge", Static)
        badge.update(Content(shown.badge if shown else ""))
        badge.display = bool(shown and shown.badge)
        ending = self.query_one(".ending", Static)
        words = "▌" if self._streaming else _ENDINGS.get((shown.stop if shown else None) or "", "")
        ending.update(Content(words))
        ending.display = bool(words)
        self.set_class(self._streaming, "-streaming")
        names = shown.names if shown else ()
        detail = f"t{shown.turn} · {shown.total_tokens} tok" if shown else ""
        self.query_one(Ruler).show(names, detail)

    def on_click(self, event: events.Click) -> None:
        """A click on the badge shows the next sibling."""
        if isinstance(event.widget, Static) and event.widget.has_class("badge"):
            event.stop()
            self.focus()
            self.call_later(self.run_action, "screen.deed('next-sibling')")
