"""The conversation controller: one live position in the tree of savepoints, and one engine session behind it.

Threads. Reading methods (`transcript`, `tree`, `conversations`, `status`, ...) are cheap and may be called from any
thread, also before a model is open. Doing methods block while they work: call them in a worker thread. Only one works at
a time; the others wait for it, except `stop`, `save` and `quicksave`, which act inside a running reply, and `quickload`,
`restore`, `fork` and the others that move the position, which stop a running reply first (what was written of it is
kept as a node). Everything a screen has to know arrives through `emit`, called in the thread that works.

Errors are typed exceptions; `app.sentences.sentence(error)` makes the one sentence that a person reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import TuiOptions
from app.engine_protocol import Engine, Model
from app.events import ConversationRow, Event, Message, PendingReply, Status, TreeRow

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings

Emit = Callable[[Event], None]


def open_chat(emit: Emit, options: TuiOptions | None = None, *, engine: Engine | None = None) -> Chat:
    """Open the library and the position where it was left (or `options.at`), without importing an engine.

    `engine` defaults to the local one. Raises the typed errors of `app.errors` and of the store.
    """
    raise NotImplementedError


class Chat:
    """One window's conversation. Mutates the library; emits events."""

    # ---- reading: any thread, no engine needed ------------------------------------------------------------------

    def transcript(self) -> list[Message]:
        """Give the messages from the root to the live position, oldest first; system messages included."""
        raise NotImplementedError

    def transcript_of(self, node_id: str) -> list[Message]:
        """Give the messages from the root to any node, for previews: nothing is restored."""
        raise NotImplementedError

    def tree(self) -> list[TreeRow]:
        """Give every node of this conversation, depth first."""
        raise NotImplementedError

    def conversations(self) -> list[ConversationRow]:
        """Give every conversation of the library, the last used first."""
        raise NotImplementedError

    def labels(self) -> dict[str, str]:
        """Give every name of the library and the id of the node that it points to."""
        raise NotImplementedError

    def siblings(self, node_id: str) -> list[Message]:
        """Give the alternatives of a message, itself included, in order of creation."""
        raise NotImplementedError

    def prompt_history(self) -> list[str]:
        """Give the user's messages of the whole library, oldest first, for the prompt's history."""
        raise NotImplementedError

    def status(self) -> Status:
        """Give the facts for the status line."""
        raise NotImplementedError

    def pending_reply(self) -> PendingReply | None:
        """Give the cut-off reply behind the live position, if there is one."""
        raise NotImplementedError

    @property
    def settings(self) -> SamplerSettings | None:
        """Sampler settings of the next reply; None until a model is open."""
        raise NotImplementedError

    @property
    def system(self) -> str:
        """The system message in force, "" where there is none."""
        raise NotImplementedError

    # ---- the model ----------------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The open model."""
        raise NotImplementedError

    def load_model(self, path: Path | None = None) -> None:
        """Open a model (default: the options', the config file's, the last used, or the bundled one) and restore the
        live position with it. Emits Progress (read, compile, pack, restore), ModelReady, Restored. The old model stays
        if the new one cannot be opened. Raises the engine's typed errors.
        """
        raise NotImplementedError

    # ---- talking ------------------------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Commit the user's message, then compute and commit the reply.

        Emits TurnCommitted, Progress(prefill), ReplyStarted, Delta..., ReplyDone, later Saved. Emits ContextFullOffer
        and commits nothing when the message does not fit.
        """
        raise NotImplementedError

    def regenerate(self, node_id: str | None = None, *, runner_up: bool = False) -> None:
        """Write another reply beside the last one (or beside the reply `node_id`), with new dice.

        At temperature 0 emits a Notice and RunnerUpOffer instead; `runner_up=True` then starts with that token.
        """
        raise NotImplementedError

    def edit(self, node_id: str, text: str) -> None:
        """Commit another version of a user's message beside the old one and answer it. The old one stays.

        For a reply: commit the edited text as its sibling; `continue_reply` goes on from there.
        """
        raise NotImplementedError

    def continue_reply(self) -> None:
        """Go on writing the last reply; what is added becomes its child."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Finish the cut-off reply of the journal with exactly the tokens that would have come."""
        raise NotImplementedError

    def discard_pending(self) -> None:
        """Commit what the journal holds of a cut-off reply as a node that ended with "crashed", and leave it there."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the running reply or prefill between two tokens or chunks; what was written is kept. Any thread."""
        raise NotImplementedError

    # ---- savepoints ---------------------------------------------------------------------------------------------

    def save(self, name: str, *, force: bool = False) -> None:
        """Name the live position; in mid-reply the part so far becomes a node and the reply goes on behind it.

        Raises NameTaken unless `force`, BadName.
        """
        raise NotImplementedError

    def quicksave(self) -> None:
        """F5: move the `quick` name here, remember the last ten; also in mid-reply."""
        raise NotImplementedError

    def quickload(self) -> None:
        """F9: restore the newest quicksave; again the one before. Stops a running reply first."""
        raise NotImplementedError

    def restore(self, ref: str) -> None:
        """Make a savepoint live. Transactional: on any error the live chat stays. Emits Restored, PositionChanged."""
        raise NotImplementedError

    def fork(self, name: str, ref: str | None = None) -> None:
        """Name a new branch at the live position (or at `ref`) and go there."""
        raise NotImplementedError

    def rename(self, ref: str, name: str, *, force: bool = False) -> None:
        """Give a savepoint another name."""
        raise NotImplementedError

    def delete(self, ref: str) -> None:
        """Delete a message and everything behind it; `undo` brings it back."""
        raise NotImplementedError

    def undo(self) -> None:
        """Reverse the last action: turn, restore, fork, delete, rename."""
        raise NotImplementedError

    def redo(self) -> None:
        """Do what was undone last."""
        raise NotImplementedError

    def back(self, turns: int = 1) -> None:
        """Step back in front of the last question (nothing is deleted)."""
        raise NotImplementedError

    # ---- settings -----------------------------------------------------------------------------------------------

    def set_system(self, text: str) -> None:
        """Put another system message in force from the next message on."""
        raise NotImplementedError

    def change_settings(self, **changes: Any) -> None:
        """Change sampler settings by field name. Raises SamplerError with the field."""
        raise NotImplementedError

    def new_conversation(self) -> None:
        """Start an empty conversation; the old one stays in the library."""
        raise NotImplementedError

    def open_conversation(self, conversation_id: str) -> None:
        """Go to another conversation, where it was left."""
        raise NotImplementedError

    def drop_oldest_turns(self, turns: int, then_send: str | None = None) -> None:
        """Make a branch whose prompt lacks the oldest `turns` turns (the original stays), and send a message there."""
        raise NotImplementedError

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is on disk; False after the timeout."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop a reply, write what is to write, give the model and the library back."""
        raise NotImplementedError
