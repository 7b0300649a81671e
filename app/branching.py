"""Several replies to one prompt: forks of a session, decoded in one pass over the weights, each with its own dice.

Branch 0 has the dice of the chat and becomes the live position; the others become its siblings in the tree. Each has a
journal of its own while it is written, and is exactly what it would have been alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from app.engine_protocol import Session
from app.events import BranchDelta
from app.generation import Reply, Writing, generate_together
from app.place import Place
from app.replying import ReplyWriter, Requests
from snapshots import Node

if TYPE_CHECKING:
    from app.chat_core import Core


@dataclass(frozen=True)
class Branch:
    """One of several replies. `place` stands behind it."""

    reply: Reply
    place: Place
    session: Session


def write_branches(
    core: Core, writer: ReplyWriter, session: Session, before: Sequence[int], first_token: int | None
) -> tuple[Node | None, Reply]:
    """Write `core.options.branches` replies behind the live position and commit them; `writer` is that of branch 0.

    Gives branch 0's node and reply; all of them are in `core.branches` then. What was written before an error is
    committed, then it is raised. Mutates the session, which becomes branch 0's.
    """
    sessions = [session, *(session.fork() for _ in range(1, core.options.branches))]
    writers = [writer]
    writings: list[Writing] = []
    try:
        for index in range(1, len(sessions)):
            writers.append(_sibling(core, writer, index))
        for index, (each, own) in enumerate(zip(writers, sessions, strict=True)):
            said = partial(_tell, core, index)
            writings.append(each.begin(own, said, None, before, first_token))
        for index, writing in enumerate(writings):
            writing.on_end = partial(_tell, core, index, ended=True)
        generate_together(writings, writer.cancel)
    except BaseException:
        for each in writers[len(writings) :]:
            each.drop_journal()
        for each, writing in zip(writers, writings, strict=False):
            if writing.reply.stop:
                each.end(writing)
            else:
                each.crashed(writing)
        raise
    # The live one last: then it is what the conversation was used for last.
    ended = {index: writers[index].end(writings[index]) for index in reversed(range(len(writers)))}
    core.branches = tuple(
        Branch(writing.reply, each.place, writing.session) for each, writing in zip(writers, writings, strict=True)
    )
    return ended[0]


def _tell(core: Core, index: int, text: str = "", ended: bool = False) -> None:
    core.emit(BranchDelta(index, text, ended))


def _sibling(core: Core, first: ReplyWriter, index: int) -> ReplyWriter:
    """A writer at the same place that moves nobody, with the dice of another branch."""
    here = core.place
    place = Place(core.library, window=here.window, moves_head=False, template_date=here.template_date)
    place.conversation, place.path, place.on_trouble = here.conversation, here.path, here.on_trouble
    voice = replace(first.voice, dice_key=core.engine.branch_dice(first.voice.dice_key, index))
    # Saves in mid-reply are asked of the live branch.
    writer = ReplyWriter(voice, core.library, place, core.states, core.emit, first.cancel, Requests(), keep=first.keep)
    if first.journal is not None:
        writer.begin_journal()
    return writer
