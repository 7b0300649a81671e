"""Between the tree and an export file: which messages go into one, and how those of one are put into the tree.

Ids are digests of what messages say, so importing twice changes nothing, and what is here already is met again.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from snapshots import heads, history, ids, log, names, seals, states, tree
from snapshots.database import Database
from snapshots.errors import BadExport, BadName, BadNode, UnknownConversation
from snapshots.exchange import HEAD, MODEL, NODE, Readable, Record, read
from snapshots.records import (
    ROLES,
    Arrival,
    Carried,
    ExportScope,
    Manifest,
    Message,
    ModelInfo,
    Node,
    NodeState,
    Origin,
)

_BATCH = 200
_LONGEST_WORD = 256  # characters of a key, a stop reason, a date
_MOST_NAMES = 100
_TRIES = 100


# ------------------------------------------------------------------------------------------------------------- leaving


def records(
    database: Database, node_id: str, scope: ExportScope, promised: Callable[[Node], bool] | None = None
) -> Iterator[Record]:
    """The records of an export: the path to a node, and with `tree` all behind it, or the `conversation` it is in.

    Messages for which `promised` is true go without text and tokens: whoever imports them must make them again.
    """
    with database.read() as tx:
        here = tree.node(tx, node_id)
        ids_chosen = chosen(tx, here, scope)
        conversation = tree.conversation(tx, here.conversation_id)
    yield Record(
        HEAD,
        {
            "what": "replay" if promised else scope,
            "conversation": conversation.id,
            "title": conversation.title,
            "template_date": conversation.template_date,
            "created": conversation.created,
            "at": node_id,
        },
    )
    told: set[str] = set()
    for begin in range(0, len(ids_chosen), _BATCH):
        # A short look each: whoever reads our pipe may be slow, and writers wait for readers.
        with database.read() as tx:
            batch = [_outgoing(tx, tree.node(tx, each), told, promised) for each in ids_chosen[begin : begin + _BATCH]]
        for group in batch:
            yield from group


def chosen(tx: sqlite3.Connection, here: Node, scope: ExportScope) -> list[str]:
    """Ids of the messages of an export, parents first. Raises DamagedNode: nothing deleted leaves by mistake."""
    if scope == "savepoint":
        return [node.id for node in tree.path(tx, here.id)]
    live = tree.live(tx, here.conversation_id, strict=True)
    if scope == "conversation":
        return list(live)
    return [node.id for node in tree.path(tx, here.id)[:-1]] + tree.behind(live, here.id)


def _outgoing(
    tx: sqlite3.Connection, node: Node, told: set[str], promised: Callable[[Node], bool] | None
) -> list[Record]:
    """The record of a message, behind those of models that it is the first to name."""
    rows = states.node_states(tx, node.id)
    found: list[Record] = []
    for key in [node.state_key, *(row.state_key for row in rows)]:
        info = history.model_info(tx, key) if key and key not in told else None
        told.add(key)
        if info is not None:  # without its path: that says how the disk of the one who exports is laid out
            found.append(
                Record(
                    MODEL,
                    {
                        "state_key": info.state_key,
                        "prompt_key": info.prompt_key,
                        "name": info.name,
                        "state_fields": dict(info.state_fields),
                        "prompt_fields": dict(info.prompt_fields),
                    },
                )
            )
    values: dict[str, Any] = {
        "id": node.id,
        "parent": node.parent_id,
        "role": node.role,
        "keep": node.keep,
        "stop": node.stop,
        "sampler": dict(node.sampler),
        "dice": node.dice_key.hex(),
        "prompt_key": node.prompt_key,
        "state_key": node.state_key,
        "created": node.created,
        "names": names.names_of(tx, node.id),
        "states": [[row.state_key, row.logits_digest] for row in rows if row.logits_digest],
    }
    if promised is not None and promised(node):
        values |= {"count": len(node.tokens), "first": node.tokens[0] if node.tokens else None}
        return [*found, Record(NODE, values)]
    return [*found, Record(NODE, values, node.text, ids.pack_tokens(node.tokens))]


# ------------------------------------------------------------------------------------------------------------ arriving


def parse(stream: Readable) -> Iterator[Manifest | ModelInfo | Carried]:
    """The manifest of an export file, then models and messages, parents first, each checked against its id.

    Raises BadExport.
    """
    known: dict[str, tuple[int, int]] = {}
    manifest: Manifest | None = None
    for record in read(stream):
        try:
            if record.kind == HEAD:
                manifest = _manifest(record.values)
                yield manifest
            elif record.kind == MODEL:
                yield _model(record.values)
            elif record.kind == NODE and manifest is not None:
                carried = _carried(record, manifest, known)
                known[carried.node.id] = (carried.node.n_tokens, carried.node.turn)
                yield carried
        except BadExport:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, BadNode) as error:
            raise BadExport("it holds a record that cannot be understood") from error
    if manifest is None or manifest.at not in known:
        raise BadExport("it does not hold the message that it is of")


def _word(value: object, longest: int = _LONGEST_WORD) -> str:
    if not isinstance(value, str) or len(value) > longest or ids.clean_text(value) != value:
        raise ValueError
    return value


def _id(value: object) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError
    return value


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError
    return value


def _manifest(values: Mapping[str, Any]) -> Manifest:
    return Manifest(
        _word(values["what"]),
        _id(values["conversation"]),
        _word(values["title"], 1 << 14),
        _word(values["template_date"]),
        _id(values["at"]),
    )


def _model(values: Mapping[str, Any]) -> ModelInfo:
    fields = []
    for name in ("state_fields", "prompt_fields"):
        own = values[name]
        fields.append({_word(key): _word(own[key], 1 << 14) for key in own})
    keys = _word(values["state_key"]), _word(values["prompt_key"])
    return ModelInfo(*keys, _word(values["name"]), "", *fields)


def _carried(record: Record, manifest: Manifest, known: Mapping[str, tuple[int, int]]) -> Carried:
    values = record.values
    node_id, parent = _id(values["id"]), values["parent"]
    if parent is not None and parent not in known:
        raise BadExport("a message comes before the one that it follows")
    if node_id in known:
        raise BadExport("a message comes twice")
    before, turn = known[parent] if parent is not None else (0, 0)
    role, created = values["role"], values["created"]
    if role not in ROLES or type(created) not in (int, float) or not math.isfinite(created):
        raise ValueError
    count = None if values.get("count") is None else _number(values["count"], ids.TOKEN_LIMIT)
    left_out = manifest.what == "replay" and role == "assistant" and not record.text and not record.tokens
    if count is not None and not left_out:
        raise ValueError
    first = None if values.get("first") is None else _number(values["first"], ids.TOKEN_LIMIT - 1)
    tokens = ids.unpack_tokens(record.tokens)
    message = Message(
        role,
        record.text,
        tokens,
        _number(values["keep"], before),
        _word(values["stop"]),
        dict(values["sampler"]),
        bytes.fromhex(_word(values["dice"])),
        _word(values["prompt_key"]),
    )
    ids.plain_json(message.sampler, "sampler")
    keep = message.keep or 0
    if count is None and ids.node_id(parent or manifest.conversation_id, message, keep) != node_id:
        raise BadExport(f"message {node_id[:12]} is not what its id says")
    length = keep + (len(tokens) if count is None else count)
    turn += role in ("user", "raw")
    node = Node(
        node_id, manifest.conversation_id, parent, role, message.text, tokens, keep, length, turn, message.stop,
        message.sampler, message.dice_key, message.prompt_key, _word(values["state_key"]), float(created),
    )  # fmt: skip
    given = values["names"]
    digests = {_word(key): _word(digest) for key, digest in values["states"]}
    if len(given) > _MOST_NAMES:
        raise ValueError
    return Carried(node, tuple(_word(name) for name in given), digests, count, first)


def put(tx: sqlite3.Connection, parts: Iterator[Manifest | ModelInfo | Carried], source: str, window: str) -> Arrival:
    """Put everything that `parse` gives into the tree, in the caller's transaction, undoably.

    A message that is here already is shown again. A name that another message has gets a number. Digests come as what
    was claimed: recomputing compares with them. Raises BadExport.
    """
    manifest = next(parts)
    assert isinstance(manifest, Manifest)
    if manifest.what == "replay":
        raise BadExport("it holds no replies, only what it takes to make them: import it with --replay")
    fresh = _meet_conversation(tx, manifest)
    before = heads.head(tx, manifest.conversation_id)
    shown: dict[str, int | None] = {}
    count, taken, given = 0, dict[str, str](), dict[str, str]()
    for part in parts:
        if isinstance(part, ModelInfo):
            if history.model_info(tx, part.state_key) is None:
                history.remember_model(tx, part)
        elif isinstance(part, Carried):
            count += 1
            shown |= _put_node(tx, part, source)
            for name in part.names:
                put_name = _put_name(tx, name, part.node.id)
                if put_name is not None:
                    given[put_name] = part.node.id
                    taken |= {name: put_name} if put_name != name else {}
    after = before
    if fresh or tree.nearest_live(tx, before) is None:
        after = manifest.at
        heads.set_head(tx, manifest.conversation_id, after, "import", window)
    if shown or given:
        detail: log.Detail = {"before": before, "after": after, "nodes": len(shown), "shown": shown, "names": given}
        log.record(tx, manifest.conversation_id, "import", detail)
    return Arrival(manifest.conversation_id, manifest.at, manifest.title, count, len(shown), tuple(given), taken)


def _meet_conversation(tx: sqlite3.Connection, manifest: Manifest) -> bool:
    """Make sure that the conversation is there and visible; True where it is new."""
    try:
        tree.conversation(tx, manifest.conversation_id)
        return False
    except UnknownConversation:
        pass
    shown = tx.execute("UPDATE conversations SET deleted = NULL WHERE id = ?", (manifest.conversation_id,)).rowcount
    if not shown:
        at = time.time()
        tx.execute(
            "INSERT INTO conversations(id, title, created, template_date, last_used, use_order) VALUES (?,?,?,?,?,0)",
            (manifest.conversation_id, manifest.title, at, manifest.template_date, at),
        )
    tree.touch(tx, manifest.conversation_id)
    return True


def _put_node(tx: sqlite3.Connection, part: Carried, source: str) -> dict[str, int | None]:
    """One message; gives what it made visible."""
    node = part.node
    message = Message(
        node.role, node.text, node.tokens, node.keep, node.stop, node.sampler, node.dice_key, node.prompt_key
    )
    new = tx.execute("SELECT 1 FROM nodes WHERE id = ?", (node.id,)).fetchone() is None
    stored, shown = tree.put_node(tx, node.conversation_id, node.parent_id, message, node.state_key)
    if stored.id != node.id:
        raise BadExport(f"message {node.id[:12]} is not what its id says")
    if new:
        put_origin(tx, node.id, source)
        for state_key, digest in part.digests.items():
            states.put_state(tx, NodeState(node.id, state_key, node.n_tokens, digest, False, 0, time.time()))
    return shown


def _put_name(tx: sqlite3.Connection, name: str, node_id: str) -> str | None:
    """Give a message its name, or the name with a number where it is taken; None where it has it or it is no name."""
    try:
        clean = names.check_name(name)
    except BadName:
        return None
    for number in range(1, _TRIES):
        wanted = clean if number == 1 else f"{clean[: names.LONGEST - 4]}-{number}"
        holder = names.holder(tx, wanted, deleted=True)
        if holder == node_id:
            return None
        if holder is None:
            names.put(tx, wanted, node_id)
            return wanted
    return None


# -------------------------------------------------------------------------------------------------------------- origin


def put_origin(tx: sqlite3.Connection, node_id: str, source: str) -> None:
    """Note that a message came from an export file that nobody here wrote."""
    tx.execute(
        "INSERT OR IGNORE INTO origins(node_id, source, at, checked) VALUES (?,?,?,'')",
        (node_id, ids.clean_text(source), time.time()),
    )


def set_checked(tx: sqlite3.Connection, node_ids: Sequence[str], checked: str) -> None:
    """Note what a check of imported messages gave: "text" (the tokens say it), "differs", "replayed"."""
    tx.executemany("UPDATE origins SET checked = ? WHERE node_id = ?", [(checked, node_id) for node_id in node_ids])


def origins(tx: sqlite3.Connection, node_ids: Sequence[str]) -> dict[str, Origin]:
    """Of those messages that were imported: where they came from."""
    found: dict[str, Origin] = {}
    for node_id in node_ids:
        row = tx.execute(f"SELECT {seals.columns('origins')} FROM origins WHERE node_id = ?", (node_id,)).fetchone()
        if row is not None and row[0] == node_id and seals.whole("origins", row):
            found[node_id] = Origin._make(row[1:4])
    return found
