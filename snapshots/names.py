"""Names are movable labels on nodes, unique in a library; `quick` is a label of each conversation's own."""

from __future__ import annotations

import re
import sqlite3
import time
import unicodedata

from snapshots import ids, seals, tree
from snapshots.errors import BadName, NameTaken, UnknownName
from snapshots.log import record
from snapshots.records import Action, Savepoint

LONGEST = 100
QUICK_KEPT = 10
RESERVED = ("quick", "head")
_HEX = re.compile(r"[0-9a-fA-F]{4,}")
_STEP = re.compile(r"[~@][0-9]*$")
# Control, format (bidi overrides among them), surrogate, private and unassigned characters, line and paragraph ends.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_LABEL = seals.columns("labels", "l")
_JOINERS = "\u200d"  # makes one emoji of several


def check_name(name: str) -> str:
    """The name as it is stored (NFC, no space around it). Raises BadName(why) for one that breaks a rule."""
    clean = unicodedata.normalize("NFC", name).strip()
    if not clean:
        raise BadName(name, "is empty")
    if len(clean) > LONGEST:
        raise BadName(name, f"is longer than {LONGEST} characters")
    if any(unicodedata.category(c) in _HIDDEN and c not in _JOINERS for c in clean):
        raise BadName(name, "holds a control character")
    if _HEX.fullmatch(clean):
        raise BadName(name, "looks like an id (four or more hex digits)")
    if _STEP.search(clean):
        raise BadName(name, "ends like a step (~n or @n)")
    if clean.startswith("-"):
        raise BadName(name, "begins with a dash, like an option")
    if clean.casefold() in RESERVED:
        raise BadName(name, "has a meaning of its own")
    return clean


def holder(tx: sqlite3.Connection, name: str, *, deleted: bool = False) -> str | None:
    """The id of the live node that has this name (or of a hidden one too, if asked)."""
    name = ids.clean_text(name)  # an argument of stray bytes holds what no database takes
    row = tx.execute(
        f"SELECT {_LABEL} FROM labels l JOIN nodes n ON n.id = l.node_id WHERE l.name = ? AND (? OR n.deleted IS NULL)",
        (name, deleted),
    ).fetchone()
    return row[1] if row and row[0] == name and seals.whole("labels", row) else None


def put(tx: sqlite3.Connection, name: str, node_id: str | None) -> None:
    """Point a name at a node, or take it off (None); unlogged and unchecked."""
    if node_id is None:
        tx.execute("DELETE FROM labels WHERE name = ?", (name,))
        return
    at = time.time()
    tx.execute(
        "INSERT INTO labels(name, node_id, created, moved, move_order)"
        " VALUES (?, ?, ?, ?, (SELECT ifnull(max(move_order), 0) + 1 FROM labels))"
        " ON CONFLICT(name) DO UPDATE SET node_id = excluded.node_id, moved = excluded.moved,"
        " move_order = excluded.move_order",
        (name, node_id, at, at),
    )


def set_name(tx: sqlite3.Connection, name: str, node_id: str, *, force: bool) -> Action:
    """Name a node, logged. Raises BadName, NameTaken, UnknownNode."""
    name = check_name(name)
    here = tree.glance(tx, node_id)
    before = holder(tx, name)
    if before not in (None, node_id) and not force:
        raise NameTaken(name, str(before))
    hidden = holder(tx, name, deleted=True)
    put(tx, name, node_id)
    return record(tx, here.conversation_id, "name", {"name": name, "before": before or hidden, "after": node_id})


def rename(tx: sqlite3.Connection, old: str, new: str, *, force: bool) -> Action:
    """Change a name, logged. Raises UnknownName, BadName, NameTaken."""
    node_id = _known(tx, old)
    new = check_name(new)
    taken = holder(tx, new)
    if taken is not None and new != old and not force:
        raise NameTaken(new, taken)
    displaced = holder(tx, new, deleted=True) if new != old else None
    put(tx, old, None)
    put(tx, new, node_id)
    detail = {"old_name": old, "name": new, "node": node_id, "displaced": displaced}
    return record(tx, tree.glance(tx, node_id).conversation_id, "rename", detail)


def remove_name(tx: sqlite3.Connection, name: str) -> Action:
    """Take a name off, logged. Raises UnknownName."""
    node_id = _known(tx, name)
    put(tx, name, None)
    return record(tx, tree.glance(tx, node_id).conversation_id, "unname", {"name": name, "node": node_id})


def _known(tx: sqlite3.Connection, name: str) -> str:
    node_id = holder(tx, name)
    if node_id is None:
        raise UnknownName(name, nearest(tx, name))
    return node_id


def nearest(tx: sqlite3.Connection, name: str) -> tuple[str, ...]:
    """Up to three names like this one, the most similar first, in any case."""
    import difflib

    known = {each.name.casefold(): each.name for each in reversed(savepoints(tx)[:5000])}
    return tuple(known[match] for match in difflib.get_close_matches(name.casefold(), list(known), n=3, cutoff=0.5))


def savepoints(tx: sqlite3.Connection) -> list[Savepoint]:
    """All names on live nodes, the last moved first."""
    rows = tx.execute(
        f"SELECT n.conversation_id, {_LABEL} FROM labels l"
        " JOIN nodes n ON n.id = l.node_id AND n.deleted IS NULL"
        " JOIN conversations c ON c.id = n.conversation_id ORDER BY l.move_order DESC"
    )
    return [Savepoint._make((*row[1:3], row[0], *row[3:5])) for row in rows if seals.whole("labels", row[1:])]


def names_of(tx: sqlite3.Connection, node_id: str) -> list[str]:
    """The names of a node, oldest first."""
    rows = tx.execute(f"SELECT {_LABEL} FROM labels l WHERE node_id = ? ORDER BY created, name", (node_id,))
    return [row[0] for row in seals.believed("labels", rows) if row[1] == node_id]


def nearest_name(tx: sqlite3.Connection, node_id: str | None) -> str | None:
    """The newest name of this node or of the nearest one above it that has one."""
    rows = tx.execute(  # a message comes behind its parent in the order of their making
        f"{tree.UP} SELECT n.id, {_LABEL} FROM up JOIN labels l ON l.node_id = up.id JOIN nodes n ON n.id = up.id"
        " ORDER BY n.seq DESC, l.created DESC, l.name DESC",
        (node_id,),
    )
    return next((row[1] for row in rows if row[0] == row[2] and seals.whole("labels", row[1:])), None)


def quicksave(tx: sqlite3.Connection, node_id: str) -> None:
    """Put the conversation's quick label here, in front of the ones before. Raises UnknownNode."""
    conversation_id = tree.glance(tx, node_id).conversation_id
    tx.execute("DELETE FROM quicksaves WHERE conversation_id = ? AND node_id = ?", (conversation_id, node_id))
    tx.execute("INSERT INTO quicksaves(conversation_id, node_id) VALUES (?, ?)", (conversation_id, node_id))
    tx.execute(
        "DELETE FROM quicksaves WHERE conversation_id = ? AND seq <= (SELECT seq FROM quicksaves"
        " WHERE conversation_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (conversation_id, conversation_id, QUICK_KEPT),
    )


def quicksaves(tx: sqlite3.Connection, conversation_id: str) -> list[str]:
    """The last ten quick places that are not hidden, newest first."""
    rows = tx.execute(
        f"SELECT {seals.columns('quicksaves', 'q')} FROM quicksaves q JOIN nodes n ON n.id = q.node_id"
        " AND n.deleted IS NULL WHERE q.conversation_id = ? ORDER BY q.seq DESC",
        (conversation_id,),
    )
    return [row[2] for row in seals.believed("quicksaves", rows)]
