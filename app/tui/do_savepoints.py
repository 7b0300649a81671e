"""Commands that save, name, fork and restore."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.sentences import counted, sentence
from app.tui.ask_name import AskName
from app.tui.deeds import deed
from app.tui.picker import Pick, Picker
from app.tui.plain import one_line, plain
from snapshots import StoreError

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen


@deed("save")
async def save(screen: ChatScreen, argument: str) -> None:
    """Quicksave, or save under a name; a name that is taken is asked about."""
    if not argument:
        screen.job(screen.chat.quicksave)
    elif argument in screen.names_elsewhere():
        await _ask_and_save(screen, argument)
    else:
        screen.job(partial(screen.chat.save, argument, force=argument in screen.seen.names))


@deed("save-as")
async def save_as(screen: ChatScreen, _argument: str) -> None:
    """Ask for a name and save here."""
    await _ask_and_save(screen, "")


async def _ask_and_save(screen: ChatScreen, suggested: str) -> None:
    what = "This point of the conversation, with everything the model has in mind."
    asked = AskName("Save as", what, suggested=suggested, taken=screen.names_elsewhere())
    if name := await screen.ask(asked):
        screen.job(partial(screen.chat.save, name, force=name in screen.seen.names))


@deed("load")
async def load(screen: ChatScreen, argument: str) -> None:
    """Quickload, or go to a savepoint."""
    screen.job(partial(screen.chat.restore, argument) if argument else screen.chat.quickload)


@deed("open")
async def open_savepoint(screen: ChatScreen, _argument: str) -> None:
    """Choose among all savepoints of the library, the ends of branches here, and other conversations."""
    picks = []
    rows = {row.node_id: row for row in screen.seen.tree}
    for name, node_id in sorted(screen.seen.names.items()):
        row = rows.get(node_id)
        note = f"t{row.turn} · {row.total_tokens} tok" if row else "another conversation"
        words = f"{name}   {one_line(row.preview, 40)}" if row else name
        picks.append(Pick(f"node:{node_id}", words, note, "★"))
    parents = {row.parent_id for row in rows.values()}
    for row in rows.values():
        if row.node_id not in parents and not row.labels:
            note = "here" if row.is_here else f"t{row.turn} · {row.total_tokens} tok"
            picks.append(Pick(f"node:{row.node_id}", one_line(row.preview, 60), note, "○"))
    for talk in screen.seen.talks:
        if not talk.is_here and talk.turns:
            picks.append(Pick(f"talk:{talk.conversation_id}", talk.title, counted(talk.turns, "turn"), "◇"))
    if not picks:
        screen.toast("There is nothing to open yet: F5 or Ctrl+S makes a savepoint.")
        return
    chosen = await screen.ask(Picker("Open a savepoint", picks, hint="Enter goes there · Esc closes"))
    kind, _, key = (chosen or "").partition(":")
    if kind == "node":
        screen.job(partial(screen.chat.restore, key))
    elif kind == "talk":
        screen.job(partial(screen.chat.open_conversation, key))


@deed("fork")
async def fork(screen: ChatScreen, argument: str) -> None:
    """Name a new branch at the focused message, or here, and go there."""
    node_id = screen.target_id()
    name = argument
    if not name:
        what = "A new branch from here: what comes next grows beside what is there."
        asked = AskName("Fork", what, suggested=_free_name(screen), taken=screen.seen.names, movable=False)
        name = await screen.ask(asked) or ""
    if name:
        screen.job(partial(screen.chat.fork, name, node_id))
        screen.focus_prompt()


def _free_name(screen: ChatScreen) -> str:
    taken = screen.seen.names
    return next(name for name in (f"branch-{n}" for n in range(1, len(taken) + 2)) if name not in taken)


@deed("name")
async def name_message(screen: ChatScreen, argument: str) -> None:
    """Name the focused message, or where we are; one that has a name gets another."""
    node_id = screen.target_id() or screen.chat.status().node_id
    if node_id is None:
        screen.toast("There is nothing to name yet.")
        return
    old = [name for name, at in screen.seen.names.items() if at == node_id]
    taken = {name for name, at in screen.seen.names.items() if at != node_id}
    name = argument
    if not name or name in taken:
        what = f"The savepoint is called “{old[0]}”." if old else "A name for this savepoint."
        suggested = name or (old[0] if old else "")
        name = await screen.ask(AskName("Name", what, suggested=suggested, taken=taken)) or ""
    if name and name not in old:
        done = f"It is called “{plain(name)}” now; /undo gives back what it was called before."
        screen.job(partial(screen.chat.rename, old[0] if old else node_id, name, force=name in taken), done=done)


@deed("export")
async def export(screen: ChatScreen, argument: str) -> None:
    """Write the conversation up to here to a file."""
    what = "A file for this conversation, up to here."
    file = argument or await screen.ask(AskName("Export", what, does="writes it"))
    if file:
        screen.job(partial(screen.chat.export, Path(file)), done=f"Exported to {plain(file)}.")


@deed("import")
async def import_file(screen: ChatScreen, argument: str) -> None:
    """Read an exported file into the library; its conversation is opened like any other."""
    file = argument or await screen.ask(AskName("Import", "The exported file to read.", does="reads it"))
    if file:
        screen.job(partial(screen.chat.import_file, Path(file)))


@deed("find")
async def find(screen: ChatScreen, argument: str) -> None:
    """Search all conversations; Enter goes to what was found."""
    text = argument or await screen.ask(AskName("Find", "Words that the message holds.", does="searches")) or ""
    if not text:
        return
    hits = await asyncio.to_thread(screen.chat.find, text)
    if not hits:
        screen.toast(f"Nothing holds “{plain(text)}”.")
        return
    picks = [
        Pick(hit.node_id, one_line(hit.name or hit.text, 70), f"t{hit.turn}", "★" if hit.name else "❯") for hit in hits
    ]
    chosen = await screen.ask(Picker(f"Find “{one_line(text, 30)}”", picks, hint="Enter goes there · Esc closes"))
    if chosen:
        screen.job(partial(screen.chat.restore, chosen))


@deed("diff")
async def diff(screen: ChatScreen, argument: str) -> None:
    """Say where a savepoint parts from here or from another one, and what each says from there on."""
    if screen.chat.status().node_id is None or not argument:
        screen.toast("/diff compares a savepoint with where we are, or two: /diff name, /diff name other.", "warning")
        return
    try:
        parting = await asyncio.to_thread(screen.chat.parting, argument)
    except StoreError as error:
        screen.toast(sentence(error), "warning")
        return
    await screen.transcript.say(parting)


@deed("tree")
async def tree(screen: ChatScreen, _argument: str) -> None:
    """Show the tree and go to it; from inside it, hide it."""
    screen.toggle_tree()


@deed("undo")
async def undo(screen: ChatScreen, _argument: str) -> None:
    """Take back the last action."""
    screen.job(screen.chat.undo)


@deed("redo")
async def redo(screen: ChatScreen, _argument: str) -> None:
    """Do again what was undone."""
    screen.job(screen.chat.redo)


@deed("back")
async def back(screen: ChatScreen, argument: str) -> None:
    """Step back one turn, or several."""
    if argument and not (argument.isdecimal() and int(argument) > 0):
        screen.toast("/back takes a number of turns: /back 2.", "warning")
        return
    screen.job(partial(screen.chat.back, int(argument or 1)))


@deed("rewind")
async def rewind(screen: ChatScreen, _argument: str) -> None:
    """Choose an earlier message; the conversation goes back in front of it and its text into the prompt."""
    asked = [message for message in screen.seen.messages if message.role == "user"]
    if not asked:
        screen.toast("There is no earlier message yet.")
        return
    picks = [Pick(str(back), message.text, f"t{message.turn}", "❯") for back, message in enumerate(reversed(asked), 1)]
    chosen = await screen.ask(
        Picker("Rewind to before", picks, hint="Enter goes back; nothing is deleted · Esc closes")
    )
    if chosen:
        screen.job(partial(screen.chat.back, int(chosen)))
        screen.draft(asked[-int(chosen)].text)


@deed("delete")
async def delete(screen: ChatScreen, argument: str) -> None:
    """Delete a message and what follows; /undo brings it back."""
    ref = argument or screen.target_id() or screen.chat.status().node_id
    if ref is None:
        screen.toast("There is nothing to delete yet.")
        return
    screen.job(partial(screen.chat.delete, ref))
    screen.focus_prompt()
