"""What the screen offers: to finish or find a reply, another first word, or a branch with room."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from app import events
from app.sentences import counted
from app.tui.offer import Offer

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen


def for_pending(screen: ChatScreen, pending: events.PendingReply) -> Offer:
    """Give what to do about a cut-off reply, or a message that has no reply here."""
    go_on = partial(screen.run_deed, "continue")
    if pending.tokens:
        words = f"This reply was cut off after {counted(pending.tokens, 'token')}. "
        words += "It can go on with exactly the tokens that would have come."
        return Offer(words, "go on", go_on, partial(screen.job, screen.chat.discard_pending), "leave it as it is")
    if pending.elsewhere:
        return Offer("Another window is answering this message.", "answer it here, too", go_on, None, "wait")
    if pending.answer:
        there = partial(screen.run_deed, "load", pending.answer)
        return Offer("This message has an answer in another branch.", "go there", there, None, "stay here")
    return Offer("This message has no answer yet.", "answer it", go_on, None, "leave it")


async def make(screen: ChatScreen, event: events.RunnerUpOffer | events.ContextFullOffer) -> None:
    """Put the offer at the end of the transcript; a message that did not fit goes back into the prompt."""
    if isinstance(event, events.RunnerUpOffer):
        offer = Offer(
            f"At temperature 0 the same words would come. Another start would be: “{event.text.strip()}”",
            "write from there",
            lambda: screen.job(partial(screen.chat.regenerate, runner_up=True), talk=True),
        )
    else:
        screen.prompt.give_back(event.draft)
        words = f"The context is full: the message needs {event.needed} tokens, the model holds {event.limit}."
        if not event.drop_turns:
            await screen.transcript.say(words, "warning")
            return
        turns = "turn" if event.drop_turns == 1 else f"{event.drop_turns} turns"
        offer = Offer(
            f"{words} A new branch without the oldest {turns} has room; this one stays.",
            "send it there",
            partial(_send_without, screen, event),
            text=event.draft,
        )
    await screen.transcript.make_offer(offer)


def _send_without(screen: ChatScreen, offer: events.ContextFullOffer) -> None:
    if screen.prompt.text.strip() == offer.draft.strip():
        screen.prompt.put("")
    screen.reactions.send(partial(screen.chat.drop_oldest_turns, offer.drop_turns, offer.draft), offer.draft)
