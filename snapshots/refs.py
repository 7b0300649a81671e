"""REF: what a person types to mean a place. A name, `quick`, `HEAD` or an id prefix; then `~n` turns back or `@n`."""

from __future__ import annotations

import re
import sqlite3
import unicodedata

from snapshots import heads, names, tree
from snapshots.errors import AmbiguousRef, UnknownRef
from snapshots.records import Node, Ref

_STEP = re.compile(r"(?s)(.+?)(?:~([0-9]{0,9}))?(?:@([0-9]{1,9}))?")
_PREFIX = re.compile(r"[0-9a-fA-F]{4,64}")
_SHOWN = 10


def resolve(tx: sqlite3.Connection, ref: str, conversation_id: str | None) -> Ref:
    """The place that a REF means. An exact name beats everything. Raises UnknownRef, AmbiguousRef."""
    ref = ref.strip()
    whole = _base(tx, ref, conversation_id)
    if whole is not None:
        return Ref(tree.node(tx, whole))
    steps = _STEP.fullmatch(ref)
    if steps is None or (steps[2] is None and steps[3] is None):
        raise UnknownRef(ref, names.nearest(tx, ref))
    base = _base(tx, steps[1], conversation_id)
    if base is None:
        raise UnknownRef(ref, names.nearest(tx, steps[1]))
    node_id: str | None = base
    if steps[2] is not None:
        node_id = turn_back(tx, base, int(steps[2] or 1), ref)
    if node_id is None:
        raise UnknownRef(ref, why="that is before the first message")
    node = tree.node(tx, node_id)
    return Ref(node, _token(ref, node, steps[3]))


def _token(ref: str, node: Node, digits: str | None) -> int | None:
    if digits is None:
        return None
    if int(digits) > len(node.tokens):
        raise UnknownRef(ref, why=f"it has {len(node.tokens)} tokens of its own")
    return int(digits) if int(digits) < len(node.tokens) else None


def _base(tx: sqlite3.Connection, text: str, conversation_id: str | None) -> str | None:
    """The node of a name, `quick`, `HEAD` or an id prefix of at least four digits."""
    found = names.holder(tx, text) or names.holder(tx, unicodedata.normalize("NFC", text))
    if found is not None:
        return found
    if text.casefold() in names.RESERVED:
        last = tree.last_used(tx)
        where = conversation_id or (last.id if last else "")
        if text.casefold() == "quick":
            return next(iter(names.quicksaves(tx, where)), None)
        return tree.nearest_live(tx, heads.head(tx, where))
    if not _PREFIX.fullmatch(text):
        return None
    prefix = text.lower()
    rows = tx.execute(
        "SELECT id FROM nodes WHERE id >= ? AND id < ? AND deleted IS NULL LIMIT ?", (prefix, prefix + "g", _SHOWN)
    ).fetchall()
    if len(rows) > 1:
        raise AmbiguousRef(text, tuple(row[0] for row in rows))
    return rows[0][0] if rows else None


def turn_back(tx: sqlite3.Connection, node_id: str, turns: int, ref: str = "") -> str | None:
    """The end of the turn `turns` before: above the message that began each turn. None is the empty start.

    A turn begins with a message of a person (user or raw). Raises UnknownRef where there are fewer turns, DamagedNode.
    """
    here: str | None = node_id
    for done in range(turns):
        role = ""
        while here is not None and role not in ("user", "raw"):
            here, role = tree.turn_start(tx, here)
        if role not in ("user", "raw"):
            raise UnknownRef(
                ref or f"{node_id[:12]}~{turns}",
                why=f"there {'is only 1 turn' if done == 1 else f'are only {done} turns'} behind it",
            )
    return here
