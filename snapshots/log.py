"""The log of actions, from which they are reversed.

An action's state is DONE, UNDONE (redo can do it again) or DROPPED (undone, then something else was done).
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from snapshots import heads, seals
from snapshots.records import Action, ActionKind

DONE, UNDONE, DROPPED = 0, 1, 2
Detail = dict[str, Any]


def record(tx: sqlite3.Connection, conversation_id: str, kind: ActionKind, detail: Detail) -> Action:
    """Log an action that was just done; what was undone before it in this conversation cannot be redone any more."""
    tx.execute(
        "UPDATE actions SET state = ? WHERE conversation_id = ? AND state = ?", (DROPPED, conversation_id, UNDONE)
    )
    at = time.time()
    tx.execute(
        "INSERT INTO actions(conversation_id, kind, detail, at) VALUES (?,?,?,?)",
        (conversation_id, kind, json.dumps(detail), at),
    )
    return Action(kind, conversation_id, heads.head(tx, conversation_id), detail, at)


def newest_seq(tx: sqlite3.Connection) -> int:
    """The number of the action that was logged last."""
    return int(tx.execute("SELECT max(seq) FROM actions").fetchone()[0])


def last(tx: sqlite3.Connection, conversation_id: str | None, state: int, order: str) -> tuple[Any, ...] | None:
    """The first action in this state by this order (ASC or DESC), as (seq, conversation_id, kind, detail JSON).

    One whose row is damaged cannot be reversed, and is passed over.
    """
    where = "conversation_id = ? AND " if conversation_id is not None else ""
    values = (conversation_id, state) if conversation_id is not None else (state,)
    rows = tx.execute(
        f"SELECT {seals.columns('actions')} FROM actions WHERE {where}state = ? ORDER BY seq {order}", values
    )
    return next((tuple(row[:4]) for row in rows if seals.whole("actions", row)), None)
