"""From nodes to what a screen shows: a run of reply nodes is one message, names become rulers under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.events import Message, Role

PENDING = "pending"  # stands for the node that a cut-off reply does not have yet


@dataclass(frozen=True)
class Shown:
    """One message on the screen: a question, or a reply with all its continuations.

    `ids` are the nodes it is made of, in order; siblings are those of the first node, everything else of the last.
    """

    ids: tuple[str, ...]
    role: Role
    text: str
    turn: int
    total_tokens: int
    stop: str | None
    sibling_index: int
    sibling_ids: tuple[str, ...]
    names: tuple[str, ...]
    thinking_tokens: int | None = None

    @property
    def first_id(self) -> str:
        """The node that siblings are beside."""
        return self.ids[0]

    @property
    def last_id(self) -> str:
        """The node that a savepoint of this message is."""
        return self.ids[-1]

    @property
    def badge(self) -> str:
        """Which of several it is: "‹ 2/3 ›", or "" where there is only one."""
        count = len(self.sibling_ids)
        return f"‹ {self.sibling_index + 1}/{count} ›" if count > 1 else ""


def shown(messages: Sequence[Message]) -> list[Shown]:
    """Group the nodes of a transcript, oldest first. Names of inner nodes of a run stay with the message.

    Settings that were changed belong to the message in front of them; in front of all they are not shown.
    """
    groups: list[list[Message]] = []
    for message in messages:
        if groups and (message.says_nothing or (message.continues and groups[-1][0].role == "assistant")):
            groups[-1].append(message)
        elif not message.says_nothing:
            groups.append([message])
    return [_join(group) for group in groups]


def _join(group: list[Message]) -> Shown:
    first, last = group[0], group[-1]
    return Shown(
        ids=tuple(message.node_id for message in group),
        role=first.role,
        text="".join(message.text for message in group),
        turn=first.turn,
        total_tokens=last.total_tokens,
        stop=last.stop,
        sibling_index=first.sibling_index,
        sibling_ids=first.sibling_ids,
        names=tuple(dict.fromkeys(name for message in group for name in message.labels)),
        thinking_tokens=first.thinking_tokens,
    )
