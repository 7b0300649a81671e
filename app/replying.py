"""Writing one reply: tokens into the journal as they come, nodes into the tree as they end.

A save in mid-reply ends one node with the reason "saved" and goes on in its child; the journal changes hands with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine_protocol import Engine, Model, Session
from app.events import Delta, Event, Notice
from app.generation import Decoding, Reply, Writing, generate
from app.place import UNSAVED, Place
from app.savepoints import StateWriter
from app.sentences import sentence
from snapshots import DeadReply, Journal, Library, Message, Node, ReplyStart, StoreError

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings

Act = Callable[[Node], None]


class Requests:
    """Saves that were asked for in mid-reply: each waits for the next gap between two tokens."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Act, Future[None]]] = deque()

    def ask(self, act: Act) -> Future[None]:
        """Queue an action on the node that holds the reply so far; the future carries its result."""
        done: Future[None] = Future()
        self._waiting.append((act, done))
        return done

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def serve(self, node: Node) -> None:
        """Do everything that waits."""
        while self._waiting:
            act, done = self._waiting.popleft()
            try:
                act(node)
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)


@dataclass(frozen=True)
class Voice:
    """What a reply is made with."""

    engine: Engine
    model: Model
    settings: SamplerSettings
    dice_key: bytes
    limit: int | None = None  # most tokens to sample
    raw: bool = False  # no template, so none of its stop strings
    speculate: bool = False  # guess what was said before, where that is faster: no result changes

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings: the settings', and those by which the template's replies end."""
        return self.settings.stop if self.raw else (*self.settings.stop, *self.model.template.stop)


@dataclass
class ReplyWriter:
    """Writes one reply behind `place`. Mutates the place, the library and the session it is given."""

    voice: Voice
    library: Library
    place: Place
    states: StateWriter | None
    emit: Callable[[Event], None]
    cancel: Callable[[], bool]
    requests: Requests
    journal: Journal | None = None
    keep: int | None = None
    generated: int = field(default=0, init=False)  # tokens of all parts so far, adopted ones included
    made: int = field(default=0, init=False)  # tokens of all parts so far, made by this process
    _journaled: int = field(default=0, init=False)  # characters of the open reply's text that are in the journal
    _journal_failed: bool = field(default=False, init=False)

    def begin_journal(self) -> None:
        """Open the journal behind the live position, before anything is computed; without one the reply goes on."""
        place, voice = self.place, self.voice
        node = place.node
        if place.conversation is None or node is None or node.id.startswith(UNSAVED) or place.cut is not None:
            return
        start = ReplyStart(
            conversation_id=place.conversation.id,
            parent_id=node.id,
            keep=self.keep,
            sampler=voice.settings.to_json(),
            dice_key=voice.dice_key,
            prompt_key=voice.model.prompt_key,
            state_key=voice.model.state_key,
            model_path=str(voice.model.path),
            extra={"limit": None if voice.limit is None else voice.limit - self.generated},
        )
        try:
            self.journal = self.library.begin_journal(start)
        except StoreError as error:
            self._complain(error)

    def adopt(self, journal: Journal, dead: DeadReply) -> Reply:
        """Take over a dead reply's journal; give the reply as it was."""
        self.journal = journal
        self.keep = dead.start.keep
        self._journaled = len(dead.text)
        self.generated = len(dead.tokens)
        return Reply(tokens=list(dead.tokens), text=dead.text)

    def write(
        self,
        session: Session,
        *,
        reply: Reply | None = None,
        before: Sequence[int] = (),
        first_token: int | None = None,
        save: bool = True,
    ) -> tuple[Node | None, Reply]:
        """Write until the reply ends, and commit it; the session's tokens are those of the place (and of `reply`).

        `before` are the ids of the same message in front of this reply's own. Gives the last node (None where nothing
        was added) and the reply that it holds. What was written before an error is committed, then it is raised.
        """
        writing = self.begin(session, lambda text: self.emit(Delta(text)), reply, before, first_token)
        try:
            generate(writing, self.cancel, speculate=self.voice.speculate)
        except BaseException:
            self.crashed(writing)
            raise
        return self.end(writing, save=save)

    def begin(
        self,
        session: Session,
        on_text: Callable[[str], None],
        reply: Reply | None = None,
        before: Sequence[int] = (),
        first_token: int | None = None,
    ) -> Writing:
        """Give what `generate` writes, with this writer's voice and journal; `end` or `crashed` commits it."""
        voice = self.voice
        reply = reply or Reply()
        session.dice_key = voice.dice_key
        said = [*before, *reply.tokens]
        in_front = session.position - len(said) - 1
        previous = session.tokens[in_front] if in_front >= 0 else None
        decoding = Decoding.begin(voice.engine, voice.model, voice.stops, said, previous)
        limit = None if voice.limit is None else max(0, voice.limit - len(reply.tokens))

        def between(current: Reply) -> Reply:
            self._append(current)
            return self._split(current, decoding, session, on_text) if self.requests else current

        return Writing(
            voice.engine,
            voice.model,
            session,
            voice.settings,
            reply,
            decoding,
            limit=limit,
            on_text=on_text,
            between=between,
            first_token=first_token,
        )

    def crashed(self, writing: Writing) -> None:
        """Commit what was written in front of an error."""
        self._commit(writing.reply, "crashed")

    def end(self, writing: Writing, *, save: bool = True) -> tuple[Node | None, Reply]:
        """Commit a reply that ended; give its node (None where nothing was added) and the reply."""
        reply = writing.reply
        behind_reply = self.place.said is not None and self.place.said.role == "assistant"
        if not reply.tokens and (reply.stop != "stop" or (behind_reply and not reply.text)):
            self.drop_journal()
            return None, reply
        node = self._commit(reply, reply.stop)
        if save:
            self.save_state(node, writing.session)
        return node, reply

    def drop_journal(self) -> None:
        """Forget the journal: there is nothing in it that the tree lacks."""
        if self.journal is not None:
            try:
                self.journal.discard()
            except StoreError as error:
                self._complain(error)
            self.journal = None

    def save_state(self, node: Node, session: Session, name: str | None = None) -> None:
        """Hand a copy of the session's new part to the writer thread."""
        if self.states is not None and not node.id.startswith(UNSAVED):
            self.states.save(node.id, self.voice.model, session, name=name)

    def _append(self, reply: Reply) -> None:
        self.generated += 1
        self.made += 1
        if self.journal is None:
            return
        try:
            self.journal.append(reply.tokens[-1:], reply.text[self._journaled :])
        except StoreError as error:
            self._complain(error)
            return
        self._journaled = len(reply.text)

    def _split(self, reply: Reply, decoding: Decoding, session: Session, on_text: Callable[[str], None]) -> Reply:
        """End a node here for those who asked for a save, and begin its child."""
        held = decoding.stops.release()
        if held:
            reply.text += held
            on_text(held)
        node = self._commit(reply, "saved")
        self.save_state(node, session)
        self.requests.serve(node)
        self.begin_journal()
        return Reply(decode_s=0.0)

    def _commit(self, reply: Reply, stop: str) -> Node:
        journal, self.journal = self.journal, None
        self._journaled = 0
        message = Message(
            role="assistant",
            text=reply.text,
            tokens=tuple(reply.tokens),
            keep=self.keep,
            stop=stop,
            sampler=self.voice.settings.to_json(),
            dice_key=self.voice.dice_key,
            prompt_key=self.voice.model.prompt_key,
        )
        self.keep = None
        return self.place.commit(message, state_key=self.voice.model.state_key, journal=journal)

    def _complain(self, error: Exception) -> None:
        if not self._journal_failed:
            self._journal_failed = True
            self.emit(Notice(f"The reply is not safe against a crash: {sentence(error)}", "warning"))
