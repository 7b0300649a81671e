"""A replay: every reply of an export is made again from the person's messages, the settings and the dice, and must be
the one that was exported, digest by digest. Nothing of it is put into the library before all of it is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine_protocol import Engine, Model, Session
from app.errors import NothingToDo, OtherModel
from app.generation import Decoding, Reply, Writing, generate
from app.importing import said_before
from app.place import SETTINGS
from app.replying import Voice
from app.savepoints import model_info
from snapshots import BadExport, Carried, Library, Manifest, ModelInfo, Node

_MADE_BY_PEOPLE = ("edited", SETTINGS)


def is_promised(node: Node) -> bool:
    """Tell whether a message can be made again, so that a replay need not hold it."""
    return node.role == "assistant" and bool(node.tokens) and node.stop not in _MADE_BY_PEOPLE and bool(node.dice_key)


def check_one_model(library: Library, nodes: Sequence[Node]) -> None:
    """Raises NothingToDo where messages hold replies of several models: a replay proves those of one."""
    keys = {node.state_key: None for node in nodes if is_promised(node)}
    if len(keys) > 1:
        infos = [library.model_info(key) for key in keys]
        names = sorted({info.name if info is not None else "one that is not known here" for info in infos})
        variants = "" if len(names) == len(keys) else ", in several variants"
        raise NothingToDo(
            f"The replies were made by several models ({', '.join(names)}{variants}), and a replay proves those of "
            "one: leave --replay out, or export a savepoint in front of the change."
        )


@dataclass
class Replay:
    """What came of a replay. `difference` is "" where all of it is equal, else a sentence about the first message."""

    parts: list[Manifest | ModelInfo | Carried] = field(default_factory=list)
    messages: int = 0
    replies: int = 0
    tokens: int = 0
    digests: int = 0
    chosen: int = 0  # replies whose first token was somebody's choice, not the dice's
    difference: str = ""


@dataclass(frozen=True)
class _Reached:
    path: tuple[Node, ...]
    session: Session


def needed(parts: list[Manifest | ModelInfo | Carried]) -> ModelInfo | None:
    """The model that a replay is of; None where no reply has one."""
    infos = {part.state_key: part for part in parts if isinstance(part, ModelInfo)}
    keys = [p.node.state_key for p in parts if isinstance(p, Carried) and p.promised is not None]
    return next((infos[key] for key in keys if key in infos), None)


def replay(
    engine: Engine,
    model: Model,
    parts: list[Manifest | ModelInfo | Carried],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replay:
    """Make every promised reply again and compare; ends at the first difference. Raises OtherModel, BadExport."""
    manifest = next(part for part in parts if isinstance(part, Manifest))
    if any(isinstance(p, Carried) and p.promised is None and is_promised(p.node) for p in parts):
        # Feeding given tokens compares the logits behind them, but makes no reply: to say PASS would be a lie.
        raise BadExport("it holds its replies, so that none would be made again: import it without --replay")
    if len({p.node.state_key for p in parts if isinstance(p, Carried) and p.promised is not None}) > 1:
        raise BadExport("its replies were made by several models, and a replay proves those of one")
    wanted = needed(parts)
    if wanted is not None and wanted.state_key != model.state_key:
        raise OtherModel(manifest.title, wanted.differing_fields(model_info(model)), wanted.name)
    result, made = Replay(), dict[str, Carried]()
    messages = [part for part in parts if isinstance(part, Carried)]
    total = sum(part.promised or 0 for part in messages)
    behind, begin = _behind(messages), _Reached((), model.new_session())
    waiting = [(part, begin) for part in behind.get(None, ())]
    while waiting:  # what nothing waits behind is let go of: a session takes a block of memory at least
        part, before = waiting.pop()
        result.messages += 1
        session = _standing(model, before.session, part.node.keep)
        node = part.node
        if part.promised is None:
            if max(node.tokens, default=0) >= model.vocabulary_size:
                raise BadExport(f"message {node.id[:12]} holds tokens that its model lacks")
            if node.tokens:
                model.prefill(session, node.tokens)
        else:
            result.replies += 1
            node = _make(engine, model, session, part, before.path, result)
            if node.id != part.node.id:
                result.difference = (
                    f"message {part.node.id[:12]} comes out otherwise: {len(node.tokens)} tokens, ended by "
                    f"“{node.stop}”, where {part.promised} and “{part.node.stop}” were promised"
                )
                return result
            result.tokens += len(node.tokens)
        claimed = part.digests.get(model.state_key)
        if claimed and session.logits is not None and session.position == node.n_tokens:
            result.digests += 1
            if session.logits_digest() != claimed:
                result.difference = f"the logits behind message {node.id[:12]} differ"
                return result
        here = _Reached((*before.path, node), session)
        waiting += [(part, here) for part in behind.get(node.id, ())]
        made[node.id] = part._replace(node=node, promised=None, first=None)
        progress(result.tokens, total)
    result.parts = [_in_library(part, made) for part in parts]
    return result


def _behind(messages: Sequence[Carried]) -> dict[str | None, list[Carried]]:
    """Messages by their parents, to be taken from the end: those with the least behind them first.

    So a branch is over before the next one begins, and few sessions wait for their turn at any time.
    """
    sizes, behind = dict[str | None, int](), dict[str | None, list[Carried]]()
    for part in reversed(messages):  # parents come first in a file
        node = part.node
        sizes[node.id] = size = sizes.get(node.id, 0) + 1
        sizes[node.parent_id] = sizes.get(node.parent_id, 0) + size
        behind.setdefault(node.parent_id, []).append(part)
    for siblings in behind.values():
        siblings.sort(key=lambda part: -sizes[part.node.id])
    return behind


def _in_library(part: Manifest | ModelInfo | Carried, made: Mapping[str, Carried]) -> Manifest | ModelInfo | Carried:
    """What of a file goes into the library, in the file's order, which is that of siblings."""
    if isinstance(part, Carried):
        return made[part.node.id]
    return part._replace(what="savepoint") if isinstance(part, Manifest) else part


def _standing(model: Model, session: Session, keep: int) -> Session:
    """A session of one's own that holds the first `keep` tokens of another one."""
    session = session.fork()
    session.truncate(min(keep, session.position))
    return session


def _make(
    engine: Engine, model: Model, session: Session, part: Carried, path: tuple[Node, ...], result: Replay
) -> Node:
    """Write a promised reply anew; gives its node, whose id is what decides."""
    promised = part.node
    settings = engine.settings_from_json(promised.sampler)
    session.dice_key = promised.dice_key
    if session.logits is None and session.position:
        tokens = list(session.tokens)
        session.truncate(len(tokens) - 1)
        model.prefill(session, tokens[-1:])
    before = said_before(reversed(path))
    in_front = session.position - len(before) - 1
    previous = session.tokens[in_front] if in_front >= 0 else None
    voice = Voice(engine, model, settings, promised.dice_key, raw=any(node.role == "raw" for node in path))
    decoding = Decoding.begin(engine, model, voice.stops, before, previous)
    first: int | None = None
    if part.first is not None and part.first < model.vocabulary_size and session.logits is not None:
        drawn = engine.sample(
            session.logits, session.tokens, settings, promised.dice_key, session.position, model=model
        )
        first = part.first if drawn != part.first else None
        result.chosen += first is not None
    count = part.promised or 0
    ended = promised.stop == "stop"
    limit = count + 1 if ended else count
    writing = Writing(engine, model, session, settings, Reply(), decoding, limit, first_token=first)
    reply = generate(writing, speculate=True)
    stop = reply.stop if ended or reply.stop == "stop" else promised.stop
    return _identified(promised, path, reply, stop)


def _identified(promised: Node, path: tuple[Node, ...], reply: Reply, stop: str) -> Node:
    from snapshots import Message, node_id

    message = Message(
        promised.role,
        reply.text,
        tuple(reply.tokens),
        promised.keep,
        stop,
        promised.sampler,
        promised.dice_key,
        promised.prompt_key,
    )
    parent: Any = path[-1].id if path else promised.conversation_id
    return promised._replace(
        id=node_id(parent, message, promised.keep),
        text=reply.text,
        tokens=message.tokens,
        n_tokens=promised.keep + len(message.tokens),
        stop=stop,
    )
