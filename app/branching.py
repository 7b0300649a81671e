"""Several replies to one prompt: forks of a session, decoded in one pass over the weights, each with its own dice.

Branch 0 has the dice of the chat and becomes the live position; the others become its siblings in the tree. Each has a
journal of its own while it is written, and is exactly what it would have been alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from app.engine_protocol import Session
from app.events import BranchDelta
from app.generation import Reply, Writing, generate_together
from app.place import Place
from app.replying import ReplyWriter, Requests
from snapshots import Node


@dataclass(frozen=True)
class Branch:
    """One of several replies. `place` stands behind it."""

    reply: Reply
    place: Place
    session: Session


def write_branches(
    writer: ReplyWriter, session: Session, count: int, before: Sequence[int], first_token: int | None
) -> tuple[Node | None, Reply, tuple[Branch, ...]]:
    """Write `count` replies behind the live position and commit them; `writer` is that of branch 0.

    Gives branch 0's node and reply, and all of them. What was written before an error is committed, then it is raised.
    Mutates the session, which becomes branch 0's.
    """
    sessions = [session, *(session.fork() for _ in range(1, count))]
    writers = [writer]
    writings: list[Writing] = []
    try:
        for index in range(1, len(sessions)):
            writers.append(_sibling(writer, index))
        for index, (each, own) in enumerate(zip(writers, sessions, strict=True)):
            said = partial(_tell, writer, index)
            writings.append(each.begin(own, said, None, before, first_token))
        for index, writing in enumerate(writings):
            writing.on_end = partial(_tell, writer, index, ended=True)
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
    branches = tuple(
        Branch(writing.reply, each.place, writing.session) for each, writing in zip(writers, writings, strict=True)
    )
    return *ended[0], branches


def _tell(writer: ReplyWriter, index: int, text: str = "", ended: bool = False) -> None:
    writer.emit(BranchDelta(index, text, ended))


def _sibling(first: ReplyWriter, index: int) -> ReplyWriter:
    """A writer at the same place that moves nobody, with the dice of another branch."""
    here = first.place
    place = Place(first.library, window=here.window, moves_head=False, template_date=here.template_date)
    place.conversation, place.path, place.on_trouble = here.conversation, here.path, here.on_trouble
    voice = replace(first.voice, dice_key=first.voice.engine.branch_dice(first.voice.dice_key, index))
    # Saves in mid-reply are asked of the live branch.
    writer = replace(first, voice=voice, place=place, requests=Requests(), journal=None)
    if first.journal is not None:
        writer.begin_journal()
    return writer
