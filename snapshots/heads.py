"""Where a conversation and a window stand, and where they stood before."""

from __future__ import annotations

import sqlite3
import time

from snapshots import seals, tree
from snapshots.errors import UnknownNode
from snapshots.records import HeadMove, Position

LOG_LIMIT = 1000
"""Lines of the head log that a conversation keeps."""
PEOPLE = ""
"""The window that a screen writes to; scripts have names of their own and leave people where they are."""


def head(tx: sqlite3.Connection, conversation_id: str) -> str | None:
    """The node where the conversation stands, deleted or not; None at its empty start."""
    row = tx.execute(
        f"SELECT {seals.columns('conversations')} FROM conversations WHERE id = ?", (conversation_id,)
    ).fetchone()
    return row[6] if row and seals.whole("conversations", row) else None


def set_head(tx: sqlite3.Connection, conversation_id: str, node_id: str | None, reason: str, window: str) -> None:
    """Move the head, log it, and make the conversation the last used one."""
    tx.execute("UPDATE conversations SET head_id = ? WHERE id = ?", (node_id, conversation_id))
    tree.touch(tx, conversation_id)
    entry = tx.execute(
        "INSERT INTO head_log(conversation_id, node_id, reason, window, at) VALUES (?,?,?,?,?)",
        (conversation_id, node_id, reason, window, time.time()),
    )
    if entry.lastrowid is not None and entry.lastrowid % 64 == 0:
        tx.execute(
            "DELETE FROM head_log WHERE conversation_id = ? AND seq <= (SELECT seq FROM head_log"
            " WHERE conversation_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (conversation_id, conversation_id, LOG_LIMIT),
        )
    store_position(tx, Position(conversation_id, node_id), window)


def head_log(tx: sqlite3.Connection, conversation_id: str, limit: int) -> list[HeadMove]:
    """The newest moves first."""
    rows = tx.execute(
        f"SELECT {seals.columns('head_log')} FROM head_log WHERE conversation_id = ? ORDER BY seq DESC LIMIT ?",
        (conversation_id, limit),
    )
    return [HeadMove(*row[2:]) for row in seals.believed("head_log", rows)]


def set_position(tx: sqlite3.Connection, position: Position, window: str) -> None:
    """Remember a window's place without moving the conversation's head."""
    tree.conversation(tx, position.conversation_id)
    if position.node_id is not None and tree.node(tx, position.node_id).conversation_id != position.conversation_id:
        raise UnknownNode(position.node_id)
    store_position(tx, position, window)
    tree.touch(tx, position.conversation_id)


def store_position(tx: sqlite3.Connection, position: Position, window: str) -> None:
    """Write a window's place, unchecked; where a person is, it is also where its conversation was left."""
    where = (window, position.conversation_id) if window == PEOPLE else (window,)
    tx.executemany(
        "INSERT OR REPLACE INTO positions(window, conversation_id, node_id, token) VALUES (?,?,?,?)",
        [(key, position.conversation_id, position.node_id, position.token) for key in where],
    )


def start_position(tx: sqlite3.Connection, window: str) -> Position | None:
    """The window's own place if it still is there, else where the last used conversation was left."""
    place = _stored(tx, window)
    if place is not None:
        return standing(tx, place)
    last = tree.last_used(tx)
    return place_in(tx, last.id) if last else None


def place_in(tx: sqlite3.Connection, conversation_id: str) -> Position:
    """Where a person left a conversation, else its head; moved up from what is hidden now."""
    place = _stored(tx, conversation_id)
    if place is None or place.conversation_id != conversation_id:
        place = Position(conversation_id, head(tx, conversation_id))
    return standing(tx, place)


def standing(tx: sqlite3.Connection, place: Position) -> Position:
    """A place, or the nearest one above it that is not hidden."""
    found = tree.nearest_live(tx, place.node_id)
    return place if found == place.node_id else Position(place.conversation_id, found)


def _stored(tx: sqlite3.Connection, window: str) -> Position | None:
    row = tx.execute(
        f"SELECT {seals.columns('positions', 'p')} FROM positions p JOIN conversations c"
        " ON c.id = p.conversation_id AND c.deleted IS NULL WHERE p.window = ?",
        (window,),
    ).fetchone()
    return Position(*row[1:4]) if row is not None and seals.whole("positions", row) else None
