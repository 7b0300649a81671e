"""Talking: messages go in, replies come out. Every user's message is committed before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from app import prompting, thinking, views
from app.branching import write_branches
from app.chat_core import Core
from app.engine_protocol import Session
from app.errors import Cancelled, NothingToDo
from app.events import (
    ContextFullOffer,
    Notice,
    PositionChanged,
    ReplyDone,
    ReplyStarted,
    ReplyStats,
    RunnerUpOffer,
    TreeChanged,
    TurnCommitted,
)
from app.generation import Reply
from app.replying import ReplyWriter, Voice
from app.sentences import counted
from snapshots import DeadReply, Journal, Message, Node, StoreError


class Talking:
    """The part of a chat that writes messages and replies."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # ---- questions ----------------------------------------------------------------------------------------------

    def send(self, text: str, *, raw: bool = False) -> None:
        """Commit a user's message and answer it; see Chat.send."""
        core = self._core
        with core.working():
            model = core.bench.need_model()
            self.settle_pending()
            plan = prompting.next_turn(model, core.place, text, raw=raw)
            if plan.length >= model.context_length:
                drop = 0 if raw else prompting.turns_to_drop(model, core.place, text)
                core.emit(ContextFullOffer(plan.length + 1, model.context_length, drop, text))
                return
            if plan.thinking:
                core.notice(f"The template drops {counted(plan.thinking, 'thinking token')}.")
            elif plan.dropped:
                lost = counted(plan.dropped, "token")
                core.notice(f"The template drops {lost} of the history; what is behind is read anew.")
            message = Message(
                role="raw" if raw else "user",
                text=text,
                tokens=plan.tokens,
                keep=plan.keep,
                sampler=core.values(),
                dice_key=core.dice,
                prompt_key=model.prompt_key,
            )
            node = core.place.commit(message, state_key=model.state_key)
            core.moves += 1
            self._remember(text)
            core.emit(TurnCommitted(core.view(node)))
            core.emit(TreeChanged())
            self._answer(core.voice())

    def _remember(self, text: str) -> None:
        core = self._core
        try:
            core.library.add_prompt(text)
            if core.place.conversation is not None and not core.place.conversation.title:
                core.library.set_title(core.place.conversation.id, views.title_of(text), undoable=False)
                core.place.refresh_conversation()
        except StoreError:
            return  # the message itself could be kept or was complained about: a title is not worth a second sentence

    # ---- replies ------------------------------------------------------------------------------------------------

    def regenerate(self, node_id: str | None, *, runner_up: bool) -> None:
        """Write another reply beside one; see Chat.regenerate."""
        core = self._core
        with core.working():
            model = core.bench.need_model()
            self.settle_pending()
            core.place.leave()
            path = core.place.path if node_id is None else tuple(core.library.path(core.place.written(node_id)))
            if not path:
                raise NothingToDo("There is no reply to write again yet.")
            begin = len(path)
            while begin and path[begin - 1].role == "assistant":
                begin -= 1
            if begin == 0:
                raise NothingToDo("There is no question in front of this reply.")
            if begin == len(path):
                self._answer(core.voice())
                return
            assert core.settings is not None
            greedy = core.settings.temperature <= 0
            old_first = next((n.tokens[0] for n in path[begin:] if n.tokens), None)
            with self._from_past(path[:begin]):
                if greedy and not runner_up:
                    reached = self._reach(core.voice().dice_key)
                    token = self._best_but(core.voice(), reached.session, {old_first, *model.tokenizer.end_ids})
                    core.notice("At temperature 0 new dice change nothing.")
                    core.emit(RunnerUpOffer(model.tokenizer.decode([token])))
                    return
                if not runner_up:
                    core.dice = core.engine.new_dice()
                self._answer(core.voice(), avoid_first=old_first if runner_up else None)

    def edit(self, node_id: str, text: str) -> None:
        """Commit another version of a message beside the old one; see Chat.edit."""
        core = self._core
        with core.working():
            self.settle_pending()
            core.place.leave()
            path = tuple(core.library.path(core.place.written(node_id)))
            old = path[-1]
            if old.role in {"user", "raw"}:
                with self._from_past(path[:-1]):
                    self.send(text, raw=old.role == "raw")
                return
            if old.role == "system":
                with self._from_past(path[:-1]):
                    self.set_system(text)
                return
            model = core.bench.need_model()
            begin = len(path) - 1
            while begin and path[begin - 1].role == "assistant":
                begin -= 1
            with self._from_past(path[:begin]):
                message = Message(
                    role="assistant",
                    text=text,
                    tokens=tuple(model.tokenizer.encode(text, add_bos=False, continuation=True)),
                    stop="edited",
                    sampler=core.values(),
                    dice_key=core.dice,
                    prompt_key=model.prompt_key,
                )
                core.place.commit(message, state_key=model.state_key)
            core.emit(PositionChanged())
            core.emit(TreeChanged())

    def continue_reply(self, *, past_end: bool) -> None:
        """Go on behind the live position; `past_end` goes on where the model had ended its turn."""
        core = self._core
        with core.working():
            self.settle_pending()
            node = core.place.said
            if node is None:
                raise NothingToDo("There is nothing to continue yet.")
            skip = past_end and node.role == "assistant" and node.stop == "stop" and core.place.cut is None
            if skip:
                core.notice("The reply had ended by itself; it goes on past its end.")
            self._answer(core.voice(), skip_end=skip)

    def go_on(self) -> None:
        """Finish the reply of the journal; see Chat.go_on."""
        core = self._core
        with core.working():
            model = core.bench.need_model()
            if core.dead is None:
                core.find_pending()  # a window that was writing when we came here may have died since
            if core.dead is None:
                if not (core.place.said and core.place.said.role in {"user", "raw"}):
                    raise NothingToDo("There is no cut-off reply here.")
                self._answer(core.voice())
                return
            if core.dead.start.prompt_key != model.prompt_key:
                raise NothingToDo("The cut-off reply was written by a model with another tokenizer.")
            if core.dead.start.state_key != model.state_key:
                core.notice("Another model goes on with this reply: its next words are not those that would have come.")
            dead, journal = core.library.adopt_reply(core.dead.journal_id)
            core.dead = None
            settings = core.engine.settings_from_json(dict(dead.start.sampler))
            limit = dead.start.extra.get("limit")
            limited = limit if isinstance(limit, int) else None
            raw = any(node.role == "raw" for node in core.place.path)
            voice = Voice(core.engine, model, settings, dead.start.dice_key, limited, raw, core.options.speculate)
            core.settings, core.dice = settings, dead.start.dice_key
            self._answer(voice, adopted=(journal, dead))

    def settle_pending(self) -> None:
        """Commit what the journal of a cut-off reply holds, so that it is not lost when the chat goes another way."""
        core = self._core
        if core.dead is None:
            return
        dead, journal = core.library.adopt_reply(core.dead.journal_id)
        core.dead = None
        if not dead.tokens:
            journal.discard()
            return
        start = dead.start
        message = Message(
            "assistant", dead.text, dead.tokens, start.keep, "crashed", start.sampler, start.dice_key, start.prompt_key
        )
        core.place.commit(message, state_key=start.state_key, journal=journal)
        core.emit(PositionChanged())
        core.emit(TreeChanged())

    def set_system(self, text: str) -> None:
        """Commit a system message; the next prompt is rendered with it."""
        core = self._core
        with core.working():
            self.settle_pending()
            if core.place.system() == text:
                return
            node = core.place.commit(Message(role="system", text=text, sampler=core.values(), dice_key=core.dice))
            core.moves += 1
            core.emit(TurnCommitted(core.view(node)))
            core.emit(TreeChanged())

    def drop_oldest_turns(self, turns: int, then_send: str | None) -> None:
        """Make a branch from the root without the oldest turns; see Chat.drop_oldest_turns."""
        core = self._core
        with core.working():
            model = core.bench.need_model()
            self.settle_pending()
            history = prompting.without_turns(core.place.history(model.prompt_key), turns)
            system = core.place.system()
            with self._from_past(()):
                if system:
                    core.place.commit(Message(role="system", text=system, sampler=core.values(), dice_key=core.dice))
                for past in history:
                    tokens, keep = past.tokens, None
                    if past.role == "assistant":
                        tokens = tokens or tuple(model.tokenizer.encode(past.text, add_eos=False, continuation=True))
                    else:
                        plan = prompting.next_turn(model, core.place, past.text)
                        tokens, keep = plan.tokens, plan.keep
                    core.place.commit(
                        Message(
                            "assistant" if past.role == "assistant" else "user",
                            past.text,
                            tokens,
                            keep,
                            "stop" if past.role == "assistant" else "",
                            sampler=core.values(),
                            dice_key=core.dice,
                            prompt_key=model.prompt_key,
                        ),
                        state_key=model.state_key,
                    )
                core.moves += 1
                core.emit(PositionChanged())
                core.emit(TreeChanged())
                core.notice(
                    f"A new branch without the oldest {counted(turns, 'turn')}; the original stays in the tree."
                )
                if then_send is not None:
                    self.send(then_send)

    # ---- one reply ----------------------------------------------------------------------------------------------

    def _answer(
        self,
        voice: Voice,
        *,
        avoid_first: int | None = None,
        skip_end: bool = False,
        adopted: tuple[Journal, DeadReply] | None = None,
    ) -> None:
        """Compute the reply behind the live position: journal, prompt, tokens, commit, save."""
        core = self._core
        if not core.bench.can_read(core.place):
            raise NothingToDo(
                "This was written with another tokenizer; send or edit a message, and the model reads it anew."
            )
        if not core.place.tokens():
            raise NothingToDo("There is nothing to answer or continue yet.")
        writer = ReplyWriter(voice, core.library, core.place, core.states, core.emit, core.cancelled, core.requests)
        before, node = core.place.said_ids(), core.place.node
        reply: Reply | None = None
        if adopted is not None:
            reply = writer.adopt(*adopted)
        else:
            if core.place.cut is not None:
                core.place.settle()
                node = core.place.node
            if not core.options.incognito:
                writer.begin_journal()
        try:
            reached = self._reach(voice.dice_key, reply.tokens if reply else (), writer.keep)
        except Cancelled:
            self._stopped_early(writer, adopted)
            return
        except BaseException:
            self._stopped_early(writer, adopted, quiet=True)
            raise
        session = reached.session
        if node is not None and reached.prefilled and reply is None:
            core.save_state(node)
        first_token = self._first_token(voice, session, avoid_first, skip_end)
        ends = voice.model.tokenizer.decode(thinking.prompt_end(session.tokens), skip_special=False)
        opened = not before and reply is None and thinking.opened_by(ends)
        core.emit(ReplyStarted(node.id if node else "", reached.reused, reached.prefilled, opened))
        last, reply = self._write(writer, session, reply, before, first_token)
        core.moves += 1
        core.last_reply = reply
        stats = ReplyStats(
            reached.reused,
            reached.prefilled,
            writer.made,
            reached.prefill_s + reached.restore_s,
            reply.decode_s,
            reply.drafted,
            reply.accepted,
        )
        if last is None and reply.stop == "stop":
            core.notice("The model ends here at once: nothing was added.")
        if reply.stop == "length" and session.position >= voice.model.context_length:
            core.notice("The context is full: the reply ends here.", "warning")
        shown = last or core.place.node
        if shown is not None:
            core.emit(ReplyDone(core.view(shown), reply.stop, stats))
        core.emit(TreeChanged())

    def _write(
        self, writer: ReplyWriter, session: Any, reply: Reply | None, before: Sequence[int], first_token: int | None
    ) -> tuple[Node | None, Reply]:
        core = self._core
        with core.phase_lock:
            core.decoding = True
        try:
            core.branches = ()
            if core.options.branches > 1 and reply is None:
                last, reply, core.branches = write_branches(writer, session, core.options.branches, before, first_token)
                return last, reply
            return writer.write(session, reply=reply, before=before, first_token=first_token)
        except BaseException:
            core.bench.session = None  # a step that failed half-way may have left it between two tokens
            core.emit(PositionChanged())
            raise
        finally:
            with core.phase_lock:
                core.decoding = False
                if core.requests and core.place.node is not None:
                    core.requests.serve(core.place.node)

    def _first_token(self, voice: Voice, session: Session, avoid: int | None, past_end: bool) -> int | None:
        """A token that a reply must begin with: one that is not `avoid`, or past an end of the turn; else None."""
        core, ends = self._core, voice.model.tokenizer.end_ids
        if avoid is not None:
            return self._best_but(voice, session, {avoid, *ends})
        if not past_end or session.logits is None:
            return None
        logits = session.logits.copy()
        logits[sorted(ends)] = -float("inf")
        return core.engine.sample(
            logits, session.tokens, voice.settings, voice.dice_key, session.position, model=voice.model
        )

    def _best_but(self, voice: Voice, session: Session, but: set[int | None]) -> int:
        """The likeliest token after the penalties that is none of `but`. Raises NothingToDo where there is no other."""
        assert session.logits is not None
        best = self._core.engine.likeliest(
            session.logits, session.tokens, voice.settings, len(but) + 1, model=voice.model
        )
        found = next((token for token in best if token not in but), None)
        if found is None:
            raise NothingToDo("The model has no second choice here.")
        return found

    def _reach(self, dice_key: bytes, more: Sequence[int] = (), keep: int | None = None) -> Any:
        core = self._core
        tokens = core.place.tokens()
        tokens = [*(tokens if keep is None else tokens[:keep]), *more]
        node = core.place.node
        digest = core.expectation(node).digest if not more and core.place.cut is None else ""
        reached = core.bench.reach(
            tokens, dice_key, digest=digest, emit=core.emit, cancel=core.cancelled, phase="prefill"
        )
        core.bench.adopt(reached.session)
        core.note(None, reached)
        return reached

    def _stopped_early(
        self, writer: ReplyWriter, adopted: tuple[Journal, DeadReply] | None, quiet: bool = False
    ) -> None:
        core = self._core
        if adopted is not None:
            adopted[0].close()
            core.find_pending()
        else:
            writer.drop_journal()
        if not quiet:
            core.emit(Notice("Stopped before the reply began; the question is kept."))

    @contextmanager
    def _from_past(self, path: tuple[Node, ...]) -> Iterator[None]:
        """Stand at an earlier place; go back, dice and settings too, where nothing was added there."""
        core, place = self._core, self._core.place
        place.leave()
        old, dice, settings = (place.conversation, place.path, place.cut), core.dice, core.settings
        if path and (place.conversation is None or path[0].conversation_id != place.conversation.id):
            place.stand(self._core.library.conversation(path[0].conversation_id), path)
        else:
            place.stand(place.conversation, path)
        try:
            yield
        finally:
            if place.path == path:
                place.stand(*old)
                core.dice, core.settings = dice, settings
                core.emit(PositionChanged())
