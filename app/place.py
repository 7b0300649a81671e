"""Where a chat stands: the path of nodes from the root to the live position, and how messages are added behind it.

A message that the library cannot take (full disk, read-only, busy) is kept in memory and tried again before the next
one, so that nothing that was said is lost while the program runs. Nobody stands elsewhere before it is written.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snapshots import (
    Action,
    ActionKind,
    BadNode,
    Conversation,
    DamagedNode,
    Journal,
    Library,
    Message,
    Node,
    Position,
    StoreError,
    UnknownConversation,
    UnknownNode,
)

UNSAVED = "unsaved-"
SETTINGS = "settings"
"""Stop reason of a node that says nothing: it holds the settings and dice that were put in force behind its parent."""
_LASTING = (BadNode, DamagedNode, UnknownConversation, UnknownNode)  # trying again would not help


@dataclass(frozen=True)
class Cut:
    """A point inside the last node: its first `count` own tokens stand, `text` is what they say."""

    count: int
    text: str


@dataclass(frozen=True)
class Past:
    """A message of the history as the next prompt needs it."""

    role: str
    text: str
    tokens: tuple[int, ...]
    end: int = -1  # length of the token list behind it; -1 where a later message dropped some of it


class Place:
    """The live position. Reading attributes is safe from any thread; the chat's working thread moves it."""

    def __init__(self, library: Library, *, window: str = "", moves_head: bool = True, template_date: str = "") -> None:
        self.library = library
        self.window = window
        self.moves_head = moves_head
        self.template_date = template_date
        self.conversation: Conversation | None = None
        self.path: tuple[Node, ...] = ()
        self.cut: Cut | None = None
        self.on_trouble: Callable[[StoreError], None] = lambda error: None
        self.on_relief: Callable[[], None] = lambda: None  # all that was kept in memory is written
        self._unsaved: list[tuple[Node, Journal | None]] = []  # always the end of the path
        self._written: dict[str, str] = {}  # id in memory -> id in the library
        self._count = itertools.count(1)
        self._left: dict[str, Position] = {}  # where this window left other conversations

    # ---- what is here -------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node | None:
        """The last node of the path."""
        return self.path[-1] if self.path else None

    @property
    def saved_node(self) -> Node | None:
        """The last node of the path that is in the library, whole."""
        return next((n for n in reversed(self.path) if not n.id.startswith(UNSAVED)), None)

    @property
    def said(self) -> Node | None:
        """The last message of the path."""
        return next((n for n in reversed(self.path) if n.stop != SETTINGS), None)

    @property
    def date(self) -> str:
        """The date for templates, frozen at the conversation's start."""
        return self.conversation.template_date if self.conversation else self.template_date

    def tokens(self) -> list[int]:
        """The whole token list at the live position."""
        ids: list[int] = []
        for node in self.path:
            del ids[node.keep :]
            ids.extend(node.tokens)
        if self.cut is not None and self.path:
            del ids[self.path[-1].keep + self.cut.count :]
        return ids

    def said_ids(self) -> list[int]:
        """The ids of the reply that the live position is in the middle of."""
        ids: list[int] = []
        for at in range(len(self.path) - 1, -1, -1):
            if self.path[at].role != "assistant":
                break
            own = self.path[at].tokens
            if self.cut is not None and at == len(self.path) - 1:
                own = own[: self.cut.count]
            ids = [*own, *ids]
        return ids

    def dice(self) -> bytes:
        """The dice in force, b"" where none were used yet."""
        return next((n.dice_key for n in reversed(self.path) if n.dice_key), b"")

    def sampler(self) -> Mapping[str, Any]:
        """The sampler settings in force, empty where none were used yet."""
        return next((n.sampler for n in reversed(self.path) if n.sampler), {})

    def system(self) -> str:
        """The system message in force."""
        return next((n.text for n in reversed(self.path) if n.role == "system"), "")

    def system_was(self) -> str:
        """The system message that was in force when the last tokens were made."""
        last = max((i for i, n in enumerate(self.path) if n.tokens), default=-1)
        return next((n.text for n in reversed(self.path[: last + 1]) if n.role == "system"), "")

    def prompt_keys(self) -> set[str]:
        """The prompt keys of the nodes whose tokens stand in the list."""
        keys: set[str] = set()
        end = len(self.tokens())
        for node in reversed(self.path):
            if node.tokens and node.keep < end:
                keys.add(node.prompt_key)
            end = min(end, node.keep)
        return keys

    def readable_by(self, prompt_key: str, vocabulary_size: int) -> bool:
        """Whether the ids that stand were made by this tokenizer, and are ids of it."""
        return self.prompt_keys() <= {prompt_key} and max(self.tokens(), default=0) < vocabulary_size

    def history(self, prompt_key: str) -> list[Past]:
        """The messages but the system's; a reply that was written in parts is one message.

        Ids say a reply's text only to the tokenizer that made them: replies of others than `prompt_key` have none here.
        """
        past: list[Past] = []
        kept = [0] * len(self.path)  # how much of the list behind each node still stands at the end
        least = 1 << 62
        for at in range(len(self.path) - 1, -1, -1):
            kept[at] = least
            least = min(least, self.path[at].keep)
        for at, node in enumerate(self.path):
            if node.role == "system" or node.stop == SETTINGS:
                continue
            text, tokens = node.text, node.tokens
            if self.cut is not None and at == len(self.path) - 1:
                text, tokens = self.cut.text, node.tokens[: self.cut.count]
            end = node.keep + len(tokens)
            end = end if end <= kept[at] else -1
            if node.prompt_key != prompt_key:
                tokens = ()
            if past and node.role == "assistant" == past[-1].role:
                parts = (past[-1], Past("assistant", text, tokens))
                whole = all(part.tokens or not part.text for part in parts)  # else they would say a part of it
                ids = parts[0].tokens + parts[1].tokens if whole else ()
                past[-1] = Past("assistant", past[-1].text + text, ids, end)
            else:
                past.append(Past(node.role, text, tokens, end))
        return past

    # ---- moving -------------------------------------------------------------------------------------------------

    def look(self, conversation_id: str | None, node_id: str | None) -> tuple[Node, ...]:
        """Read a path without going there. Raises UnknownNode, DamagedNode."""
        return tuple(self.library.path(node_id)) if conversation_id is not None else ()

    @property
    def unwritten(self) -> int:
        """How many messages are kept in memory because the library could not take them."""
        return len(self._unsaved)

    def leave(self) -> None:
        """Write what is kept in memory, so that the path may be left. Raises StoreError; then nothing is lost."""
        if self._unsaved:
            self._begin_conversation()
            self._settle()

    def written(self, node_id: str) -> str:
        """Give the id that a message has in the library, for the one it had in memory."""
        return self._written.get(node_id, node_id)

    def stand(self, conversation: Conversation | None, path: tuple[Node, ...], cut: Cut | None = None) -> None:
        """Be somewhere else; nothing is written but where this window stands. Raises as `leave`, unmoved."""
        if not all(node in path for node, _ in self._unsaved):
            self.leave()
        if cut is not None and path and cut.count >= len(path[-1].tokens):
            cut = None
        if (left := self.position()) is not None:
            self._left[left.conversation_id] = left
        self.conversation, self.path, self.cut = conversation, path, cut
        self.remember()

    def position(self) -> Position | None:
        """Give the live position as the library keeps it; None in a conversation that has not begun."""
        if self.conversation is None:
            return None
        node = self.node
        at = self.saved_node if node is not None and node.id.startswith(UNSAVED) else node
        token = self.cut.count if self.cut is not None else None
        return Position(self.conversation.id, at.id if at is not None else None, token)

    def remember(self) -> None:
        """Write where this window stands: there it opens again."""
        if (here := self.position()) is not None:
            self._tolerate(lambda: self.library.set_position(here, window=self.window))

    def left(self, conversation_id: str) -> Position:
        """Give where to open a conversation: where this window left it, else where any window did."""
        return self.library.place_in(conversation_id, self._left.get(conversation_id))

    def move_head(self, conversation_id: str, node_id: str | None, action: ActionKind) -> Action | None:
        """Write that the conversation stands somewhere else, undoably."""
        if not self.moves_head:
            return None
        moved: list[Action] = []
        self._tolerate(
            lambda: moved.append(self.library.move_head(conversation_id, node_id, action=action, window=self.window))
        )
        return moved[0] if moved else None

    # ---- adding -------------------------------------------------------------------------------------------------

    def commit(self, message: Message, *, state_key: str = "", journal: Journal | None = None) -> Node:
        """Add a message behind the live position and stand there.

        What the library cannot take is kept in memory (its id begins with "unsaved-") and `on_trouble` is told.
        """
        try:
            self._begin_conversation()
            self._settle()
            node = self._add(self.node.id if self.node else None, message, state_key, journal)
            self.path = (*self.path, node)
        except _LASTING:
            raise
        except StoreError as error:
            if self.cut is not None and self.node is not None:
                self._cut_in_memory(self.node, self.cut)
            node = self._in_memory(message, state_key)
            self.path = (*self.path, node)
            self._unsaved.append((node, journal))
            self.on_trouble(error)
        self.cut = None
        return node

    def settle(self) -> bool:
        """Write what was kept in memory; False where the library still cannot take it."""
        try:
            self._begin_conversation()
            self._settle()
        except _LASTING:
            raise
        except StoreError as error:
            self.on_trouble(error)
            return False
        return True

    def _begin_conversation(self) -> None:
        if self.conversation is None:
            self.conversation = self.library.new_conversation(template_date=self.template_date)

    def _settle(self) -> None:
        """Put the cut's sibling and the unsaved nodes into the tree, in order."""
        if self.cut is not None and self.node is not None:
            last = self.node
            node = self._add(last.parent_id, _shortened(last, self.cut), last.state_key, None)
            self.path, self.cut = (*self.path[:-1], node), None
        waited = bool(self._unsaved)
        while self._unsaved:
            old, journal = self._unsaved[0]
            at = self.path.index(old)
            message = Message(
                old.role, old.text, old.tokens, old.keep, old.stop, old.sampler, old.dice_key, old.prompt_key
            )
            node = self._add(self.path[at - 1].id if at else None, message, old.state_key, journal)
            self.path = (*self.path[:at], node, *self.path[at + 1 :])
            self._written[old.id] = node.id
            del self._unsaved[0]
        if waited:
            self.on_relief()

    def _add(self, parent_id: str | None, message: Message, state_key: str, journal: Journal | None) -> Node:
        assert self.conversation is not None
        return self.library.add_node(
            self.conversation.id,
            parent_id,
            message,
            state_key=state_key,
            window=self.window,
            move_head=self.moves_head or parent_id is None,
            journal=journal,
        )

    def _cut_in_memory(self, last: Node, cut: Cut) -> None:
        """Make the cut's sibling a node in memory."""
        self.path, self.cut = self.path[:-1], None
        node = self._in_memory(_shortened(last, cut), last.state_key)
        self.path = (*self.path, node)
        self._unsaved.append((node, None))

    def _in_memory(self, message: Message, state_key: str) -> Node:
        parent = self.node
        before = len(self.tokens())
        keep = before if message.keep is None else message.keep
        turn = (parent.turn if parent else 0) + (message.role in {"user", "raw"})
        return Node(
            id=f"{UNSAVED}{next(self._count)}",
            conversation_id=self.conversation.id if self.conversation else "",
            parent_id=parent.id if parent else None,
            role=message.role,
            text=message.text,
            tokens=tuple(message.tokens),
            keep=keep,
            n_tokens=keep + len(message.tokens),
            turn=turn,
            stop=message.stop,
            sampler=message.sampler,
            dice_key=message.dice_key,
            prompt_key=message.prompt_key,
            state_key=state_key,
            created=time.time(),
        )

    def _tolerate(self, change: Callable[[], None]) -> None:
        try:
            change()
        except _LASTING:
            raise
        except StoreError as error:
            self.on_trouble(error)

    def refresh_conversation(self) -> None:
        """Read the conversation's title and head again."""
        if self.conversation is not None:
            self.conversation = self.library.conversation(self.conversation.id)


def _shortened(node: Node, cut: Cut) -> Message:
    """Give the message that a node is up to a cut."""
    return Message(
        role=node.role,
        text=cut.text,
        tokens=node.tokens[: cut.count],
        keep=node.keep,
        stop="cut" if node.role == "assistant" else "",
        sampler=node.sampler,
        dice_key=node.dice_key,
        prompt_key=node.prompt_key,
    )
