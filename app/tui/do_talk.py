"""Commands about replies and the conversation as a whole."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from app.tui.deeds import deed
from app.tui.picker import Pick, Picker
from app.tui.prompt_box import ONCE_MORE
from app.tui.shown import Shown
from app.tui.tree_layout import tip_below

TWICE_S = 1.2  # Esc twice within this time is one gesture

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen


def _last_reply(screen: ChatScreen) -> Shown | None:
    return next((message for message in reversed(screen.seen.messages) if message.role == "assistant"), None)


@deed("regen")
async def regen(screen: ChatScreen, _argument: str) -> None:
    """Write another reply beside the focused one, or beside the last."""
    target = screen.target()
    if target is not None and target.role == "user":
        screen.toast("To ask again, change the message with e; r is for a reply.")
        return
    if screen.ready_to_talk():
        screen.reactions.focus_reply = target is not None
        screen.job(partial(screen.chat.regenerate, target.first_id if target else None), talk=True)


@deed("edit")
async def edit(screen: ChatScreen, _argument: str) -> None:
    """Take the focused message, or the last question, into the prompt; Enter makes a branch of it."""
    target = screen.target() or next((m for m in reversed(screen.seen.messages) if m.role == "user"), None)
    if target is None or target.role == "system":
        screen.toast("There is no message to edit yet.")
        return
    if screen.ready_to_talk():
        screen.begin_edit(target)


@deed("continue")
async def go_on(screen: ChatScreen, _argument: str) -> None:
    """Finish a reply that was cut off, or write more of the last one."""
    if screen.ready_to_talk():
        pending = screen.chat.pending_reply() is not None
        screen.job(screen.chat.go_on if pending else screen.chat.continue_reply, talk=True)


@deed("thinking")
async def thinking(screen: ChatScreen, _argument: str) -> None:
    """Fold or unfold the thinking of the focused reply, or of the last that has some."""
    target = screen.target()
    views = [view for view in reversed(screen.transcript.views) if target is None or view.shown == target]
    if not any(view.fold() for view in views):
        screen.toast("There is no thinking here.")


@deed("copy")
async def copy(screen: ChatScreen, _argument: str) -> None:
    """Copy the focused message, or the last reply."""
    target = screen.target() or _last_reply(screen)
    if target is None:
        screen.toast("There is no reply to copy yet.")
        return
    screen.app.copy_to_clipboard(target.text)
    screen.toast(f"Copied {len(target.text)} characters.")


@deed("previous-sibling")
async def previous_sibling(screen: ChatScreen, _argument: str) -> None:
    """Show the sibling before."""
    _sibling(screen, -1)


@deed("next-sibling")
async def next_sibling(screen: ChatScreen, _argument: str) -> None:
    """Show the sibling after."""
    _sibling(screen, 1)


def _sibling(screen: ChatScreen, by: int) -> None:
    target = screen.target() or _last_reply(screen)
    if target is None or len(target.sibling_ids) < 2:
        way = "r writes another" if target is None or target.role == "assistant" else "e asks otherwise"
        screen.toast(f"There is only this one; {way}.")
        return
    place = (target.sibling_index + by) % len(target.sibling_ids)
    screen.focus_wanted = target.sibling_ids[place]
    screen.job(partial(screen.chat.restore, tip_below(screen.seen.tree, target.sibling_ids[place])))


@deed("stop")
async def stop(screen: ChatScreen, _argument: str) -> None:
    """Stop or close, innermost first; twice on an empty idle prompt opens the rewind picker."""
    now, before = monotonic(), screen.escaped_at
    screen.escaped_at = 0.0
    prompt = screen.prompt
    if screen.completion.display:
        screen.completion.close()
        prompt.completed = None
    elif screen.editing is not None:
        screen.editing = None
        prompt.put("")
        screen.paint_prompt()
    elif screen.close_overlay():
        screen.focus_prompt()
    elif screen.stoppable or screen.queue:
        screen.stop()
    elif screen.focused is not prompt:
        screen.focus_prompt()
    elif not prompt.text and (offer := screen.transcript.offer) is not None:
        await screen.transcript.make_offer(None)
        if offer.decline is not None:
            offer.decline()
    elif not prompt.text and now - before < TWICE_S:
        screen.run_deed("rewind")
    elif not prompt.text:
        screen.escaped_at = now
        screen.prompt_box.hint(ONCE_MORE)
        screen.set_timer(TWICE_S, screen.paint_prompt)


@deed("new")
async def new(screen: ChatScreen, _argument: str) -> None:
    """Begin a new conversation."""
    screen.job(screen.chat.new_conversation)
    screen.focus_prompt()


@deed("system")
async def system(screen: ChatScreen, argument: str) -> None:
    """Show or set the system message."""
    if argument:
        screen.job(partial(screen.chat.set_system, argument))
    else:
        text = screen.chat.system
        await screen.transcript.say(
            f"System prompt: {text}" if text else "There is no system prompt: /system TEXT sets one."
        )


@deed("history")
async def history(screen: ChatScreen, _argument: str) -> None:
    """Search what was sent before and take it into the prompt."""
    past = list(dict.fromkeys(reversed(screen.prompt.past)))
    if not past:
        screen.toast("Nothing was sent yet.")
        return
    picks = [Pick(str(place), text, "", "❯") for place, text in enumerate(past)]
    chosen = await screen.ask(Picker("Sent before", picks, hint="Enter takes it into the prompt · Esc closes"))
    if chosen:
        screen.draft(past[int(chosen)])
