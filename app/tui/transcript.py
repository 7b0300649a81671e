"""The transcript: the messages of one path, a reply as it grows, and what is said at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Static

from app.tui.message_view import MessageView
from app.tui.offer import Offer, OfferView
from app.tui.plain import literal
from app.tui.shown import PENDING, Shown
from app.tui.welcome import Welcome

TAIL = 16  # messages painted at first; the earlier ones on demand
MOST = 48  # where a conversation grows beyond this many, its beginning is put away again: every widget costs


class Earlier(Static, can_focus=True):
    """Stands for messages that are not painted yet."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "show_earlier", "Show earlier messages", show=False)]

    def __init__(self, count: int) -> None:
        super().__init__(Content(f"↑ {count} earlier messages"))
        self.count = count

    def action_show_earlier(self) -> None:
        """Paint them."""
        transcript = self.parent
        assert isinstance(transcript, Transcript)
        transcript.run_worker(transcript.show_earlier(), exclusive=False)

    def on_click(self) -> None:
        """A click is Enter."""
        self.action_show_earlier()


class Transcript(VerticalScroll, can_focus=False):
    """A column of messages that follows its end while a reply is written, unless the person scrolled away."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "Message above", show=False),
        Binding("down", "step(1)", "Message below", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self.border_title = "CHAT"
        self._shown: list[Shown] = []

    def follow(self) -> None:
        """Go to the end and stay there while the transcript grows.

        What fits stays at the top: an anchor on a transcript that does not fill its window would push it down.
        """
        self.anchor(self.max_scroll_y > 0)

    def watch_virtual_size(self, _old: Size, new: Size) -> None:
        """Begin to follow when the transcript outgrows the window; stop when it fits again."""
        outgrown = new.height > self.scrollable_content_region.height
        if outgrown != self.is_anchored:
            self.anchor(outgrown)
            if not outgrown:
                self.scroll_to(y=0, animate=False, force=True)

    @property
    def views(self) -> list[MessageView]:
        """The painted messages, oldest first."""
        return [child for child in self.children if isinstance(child, MessageView)]

    @property
    def writing(self) -> MessageView | None:
        """The reply that is being written."""
        return next((view for view in reversed(self.views) if view.streaming), None)

    @property
    def last_id(self) -> str | None:
        """The node of the last message."""
        return self._shown[-1].last_id if self._shown else None

    @property
    def offer(self) -> Offer | None:
        """What is offered at the end."""
        view = self._offer_view
        return view.offer if view else None

    async def sync(self, messages: Sequence[Shown], *, welcome: bool = True) -> None:
        """Paint these messages; what is already there and unchanged stays as it is.

        A reply that is being written is its own view until it ends: it is left alone and stays last.
        """
        self._shown = list(messages)
        writing = self.writing
        if writing is not None and self._shown and self._shown[-1].role == "assistant":
            await writing.take(self._shown[-1])
        wanted = self._shown[:-1] if writing is not None and self._ends_with_reply() else self._shown
        views = [view for view in self.views if view is not writing]
        hidden = _hidden(wanted, views)
        wanted = wanted[hidden:]
        same = 0
        while same < min(len(wanted), len(views)) and _same(views[same], wanted[same]):
            if views[same].shown != wanted[same]:
                await views[same].take(wanted[same])
            same += 1
        with self.app.batch_update():
            if views[same:]:
                await self.remove_children(views[same:])
            fresh = [MessageView(message, message.role) for message in wanted[same:]]
            if fresh:
                await self.mount_all(fresh, before=self._first_behind())
            await self._paint_top(hidden, welcome and not self._shown and writing is None)
        if fresh or views[same:]:
            self.follow()

    def _ends_with_reply(self) -> bool:
        return bool(self._shown) and self._shown[-1].role == "assistant"

    def _first_behind(self) -> Widget | None:
        """The first child that belongs behind the settled messages."""
        for child in self.children:
            if isinstance(child, (OfferView, Inline)) or (isinstance(child, MessageView) and child.streaming):
                return child
        return None

    async def _paint_top(self, hidden: int, welcome: bool) -> None:
        earlier = next((child for child in self.children if isinstance(child, Earlier)), None)
        if earlier is not None and earlier.count != hidden:
            await earlier.remove()
            earlier = None
        if hidden and earlier is None:
            await self.mount(Earlier(hidden), before=0)
        greets = self._of(Welcome)
        if welcome and not greets:
            await self.mount(Welcome(), before=0)
        elif greets and not welcome:
            await self.remove_children(greets)

    async def show_earlier(self) -> None:
        """Paint more of what stands before the first painted message."""
        found = [child for child in self.children if isinstance(child, Earlier)]
        if not found:
            return
        stop = found[0].count
        start = max(0, stop - MOST)
        below = self.max_scroll_y - self.scroll_y
        await self.remove_children(found)
        await self.mount_all([MessageView(message, message.role) for message in self._shown[start:stop]], before=0)
        await self._paint_top(start, welcome=False)
        self.call_after_refresh(lambda: self.scroll_to(y=self.max_scroll_y - below, animate=False))

    async def begin_reply(self, parent_id: str | None, thinking: bool = False) -> MessageView:
        """Open the view that a reply is written into: the last reply itself where that is continued.

        `thinking`: the prompt opened a thinking section.
        """
        await self.end_reply()
        views = self.views
        last = views[-1] if views else None
        if last is not None and last.role == "assistant" and last.node_id in (parent_id, PENDING):
            last.begin_stream(thinking)
            view = last
        else:
            view = MessageView(None, "assistant")
            view.begin_stream(thinking)
            await self.mount(view, before=self._first_behind())
        self.follow()
        return view

    async def end_reply(self) -> None:
        """Settle the reply that is being written, if there is one."""
        if (writing := self.writing) is not None:
            await writing.end_stream()

    async def make_offer(self, offer: Offer | None) -> None:
        """Put an offer at the end; None takes it away."""
        if old := self._of(OfferView):
            await self.remove_children(old)
        if offer is not None:
            await self.mount(OfferView(offer))
            self.follow()

    async def say(self, words: Content | str, severity: str = "information") -> None:
        """Put a notice at the end, in the place of the one before; it goes with the next message."""
        await self.hush()
        content = literal(words) if isinstance(words, str) else words
        await self.mount(Inline(content, classes=f"-{severity}"), before=self._offer_view)
        self.follow()

    @property
    def _offer_view(self) -> OfferView | None:
        return next((child for child in self.children if isinstance(child, OfferView)), None)

    def _of(self, kind: type[Widget]) -> list[Widget]:
        return [child for child in self.children if isinstance(child, kind)]

    async def hush(self) -> None:
        """Take the notices away."""
        if old := self._of(Inline):
            await self.remove_children(old)

    def action_step(self, by: int) -> None:
        """Move the focus by that many messages; below the last one is the prompt."""
        views = self.views
        focused = self.screen.focused
        place = views.index(focused) + by if isinstance(focused, MessageView) and focused in views else len(views) - 1
        if place >= len(views):
            self.screen.query_one("#prompt").focus()
        elif views:
            views[max(place, 0)].focus()


class Inline(Static):
    """A notice between messages."""


def _hidden(wanted: Sequence[Shown], views: Sequence[MessageView]) -> int:
    """How many messages stay unpainted: all but the tail, or those before the first that is painted already."""
    painted = {view.shown.first_id for view in views if view.shown}
    hidden = next((place for place, message in enumerate(wanted) if message.first_id in painted), None)
    grew = bool(wanted) and wanted[-1].first_id not in painted
    if hidden is None or (grew and len(wanted) - hidden > MOST):
        return max(0, len(wanted) - TAIL)
    return hidden


def _same(view: MessageView, message: Shown) -> bool:
    """Whether the view shows this message, perhaps an older state of it."""
    if view.shown is None:  # just written: it is the reply with that text, now committed
        return view.role == message.role == "assistant"
    return view.role == message.role and view.shown.first_id == message.first_id
