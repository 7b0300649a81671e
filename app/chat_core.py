"""What the parts of a chat share: the library, the place in it, the open model, and who may work when."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app import pending, thinking, views
from app.branching import Branch
from app.chat_options import SCRIPT, ChatOptions
from app.engine_protocol import Engine
from app.errors import NothingToDo, OtherModel
from app.events import (
    Event,
    Message,
    Notice,
    PendingFound,
    PendingReply,
    PositionChanged,
    Restored,
    TreeChanged,
)
from app.generation import Reply
from app.place import SETTINGS, UNSAVED, Cut, Place
from app.prefill_ahead import PrefillAhead
from app.replying import Requests, Voice
from app.savepoints import Reached, StateWriter, model_info, remember_speed
from app.sentences import fields_as_said, sentence
from app.workbench import HARMLESS_FIELDS, Expectation, Workbench
from snapshots import ActionKind, DeadReply, Library, Node, StoreError, StoreReadOnly
from snapshots import Message as NewMessage

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings

Emit = Callable[[Event], None]


class Core:
    """Shared state of one chat. `working` is the one lock around everything that changes it."""

    def __init__(
        self, library: Library, states: Library | None, engine: Engine, emit: Emit, options: ChatOptions
    ) -> None:
        self.library = library
        self.own = states
        self.options = options
        self.engine = engine
        self.tree_stamp = 0  # grows with every change of the tree or the position that this chat makes

        def stamped(event: Event) -> None:
            if isinstance(event, (TreeChanged, PositionChanged)):
                self.tree_stamp += 1
            emit(event)

        self.emit: Emit = stamped
        self.place = Place(
            library,
            window=options.window,
            moves_head=options.moves_head,
            template_date=options.template_date or datetime.date.today().isoformat(),
        )
        self.place.on_trouble, self.place.on_relief = self._trouble, self._relief
        self.bench = Workbench(engine, states, options.models)
        self.ahead = PrefillAhead(
            self.bench, self.place, self.idle, busy=lambda: self.busy, wanted=lambda: self.dead is None
        )
        self.bench.ahead = self.ahead
        self._label: tuple[object, str | None] = (None, None)
        self.states = StateWriter(library, emit) if options.autosave and not options.incognito else None
        self.settings: SamplerSettings | None = None
        self.dice = b""
        self.borrowed: dict[str, str] = {}  # incognito: copied node -> the node of the person's library
        self.started_at = ""
        self.last_reply: Reply | None = None
        self.branches: tuple[Branch, ...] = ()
        self.dead: DeadReply | None = None
        self.requests = Requests()
        self.phase_lock = threading.Lock()
        self.decoding = False
        self.busy = False
        self.changed = False  # whether a person changed settings since they were those of the place
        self.moves = 0  # how often the position moved: tells a repeated F9 from a first one
        self._mutex = threading.RLock()
        self._depth = 0
        self._cancel = threading.Event()
        self._troubled = ""
        self._thinking: dict[str, int] = {}  # tokens of thinking by node
        self.trouble: Exception = StoreError("The conversation could not be written to the library.")

    # ---- who works ----------------------------------------------------------------------------------------------

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be the one that works."""
        with self._mutex:
            if self._depth == 0:
                self._cancel.clear()
            self._depth += 1
            self.busy = True
            try:
                yield
            finally:
                self._depth -= 1
                self.busy = self._depth > 0

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Stop a running reply, then be the one that works."""
        self._cancel.set()
        with self.working():
            yield

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep others from working for a moment; False, and nobody is kept, where somebody works."""
        free = self._mutex.acquire(blocking=False)
        try:
            yield free and self._depth == 0
        finally:
            if free:
                self._mutex.release()

    def stop(self) -> None:
        """Ask whoever works to end between two tokens or chunks."""
        self._cancel.set()

    def cancelled(self) -> bool:
        """Tell whether somebody asked."""
        return self._cancel.is_set()

    # ---- settings and dice --------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Put the sampler settings and dice of the live position in force."""
        self.changed = False
        if self.bench.model is not None:
            self.settings = self._settings_here(self.options.forced)
        if self.options.seed is not None:
            self.dice = self.engine.dice_from_seed(self.options.seed)
        elif self.options.new_dice:
            self.dice = self.dice or self.engine.new_dice()
        else:
            self.dice = self.place.dice() or self.engine.new_dice()

    def _settings_here(self, forced: Mapping[str, Any]) -> SamplerSettings:
        values = dict(self.place.sampler()) or dict(self.options.sampler)
        return self.bench.settings_for(values, dict(forced))

    def values(self) -> dict[str, Any]:
        """The sampler settings in force as JSON, {} before a model is open: what nodes are committed with."""
        return self.settings.to_json() if self.settings is not None else {}

    def keep_settings(self) -> None:
        """Make the settings and dice in force part of the live position, where coming back would give others.

        They become a node of their own that says nothing, so a savepoint goes on as the live chat does, and so does a
        chat that was killed. In front of a cut-off reply they wait: it goes on with its own.
        """
        if self.settings is None or self.dead is not None or (self.place.node is None and not self.changed):
            return
        if self._settings_here({}) == self.settings and self.place.dice() == self.dice:
            return
        model = self.bench.need_model()
        message = NewMessage(
            "assistant", "", stop=SETTINGS, sampler=self.values(), dice_key=self.dice, prompt_key=model.prompt_key
        )
        self.place.commit(message, state_key=model.state_key)
        self.changed = False
        self.emit(PositionChanged())

    def voice(self, *, dice: bytes | None = None, settings: SamplerSettings | None = None) -> Voice:
        """Give what the next reply is made with. Raises NoModel."""
        model = self.bench.need_model()
        settings = settings or self.settings
        assert settings is not None
        raw = any(node.role == "raw" for node in self.place.path)
        dice_key = self.dice if dice is None else dice
        return Voice(self.engine, model, settings, dice_key, self.options.limit, raw, self.options.speculate)

    # ---- moving -------------------------------------------------------------------------------------------------

    def cut_at(self, node: Node, token: int | None) -> Cut | None:
        """Make the point inside a node that REF@n names; needs the model for its text.

        Raises NothingToDo where another tokenizer made the node.
        """
        if token is None or token >= len(node.tokens):
            return None
        model = self.bench.need_model()
        if node.prompt_key != model.prompt_key:
            raise NothingToDo("Only the model that wrote a message can go on in the middle of it; @ needs that one.")
        decoder = self.engine.stream_decoder(model)
        return Cut(token, "".join(decoder.push(t) for t in node.tokens[:token]))

    def go(
        self,
        conversation_id: str,
        node_id: str | None,
        *,
        token: int | None = None,
        action: ActionKind | None = "restore",
        what: str = "",
        quiet: bool = False,
    ) -> Restored | None:
        """Stand at a node. Builds the session first: on any error the live chat stays as it was.

        `action` is what the log says (None: it was logged already); `what` names the place in the sentence. Gives and
        emits Restored, or gives None where no model is open yet. Raises UnknownNode, DamagedNode, Cancelled, and
        StoreError where what is kept in memory here still cannot be written.
        """
        self.place.leave()
        conversation = self.library.conversation(conversation_id)
        there = Place(self.library)
        there.conversation, there.path = conversation, tuple(self.library.path(node_id))
        if token is not None and there.node is not None:
            there.cut = self.cut_at(there.node, token)
        restored = self._climb(there, what) if self.bench.model is not None else None
        if action is not None:
            self.place.move_head(conversation_id, node_id, action)
        self.place.stand(conversation, there.path, there.cut)
        self.moves += 1
        self.take_over()
        self.find_pending()
        if restored is not None and not quiet:
            undoable = action is not None and "/undo" not in what
            self.emit(replace(restored, sentence=f"{restored.sentence} /undo returns.") if undoable else restored)
        self.emit(PositionChanged())
        self.emit(TreeChanged())
        if self.dead is not None:
            self.emit(PendingFound(pending.cut_off(self.dead)))
        return restored

    def climb_here(self) -> Restored:
        """Make the session for the live position, as after a start or another model."""
        try:
            return self._climb(self.place, self.started_at)
        finally:
            self.take_over()  # also where Esc ended it: the next message computes what is missing

    def _climb(self, there: Place, what: str) -> Restored:
        model = self.bench.need_model()
        node = there.node
        node_id = node.id if node is not None else ""
        self.library_remembers()
        if not self.bench.can_read(there):
            self.bench.session = None
            expected = self.expectation(node)
            fields = expected.differs or ("tokenizer",)
            if self.options.strict_model:
                raise OtherModel(what.strip("“”"), fields, expected.saved_with)
            text = f"{what or 'This conversation'} was made with {expected.saved_with or 'another model'}"
            text += f" ({fields_as_said(fields)}): {model.name} reads it anew with the next message."
            return Restored(node_id, "recomputed", 0, 0, None, fields, text[:1].upper() + text[1:])
        whole = there.cut is None
        expected = self.expectation(node)
        if self.options.strict_model and not set(expected.differs) <= set(HARMLESS_FIELDS):
            raise OtherModel(what.strip("“”"), expected.differs, expected.saved_with)
        digest = expected.digest if whole else ""
        reached = self.bench.reach(
            there.tokens(),
            there.dice(),
            digest=digest,
            emit=self.emit,
            cancel=self.cancelled,
            phase="restore",
        )
        self.bench.adopt(reached.session)
        self.note(node, reached)
        if node is not None and whole and reached.prefilled:
            self.save_state(node)
        text = _sentence(what, reached, expected)
        return Restored(
            node_id, reached.rung, reached.reused, reached.prefilled, reached.bit_exact, expected.differs, text
        )

    def note(self, node: Node | None, reached: Reached) -> None:
        """Remember that a state was used, and how fast this model reads a prompt: how long recomputing would take."""
        if self.options.incognito or self.bench.model is None:
            return
        try:
            if node is not None and reached.reused and not node.id.startswith(UNSAVED):
                self.library.note_use(node.id)
            remember_speed(self.library, self.bench.model.state_key, reached.prefilled, reached.prefill_s)
        except StoreError as error:
            self._trouble(error)

    def expectation(self, node: Node | None) -> Expectation:
        """Find what is remembered of a node's state, also of one that was borrowed from the person's library."""
        if node is None or node.id.startswith(UNSAVED):
            return Expectation()
        if node.id in self.borrowed and self.own is not None:
            return self.bench.expectation(self.borrowed[node.id], node.state_key, self.own)
        return self.bench.expectation(node.id, node.state_key, self.library)

    def library_remembers(self) -> None:
        """Tell the library what the open model is, so that a later mismatch can be named."""
        if self.options.incognito or self.bench.model is None:
            return
        try:
            self.library.remember_model(model_info(self.bench.model))
        except StoreError as error:
            self._trouble(error)

    # ---- saving -------------------------------------------------------------------------------------------------

    def save_state(self, node: Node, name: str | None = None) -> None:
        """Queue the live session's state behind a node that it is the state of."""
        session = self.bench.session
        if self.states is None or session is None or node.id.startswith(UNSAVED):
            return
        here = self.place.node is not None and self.place.node.id == node.id and self.place.cut is None
        # A live session of as many tokens may hold others: behind an edited reply, a cancelled prefill, dropped turns.
        if list(session.tokens) == (self.place.tokens() if here else self.library.tokens(node.id)):
            self.states.save(node.id, self.bench.need_model(), session, name=name)

    # ---- crashed replies ----------------------------------------------------------------------------------------

    def find_pending(self) -> None:
        """Look for the journal of a reply that died behind the live position."""
        node = self.place.node
        self.dead = None
        if node is None or self.options.incognito:
            return
        self.dead = pending.dead_reply(self.library, node.id)

    def pending(self) -> PendingReply | None:
        """Give what `go_on` would finish: a journal, or a question that never got an answer."""
        if self.dead is not None:
            return pending.cut_off(self.dead)
        return None if self.busy else pending.unanswered(self.library, self.place, incognito=self.options.incognito)

    def label(self) -> str | None:
        """Give the nearest name at or above the live position; looked up again only after a change."""
        node = self.place.saved_node
        if node is None:
            return None
        stamp = (node.id, self.tree_stamp)
        if self._label[0] != stamp:
            self._label = (stamp, self.library.nearest_name(node.id))
        return self._label[1]

    # ---- telling ------------------------------------------------------------------------------------------------

    def view(self, node: Node) -> Message:
        """Give the last node of the path as screens show it."""
        return views.messages(self.library, self.place.path, thinking=self.thinking_tokens)[-1]

    def thinking_tokens(self, node: Node) -> int | None:
        """Count the thinking of a reply; None where it has none, or no model is open that can read its tokens."""
        model = self.bench.model
        if thinking.parted(node.text).thinking is None or model is None or node.prompt_key != model.prompt_key:
            return None
        if node.id not in self._thinking:
            self._thinking[node.id] = thinking.count_tokens(model.tokenizer, node.tokens)
        return self._thinking[node.id]

    def notice(self, text: str, severity: str = "information") -> None:
        """Say one sentence."""
        self.emit(Notice(text, severity))  # type: ignore[arg-type]

    def _trouble(self, error: Exception) -> None:
        """Say once what keeps the library from taking text; the text stays in memory and is tried again."""
        self.trouble = error
        text = sentence(error)
        if text != self._troubled and self.options.window != SCRIPT:
            self._troubled = text
            lasting = isinstance(error, StoreReadOnly)
            kept = "only until you leave" if lasting else "in memory and written as soon as that works"
            self.notice(f"{text} What is said here is kept {kept}.", "warning" if lasting else "error")

    def _relief(self) -> None:
        """Say that the library took what waited in memory; the same trouble is said again from now on."""
        if self._troubled:
            self._troubled = ""
            self.notice("What was kept in memory is written to the library now.")


def _sentence(what: str, reached: Reached, expected: Expectation) -> str:
    total = reached.reused + reached.prefilled
    if reached.rung == "bundle":
        how = f"{total} tokens, nothing computed"
    elif reached.rung == "partial":
        how = f"{reached.reused} of {total} tokens from disk, {reached.prefilled} computed"
    else:
        how = f"{total} tokens recomputed"
    if reached.bit_exact is True:
        how += ", bit-exact"
    elif reached.bit_exact is False:
        how += ", by another numerics version"
    elif expected.differs:
        how += f", with another model ({fields_as_said(expected.differs)})"
    return f"{what[:1].upper() + what[1:] if what else 'Ready'}: {how}."
