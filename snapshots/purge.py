"""Forgetting for good: text, tokens, index, prompts, log, journals, copies and states of a message and all behind it.

SQLite overwrites what it frees (secure_delete, in force from the first byte on), but not the copies of rows that moved
between pages: so the file is written anew. The rows go in one transaction that also leaves a mark; it is taken off when
the files are gone, so that whoever opens the library after a crash ends what was begun: nobody could ask for it again,
for the message is not there any more.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from snapshots import backups, copies, find, history, quota, tree
from snapshots.database import Database
from snapshots.errors import JournalGone, StoreError
from snapshots.files import Files, typed
from snapshots.ids import Packed
from snapshots.journal import Journals
from snapshots.places import LAYOUT, Chain, listed
from snapshots.records import BLOCK, Purge


def purge(database: Database, journals: Journals, files: Files, data_dir: Path, cache_dir: Path, node_id: str) -> Purge:
    """Forget a message, hidden or not, and everything behind it. Raises UnknownNode, StoreError."""
    with database.read() as tx:
        conversation_id = tree.glance(tx, node_id).conversation_id
        doomed = _behind(tx, node_id)
        states = _stems(tx, cache_dir, conversation_id, doomed)
    with database.write() as tx:
        _forget_rows(tx, conversation_id, doomed)
        history.remember_setting(tx, _MARK, "yes")
    return Purge(len(doomed), _forget_files(database, journals, files, data_dir, cache_dir, states))


def forget_state(
    database: Database, files: Files, cache_dir: Path, state_key: str, tokens: Sequence[int] | Packed
) -> None:
    """Remove what a save wrote of a message that was forgotten meanwhile, but what others hold. Raises StoreError."""
    chain = Chain(cache_dir, state_key, tokens)
    _remove_states(database, files, cache_dir, {chain.at(stop) for stop in range(chain.n_tokens + 1)})


_MARK = "forgetting"


def finish(database: Database, journals: Journals, files: Files, data_dir: Path, cache_dir: Path) -> None:
    """End a purge whose process died behind the transaction; nothing where there is none. Raises StoreError.

    Which states it was about is not known any more: all go that no message needs.
    """
    with database.read() as tx:
        begun = _MARK in history.settings(tx)
    if begun:
        _forget_files(database, journals, files, data_dir, cache_dir, None)


def _forget_files(
    database: Database, journals: Journals, files: Files, data_dir: Path, cache_dir: Path, states: set[str] | None
) -> int:
    """Journals of replies to what is not there, the copies, and states (see `_remove_states`); counts the states."""
    for reply in journals.dead():
        with database.read() as tx:
            parent = tx.execute("SELECT 1 FROM nodes WHERE id = ?", (reply.start.parent_id,)).fetchone()
        if reply.start.parent_id is not None and parent is None:
            with contextlib.suppress(JournalGone):
                journals.discard(reply.journal_id)
    journals.discard_damaged()  # nothing tells what they are about
    _sync(files, data_dir / "journals")  # also those that a finished reply left: a removed name may come back, too
    database.compact()
    for folder in (copies.folder(data_dir), data_dir / copies.DAMAGED):
        try:
            for path in files.listdir(folder):
                files.remove_all(path)
        except OSError as error:
            raise typed(error, folder) from error
        _sync(files, folder)
    removed = _remove_states(database, files, cache_dir, states)
    with database.write() as tx:
        tx.execute("DELETE FROM settings WHERE key = ?", (_MARK,))
    backups.back_up(database, data_dir, files, now=True)
    return removed


def _behind(tx: sqlite3.Connection, node_id: str) -> list[str]:
    """A node and all behind it, hidden ones too, parents first."""
    rows = tx.execute(
        "WITH RECURSIVE down(id) AS (SELECT ? UNION SELECT n.id FROM nodes n JOIN down ON n.parent_id = down.id)"
        " SELECT id FROM down",
        (node_id,),
    )
    return [row[0] for row in rows]


def _forget_rows(tx: sqlite3.Connection, conversation_id: str, doomed: list[str]) -> None:
    marks = [(node_id,) for node_id in doomed]
    gone = set(doomed)
    texts, seqs = [], []
    for mark in marks:
        row = tx.execute("SELECT seq, text, role FROM nodes WHERE id = ?", mark).fetchone()
        seqs.append(row[0])
        texts.append(str(row[1]))
    first = tx.execute("SELECT parent_id FROM nodes WHERE id = ?", marks[0]).fetchone()[0]
    find.forget(tx, seqs)
    tx.executemany("DELETE FROM prompts WHERE text = ?", [(text,) for text in texts])
    for table, column in (
        ("node_states", "node_id"), ("labels", "node_id"), ("quicksaves", "node_id"), ("head_log", "node_id"),
        ("origins", "node_id"), ("pins", "node_id"), ("state_uses", "node_id"), ("nodes", "id"),
    ):  # fmt: skip
        tx.executemany(f"DELETE FROM {table} WHERE {column} = ?", marks)
    tx.executemany("UPDATE positions SET node_id = ?, token = NULL WHERE node_id = ?", [(first, each) for each in gone])
    for seq, detail in tx.execute(  # a name may have moved here from a message of another conversation
        "SELECT seq, detail FROM actions WHERE conversation_id = ? OR kind IN ('name', 'rename')", (conversation_id,)
    ).fetchall():
        if _mentions(detail, gone):
            tx.execute("DELETE FROM actions WHERE seq = ?", (seq,))
    if tx.execute("SELECT 1 FROM nodes WHERE conversation_id = ?", (conversation_id,)).fetchone() is None:
        for table in ("actions", "head_log", "positions", "quicksaves"):
            tx.execute(f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,))
        tx.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        return
    head, title = tx.execute("SELECT head_id, title FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
    if head in gone:
        head = tree.nearest_live(tx, first)
        tx.execute("UPDATE conversations SET head_id = ? WHERE id = ?", (head, conversation_id))
    if title and any(" ".join(text.split()).startswith(title.rstrip("…")) for text in texts):  # made of a question
        tx.execute("UPDATE conversations SET title = '' WHERE id = ?", (conversation_id,))
        tx.execute("DELETE FROM actions WHERE conversation_id = ? AND kind = 'title'", (conversation_id,))


def _mentions(detail: str, gone: set[str]) -> bool:
    """Whether a line of the log is about a message that is gone."""
    try:
        return bool(_strings(json.loads(detail)) & gone)
    except ValueError:
        return True


def _strings(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value) | {each for part in value.values() for each in _strings(part)}
    return {each for part in value for each in _strings(part)} if isinstance(value, list) else set()


def _stems(tx: sqlite3.Connection, cache_dir: Path, conversation_id: str, doomed: list[str]) -> set[str]:
    """How the names of all files begin that may hold tokens of these messages: one for each token."""
    lineage = quota.Lineage(tx, conversation_id)
    stems: set[str] = set()
    before: dict[str, tuple[memoryview, bytes]] = {}  # of a list that may have the same beginning
    keys = {  # of all models: files may be there whose row a crash prevented
        row[0]
        for table in ("models", "node_states", "nodes")
        for row in tx.execute(f"SELECT DISTINCT state_key FROM {table} WHERE state_key <> ''")
    }
    for node_id in doomed:
        tokens = lineage.tokens(node_id)
        keep = tx.execute("SELECT keep FROM nodes WHERE id = ?", (node_id,)).fetchone()[0]
        for key in keys:
            chain = Chain(cache_dir, key, tokens)
            if key in before:
                chain.resume(*before[key])
            before[key] = chain.head(len(tokens) // BLOCK)
            stems |= {chain.at(stop) for stop in range(keep + 1, len(tokens) + 1)}
    return stems


def _remove_states(database: Database, files: Files, cache_dir: Path, stems: set[str] | None) -> int:
    """Remove states of messages that are gone (None: all), but for what others hold too: equal tokens have one file."""
    listing = listed(files, cache_dir)
    doomed = {path: facts for path, facts in listing.items() if stems is None or Path(path).name[:64] in stems}
    # Also those that hold none of them any more: an eviction, or a process that died, removes names and syncs nothing.
    begins = None if stems is None else {stem[:2] for stem in stems}
    directories = {
        folder
        for key in files.listdir(cache_dir / LAYOUT)
        for folder in files.listdir(key)
        if begins is None or folder.name in begins
    }
    if not directories:
        return 0
    with database.read() as tx:
        order = quota.in_order(tx)
    for state in quota.all_files(database, cache_dir, order, listing.__contains__):
        for piece in state.pieces:
            doomed.pop(str(piece.path), None)
    removed = quota.remove(files, cache_dir, doomed).files
    if removed < len(doomed):
        raise StoreError("some of its state files could not be removed", path=cache_dir)
    for directory in sorted(directories):
        _sync(files, directory)
    return removed


def _sync(files: Files, directory: Path) -> None:
    """Make it last that names are gone. A directory that is not there holds none."""
    try:
        files.sync_dir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise typed(error, directory) from error
