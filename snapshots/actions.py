"""What people do to the tree, each with the entry in the log that reverses it.

Hidden nodes carry the number of the action that hid them, so that exactly those come back.
"""

from __future__ import annotations

import json
import sqlite3
import time

from snapshots import heads, ids, names, tree
from snapshots.errors import NothingToUndo, UnknownNode
from snapshots.log import DONE, DROPPED, UNDONE, Detail, last, newest_seq, record
from snapshots.records import Action, ActionKind, Message, Node


def add_node(
    tx: sqlite3.Connection,
    conversation_id: str,
    parent_id: str | None,
    message: Message,
    *,
    state_key: str,
    window: str,
    move_head: bool,
) -> Node:
    """Put a message into the tree and stand on it. A reply joins the turn that its parent ended."""
    tree.conversation(tx, conversation_id)
    before = heads.head(tx, conversation_id)
    node, shown = tree.put_node(tx, conversation_id, parent_id, message, state_key)
    if not move_head:
        tree.touch(tx, conversation_id)
        return node
    heads.set_head(tx, conversation_id, node.id, "turn", window)
    row = last(tx, conversation_id, DONE, "DESC")
    turn: Detail = json.loads(row[3]) if row and row[2] == "turn" else {}
    if row and turn and turn["after"] == parent_id == before and _joins(tx, parent_id, node):
        turn = {**turn, "after": node.id, "nodes": turn["nodes"] + 1, "shown": {**turn["shown"], **shown}}
        tx.execute("UPDATE actions SET detail = ? WHERE seq = ?", (json.dumps(turn), row[0]))
        tx.execute(
            "UPDATE actions SET state = ? WHERE conversation_id = ? AND state = ?", (DROPPED, conversation_id, UNDONE)
        )
    else:
        record(tx, conversation_id, "turn", {"before": before, "after": node.id, "nodes": 1, "shown": shown})
    return node


def _joins(tx: sqlite3.Connection, parent_id: str | None, node: Node) -> bool:
    """A reply belongs to the turn of its question, and the rest of a reply to the part that F5 saved."""
    role, stop = tx.execute("SELECT role, stop FROM nodes WHERE id = ?", (parent_id,)).fetchone()
    return role == "system" or (node.role == "assistant" and (role != "assistant" or stop == "saved"))


def move_head(
    tx: sqlite3.Connection, conversation_id: str, node_id: str | None, kind: ActionKind, window: str
) -> Action:
    """Stand somewhere else, logged; standing there already is logged in the head's log only."""
    tree.conversation(tx, conversation_id)
    if node_id is not None:
        here = tree.node(tx, node_id)
        if here.conversation_id != conversation_id or tree.nearest_live(tx, node_id) != node_id:
            raise UnknownNode(node_id)
    before = heads.head(tx, conversation_id)
    heads.set_head(tx, conversation_id, node_id, kind, window)
    detail: Detail = {"before": before, "after": node_id}
    if before == node_id:
        return Action(kind, conversation_id, node_id, detail, time.time())
    return record(tx, conversation_id, kind, detail)


def delete(tx: sqlite3.Connection, node_id: str, window: str) -> Action:
    """Hide a node and all behind it, also a damaged one. Raises UnknownNode, also for one that is hidden already."""
    here = tree.glance(tx, node_id)
    doomed = tree.subtree(tx, node_id)
    if not doomed:
        raise UnknownNode(node_id)
    before = heads.head(tx, here.conversation_id)
    action = record(
        tx, here.conversation_id, "delete", {"node": node_id, "nodes": len(doomed), "before": before, "after": before}
    )
    seq = newest_seq(tx)
    _hide(tx, seq, doomed)
    after = tree.nearest_live(tx, before)
    if after != before:
        heads.set_head(tx, here.conversation_id, after, "delete", window)
    detail = {**action.detail, "after": after}
    tx.execute("UPDATE actions SET detail = ? WHERE seq = ?", (json.dumps(detail), seq))
    return Action("delete", here.conversation_id, after, detail, action.at)


def delete_conversation(tx: sqlite3.Connection, conversation_id: str) -> Action:
    """Hide a whole conversation."""
    title = tree.conversation(tx, conversation_id).title
    head = heads.head(tx, conversation_id)
    (count,) = tx.execute(
        "SELECT count(*) FROM nodes WHERE conversation_id = ? AND deleted IS NULL", (conversation_id,)
    ).fetchone()
    detail: Detail = {"conversation": title, "nodes": count, "before": head, "after": head}
    action = record(tx, conversation_id, "delete", detail)
    _hide_conversation(tx, newest_seq(tx), conversation_id)
    return action


def set_title(tx: sqlite3.Connection, conversation_id: str, title: str, *, undoable: bool) -> None:
    """Change a conversation's title."""
    before = tree.conversation(tx, conversation_id).title
    title = ids.clean_text(title)
    tx.execute("UPDATE conversations SET title = ? WHERE id = ?", (title, conversation_id))
    if undoable and title != before:
        record(tx, conversation_id, "title", {"old_name": before, "name": title})


def _hide(tx: sqlite3.Connection, seq: int, node_ids: list[str]) -> None:
    tx.executemany(
        "UPDATE nodes SET deleted = ? WHERE id = ? AND deleted IS NULL", [(seq, node_id) for node_id in node_ids]
    )


def _hide_conversation(tx: sqlite3.Connection, seq: int, conversation_id: str) -> None:
    tx.execute("UPDATE conversations SET deleted = ? WHERE id = ?", (seq, conversation_id))
    tx.execute("UPDATE nodes SET deleted = ? WHERE conversation_id = ? AND deleted IS NULL", (seq, conversation_id))


def undo(tx: sqlite3.Connection, conversation_id: str | None, window: str) -> Action:
    """Reverse the last action that is done. Raises NothingToUndo."""
    row = last(tx, conversation_id, DONE, "DESC")
    if row is None:
        raise NothingToUndo
    seq, where, kind, detail = row[0], row[1], row[2], json.loads(row[3])
    if kind == "delete":
        tx.execute("UPDATE nodes SET deleted = NULL WHERE deleted = ?", (seq,))
        tx.execute("UPDATE conversations SET deleted = NULL WHERE deleted = ?", (seq,))
    elif kind in ("turn", "import"):
        for name in detail.get("names", ()):
            names.put(tx, name, None)
        _hide_turn(tx, seq, detail["shown"])
    elif kind == "title":
        tx.execute("UPDATE conversations SET title = ? WHERE id = ?", (detail["old_name"], where))
    else:
        _undo_name(tx, kind, detail)
    return _finish(tx, (seq, where, kind, detail), UNDONE, detail.get("before"), window)


def redo(tx: sqlite3.Connection, conversation_id: str | None, window: str) -> Action:
    """Do the action that was undone last once more. Raises NothingToUndo(redo=True)."""
    row = last(tx, conversation_id, UNDONE, "ASC")
    if row is None:
        raise NothingToUndo(redo=True)
    seq, where, kind, detail = row[0], row[1], row[2], json.loads(row[3])
    if kind == "delete" and "conversation" in detail:
        _hide_conversation(tx, seq, where)
    elif kind == "delete":
        _hide(tx, seq, tree.subtree(tx, detail["node"]))
    elif kind in ("turn", "import"):
        tx.executemany("UPDATE nodes SET deleted = NULL WHERE id = ?", [(node_id,) for node_id in detail["shown"]])
        for name, node_id in detail.get("names", {}).items():
            names.put(tx, name, node_id)
    elif kind == "title":
        tx.execute("UPDATE conversations SET title = ? WHERE id = ?", (detail["name"], where))
    elif kind == "name":
        names.put(tx, detail["name"], detail["after"])
    elif kind == "rename":
        names.put(tx, detail["old_name"], None)
        names.put(tx, detail["name"], detail["node"])
    elif kind == "unname":
        names.put(tx, detail["name"], None)
    return _finish(tx, (seq, where, kind, detail), DONE, detail.get("after"), window)


def _finish(
    tx: sqlite3.Connection, row: tuple[int, str, ActionKind, Detail], state: int, head: str | None, window: str
) -> Action:
    seq, conversation_id, kind, detail = row
    tx.execute("UPDATE actions SET state = ? WHERE seq = ?", (state, seq))
    if "after" in detail and kind != "name":
        target = tree.nearest_live(tx, head)
        if target != heads.head(tx, conversation_id):
            heads.set_head(tx, conversation_id, target, "undo" if state == UNDONE else "redo", window)
    here = heads.head(tx, conversation_id)
    return Action(kind, conversation_id, here, detail, time.time())


def _hide_turn(tx: sqlite3.Connection, seq: int, shown: dict[str, int | None]) -> None:
    """Hide the messages that a turn showed, the last first, but none that a name or another branch hangs on.

    Those that an earlier action had hidden carry its number again, so that undoing that one shows them.
    """
    for node_id in reversed(shown):
        used = tx.execute(
            "SELECT EXISTS(SELECT 1 FROM nodes WHERE parent_id = ? AND deleted IS NULL)"
            " OR EXISTS(SELECT 1 FROM labels WHERE node_id = ?)"
            " OR EXISTS(SELECT 1 FROM quicksaves WHERE node_id = ?)",
            (node_id, node_id, node_id),
        ).fetchone()[0]
        if not used:
            _hide(tx, shown[node_id] or seq, [node_id])


def _undo_name(tx: sqlite3.Connection, kind: str, detail: Detail) -> None:
    if kind == "name":
        names.put(tx, detail["name"], detail["before"])
    elif kind == "rename":
        names.put(tx, detail["name"], detail["displaced"])
        names.put(tx, detail["old_name"], detail["node"])
    elif kind == "unname":
        names.put(tx, detail["name"], detail["node"])
