"""Full-text search: an index of SQLite's FTS5 that is caught up when it is asked, and a plain scan where there is none.

The index holds no second copy of a text, belongs to no format and can be thrown away at any time: what it finds is read
from the messages themselves.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable

from snapshots import ids, seals, tree
from snapshots.database import Database
from snapshots.errors import DamagedNode, StoreBusy, StoreError, StoreFull, StoreReadOnly, UnknownNode
from snapshots.records import Hit

INDEX = "node_text"
_CATCH_UP = 5000  # messages in one change: others get their turn in between
_AROUND = 40  # characters shown in front of what was found
_SHOWN = 160
_WORD = re.compile(r"\w+")


def catch_up(database: Database) -> bool:
    """Index the messages that came since the last time; False where there is no index to be had."""
    if database.read_only is not None:
        return False
    while True:
        try:
            with database.write() as tx:
                if not _make(tx):
                    return False
                last = tx.execute(f"SELECT coalesce(max(id), 0) FROM {INDEX}_docsize").fetchone()[0]
                count = tx.execute(
                    f"INSERT INTO {INDEX}(rowid, text) SELECT seq, text FROM nodes WHERE seq > ? ORDER BY seq LIMIT ?",
                    (last, _CATCH_UP),
                ).rowcount
        except StoreError as error:  # also one whose definition is damaged: without it the search is only slower
            _drop(database, error)
            return False
        if count < _CATCH_UP:
            return True


def is_behind(tx: sqlite3.Connection) -> bool:
    """Whether there are messages that the index does not know, or no index."""
    if not _is_there(tx):
        return True
    newest = tx.execute("SELECT coalesce(max(seq), 0) FROM nodes").fetchone()[0]
    try:
        known = tx.execute(f"SELECT coalesce(max(id), 0) FROM {INDEX}_docsize").fetchone()[0]
    except sqlite3.Error:  # a damaged index: catching up throws it away
        return True
    return bool(newest > known)


def find(database: Database, text: str, limit: int) -> list[Hit]:
    """Messages with all words of a text, the last one also as a beginning, newest first; names and titles before them.

    Where no message has them as words, any message that holds the text as it is.
    """
    text = ids.clean_text(text).strip()
    words = _WORD.findall(text)
    if not text:
        return []
    with database.read() as tx:
        behind = is_behind(tx)
    indexed = not behind or catch_up(database)
    hits: list[Hit] = []
    if indexed and words:
        query = " ".join(f'"{word}"' for word in words) + "*"
        try:
            with database.read() as tx:
                rows = tx.execute(
                    f"SELECT n.id FROM {INDEX} JOIN nodes n ON n.seq = {INDEX}.rowid"
                    f" WHERE {INDEX} MATCH ? AND n.deleted IS NULL ORDER BY {INDEX}.rowid DESC LIMIT ?",
                    (query, limit),
                )
                hits = _hits(tx, rows, words[0])
        except StoreError as error:
            _drop(database, error)
    if not hits:
        with database.read() as tx:
            rows = tx.execute(
                "SELECT n.id FROM nodes n WHERE n.text LIKE ? ESCAPE '\\' AND n.deleted IS NULL"
                " ORDER BY n.seq DESC LIMIT ?",
                (_like(text), limit),
            )
            hits = _hits(tx, rows, text)
    with database.read() as tx:
        named = _named(tx, text, limit)
    known = {hit.node_id for hit in named}
    return (named + [hit for hit in hits if hit.node_id not in known])[:limit]


def _named(tx: sqlite3.Connection, text: str, limit: int) -> list[Hit]:
    """Savepoints whose name, and conversations whose title, holds the text."""
    labels = tx.execute(
        f"SELECT {seals.columns('labels', 'l')} FROM labels l JOIN nodes n ON n.id = l.node_id AND n.deleted IS NULL"
        " WHERE l.name LIKE ? ESCAPE '\\' ORDER BY l.move_order DESC LIMIT ?",
        (_like(text), limit),
    ).fetchall()
    titles = tx.execute(
        f"SELECT {seals.columns('conversations', 'c')} FROM conversations c JOIN nodes n"
        " ON n.id = c.head_id AND n.deleted IS NULL"
        " WHERE c.deleted IS NULL AND c.title LIKE ? ESCAPE '\\' ORDER BY c.use_order DESC LIMIT ?",
        (_like(text), limit),
    ).fetchall()
    called = [(row[0], row[1]) for row in seals.believed("labels", labels)]
    called += [(row[1], row[6]) for row in seals.believed("conversations", titles)]
    return [hit._replace(name=name) for name, node_id in called for hit in _hits(tx, [(node_id,)], "")]


def _like(text: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"


def _hits(tx: sqlite3.Connection, rows: Iterable[tuple[str]], word: str) -> list[Hit]:
    """The messages of these ids that say what their ids say and are not hidden; fsck names the others."""
    found: list[Hit] = []
    for (node_id,) in rows:
        with contextlib.suppress(DamagedNode, UnknownNode):
            node = tree.node(tx, node_id)
            at = max(0, node.text.casefold().find(word.casefold()) - _AROUND) if word else 0
            shown = ("…" if at else "") + " ".join(node.text[at : at + _SHOWN].split())
            if tree.is_live(tx, node_id):
                found.append(Hit(node.id, node.conversation_id, node.role, node.turn, node.n_tokens, shown, ""))
    return found


# -------------------------------------------------------------------------------------------------------------- index


def _is_there(tx: sqlite3.Connection) -> bool:
    return tx.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (INDEX,)).fetchone() is not None


def _make(tx: sqlite3.Connection) -> bool:
    if _is_there(tx):
        return True
    try:
        tx.execute(
            f"CREATE VIRTUAL TABLE {INDEX} USING"
            " fts5(text, content='nodes', content_rowid='seq', tokenize='unicode61 remove_diacritics 2')"
        )
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        return False
    return True


def _drop(database: Database, error: StoreError) -> None:
    """Throw a damaged index away; the next search makes it again. fsck names one that cannot even be thrown away."""
    if isinstance(error, (StoreBusy, StoreFull, StoreReadOnly)):
        return
    with contextlib.suppress(StoreError), database.write() as tx:
        tx.execute(f"DROP TABLE IF EXISTS {INDEX}")


def fault(tx: sqlite3.Connection) -> str:
    """What keeps the index from being asked; "" where it can be, or where there is none."""
    try:
        if _is_there(tx):
            tx.execute(f"SELECT max(id) FROM {INDEX}_docsize").fetchone()
            tx.execute(f"SELECT count(*) FROM {INDEX} WHERE {INDEX} MATCH 'x'").fetchone()
    except sqlite3.Error as error:
        return "" if "no such module" in str(error) else str(error)
    return ""


def forget(tx: sqlite3.Connection, seqs: list[int]) -> None:
    """Take messages out of the index for good, before their rows go: their words are in no page of it any more."""
    if not _is_there(tx):
        return
    known = tx.execute(f"SELECT coalesce(max(id), 0) FROM {INDEX}_docsize").fetchone()[0]
    for seq in seqs:
        if seq <= known:
            tx.execute(
                f"INSERT INTO {INDEX}({INDEX}, rowid, text) SELECT 'delete', seq, text FROM nodes WHERE seq = ?", (seq,)
            )
    tx.execute(f"INSERT INTO {INDEX}({INDEX}) VALUES ('optimize')")
