"""What waits at a place: a reply that a crash cut off, one that another window is writing, a message without any."""

from __future__ import annotations

from app.events import PendingReply
from app.place import SETTINGS, UNSAVED, Place
from snapshots import DeadReply, Library


def dead_reply(library: Library, node_id: str) -> DeadReply | None:
    """Give what a journal holds of a reply that died behind a message."""
    return next((dead for dead in library.dead_replies() if dead.start.parent_id == node_id), None)


def cut_off(dead: DeadReply) -> PendingReply:
    """Give a dead reply as screens show it."""
    return PendingReply(dead.start.parent_id or "", dead.text, len(dead.tokens))


def unanswered(library: Library, place: Place, *, incognito: bool) -> PendingReply | None:
    """Give what waits where the last message is a person's: what was said so far, or who is answering.

    Looks at the journals anew: another window may have begun, ended or died since the last look.
    """
    said, node = place.said, place.node
    if said is None or node is None or said.role not in {"user", "raw"} or place.cut is not None:
        return None
    if incognito or node.id.startswith(UNSAVED):
        return PendingReply(said.id, "", 0)
    if any(start.parent_id == node.id for start in library.replies_elsewhere()):
        return PendingReply(said.id, "", 0, elsewhere=True)
    if (dead := dead_reply(library, node.id)) is not None:
        return cut_off(dead)
    replies = [n for n in library.children(said.conversation_id, node.id) if n.role == "assistant"]
    answer = next((n.id for n in reversed(replies) if n.stop != SETTINGS), "")
    return PendingReply(said.id, "", 0, answer=answer)
