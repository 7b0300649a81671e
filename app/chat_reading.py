"""What a chat tells without doing anything: messages, tree, names, status. Any thread may ask, and needs no model.

What reads the library may wait for another process that commits: a screen asks in a thread. `status` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import views
from app.branching import Branch
from app.chat_core import Core
from app.errors import NothingToDo
from app.events import ConversationRow, Message, PendingReply, Status, TreeRow
from app.generation import Reply
from snapshots import Hit, UnknownRef

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings


class ChatReading:
    """The reading half of `Chat`, over what its parts share. Cheap, and safe in any thread."""

    _core: Core

    def transcript(self) -> list[Message]:
        """Give the messages from the root to the live position, oldest first; system messages included."""
        core = self._core
        return views.messages(core.library, core.place.path, core.place.cut, core.thinking_tokens)

    def transcript_of(self, node_id: str) -> list[Message]:
        """Give the messages from the root to any node, for previews: nothing is restored."""
        core = self._core
        return views.messages(core.library, core.library.path(node_id), thinking=core.thinking_tokens)

    def tree(self) -> list[TreeRow]:
        """Give every node of this conversation, depth first."""
        conversation = self._core.place.conversation
        return views.tree_rows(self._core.library, conversation.id, self._core.place.path) if conversation else []

    def conversations(self) -> list[ConversationRow]:
        """Give every conversation of the library, the last used first."""
        return views.conversation_rows(self._core.library, self._core.place.conversation)

    def labels(self) -> dict[str, str]:
        """Give every name of the library and the id of the node that it points to."""
        return {s.name: s.node_id for s in self._core.library.savepoints()}

    def find(self, text: str) -> list[Hit]:
        """Give messages of the whole library that hold all words of a text, newest first."""
        return self._core.library.find(text)

    def parting(self, refs: str) -> str:
        """Say where two savepoints part, or one and the live position, and what each of the two says from there on.

        `refs` holds both, with a space between; names may hold spaces, too. Raises UnknownRef, AmbiguousRef.
        """
        core = self._core
        here = core.place.conversation.id if core.place.conversation else None
        words = refs.split()
        unknown: UnknownRef | None = None
        for cut in (len(words), *range(1, len(words))):
            named = [" ".join(part) for part in (words[:cut], words[cut:]) if part]
            try:
                found = [core.library.resolve(ref, conversation_id=here) for ref in named]
            except UnknownRef as error:
                unknown = error
                continue
            paths = [(ref, core.library.path(each.node.id)) for ref, each in zip(named, found, strict=True)]
            return views.parting(*paths) if len(paths) == 2 else views.parting(("here", core.place.path), paths[0])
        raise unknown or NothingToDo("/diff takes one savepoint, or two.")

    def siblings(self, node_id: str) -> list[Message]:
        """Give the alternatives of a message, itself included, in order of creation."""
        library = self._core.library
        return [views.messages(library, library.path(n.id))[-1] for n in library.siblings(node_id)]

    def prompt_history(self) -> list[str]:
        """Give the user's messages of the whole library, oldest first, for the prompt's history."""
        return self._core.library.prompts()[::-1]

    def status(self) -> Status:
        """Give the facts for the status line; reads nothing and waits for nobody."""
        core = self._core
        model = core.bench.model
        last = core.place.node
        tokens = core.place.cut.count + last.keep if core.place.cut and last else last.n_tokens if last else 0
        if core.decoding and core.bench.session is not None:
            tokens = core.bench.session.position
        return Status(
            model_name=model.name if model else None,
            conversation_id=core.place.conversation.id if core.place.conversation else None,
            node_id=last.id if last else None,
            tokens=tokens,
            context_length=model.context_length if model else None,
            busy=core.busy,
            generating=core.decoding,
            temperature=core.settings.temperature if core.settings else None,
            incognito=core.options.incognito,
        )

    def branch(self) -> str | None:
        """Give the nearest name at or above the live position."""
        return self._core.label()

    def pending_reply(self) -> PendingReply | None:
        """Give the cut-off reply behind the live position, if there is one."""
        return self._core.pending()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written to the library."""
        return self._core.library.read_only

    @property
    def unwritten(self) -> int:
        """How many messages are in memory alone, because the library could not take them; `trouble` says why."""
        return self._core.place.unwritten

    @property
    def trouble(self) -> Exception:
        """What kept the library last from taking text."""
        return self._core.trouble

    @property
    def settings(self) -> SamplerSettings | None:
        """Sampler settings of the next reply; None until a model is open."""
        return self._core.settings

    @property
    def system(self) -> str:
        """The system message in force, "" where there is none."""
        return self._core.place.system()

    @property
    def last_reply(self) -> Reply | None:
        """The reply that was written last in this process: its ids, text and reason."""
        return self._core.last_reply

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The replies to the last message where ChatOptions asked for several; the first is the live one."""
        return self._core.branches

    @property
    def dice_key(self) -> bytes:
        """The dice of the next token; their position is the number of tokens."""
        return self._core.dice

    def logits_digest(self) -> str | None:
        """Give the digest of the live position's logits (blake2b-256 hex); None where they are not computed."""
        session = self._core.bench.session
        if session is None or session.logits is None or list(session.tokens) != self._core.place.tokens():
            return None
        return session.logits_digest()
