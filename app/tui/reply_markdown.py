"""The Markdown of replies: streamed, and inert: raw HTML is text, a link does nothing but offer its address."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual.await_complete import AwaitComplete
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownStream

from app.tui.plain import plain


def _tame(state: StateCore) -> None:
    """Make a line end in a paragraph a line end on the screen, as a chat needs it (poems, addresses).

    Entities were decoded by now: what "&#x202e;" became is made harmless here.
    """
    waiting = list(state.tokens)
    while waiting:
        token = waiting.pop()
        if token.type == "softbreak":
            token.type = "hardbreak"
        token.content = plain(token.content)
        waiting += token.children or ()


def inert_parser() -> MarkdownIt:
    """A parser for text of strangers: no HTML, no guessing at links, tables and strikethrough as on GitHub."""
    parser = MarkdownIt("gfm-like", {"html": False, "linkify": False})
    parser.core.ruler.push("tame", _tame)
    return parser


class ReplyMarkdown(Markdown):
    """A reply's text. Control characters are replaced on the way in; links never open by themselves."""

    def __init__(self, text: str = "") -> None:
        super().__init__(plain(text), parser_factory=inert_parser, open_links=False)
        self._stream: MarkdownStream | None = None

    async def grow(self, text: str) -> None:
        """Append to the end; several calls may be painted as one."""
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        await self._stream.write(plain(text))

    async def settle(self) -> None:
        """Paint what `grow` still holds back."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.stop()

    def replace(self, text: str) -> AwaitComplete:
        """Show another text."""
        return self.update(plain(text))

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Give the address into the person's hands; nothing opens."""
        event.stop()
        self.app.copy_to_clipboard(event.href)
        self.app.notify(f"Link copied, not opened: {plain(event.href)[:200]}", markup=False)
