"""Conversations and nodes: how rows become values. Every function works inside a transaction that it is given."""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from snapshots import ids, seals
from snapshots.errors import BadNode, DamagedNode, LibraryDamaged, UnknownConversation, UnknownNode
from snapshots.records import ROLES, Conversation, Glance, Message, Node, Twig

_CONVERSATION = seals.columns("conversations")
_COLUMNS = (
    "id", "conversation_id", "parent_id", "role", "text", "keep", "tokens", "n_tokens", "turn", "stop", "sampler",
    "dice_key", "prompt_key", "state_key", "created",
)  # fmt: skip
DAMAGED = "(damaged)"
"""What a list shows in place of a text that is not what was said."""
_SEALED = seals.columns("nodes")
_CUT = 14  # columns of _SEALED
_NODE = ", ".join((*_COLUMNS, "row_digest"))
NODE_COLUMNS = _NODE
"""The columns of a row that `believe` takes, in its order."""
_QUALIFIED = ", ".join(f"n.{column}" for column in (*_COLUMNS, "row_digest"))


# A node and all above it. UNION, not UNION ALL: a damaged index may lead round in a circle, which must have an end.
UP = (
    "WITH RECURSIVE up(id, parent_id) AS (SELECT id, parent_id FROM nodes WHERE id = ?"
    " UNION SELECT n.id, n.parent_id FROM nodes n JOIN up ON n.id = up.parent_id)"
)
_OF_UP = "FROM up JOIN nodes n ON n.id = up.id"
_NEAR = 8  # nodes above one that are looked at one by one


def insert_conversation(tx: sqlite3.Connection, title: str, template_date: str) -> Conversation:
    """A new, empty conversation under a random id."""
    conversation_id, at = os.urandom(32).hex(), time.time()
    tx.execute(
        "INSERT INTO conversations(id, title, created, template_date, last_used, use_order) VALUES (?,?,?,?,?,0)",
        (conversation_id, ids.clean_text(title), at, template_date, at),
    )
    touch(tx, conversation_id)
    return conversation(tx, conversation_id)


def touch(tx: sqlite3.Connection, conversation_id: str) -> None:
    """Make a conversation the last used one. A counter orders them, so a wrong clock does no harm."""
    tx.execute(
        "UPDATE conversations SET last_used = ?, use_order = (SELECT max(use_order) + 1 FROM conversations)"
        " WHERE id = ?",
        (time.time(), conversation_id),
    )


def conversations(tx: sqlite3.Connection) -> list[Conversation]:
    """Those that are not deleted, the last used first."""
    rows = tx.execute(f"SELECT {_CONVERSATION} FROM conversations ORDER BY use_order DESC")
    return [_conversation(row) for row in seals.believed("conversations", rows) if row[7] is None]


def _conversation(row: tuple[Any, ...]) -> Conversation:
    return Conversation._make((*row[:5], row[6]))


def conversation(tx: sqlite3.Connection, conversation_id: str) -> Conversation:
    """One that is not deleted; without a title where its row is broken, for its messages stand. Raises
    UnknownConversation; LibraryDamaged where SQLite gives another row than was asked for.
    """
    row = tx.execute(f"SELECT {_CONVERSATION} FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
    if row is None:
        raise UnknownConversation(conversation_id)
    if row[0] != conversation_id:
        raise LibraryDamaged(f"the row of conversation {conversation_id[:12]} is damaged")
    if not seals.whole("conversations", row):
        return Conversation(conversation_id, DAMAGED, 0.0, "", 0.0, None)
    if row[7] is not None:
        raise UnknownConversation(conversation_id)
    return _conversation(row)


def last_used(tx: sqlite3.Connection) -> Conversation | None:
    """The conversation that was used last."""
    rows = tx.execute(f"SELECT {_CONVERSATION} FROM conversations ORDER BY use_order DESC")
    for row in rows:
        if row[7] is None and seals.whole("conversations", row):
            return _conversation(row)
    return None


def put_node(
    tx: sqlite3.Connection, conversation_id: str, parent_id: str | None, message: Message, state_key: str
) -> tuple[Node, dict[str, int | None]]:
    """Insert a message, or find the node that it already is, and show it.

    A hidden path to it comes back: what is said behind a deleted message is never lost. Gives, beside the node, the ids
    that this made visible, from the root down, each with the action that had hidden it (None: it is new). Raises
    UnknownNode, BadNode.
    """
    parent = None if parent_id is None else node(tx, parent_id)
    if parent is not None and parent.conversation_id != conversation_id:
        raise UnknownNode(parent.id)
    message, keep = _checked(message, parent.n_tokens if parent else 0)
    node_id = ids.node_id(parent.id if parent else conversation_id, message, keep)
    known = tx.execute("SELECT 1 FROM nodes WHERE id = ?", (node_id,)).fetchone()
    shown = _show_path(tx, node_id if known else parent_id)
    if known:
        return node(tx, node_id), shown
    turn, at = (parent.turn if parent else 0) + (message.role in ("user", "raw")), time.time()
    values = (
        node_id, conversation_id, parent_id, message.role, message.text, keep, ids.pack_tokens(message.tokens),
        keep + len(message.tokens), turn, message.stop, ids.plain_json(message.sampler, "sampler"), message.dice_key,
        message.prompt_key, state_key, at, ids.row_digest(node_id, (conversation_id, turn, state_key, at)),
    )  # fmt: skip
    tx.execute(f"INSERT INTO nodes({_NODE}) VALUES ({','.join('?' * len(values))})", values)
    return node(tx, node_id), {**shown, node_id: None}


def _checked(message: Message, parent_tokens: int) -> tuple[Message, int]:
    keep = parent_tokens if message.keep is None else message.keep
    if message.role not in ROLES:
        raise BadNode("role", f"unknown: {message.role}")
    if not 0 <= keep <= parent_tokens:
        raise BadNode("keep", f"{keep} of {parent_tokens} tokens")
    ids.pack_tokens(message.tokens)
    sampler = json.loads(ids.plain_json(message.sampler, "sampler"))
    text, stop = ids.clean_text(message.text), ids.clean_text(message.stop)
    tokens = tuple(int(token) for token in message.tokens)
    return Message(message.role, text, tokens, keep, stop, sampler, bytes(message.dice_key), message.prompt_key), keep


def _show_path(tx: sqlite3.Connection, node_id: str | None) -> dict[str, int | None]:
    """Show what is hidden of a path; gives what it was, from the root down.

    Nothing above a message that is shown is hidden (a deletion hides all behind), so a long path costs no more.
    """
    hidden: dict[str, int] = {}
    while node_id is not None and node_id not in hidden:
        row = tx.execute("SELECT parent_id, deleted FROM nodes WHERE id = ?", (node_id,)).fetchone()
        if row is None or row[1] is None:
            break
        hidden[node_id] = row[1]
        node_id = row[0]
    tx.executemany("UPDATE nodes SET deleted = NULL WHERE id = ?", [(each,) for each in hidden])
    return dict(reversed(hidden.items()))


def _is_hidden(row: tuple[Any, ...]) -> bool:
    """Whether a sealed row says that it is hidden. A broken one may say so by mistake: it is shown.

    No seal at all is that of a damaged message that a person hid or showed since (seals.install).
    """
    return row[11] is not None and (row[-1] is None or seals.whole("nodes", row))


def _can_be_shown(row: tuple[Any, ...]) -> bool:
    """Whether a row has values of the kinds that a list needs; one without even an id is only named by fsck."""
    _, node_id, _, parent_id, role, _, _, n_tokens, turn, stop, created, _, _, _ = row
    texts = all(isinstance(value, str) for value in (node_id, role, stop)) and isinstance(parent_id, str | None)
    return texts and isinstance(n_tokens, int) and isinstance(turn, int) and isinstance(created, float)


def _node(row: tuple[Any, ...]) -> Node:
    """A row as a Node of the caller's own. Raises DamagedNode."""
    found = believe(row)
    return found._replace(sampler=dict(found.sampler))


@functools.lru_cache(maxsize=1024)
def believe(row: tuple[Any, ...]) -> Node:
    """A row as a Node that gives its own id and whose digest holds; an equal row is checked once."""
    values = dict(zip(_COLUMNS, row[:-1], strict=True))
    try:
        values["tokens"] = ids.unpack_tokens(values["tokens"])
        values["sampler"] = json.loads(values["sampler"])
        found = Node(**values)
        content = Message(
            found.role, found.text, found.tokens, found.keep, found.stop, found.sampler, found.dice_key,
            found.prompt_key,
        )  # fmt: skip
        whole = (
            ids.node_id(found.parent_id or found.conversation_id, content, found.keep) == found.id
            and found.n_tokens == found.keep + len(found.tokens)
            and ids.row_digest(found.id, (found.conversation_id, found.turn, found.state_key, found.created)) == row[-1]
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedNode(str(row[0])) from error
    if not whole:
        raise DamagedNode(found.id)
    return found


def all_rows(tx: sqlite3.Connection) -> sqlite3.Cursor:
    """Every node's row as `believe` takes it."""
    return tx.execute(f"SELECT {_NODE} FROM nodes ORDER BY seq")


def node(tx: sqlite3.Connection, node_id: str) -> Node:
    """A node, hidden or not. Raises UnknownNode, DamagedNode."""
    row = tx.execute(f"SELECT {_NODE} FROM nodes WHERE id = ?", (node_id,)).fetchone()
    if row is None:
        raise UnknownNode(node_id)
    found = _node(row)
    if found.id != node_id:  # a damaged index leads to another row
        raise DamagedNode(node_id)
    return found


def glance(tx: sqlite3.Connection, node_id: str) -> Glance:
    """A node, hidden or not, damaged or not, for a list. Raises UnknownNode."""
    row = tx.execute(f"SELECT {_SEALED} FROM nodes WHERE id = ?", (node_id,)).fetchone()
    if row is None or row[1] != node_id:
        raise UnknownNode(node_id)
    return Glance._make((*row[1:3], row[4], row[5] if seals.whole("nodes", row) else DAMAGED, *row[7:9]))


def path(tx: sqlite3.Connection, node_id: str | None) -> list[Node]:
    """The nodes from the root to this one. Raises UnknownNode, DamagedNode."""
    if node_id is None:
        return []
    above = {row[0]: row for row in tx.execute(f"{UP} SELECT {_QUALIFIED} {_OF_UP}", (node_id,))}
    if not above:
        raise UnknownNode(node_id)
    nodes: list[Node] = []
    here: str | None = node_id
    while here is not None:
        row = above.pop(here, None)
        if row is None:  # an ancestor's row is gone, or a damaged index leads to other rows
            raise DamagedNode(here)
        nodes.append(_node(row))
        here = nodes[-1].parent_id
    return nodes[::-1]


def tokens_of(nodes: Iterable[Node]) -> list[int]:
    """The token list at the end of a path."""
    tokens: list[int] = []
    for each in nodes:
        del tokens[each.keep :]
        tokens.extend(each.tokens)
    return tokens


def tokens_to(
    tx: sqlite3.Connection, node_id: str, known: Mapping[str, ids.Packed], said: ids.Packed
) -> tuple[ids.Packed, str | None]:
    """The token list, packed, at the end of the path to a node, and the node above that it was built on, if one was.

    `known` has the lists of other nodes: an id stands for all that is in front of its node, so where one of them is
    near above, no more of the path is read. `said` is what the list should be: where it is that, nothing is copied.
    Raises UnknownNode, DamagedNode.
    """
    behind: list[Node] = []
    here: str | None = node_id
    while here is not None and len(behind) < _NEAR and not (behind and here in known):
        behind.append(node(tx, here))
        here = behind[-1].parent_id
    if here is not None and here not in known:
        return ids.packed(tokens_of(path(tx, node_id))), None
    before = b"" if here is None else known[here].raw
    stands, own = len(before) // 4, list[int]()
    for each in reversed(behind):
        del own[max(0, each.keep - stands) :]
        stands = min(stands, each.keep)
        own.extend(each.tokens)
    head, tail = memoryview(before)[: 4 * stands], ids.packed(own).raw
    same = len(said.raw) == len(head) + len(tail) and said.raw.startswith(head) and said.raw.endswith(tail)
    return said if same else ids.Packed(bytes(head) + tail), here


def children(tx: sqlite3.Connection, conversation_id: str, node_id: str | None) -> list[Node]:
    """The live nodes behind a node, or the live roots, oldest first."""
    where, value = ("parent_id = ?", node_id) if node_id else ("conversation_id = ? AND parent_id IS NULL", None)
    rows = tx.execute(f"SELECT {_SEALED}, {_NODE} FROM nodes WHERE {where} ORDER BY seq", (value or conversation_id,))
    return [_node(row[_CUT:]) for row in rows.fetchall() if not _is_hidden(row[:_CUT])]


def siblings(tx: sqlite3.Connection, node_id: str) -> list[Node]:
    """The live nodes of the same parent and role, this one among them even if it is hidden."""
    here = node(tx, node_id)
    near = [n for n in children(tx, here.conversation_id, here.parent_id) if n.role == here.role]
    return near if any(n.id == here.id for n in near) else [*near, here]


def newest_leaf(tx: sqlite3.Connection, node_id: str) -> Node:
    """The newest live child, and its newest, to the end. Raises DamagedNode where they lead round in a circle."""
    seen: set[str] = set()
    while node_id not in seen:
        seen.add(node_id)
        rows = tx.execute(f"SELECT {_SEALED} FROM nodes WHERE parent_id = ? ORDER BY seq DESC", (node_id,))
        newest = next((row[1] for row in rows if not _is_hidden(row)), None)
        if newest is None:
            return node(tx, node_id)
        node_id = newest
    raise DamagedNode(node_id)


def nearest_live(tx: sqlite3.Connection, node_id: str | None) -> str | None:
    """The node itself or the nearest one above it that is not hidden; None is the start of the conversation."""
    seen: set[str] = set()
    while node_id is not None and node_id not in seen:
        seen.add(node_id)
        row = tx.execute(f"SELECT {_SEALED} FROM nodes WHERE id = ?", (node_id,)).fetchone()
        if row is None:
            return None
        if not _is_hidden(row):
            return node_id
        node_id = row[3]
    return None


def live(tx: sqlite3.Connection, conversation_id: str, *, strict: bool = False) -> dict[str, str | None]:
    """A conversation's live nodes, each with its parent, parents first.

    A broken row hides nothing; with `strict` it raises DamagedNode.
    """
    found: dict[str, str | None] = {}
    for row in tx.execute(f"SELECT {_SEALED} FROM nodes WHERE conversation_id = ? ORDER BY seq", (conversation_id,)):
        if strict and not seals.whole("nodes", row):
            raise DamagedNode(str(row[1]))
        if not _is_hidden(row):
            found[row[1]] = row[3]
    return found


def behind(live_nodes: Mapping[str, str | None], node_id: str) -> list[str]:
    """Of what `live` gives, a node and all behind it."""
    found = {node_id: None}
    for each, parent in live_nodes.items():
        if parent in found:
            found[each] = None
    return [each for each in found if each in live_nodes]


def subtree(tx: sqlite3.Connection, node_id: str) -> list[str]:
    """The ids of a node and of all live nodes behind it."""
    row = tx.execute("SELECT conversation_id FROM nodes WHERE id = ?", (node_id,)).fetchone()
    found = live(tx, row[0]) if row is not None else {}
    return behind(found, node_id) if node_id in found else []


def is_live(tx: sqlite3.Connection, node_id: str) -> bool:
    """Whether a node is there and not hidden."""
    row = tx.execute(f"SELECT {_SEALED} FROM nodes WHERE id = ?", (node_id,)).fetchone()
    return row is not None and not _is_hidden(row)


def turn_start(tx: sqlite3.Connection, node_id: str) -> tuple[str | None, str]:
    """(parent id, role) of a node whose row is whole; (None, "") where there is none. Raises DamagedNode."""
    row = tx.execute(f"SELECT {_SEALED} FROM nodes WHERE id = ?", (node_id,)).fetchone()
    if row is not None and (row[1] != node_id or not seals.whole("nodes", row)):
        raise DamagedNode(node_id)
    return (row[3], row[4]) if row is not None else (None, "")


def twigs(tx: sqlite3.Connection, conversation_id: str, *, deleted: bool) -> list[Twig]:
    """All nodes of a conversation for a list: parents first, branches in the order of their making."""
    head_id = conversation(tx, conversation_id).head_id
    names: dict[str, list[str]] = {}
    labels = tx.execute(
        f"SELECT {seals.columns('labels', 'l')} FROM labels l JOIN nodes n ON n.id = l.node_id"
        " WHERE n.conversation_id = ? ORDER BY l.created, l.name",
        (conversation_id,),
    )
    for name, node_id, *_ in seals.believed("labels", labels):
        names.setdefault(node_id, []).append(name)
    quick_rows = tx.execute(
        f"SELECT {seals.columns('quicksaves', 'q')} FROM quicksaves q JOIN nodes n ON n.id = q.node_id"
        " AND n.deleted IS NULL WHERE q.conversation_id = ? ORDER BY q.seq DESC",
        (conversation_id,),
    )
    quick = next((row[1:] for row in seals.believed("quicksaves", quick_rows)), None)
    behind: dict[str | None, list[Any]] = {}
    listed = tx.execute(
        f"SELECT {_SEALED} FROM nodes WHERE conversation_id = ? ORDER BY seq", (conversation_id,)
    ).fetchall()
    listed = [row for row in listed if _can_be_shown(row) and (deleted or not _is_hidden(row))]
    known = {row[1] for row in listed}
    for row in listed:
        _, node_id, _, parent_id, role, text, _, n_tokens, turn, stop, created, gone, _, _ = row
        text = text if seals.whole("nodes", row) else DAMAGED
        parent_id = parent_id if parent_id in known else None  # nothing is hidden by a parent that is not there
        behind.setdefault(parent_id, []).append((node_id, row[3], role, text, n_tokens, turn, stop, created, gone))
    found: list[Twig] = []
    waiting = [(row, 0 if len(behind[None]) == 1 else 1) for row in reversed(behind.get(None, []))]
    while waiting:
        row, depth = waiting.pop()
        own = behind.get(row[0], [])
        waiting += [(child, depth + (len(own) > 1)) for child in reversed(own)]
        marks = (tuple(names.get(row[0], ())), quick is not None and row[0] == quick[1], row[0] == head_id)
        found.append(Twig._make((row[0], conversation_id, *row[1:8], *marks, depth, len(own), row[8] is not None)))
    return found
