"""The store's plain values. All are immutable; ids and digests are lower-case hex, times are Unix seconds (float)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Role = Literal["system", "user", "assistant", "raw"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "raw")

BLOCK = 64
"""Tokens in one absolute block: no segment crosses a multiple of it."""


@dataclass(frozen=True)
class Message:
    """What a new node holds; `Library.add_node` puts it into the tree.

    `tokens` are the ids that this message adds behind the first `keep` tokens of its parent (`keep=None`: all of them).
    `stop` is why a reply ended (stop | length | cancelled | crashed | saved …), "" for messages of people.
    `sampler` is plain JSON. `dice_key` is the key of the reply's dice. `prompt_key` names tokenizer and template.
    """

    role: Role
    text: str
    tokens: tuple[int, ...] = ()
    keep: int | None = None
    stop: str = ""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    dice_key: bytes = b""
    prompt_key: str = ""


class Node(NamedTuple):
    """One message in the tree, as stored. `id` is the digest of the content (DESIGN §4.3), checked when it is read.

    `parent_id` is None at a root. `keep` counts the parent's tokens that still stand; `tokens` come behind them;
    `n_tokens` = keep + len(tokens) is the length of the whole list at this node. `turn` counts the user and raw
    messages up to here. `state_key` names the model that was in use ("" if none): see `Library.model_info`.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    tokens: tuple[int, ...]
    keep: int
    n_tokens: int
    turn: int
    stop: str
    sampler: Mapping[str, Any]
    dice_key: bytes
    prompt_key: str
    state_key: str
    created: float


class Twig(NamedTuple):
    """A node as a list or tree shows it: no tokens, the first characters of the text, its names, its depth.

    `names` are its labels; `is_quick` says that the conversation's `quick` label is here; `is_head` that the
    conversation stands here. `depth` counts the forks above it, so that an unbranched chat stays at depth 0.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    preview: str
    n_tokens: int
    turn: int
    stop: str
    created: float
    names: tuple[str, ...]
    is_quick: bool
    is_head: bool
    depth: int
    n_children: int
    deleted: bool


class Glance(NamedTuple):
    """What a list shows of one node: no tokens, the first characters of the text, nothing of it checked."""

    id: str
    conversation_id: str
    role: Role
    preview: str
    n_tokens: int
    turn: int


class Conversation(NamedTuple):
    """A conversation. `template_date` is frozen at its start; `head_id` is None while it is empty."""

    id: str
    title: str
    created: float
    template_date: str
    last_used: float
    head_id: str | None


class Savepoint(NamedTuple):
    """A name and the node that it points at."""

    name: str
    node_id: str
    conversation_id: str
    created: float
    moved: float


class Position(NamedTuple):
    """Where a window stands; `token` (or None) counts the node's own tokens that still stand, for `REF@n`."""

    conversation_id: str
    node_id: str | None
    token: int | None = None


class Ref(NamedTuple):
    """A REF, resolved. `token` is the n of `REF@n`: the first n of the node's own tokens stand; None: all."""

    node: Node
    token: int | None = None


class HeadMove(NamedTuple):
    """One line of a conversation's head log."""

    node_id: str | None
    reason: str
    window: str
    at: float


ActionKind = Literal["turn", "restore", "fork", "back", "delete", "name", "rename", "unname", "title", "import"]


class Action(NamedTuple):
    """Something a person did that `undo` reverses. `head_id` is where the conversation stands now.

    `detail` holds what a sentence about it needs: `name` and `old_name` for names, `nodes` (a count) for turns and
    deletions, `before` and `after` (node ids or None) where the head moved.
    """

    kind: ActionKind
    conversation_id: str
    head_id: str | None
    detail: Mapping[str, Any]
    at: float


ExportScope = Literal["savepoint", "tree", "conversation"]
"""What goes into an export: the path to a savepoint, that and all behind it, or its whole conversation."""


class Arrival(NamedTuple):
    """What an import brought: `node_id` is the savepoint that was exported. `renamed` maps names that were taken.

    `messages` are those of the file, `added` those that were hidden or not here, `names` those that were given.
    """

    conversation_id: str
    node_id: str
    title: str
    messages: int
    added: int
    names: tuple[str, ...]
    renamed: Mapping[str, str]


class Origin(NamedTuple):
    """Where an imported message came from. `checked` is "" before, else "text" (its tokens say it), "differs", or
    "replayed" (made again here, equal digest by digest).
    """

    source: str
    at: float
    checked: str


class ModelInfo(NamedTuple):
    """What is remembered of a model, enough to name the field that differs from another one."""

    state_key: str
    prompt_key: str
    name: str
    path: str
    state_fields: Mapping[str, str]
    prompt_fields: Mapping[str, str]

    def differing_fields(self, other: ModelInfo) -> tuple[str, ...]:
        """The state fields whose values differ, sorted."""
        names = set(self.state_fields) | set(other.state_fields)
        return tuple(sorted(n for n in names if self.state_fields.get(n) != other.state_fields.get(n)))


class Chunk(NamedTuple):
    """Named arrays of tokens [start, stop), all inside one absolute 64-token block. What they hold is not looked at."""

    start: int
    stop: int
    arrays: Mapping[str, np.ndarray]


class NodeState(NamedTuple):
    """The derived state of a node under one model: a row beside the node, with its own digest.

    `logits_digest` is blake2b-256 of the float32 logits ("" if they were not saved). `has_bundle` says that a whole
    bundle was written; its files may be gone since. `bytes_stored` is what the largest of its saves wrote.
    """

    node_id: str
    state_key: str
    n_tokens: int
    logits_digest: str
    has_bundle: bool
    bytes_stored: int
    created: float


class SaveReport(NamedTuple):
    """What a save did. Tokens [0, `covered`) are on disk; `complete` says that this is all of them, logits included."""

    n_tokens: int
    covered: int
    complete: bool
    segments_written: int
    segments_reused: int
    segments_healed: int
    bytes_written: int
    save_ms: float


class LoadedState(NamedTuple):
    """What the store still has of a state: the longest prefix whose files are whole.

    `chunks` cover [0, `n_valid`) without gaps. `logits` (float32), `hidden` and `dice_key` are set only where the whole
    list is there. `damaged` counts the files that failed their checks; they were left for the next save to heal.
    """

    n_tokens: int
    n_valid: int
    chunks: tuple[Chunk, ...]
    logits: np.ndarray | None
    hidden: np.ndarray | None
    dice_key: bytes
    damaged: int

    @property
    def rung(self) -> Literal["bundle", "partial", "recomputed"]:
        """The rung of the ladder: `bundle` needs no computing, `partial` some, `recomputed` all of it."""
        if self.n_valid == self.n_tokens and (self.logits is not None or self.n_tokens == 0):
            return "bundle"
        return "partial" if self.n_valid else "recomputed"


class FileCheck(NamedTuple):
    """`verify_files`: every file of one node's state, read and decoded. `damaged` holds file names."""

    n_tokens: int
    n_valid: int
    segments: int
    size_bytes: int
    unique_bytes: int
    final: Literal["whole", "missing", "damaged"]
    damaged: tuple[str, ...]


class Stats(NamedTuple):
    """Counts of the whole library and bytes on disk. `savepoints` counts live nodes, `names` the labels."""

    conversations: int
    savepoints: int
    names: int
    tree_bytes: int
    bundle_files: int
    bundle_bytes: int


class Hit(NamedTuple):
    """What a search found: a message, with the part of its text that shows why; `name` is a name or title that fits."""

    node_id: str
    conversation_id: str
    role: Role
    turn: int
    n_tokens: int
    text: str
    name: str


class Eviction(NamedTuple):
    """What was removed: files, their bytes, and how many states are no longer whole."""

    files: int
    size_bytes: int
    demoted: int


class Purge(NamedTuple):
    """What was forgotten for good."""

    messages: int
    files: int


class Footprint(NamedTuple):
    """What a savepoint's states take on disk. `now_tokens` of `n_tokens` can be loaded.

    `unique_bytes` are those that no other savepoint needs; without them `recompute_tokens` would have to be computed.
    """

    n_tokens: int
    now_tokens: int
    size_bytes: int
    unique_bytes: int
    shared_bytes: int
    recompute_tokens: int
    pinned: bool


@dataclass(frozen=True)
class ReplyStart:
    """What the journal of a reply must know to go on with it: where it hangs and how it is drawn.

    `tokens` are ids that belong to the reply's node but were fed before its first sampled one (usually none).
    """

    conversation_id: str
    parent_id: str | None
    role: Role = "assistant"
    keep: int | None = None
    tokens: tuple[int, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=dict)
    dice_key: bytes = b""
    prompt_key: str = ""
    state_key: str = ""
    model_path: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class DeadReply(NamedTuple):
    """A reply whose process died: what its journal still holds, ready to be shown, adopted or discarded.

    `tokens` are the sampled ids so far (behind `start.tokens`), `text` what was streamed of them.
    """

    journal_id: str
    start: ReplyStart
    tokens: tuple[int, ...]
    text: str
    torn: bool


class Carried(NamedTuple):
    """A message of an export file. `node` holds its content; a promised one has neither text nor tokens.

    `promised` is then how many tokens it will have, `first` the first of them. `digests` maps state keys to digests.
    """

    node: Node
    names: tuple[str, ...]
    digests: Mapping[str, str]
    promised: int | None = None
    first: int | None = None


class Manifest(NamedTuple):
    """What an export file says of itself in front of its messages."""

    what: str
    conversation_id: str
    title: str
    template_date: str
    at: str
