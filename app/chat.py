"""The conversation controller: one live position in the tree of savepoints, and one engine session behind it.

Threads. Reading methods (app/chat_reading.py) are cheap and may be called from any thread, also before a model is
open. Doing methods block while they work: call them in a worker thread. Only one works
at a time; the others wait for it, except `stop`, `save` and `quicksave`, which act inside a running reply, and
`quickload`, `restore`, `fork` and the others that move the position, which stop a running reply first (what was written
of it is kept as a node). Everything a screen has to know arrives through `emit`, called in the thread that works.

Errors are typed exceptions; `app.sentences.sentence(error)` makes the one sentence that a person reads.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from app.chat_core import Core, Emit
from app.chat_options import ChatOptions
from app.chat_reading import ChatReading
from app.config import Config, TuiOptions, load_config
from app.engine_protocol import Engine, Model
from app.errors import NothingToDo
from app.events import ModelReady, PositionChanged, TreeChanged
from app.libraries import borrow, memory_library, own_library
from app.moving import Moving
from app.saved_model import SavedModel, how_to_open, remember_context, saved_model
from app.starting import LAST_MODEL, model_file, whole_path
from app.talking import Talking
from app.workbench import ModelOptions
from snapshots import Library, StoreError, UnknownConversation, UnknownNode

__all__ = ["Chat", "ChatOptions", "open_chat"]


def open_chat(emit: Emit, options: TuiOptions | None = None, *, engine: Engine | None = None) -> Chat:
    """Open the library and the position where it was left (or `options.at`), without importing an engine.

    `engine` defaults to the local one. Raises the typed errors of `app.errors` and of the store, ConfigError.
    """
    options = options or TuiOptions()
    config = load_config()
    chat_options = ChatOptions(
        models=ModelOptions(
            threads=options.threads or config.threads,
            context=options.context,
            cache_type=options.cache_type,
        ),
        sampler=config.sampler,
        speculate=config.speculate,
        read_along=config.prefill_ahead,
        autosave=config.autosave,
        incognito=options.no_save,
    )
    chat = Chat(emit, chat_options, engine=engine, model=options.model, config=config)
    chat.start(options.at)
    return chat


class Chat(ChatReading):
    """One window's conversation. Mutates the library; emits events."""

    def __init__(
        self,
        emit: Emit,
        options: ChatOptions | None = None,
        *,
        engine: Engine | None = None,
        model: Path | None = None,
        config: Config | None = None,
        library: Library | None = None,
    ) -> None:
        """`library` None opens the person's own. Nothing is read of it before `start`."""
        if engine is None:
            from app.local_engine import LocalEngine

            engine = LocalEngine()
        self._options = options or ChatOptions()
        self._config = config or Config()
        self._wanted_model = model
        self._start_token: int | None = None  # the first tokens of the last node that stand; its text needs the model
        self._start_notice = ""
        self.kept = Event()  # set by `close` once everything that was said is on disk
        incognito = self._options.incognito
        self._own = own_library(must_exist=incognito) if library is None else library
        used = memory_library() if incognito or self._own is None else self._own
        if self._own is not None:
            self._own.set_cap(self._config.quota)
        self._core = Core(used, self._own, engine, emit, self._options)
        self._talking = Talking(self._core)
        self._moving = Moving(self._core, self._talking.settle_pending)

    def start(self, at: str | None = None, *, fresh: bool = False) -> None:
        """Stand where this window was left, or at a savepoint, or (`fresh`) in an empty conversation.

        Reads text only. Raises UnknownRef, AmbiguousRef.
        """
        core, own = self._core, self._own
        if own is None or (at is None and (fresh or self._options.incognito)):
            if at is not None:
                core.library.resolve(at)
            core.take_over()
            return
        if at is not None:
            ref = own.resolve(at)
            core.started_at = f"“{at}”"
            node_id: str | None = ref.node.id
            conversation = own.conversation(ref.node.conversation_id)
            self._start_token = ref.token
            if own is not core.library:
                conversation, copy = borrow(own, core.library, ref.node)
                core.borrowed[copy.id], node_id = ref.node.id, copy.id
        else:
            position = own.start_position(window=self._options.window)
            if position is None:
                core.take_over()
                return
            try:
                conversation = own.conversation(position.conversation_id)
                path = whole_path(own, conversation.id, position.node_id)
            except (UnknownConversation, UnknownNode):
                core.take_over()
                return
            node_id = path[-1].id if path else None
            if node_id == position.node_id:
                self._start_token = position.token
            else:
                self._start_notice = "A message is damaged on disk; the chat opens in front of it."
        core.place.stand(conversation, tuple(core.library.path(node_id)))
        core.take_over()
        core.find_pending()

    def model_path(self) -> Path:
        """Give the model file to open: asked for, the savepoint's, the config file's, the last used, the bundled one.

        Raises NoModel where there is none of them.
        """
        if self._wanted_model is not None:
            return self._wanted_model
        return model_file(self._own, self._core.place.path, self._config)

    # ---- the model ----------------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The open model."""
        return self._core.bench.model

    def load_model(self, path: Path | None = None) -> None:
        """Open a model (default: the options', the config file's, the last used, or the bundled one) and restore the
        live position with it. Emits Progress (read, compile, pack, restore), ModelReady, Restored. The old model stays
        if the new one cannot be opened. KV type and context are the options', else those of the live position's
        savepoint, else the config file's. Raises the engine's typed errors.
        """
        core = self._core
        with core.interrupting():
            if path is None and core.bench.model is None:
                path = self.model_path()
            if path is not None:
                saved = saved_model(self._own, core.place.path) if self._own is not None else SavedModel()
                o = self._options.models
                cache_type, context = how_to_open(saved, path, self._config, cache_type=o.cache_type, context=o.context)
                load_s = core.bench.open(path, core.emit, cache_type, context)
            model = core.bench.need_model()
            if path is not None:
                core.emit(ModelReady(model.name, model.context_length, load_s))
                if model.unkept_weights:
                    core.notice(f"The next start arranges the weights anew: {model.unkept_weights}.")
                if not core.options.incognito and not core.options.window:
                    with suppress(StoreError):  # a library that cannot be written is no reason not to chat
                        core.library.remember_setting(LAST_MODEL, str(model.path))
                        remember_context(core.library, model.state_key, model.context_length)
            if self._start_notice:
                core.notice(self._start_notice, "warning")
                self._start_notice = ""
            if self._start_token is not None:
                place = core.place
                if place.node is not None and core.moves == 0:
                    try:
                        place.stand(place.conversation, place.path, core.cut_at(place.node, self._start_token))
                    except NothingToDo as error:
                        if not self._options.strict_model:  # else the model is refused in a moment
                            core.notice(str(error), "warning")
                self._start_token = None
            restored = core.climb_here()
            if core.states is not None and not self._options.window:
                core.states.count()
            if core.place.node is not None:
                core.emit(restored)

    # ---- talking ------------------------------------------------------------------------------------------------

    def send(self, text: str, *, raw: bool = False) -> None:
        """Commit the user's message, then compute and commit the reply.

        Emits TurnCommitted, Progress(prefill), ReplyStarted, Delta..., ReplyDone, later Saved. Emits ContextFullOffer
        and commits nothing when the message does not fit. `raw` appends the text as it is, without the template.
        """
        self._talking.send(text, raw=raw)

    def read_along(self, draft: str) -> None:
        """Compute ahead what of a message that is being typed will not change; "" ends it. Returns at once, any thread.

        Sending is only sooner for it: no bit of anything changes, and nothing is written.
        """
        self._core.ahead.update(draft if self._options.read_along else "")

    def regenerate(self, node_id: str | None = None, *, runner_up: bool = False) -> None:
        """Write another reply beside the last one (or beside the reply `node_id`), with new dice.

        At temperature 0 emits a Notice and RunnerUpOffer instead; `runner_up=True` then starts with that token.
        """
        self._talking.regenerate(node_id, runner_up=runner_up)

    def edit(self, node_id: str, text: str) -> None:
        """Commit another version of a user's message beside the old one and answer it. The old one stays.

        For a reply: commit the edited text as its sibling; `continue_reply` goes on from there.
        """
        self._talking.edit(node_id, text)

    def continue_reply(self, *, past_end: bool = True) -> None:
        """Go on writing the last reply; what is added becomes its child."""
        self._talking.continue_reply(past_end=past_end)

    def go_on(self) -> None:
        """Finish the cut-off reply of the journal with exactly the tokens that would have come."""
        self._talking.go_on()

    def discard_pending(self) -> None:
        """Commit what the journal holds of a cut-off reply as a node that ended with "crashed", and leave it there."""
        with self._core.working():
            self._talking.settle_pending()

    def stop(self) -> None:
        """Stop the running reply or prefill between two tokens or chunks; what was written is kept. Any thread."""
        self._core.stop()

    # ---- savepoints ---------------------------------------------------------------------------------------------

    def name_branch(self, index: int, name: str, *, force: bool = False) -> str:
        """Name the place behind one of `branches`; gives its node's id. Raises NameTaken unless `force`, BadName."""
        with self._core.working():
            place = self._core.branches[index].place
            if not place.settle() or place.node is None:
                raise self._core.trouble
            self._core.library.set_name(name, place.node.id, force=force)
            self._core.emit(TreeChanged())
            return place.node.id

    def save(self, name: str, *, force: bool = False) -> None:
        """Name the live position; in mid-reply the part so far becomes a node and the reply goes on behind it.

        Raises NameTaken unless `force`, BadName.
        """
        self._moving.save(name, force=force)

    def quicksave(self) -> None:
        """F5: move the `quick` name here, remember the last ten; also in mid-reply."""
        self._moving.quicksave()

    def quickload(self) -> None:
        """F9: restore the newest quicksave; again the one before. Stops a running reply first."""
        self._moving.quickload()

    def restore(self, ref: str) -> None:
        """Make a savepoint live. Transactional: on any error the live chat stays. Emits Restored, PositionChanged."""
        self._moving.restore(ref)

    def fork(self, name: str, ref: str | None = None) -> None:
        """Name a new branch at the live position (or at `ref`) and go there."""
        self._moving.fork(name, ref)

    def rename(self, ref: str, name: str, *, force: bool = False) -> None:
        """Give a savepoint another name."""
        self._moving.rename(ref, name, force=force)

    def delete(self, ref: str) -> None:
        """Delete a message and everything behind it; `undo` brings it back."""
        self._moving.delete(ref)

    def undo(self) -> None:
        """Reverse the last action: turn, restore, fork, delete, rename."""
        self._moving.undo(redo=False)

    def redo(self) -> None:
        """Do what was undone last."""
        self._moving.undo(redo=True)

    def back(self, turns: int = 1) -> None:
        """Step back in front of the last question (nothing is deleted)."""
        self._moving.back(turns)

    def export(self, path: Path) -> None:
        """Write the conversation up to here to a file: Markdown for .md, JSON for .json, else one that can be imported.

        Raises BadInput where the file is there already, NothingToDo, OSError.
        """
        self._moving.export(path)

    def import_file(self, path: Path) -> None:
        """Read an exported file into the library and say what came. Raises BadExport, OSError."""
        self._moving.import_file(path)

    # ---- settings -----------------------------------------------------------------------------------------------

    def set_system(self, text: str) -> None:
        """Put another system message in force from the next message on."""
        self._talking.set_system(text)

    def change_settings(self, **changes: Any) -> None:
        """Change sampler settings by field name; they are on disk when this returns.

        Raises SamplerError with the field.
        """
        core = self._core
        with core.working():
            model = core.bench.need_model()
            values = core.settings.to_json() if core.settings else model.sampler_defaults.to_json()
            unknown = [name for name in changes if name not in values]
            if unknown:
                raise NothingToDo(f"There is no setting “{unknown[0]}”.")
            core.settings = core.bench.settings_for(values, changes)
            core.changed = True
            core.keep_settings()
            if core.place.node is not None:
                core.save_state(core.place.node)

    def new_conversation(self) -> None:
        """Start an empty conversation; the old one stays in the library."""
        self._moving.new_conversation()

    def open_conversation(self, conversation_id: str) -> None:
        """Go to another conversation, where this window left it, or else the last one that was there."""
        self._moving.open_conversation(conversation_id)

    def drop_oldest_turns(self, turns: int, then_send: str | None = None) -> None:
        """Make a branch whose prompt lacks the oldest `turns` turns (the original stays), and send a message there."""
        self._talking.drop_oldest_turns(turns, then_send)

    def outside_changes(self) -> int:
        """Give a number that differs after another process changed the library. Waits for nobody; any thread."""
        return self._core.library.outside_changes()

    def catch_up(self) -> None:
        """Write what is in memory alone, if the library takes it again and nobody works just now. Any thread."""
        core = self._core
        if not core.place.unwritten or core.library.read_only:
            return
        with core.idle() as free:
            if not free or not core.place.settle() or core.place.node is None:
                return
            core.save_state(core.place.node)
        core.emit(PositionChanged())
        core.emit(TreeChanged())

    def look_again(self) -> None:
        """Forget what was read of the library: another process changed it."""
        self._core.tree_stamp += 1

    def back_up(self) -> bool:
        """Make the library's daily copy where it is due. Raises StoreError."""
        return self._own.back_up() if self._own is not None and not self._options.incognito else False

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is on disk; False after the timeout."""
        if self._core.place.path and not self._core.busy:
            self._core.place.settle()
        return self._core.states.flush(timeout_s) if self._core.states else True

    def close(self) -> None:
        """Stop a reply, write what is to write, give the library back, then the model. `kept` is set in between."""
        core = self._core
        with core.interrupting():
            try:
                if core.place.path and core.place.settle() and core.changed:
                    core.keep_settings()
            except StoreError as error:  # another window forgot what this one stood on
                core.trouble = error
            if self._own is core.library:
                core.place.on_trouble = lambda error: None  # nobody reads it any more, and nothing depends on it
                with suppress(StoreError):
                    core.place.remember()  # the window that was closed last is the one that opens again
            if core.states is not None:
                core.states.close()
            core.ahead.close()
            core.library.close()
            if self._own is not None and self._own is not core.library:
                self._own.close()
            self.kept.set()
            core.bench.close()
