"""What is wrong with a tree.db, row by row: every seal, every id made again, everything that points somewhere."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from snapshots import find, seals, states, tree
from snapshots.database import is_obstacle
from snapshots.errors import DamagedNode
from snapshots.schema import APPLICATION_ID, FORMAT


class Problem(NamedTuple):
    """One thing that is not as it should be: `where` is a table or a kind of file, `key` the row or the file."""

    where: str
    key: str
    what: str


def problems(connection: sqlite3.Connection) -> list[Problem]:
    """Everything that is wrong with a library of this format. Raises sqlite3.Error where it cannot be read at all."""
    found = [Problem("tree.db", "", str(row[0])) for row in connection.execute("PRAGMA integrity_check(20)")]
    found = [problem for problem in found if problem.what != "ok"]
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        found.append(Problem("tree.db", "", "is not a library of forkpoint"))
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        found.append(Problem("tree.db", "", f"has format {version}, this program checks {FORMAT}"))
        return found
    for check in (_seals, _nodes, _states, _pointers, _unsealed, _search):
        try:
            found += check(connection)
        except sqlite3.DatabaseError as error:
            if is_obstacle(error):
                raise
            found.append(Problem("tree.db", "", f"cannot be read to its end: {error}"))
    return found


def _seals(connection: sqlite3.Connection) -> Iterator[Problem]:
    for table in seals.SEALED:
        for row in connection.execute(f"SELECT {seals.columns(table)} FROM {table}"):
            if not seals.whole(table, row):
                yield Problem(table, str(row[1] if table == "nodes" else row[0])[:64], "fails its seal")


def _nodes(connection: sqlite3.Connection) -> Iterator[Problem]:
    known = {
        row[0]: row[1:] for row in connection.execute("SELECT id, parent_id, conversation_id, n_tokens FROM nodes")
    }
    for row in tree.all_rows(connection):
        node_id = str(row[0])
        try:
            node = tree.believe(row)
        except DamagedNode:
            yield Problem("nodes", node_id[:64], "does not give its own id")
            continue
        parent = known.get(node.parent_id) if node.parent_id is not None else (None, node.conversation_id, 0)
        if parent is None:
            yield Problem("nodes", node_id, f"hangs on {str(node.parent_id)[:12]}, which is not there")
        elif parent[1] != node.conversation_id or (isinstance(parent[2], int) and node.keep > parent[2]):
            yield Problem("nodes", node_id, "does not fit the message before it")


def _states(connection: sqlite3.Connection) -> Iterator[Problem]:
    for (node_id,) in connection.execute("SELECT DISTINCT node_id FROM node_states").fetchall():
        rows = connection.execute("SELECT count(*) FROM node_states WHERE node_id = ?", (node_id,)).fetchone()[0]
        if len(states.node_states(connection, str(node_id))) != rows:
            yield Problem("node_states", str(node_id)[:64], "fails its digest")


_POINTERS = (
    ("labels", "name", "node_id", "nodes"),
    ("quicksaves", "seq", "node_id", "nodes"),
    ("node_states", "node_id", "node_id", "nodes"),
    ("pins", "node_id", "node_id", "nodes"),
    ("state_uses", "node_id", "node_id", "nodes"),
    ("nodes", "id", "conversation_id", "conversations"),
    ("conversations", "id", "head_id", "nodes"),
)


def _pointers(connection: sqlite3.Connection) -> Iterator[Problem]:
    for table, key, column, target in _POINTERS:
        lost = connection.execute(
            f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL"
            f" AND {column} NOT IN (SELECT id FROM {target})"
        )
        for name, value in lost:
            yield Problem(table, str(name)[:64], f"points at {str(value)[:12]}, which is not there")


# What the rows of tables without seals hold: SQLite's own, and those of the full-text search. A page of another table
# in such a place is whole to SQLite, and the rows that belong there are gone without a trace in their own table.
_SHAPES = {
    "sqlite_sequence": "typeof(name) = 'text' AND typeof(seq) = 'integer'",
    f"{find.INDEX}_data": "typeof(id) = 'integer' AND typeof(block) = 'blob'",
    f"{find.INDEX}_idx": "typeof(segid) = 'integer' AND typeof(term) = 'blob' AND typeof(pgno) = 'integer'",
    f"{find.INDEX}_docsize": "typeof(id) = 'integer' AND typeof(sz) = 'blob'",
    f"{find.INDEX}_config": "typeof(k) = 'text'",
    "pins": "typeof(node_id) = 'text'",
    "state_uses": "typeof(node_id) = 'text' AND typeof(used) = 'integer'",
}
_STATES = ("state_uses", "node_states")


def _unsealed(connection: sqlite3.Connection) -> Iterator[Problem]:
    known = {row[0]: str(row[1]) for row in connection.execute("SELECT name, sql FROM sqlite_master")}
    for table, shape in _SHAPES.items():
        if table not in known:
            continue
        with contextlib.suppress(sqlite3.OperationalError):  # a column is missing: `_search` names that
            if connection.execute(f"SELECT count(*) FROM {table} WHERE NOT ({shape})").fetchone()[0]:
                yield Problem(table, "", "holds rows of another kind")
    # A state's row is written with that of its use; rows that stand in `pins` are whole there.
    used, there = (connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _STATES)
    if used and not there:
        yield Problem("node_states", "", f"is empty, but {used} states were used")
    counted = [table for table, sql in known.items() if "AUTOINCREMENT" in sql]
    for table in counted:
        least, most = connection.execute(
            f"SELECT (SELECT max(seq) FROM sqlite_sequence WHERE name = ?), (SELECT max(seq) FROM {table})", (table,)
        ).fetchone()
        if most is not None and (least is None or least < most):
            yield Problem(table, str(most), "is a row that was never counted")


def _search(connection: sqlite3.Connection) -> Iterator[Problem]:
    why = find.fault(connection)
    if why:
        yield Problem(find.INDEX, "", f"the index of the full-text search cannot be asked: {why}")
