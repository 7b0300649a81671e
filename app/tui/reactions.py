"""What the screen does when the chat reports something. One method an event; the widgets do the painting.

Events are heard one after another by a worker of the event loop: where one needs what is in the library, it is read in
a thread, and the screen goes on painting and taking keys meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from app import events
from app.sentences import sentence
from app.tui import offers
from app.tui.figures import Progress
from app.tui.offer import Offer
from app.tui.seen import Seen, look_at
from app.tui.shown import PENDING, shown
from snapshots import StoreError

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen

PAINT_S = 0.1  # a growing reply is painted at most this often
STATUS_S = 0.25  # the status line changes at most this often while a reply grows
LOOK_S = 0.08  # the highlight rests this long before a preview is painted
ELSEWHERE_S = 1.0  # how often one looks whether another window that answers still lives

SAVE_PATIENCE_S = 8.0  # a state that is not on disk by then is shown as not saved
SAVING, SAVED, NOT_SAVED = "saving…", "saved ✓", "not saved"

_PHASES = {
    "read": "reading the model",
    "compile": "compiling for this machine (first start)",
    "pack": "arranging the weights",
    "prefill": "reading the conversation",
    "restore": "restoring",
}


class Reactions:
    """Keeps the screen in step with the chat. Lives on the event loop."""

    def __init__(self, screen: ChatScreen) -> None:
        self.screen = screen
        self.writing = False  # a reply is on its way: from send to done
        self._unsent = ""  # the text of a message until it is committed
        self._painting = False
        self._looking: str | None = None
        self._first_token_at = 0.0
        self._first_token = 0
        self._status_at = 0.0
        self.focus_reply = False  # the reply that begins next gets the focus: it takes the place of one that had it
        self._stopped = False
        self._saved_node = self._failed_node = ""  # the nodes whose state reached the disk last, and did not
        self._stale = False
        self._outside = False  # another process changed the library, and that is not painted yet
        self.seen = Seen()
        self._todo: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._unheard = 0
        self._talks_key: tuple[str | None, bool] | None = None
        self._place: str | None = None  # the node that is painted as the end
        self._offered: events.PendingReply | None = None
        self._pending_offer: Offer | None = None

    # ---- one thing after another ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Paint what was left, then whatever comes."""
        self.later(self._begin)
        self.screen.run_worker(self._listen(), group="reactions")

    def later(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do something behind all that was heard before."""
        self._unheard += 1
        self._todo.put_nowait(step)

    @property
    def reading(self) -> bool:
        """Whether something that was heard is not painted yet."""
        return self._unheard > 0

    async def _listen(self) -> None:
        while True:
            step = await self._todo.get()
            try:
                await step()
            except StoreError as error:  # what was read last stays; the next change is a new chance
                self.screen.toast(sentence(error), "error")
            except Exception:
                if self.screen.app.is_running:
                    raise
                return  # the widgets are being taken away: there is nothing to paint on any more
            finally:
                self._unheard -= 1

    async def _begin(self) -> None:
        screen = self.screen
        before = await asyncio.to_thread(screen.chat.prompt_history)
        screen.prompt.remember([*before, *screen.prompt.past])
        await self.refresh()
        if screen.options.resume:
            screen.run_deed("open")

    # ---- painting -------------------------------------------------------------------------------------------------

    async def refresh(self, *, tree: bool = True) -> None:
        """Paint transcript, tree, header and status line from what the chat says now."""
        screen = self.screen
        self._stale = self._stale and not tree
        before = self.seen
        await self._look(tree)
        if tree and self._outside:
            self._outside = False
            if words := self.seen.news_since(before):
                screen.toast(words)
        if self._looking is None:
            await screen.transcript.sync(self.seen.messages if self.writing else self.seen.with_pending())
            await self._offer_pending(self.seen.pending)
            self._focus_wanted()
        if tree:
            screen.tree_panel.show(self.seen.tree, self.seen.talks)
        screen.header.branch = self.seen.branch
        self._paint_status()

    async def _look(self, tree: bool) -> None:
        """Read the chat; the conversations of the library only where they can have changed."""
        chat = self.screen.chat
        key = (chat.status().conversation_id, self.writing)
        talks = tree and key != self._talks_key
        self._talks_key = key if talks else self._talks_key
        self.seen = await asyncio.to_thread(look_at, chat, self.seen, tree=tree, talks=talks)

    def look_again(self) -> None:
        """Another process changed the library: what was read of it is read again."""
        self._talks_key = None
        self._outside = True
        self.screen.chat.look_again()
        self.refresh_soon()

    def refresh_soon(self) -> None:
        """Paint everything once the events that came together are all heard."""
        if not self._stale:
            self._stale = True
            self.later(self._refresh_stale)

    async def _refresh_stale(self) -> None:
        if self._stale:
            await self.refresh()

    def _focus_wanted(self) -> None:
        """Give the focus to the message that a walk between siblings came to."""
        for view in self.screen.transcript.views:
            if view.shown and self.screen.focus_wanted in view.shown.ids:
                self.screen.focus_wanted = None
                view.focus()

    async def _offer_pending(self, found: events.PendingReply | None) -> None:
        """Offer to finish what a crash cut off, or to answer what was never answered; once for each place and cause."""
        screen = self.screen
        pending = None if self.writing else found
        if pending and pending.elsewhere:  # its end changes the library, its death nothing
            screen.set_timer(ELSEWHERE_S, self.refresh_soon)
        if pending == self._offered:
            return
        if self._offered is not None and self._pending_offer is screen.transcript.offer:
            await screen.transcript.make_offer(None)
        self._offered = pending
        if pending is None:
            return
        self._pending_offer = offers.for_pending(screen, pending)
        await screen.transcript.make_offer(self._pending_offer)

    def _paint_status(self) -> None:
        self._status_at = monotonic()
        screen, status = self.screen, self.screen.chat.status()
        if status.model_name:
            screen.header.model = status.model_name
        self._place = status.node_id
        fields: dict[str, object] = {"tokens": status.tokens, "context": status.context_length}
        if self._first_token_at and status.tokens > self._first_token:
            spent = monotonic() - self._first_token_at
            if spent > 0.3:
                fields["tok_s"] = (status.tokens - self._first_token) / spent
        screen.status_line.change(**fields)

    def text_ready(self) -> None:
        """The reply grew: paint it soon, with what else comes until then."""
        if not self._painting:
            self._painting = True
            self.screen.set_timer(PAINT_S, partial(self.later, self._paint_text))

    async def _paint_text(self) -> None:
        self._painting = False
        await self.grow(self.screen.bridge.take())
        if monotonic() - self._status_at > STATUS_S:
            self._paint_status()

    async def grow(self, text: str) -> None:
        """Append to the reply that is being written."""
        if text and (view := self.screen.transcript.writing) is not None:
            await view.grow(text, max(0, self.screen.chat.status().tokens - self._first_token))

    def look(self, node_id: str | None) -> None:
        """Preview the text of another place in the tree; None ends it."""
        if self.writing or node_id == self._looking:
            return
        self._looking = node_id
        self.screen.set_timer(LOOK_S, partial(self.later, partial(self._paint_look, node_id)))

    def _end_look(self) -> None:
        """The live position is what matters again; who calls this paints it."""
        self._looking = None
        self.screen.transcript.set_class(False, "-preview")
        self.screen.transcript.border_subtitle = None

    async def _paint_look(self, node_id: str | None) -> None:
        if node_id != self._looking or self.writing:
            return
        transcript = self.screen.transcript
        transcript.set_class(node_id is not None, "-preview")
        transcript.border_subtitle = "preview" if node_id else None
        if node_id is None:
            await self.refresh(tree=False)
        else:
            messages = await asyncio.to_thread(self.screen.chat.transcript_of, node_id)
            if node_id == self._looking and not self.writing:
                await transcript.sync(shown(messages))

    # ---- talking --------------------------------------------------------------------------------------------------

    def send(self, work: Callable[[], None], text: str) -> None:
        """Begin a job that commits `text` and answers it; if it fails before that, the text comes back."""
        self._unsent = text
        self.screen.job(work, talk=True)
        self.screen.run_worker(self.screen.transcript.hush(), exit_on_error=False)
        self.screen.run_worker(self.screen.transcript.make_offer(None), exit_on_error=False)

    async def job_done(self, failure: str, talk: bool) -> None:
        """A call ended: what it left unfinished on the screen is settled, and the next message goes out."""
        screen = self.screen
        if talk or not screen.working:
            screen.status_line.progress = None
        if talk:
            self._first_token_at = 0.0
            if self.writing:
                self.writing = False
                await screen.transcript.end_reply()
            if self._unsent and failure:
                screen.prompt.give_back(self._unsent)
            self._unsent = ""
        await self.refresh()
        if talk and not screen.talking:
            self._send_next(bool(failure))

    def _send_next(self, failed: bool) -> None:
        screen = self.screen
        if not screen.queue:
            return
        if failed or self._stopped or screen.chat.model is None:
            waiting, screen.queue = screen.queue, []
            screen.draft("\n\n".join(filter(None, [*waiting, screen.prompt.text])))
        else:
            text = screen.queue.pop(0)
            self.send(partial(screen.chat.send, text), text)
        screen.paint_prompt()

    # ---- events ---------------------------------------------------------------------------------------------------

    async def hear(self, event: events.Event, text: str = "") -> None:
        """React to one event; `text` is what the reply grew by in front of it."""
        screen = self.screen
        await self.grow(text)
        match event:
            case events.Progress():
                self._progress(event)
            case events.ModelReady():
                screen.status_line.progress = None
                screen.header.model = event.name
                await screen.transcript.hush()  # whatever was said of a model that could not be opened
                self._paint_status()
                gc.freeze()  # a vocabulary stays: see ForkpointApp.on_ready
            case events.TurnCommitted():
                self._end_look()
                self._unsent = ""
                self._stopped = False
                await screen.transcript.hush()
                await self.refresh()
            case events.ReplyStarted():
                await self._reply_started(event)
            case events.ReplyDone():
                await self._reply_done(event)
            case events.Saved():
                self._saved(event)
            case events.NotSaved():
                self._failed_node = event.node_id
                self.screen.status_line.change(saved=NOT_SAVED, alarm=True)
            case events.Restored():
                self._restored(event)
            case events.PositionChanged():
                self._end_look()
                if screen.chat.status().node_id != self._place and not self.writing:
                    await screen.transcript.hush()
                    await screen.transcript.make_offer(None)
                await self.refresh()
            case events.TreeChanged():
                self.refresh_soon()
            case events.Notice():
                screen.toast(event.sentence, event.severity)
            case events.PendingFound():
                await self.refresh(tree=False)
            case events.RunnerUpOffer() | events.ContextFullOffer():
                await offers.make(screen, event)
            case _:
                pass

    def _progress(self, event: events.Progress) -> None:
        line = self.screen.status_line
        label = _PHASES.get(event.phase, event.phase)
        if event.phase == "compile" and event.total <= 1:  # nothing is known to compile yet
            label = "starting the engine"
        progress = line.progress if line.progress and line.progress.label == label else Progress(label)
        progress.update(event.done, event.total)
        line.progress = None if event.phase == "prefill" and event.done >= event.total else progress

    async def _reply_started(self, event: events.ReplyStarted) -> None:
        screen = self.screen
        if self.writing and screen.transcript.writing is not None:  # it goes on behind a save in mid-reply
            return
        self.writing = True
        self._stopped = False
        self._end_look()
        screen.status_line.progress = None
        screen.status_line.change(reused=event.reused, prefilled=event.prefilled, tok_s=None)
        self._first_token_at, self._first_token = monotonic(), screen.chat.status().tokens
        await screen.transcript.make_offer(None)
        if screen.transcript.last_id != PENDING:  # another reply to the same question: the old one makes room
            await self._look(tree=False)
            await screen.transcript.sync(self.seen.messages)
        view = await screen.transcript.begin_reply(event.parent_id, event.thinking)
        if self.focus_reply:
            view.focus()
            self.focus_reply = False

    async def _reply_done(self, event: events.ReplyDone) -> None:
        screen = self.screen
        self.writing = False
        self._first_token_at = 0.0
        self._stopped = event.stop == "cancelled"
        screen.last_stats = event.stats
        await screen.transcript.end_reply()
        if screen.chat.unwritten:
            screen.status_line.change(saved=NOT_SAVED, alarm=True)
        elif not screen.chat.status().incognito:
            self._await_save(event.node.node_id)
        speed = event.stats.decode_tok_s or None
        screen.status_line.change(tok_s=speed)
        await self.refresh()

    def _restored(self, event: events.Restored) -> None:
        """Say where we are, how much had to be computed, and how to return."""
        screen = self.screen
        screen.status_line.progress = None
        screen.status_line.change(reused=event.reused, prefilled=event.prefilled)
        words = event.sentence
        if event.node_id and event.node_id in words:
            names = [name for name, node_id in self.seen.names.items() if node_id == event.node_id]
            words = words.replace(f"“{event.node_id}”", f"★ {names[0]}" if names else "There")
        if event.node_id:
            screen.toast(words)

    def _await_save(self, node_id: str) -> None:
        """Say that the state of a reply is on its way to the disk, and when it does not get there."""
        line = self.screen.status_line
        if node_id in (self._saved_node, self._failed_node):  # quicker than the news of the reply's end
            return

        def look() -> None:
            if line.facts.saved == SAVING and self._saved_node != node_id:
                line.change(saved=NOT_SAVED, alarm=True)

        line.change(saved=SAVING, alarm=False)
        self.screen.set_timer(SAVE_PATIENCE_S, look)

    def _saved(self, event: events.Saved) -> None:
        if event.name == "quick":
            self.screen.toast("Saved. F9 returns here.")
        elif event.name is not None:
            self.screen.toast(f"★ {event.name} is this point now; /load {event.name} returns here.")
        else:
            self._saved_node, self._failed_node = event.node_id, ""
            self.screen.saved_bytes += event.size_bytes
            shown_bytes = event.size_bytes or self.screen.status_line.facts.saved_bytes
            self.screen.status_line.change(saved=SAVED, saved_bytes=shown_bytes, alarm=False)
