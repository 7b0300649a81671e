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
from app.thinking import Parts, parted
from app.tui.plain import literal, plain
from app.tui.reply_markdown import ReplyMarkdown
from app.tui.shown import PENDING, Shown
from app.tui.thought import Thought

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
        text = shown.text if shown else ""
        self._inside = False  # whether the prompt opened a thinking section
        self._whole = text  # marks and thinking included
        parts = parted(text) if role == "assistant" else Parts(None, text)
        self._answer = parts.answer
        self._text = ReplyMarkdown(parts.answer) if role == "assistant" else Static(literal(text), classes="words")
        self._body = Horizontal(classes="body")
        # These stand in few messages only, and every widget costs at each layout: made when there is something to show.
        self.thought: Thought | None = None
        if parts.thinking is not None:
            self.thought = Thought()
            self.thought.show(parts.thinking, shown.thinking_tokens if shown else None)
        self._badge: Static | None = None
        self._ending: Static | None = None
        self._ruler: Ruler | None = None

    def compose(self) -> ComposeResult:
        """Lay out mark and text."""
        if self.thought is not None:
            yield self.thought
        with self._body:
            if self.role != "assistant":
                yield Static("❯" if self.role == "user" else "§", classes="mark")
            yield self._text

    def on_mount(self) -> None:
        """Paint what the nodes say beside their text."""
        self._paint_edges()

    @property
    def node_id(self) -> str | None:
        """The node a savepoint of this message is; None until the reply is committed."""
        return self.shown.last_id if self.shown else None

    @property
    def markdown(self) -> ReplyMarkdown:
        """The text of a reply."""
        assert isinstance(self._text, ReplyMarkdown)
        return self._text

    @property
    def streaming(self) -> bool:
        """Whether the reply is being written."""
        return self._streaming

    def begin_stream(self, inside: bool = False) -> None:
        """Go on writing this reply; one that a crash cut off has its first node still to come.

        `inside`: the prompt opened a thinking section.
        """
        self._streaming = True
        self._inside = inside
        if self.node_id == PENDING:
            self.shown = None
        self._paint_edges()

    async def grow(self, text: str, tokens: int | None = None) -> None:
        """Add text at the end of the reply, which has that many tokens now."""
        was_open = self.thought is None or self._parts().open
        self._whole += text
        parts = self._parts()
        if parts.thinking is not None:
            await self._show_thought(parts, tokens if was_open else None)
        if parts.answer.startswith(self._answer):
            added, self._answer = parts.answer[len(self._answer) :], parts.answer
            if added:
                await self.markdown.grow(added)
        else:  # what looked like an answer was thinking
            await self.markdown.settle()
            self._answer = parts.answer
            await self.markdown.replace(parts.answer)

    def _parts(self) -> Parts:
        return parted(self._whole, self._inside)

    async def _show_thought(self, parts: Parts, tokens: int | None) -> None:
        if self.thought is None:
            self.thought = Thought()
            self.thought.begin()
            if self._body.is_attached:
                await self.mount(self.thought, before=self._body)
        self.thought.show(parts.thinking or "", tokens, open=parts.open and self._streaming)

    def fold(self) -> bool:
        """Fold or unfold the thinking; whether there is any."""
        if self.thought is not None:
            self.thought.toggle()
        return self.thought is not None

    async def end_stream(self) -> None:
        """The reply is complete for now."""
        if self._body.is_mounted:
            await self.markdown.settle()
        self._streaming = False
        parts = self._parts()
        if parts.thinking is not None:
            await self._show_thought(parts, None)
        self._paint_edges()

    async def take(self, shown: Shown) -> None:
        """Show the newest state of this message; the text is painted again only if it differs."""
        self.shown = shown
        if not self._streaming and self._body.is_mounted:
            if isinstance(self._text, Static):
                self._text.update(literal(shown.text))
            else:
                await self._take_reply(shown)
        self._paint_edges()

    async def _take_reply(self, shown: Shown) -> None:
        self._whole = shown.text
        parts = self._parts()
        self._answer = parts.answer
        if parts.thinking is not None:
            await self._show_thought(parts, shown.thinking_tokens)
        elif self.thought is not None:
            await self.thought.remove()
            self.thought = None
        if self.markdown.source != plain(parts.answer):
            await self.markdown.replace(parts.answer)

    def _paint_edges(self) -> None:
        shown = self.shown
        if not self._body.is_attached:  # an app that is closing mounts without composing
            return
        badge = shown.badge if shown else ""
        if badge and self._badge is None:
            self._badge = Static("", classes="badge", markup=False)
            self._body.mount(self._badge)
        if self._badge is not None:
            self._badge.update(Content(badge))
            self._badge.display = bool(badge)
        names = shown.names if shown else ()
        if names and self._ruler is None:
            self._ruler = Ruler()
            self.mount(self._ruler)
        if self._ruler is not None:
            self._ruler.show(names, f"t{shown.turn} · {shown.total_tokens} tok" if shown else "")
        ending = "▌" if self._streaming else _ENDINGS.get((shown.stop if shown else None) or "", "")
        if ending and self._ending is None:
            self._ending = Static("", classes="ending", markup=False)
            self.mount(self._ending, after=self._body)
        if self._ending is not None:
            self._ending.update(Content(ending))
            self._ending.display = bool(ending)
        self.set_class(self._streaming, "-streaming")

    def on_click(self, event: events.Click) -> None:
        """A click on the badge shows the next sibling."""
        if isinstance(event.widget, Static) and event.widget.has_class("badge"):
            event.stop()
            self.focus()
            self.call_later(self.run_action, "screen.deed('next-sibling')")
