"""What a chat reports while it works, and the plain records that screens paint. No engine, no store, no screen here.

Every event is a frozen dataclass handed to the `emit` callback in the thread that does the work; a screen only has to
post it on. Texts in them are raw text of people and models: data, never markup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
Rung = Literal["bundle", "partial", "recomputed"]
Severity = Literal["information", "warning", "error"]


@dataclass(frozen=True)
class Message:
    """One node of the tree as a screen shows it."""

    node_id: str
    parent_id: str | None
    role: Role
    text: str
    turn: int  # 1 for the first user message; replies share the number of their question
    own_tokens: int  # tokens this node added
    total_tokens: int  # length of the token list behind this node
    stop: str | None  # stop | length | cancelled | crashed | saved; None for system and user
    sibling_index: int  # 0-based place among the siblings of the same role, in order of creation
    sibling_ids: tuple[str, ...]  # all of them, this one included
    labels: tuple[str, ...]  # names that point here
    continues: bool  # an assistant node behind an assistant node: shown as one message with it
    thinking_tokens: int | None = None  # how many of its own tokens are thinking; None where nobody knows
    says_nothing: bool = False  # it holds only settings that were put in force here


@dataclass(frozen=True)
class TreeRow:
    """One node in the tree panel, in depth-first order of creation (a parent is always in front of its children)."""

    node_id: str
    parent_id: str | None
    depth: int
    role: Role
    preview: str  # first words of the text, control characters removed
    turn: int
    total_tokens: int
    labels: tuple[str, ...]
    is_here: bool  # the live position
    on_path: bool  # an ancestor of the live position, or it
    has_bundle: bool | None  # True: restores without computing; False: by recomputing; None: not looked up


@dataclass(frozen=True)
class ConversationRow:
    """One conversation of the library, newest use first."""

    conversation_id: str
    title: str  # first words of the first question, or "empty"
    head_id: str | None
    turns: int
    used_at: float  # Unix seconds
    is_here: bool


@dataclass(frozen=True)
class Status:
    """Where the chat stands and what it does: from memory, at once."""

    model_name: str | None  # None until a model is open
    conversation_id: str | None
    node_id: str | None
    tokens: int
    context_length: int | None
    busy: bool  # an operation is running
    generating: bool  # a reply is being written
    temperature: float | None
    incognito: bool


@dataclass(frozen=True)
class PendingReply:
    """A reply that a crash cut off: shown as the tail of the transcript until `go_on()` finishes it.

    Without tokens: a message that has no reply here. `elsewhere`: another window is writing one; `answer`: the newest
    reply in other branches.
    """

    parent_id: str
    text: str
    tokens: int
    elsewhere: bool = False
    answer: str = ""


@dataclass(frozen=True)
class ReplyStats:
    """What a reply cost. Seconds and counts of tokens."""

    reused_tokens: int
    prefilled_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float
    drafted_tokens: int = 0  # guessed and computed along
    accepted_tokens: int = 0  # of these, such as were then chosen

    @property
    def decode_tok_s(self) -> float:
        """Tokens a second while generating, 0 where nothing was."""
        return self.generated_tokens / self.decode_s if self.decode_s > 0 else 0.0

    @property
    def prefill_tok_s(self) -> float:
        """Tokens a second while reading the prompt, 0 where nothing was read."""
        return self.prefilled_tokens / self.prefill_s if self.prefill_s > 0 else 0.0


@dataclass(frozen=True)
class Progress:
    """Work that takes a while. Phases: read, compile, pack (opening a model), prefill, restore."""

    phase: str
    done: int
    total: int
    eta_s: float | None


@dataclass(frozen=True)
class ModelReady:
    """The engine answers from now on."""

    name: str
    context_length: int
    load_s: float


@dataclass(frozen=True)
class TurnCommitted:
    """A user's or system message is safely in the library (or in memory, when incognito); nothing was computed yet."""

    node: Message


@dataclass(frozen=True)
class ReplyStarted:
    """The prompt was read, tokens follow. `parent_id` is the node that is answered or continued."""

    parent_id: str
    reused: int
    prefilled: int
    thinking: bool = False  # the prompt opened a thinking section: the reply begins inside of it


@dataclass(frozen=True)
class Delta:
    """Text that the reply grew by: whole characters only."""

    text: str


@dataclass(frozen=True)
class BranchDelta:
    """Text that one of several replies grew by; `ended` with its last one."""

    branch: int
    text: str
    ended: bool = False


@dataclass(frozen=True)
class ReplyDone:
    """The reply ended and is committed. `text` of the node is the whole text, stop strings cut off."""

    node: Message
    stop: str
    stats: ReplyStats


@dataclass(frozen=True)
class Saved:
    """A state reached the disk (background, after every message: name None) or a name was set."""

    node_id: str
    size_bytes: int  # written to disk for this save; 0 where only a name moved
    name: str | None


@dataclass(frozen=True)
class NotSaved:
    """The state of a message did not reach the disk; its text did. A Notice says why, where it was not said before."""

    node_id: str


@dataclass(frozen=True)
class Restored:
    """A position was made live. `bit_exact` is None where nothing stored could be compared."""

    node_id: str
    rung: Rung
    reused: int
    prefilled: int
    bit_exact: bool | None
    differs: tuple[str, ...] = ()  # fields of the model that are not those of the saved state
    sentence: str = ""  # how to say it, with the way back


@dataclass(frozen=True)
class PositionChanged:
    """The live position moved: read `transcript()` again."""


@dataclass(frozen=True)
class TreeChanged:
    """Nodes or names changed: read `tree()` again."""


@dataclass(frozen=True)
class Notice:
    """One sentence for a person."""

    sentence: str
    severity: Severity = "information"


@dataclass(frozen=True)
class RunnerUpOffer:
    """At temperature 0 new dice change nothing; `regenerate(runner_up=True)` starts with this other token instead."""

    text: str


@dataclass(frozen=True)
class ContextFullOffer:
    """The next message does not fit. `drop_oldest_turns(drop_turns)` makes a branch without the oldest turns; the
    original stays. `draft` is the message that did not fit: nothing of it is lost, nothing of it is committed.
    """

    needed: int
    limit: int
    drop_turns: int  # fewest turns whose removal makes room; 0 where nothing helps
    draft: str


@dataclass(frozen=True)
class PendingFound:
    """A cut-off reply belongs to the position that was just opened."""

    pending: PendingReply


Event = (
    Progress
    | ModelReady
    | TurnCommitted
    | ReplyStarted
    | Delta
    | BranchDelta
    | ReplyDone
    | Saved
    | NotSaved
    | Restored
    | PositionChanged
    | TreeChanged
    | Notice
    | RunnerUpOffer
    | ContextFullOffer
    | PendingFound
)
