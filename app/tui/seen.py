"""What was read of the chat for one paint. Reading may wait for another process that commits, so it is done in a
thread; widgets and commands go by what was read last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app import events
from app.chat import Chat
from app.tui.shown import PENDING, Shown, shown


@dataclass(frozen=True)
class Seen:
    """The chat as it was read last."""

    messages: Sequence[Shown] = ()  # from the beginning to where we are
    pending: events.PendingReply | None = None
    tree: Sequence[events.TreeRow] = ()
    talks: Sequence[events.ConversationRow] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # every name of the library, and the node it points to
    branch: str = ""  # the nearest name at or above where we are

    def with_pending(self) -> list[Shown]:
        """The messages, and a cut-off reply as the last of them."""
        if self.pending is None or not self.pending.tokens:
            return list(self.messages)
        turn = self.messages[-1].turn if self.messages else 0
        tokens = (self.messages[-1].total_tokens if self.messages else 0) + self.pending.tokens
        tail = Shown((PENDING,), "assistant", self.pending.text, turn, tokens, "crashed", 0, (PENDING,), ())
        return [*self.messages, tail]

    def news_since(self, before: Seen) -> str:
        """What another window did to this conversation meanwhile, in one sentence; "" where nothing."""
        old = {row.node_id for row in before.tree}
        now = {row.node_id for row in self.tree}
        if not old & now:  # nothing was there, or it is another conversation
            return ""
        if any(row.node_id not in old and not row.on_path for row in self.tree):
            return "Another window went on in this conversation; the tree shows where."
        if any(row.node_id not in now and not row.on_path for row in before.tree):
            return "Another window deleted messages of this conversation."
        here = {node_id for message in self.messages for node_id in message.ids}
        if any(row.node_id not in now and row.node_id in here for row in before.tree):
            return "Another window deleted messages that are shown here; the tree shows what is left."
        return ""


def look_at(chat: Chat, before: Seen, *, tree: bool, talks: bool) -> Seen:
    """Read the chat. `tree`: tree and names, too. `talks`: the conversations of the library, too; else as `before`."""
    seen = replace(before, messages=shown(chat.transcript()), pending=chat.pending_reply(), branch=chat.branch() or "")
    if tree:
        seen = replace(seen, tree=chat.tree(), names=chat.labels())
    return replace(seen, talks=chat.conversations()) if talks else seen
