"""A new tree.db out of what is whole in a damaged one and in its copies. Nothing is removed: the old file is kept.

A message is taken where its row gives its own id and everything above it is there: the longest valid beginning of each
branch. Where rows of a table were lost, the newest copy that has them gives them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from snapshots import seals, states, tree
from snapshots.database import is_obstacle
from snapshots.errors import DamagedNode
from snapshots.schema import APPLICATION_ID, FORMAT, FORMAT_2, READABLE_BY, TABLES

_KEYS = {"quicksaves": 3, "prompts": 2, "node_states": 2}  # columns that make a row another one; of other tables: 1
_STATE = "node_id, state_key, n_tokens, logits_digest, has_bundle, bytes_stored, created, digest"
_NODE = f"seq, deleted, {tree.NODE_COLUMNS}"


class Salvage(NamedTuple):
    """The new library's bytes, and in sentences what became of what was damaged."""

    data: bytes
    notes: list[str]


class _Source:
    """What can be read of one file, table by table; `lost` names the tables of which not every row was whole."""

    def __init__(self, connection: sqlite3.Connection | None, *, bad_medium: bool = False) -> None:
        self._bad_medium = bad_medium
        self.lost: set[str] = set()
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.nodes: dict[str, tuple[Any, ...]] = {}
        if connection is None:
            self.lost |= {*seals.SEALED, "node_states"}
            return
        for table in seals.SEALED:
            if table == "nodes":
                continue
            found = self._read(connection, table, seals.columns(table), tuple)
            if found is None:  # a library of format 1 has no seals to break
                found = self._read(connection, table, seals.columns(table).removesuffix(", seal"), tuple) or []
                self.rows[table] = found
            else:
                self.rows[table] = seals.believed(table, found)
            if len(self.rows[table]) < len(found):
                self.lost.add(table)
        whole_seals = {
            row[1]
            for row in self._read(connection, "nodes", seals.columns("nodes"), tuple) or ()
            if seals.whole("nodes", row)
        }
        for row in self._read(connection, "nodes", _NODE, tuple) or ():
            try:
                node = tree.believe(row[2:])
            except DamagedNode:
                self.lost.add("nodes")
                continue
            hidden = row[1] if node.id in whole_seals else None  # never hide what may not be hidden
            self.nodes[node.id] = (row[0], hidden, *row[2:])
        listed = self._read(connection, "node_states", _STATE, tuple) or []
        self.rows["node_states"] = [row for row in listed if states.is_whole(row)]
        if len(listed) > len(self.rows["node_states"]):
            self.lost.add("node_states")

    def _read(self, connection: sqlite3.Connection, table: str, columns: str, make: Any) -> list[Any] | None:
        """All rows that can be read, from both ends; None where a column is missing."""
        found: dict[Any, None] = {}
        for order in ("", " ORDER BY 1 DESC"):
            try:
                for row in connection.execute(f"SELECT {columns} FROM {table}{order}"):
                    found[make(row)] = None
                return list(found)
            except sqlite3.OperationalError as error:
                if "no such column" in str(error):
                    return None
                if is_obstacle(error) and not self._bad_medium:
                    raise
                self.lost.add(table)
            except sqlite3.Error as error:
                if is_obstacle(error) and not self._bad_medium:
                    raise
                self.lost.add(table)
            except OverflowError:
                self.lost.add(table)
        return list(found)


def salvage(
    damaged: sqlite3.Connection | None, copies: Iterable[sqlite3.Connection], *, bad_medium: bool = False
) -> Salvage:
    """Put a new library together; `copies` are the newest first.

    Raises sqlite3.Error where SQLite cannot get at the damaged one, which loses nothing; with a `bad_medium` it does.
    """
    main = _Source(damaged, bad_medium=bad_medium)
    notes: list[str] = []
    old = [_Source(copy) for copy in copies] if main.lost else []
    nodes, cut = _reachable(main, old)
    from_copies = sum(node_id not in main.nodes for node_id in nodes)
    if from_copies:
        notes.append(f"{from_copies} messages came from a backup")
    if cut:
        notes.append(f"{cut} messages could not be placed: what is before them is damaged")
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for table, own in main.rows.items() if damaged is not None else ((t, []) for t in (*seals.SEALED, "node_states")):
        if table == "nodes":
            continue
        rows[table] = list(own)
        if table in main.lost:
            added = _missing(table, rows[table], old)
            rows[table] += added
            notes.append(f"rows of {table} were damaged" + (f"; {len(added)} came from a backup" if added else ""))
    for table, at in (("labels", 1), ("quicksaves", 2), ("node_states", 0)):
        rows[table] = [row for row in rows[table] if row[at] in nodes]
    _fit_conversations(rows, nodes, notes)
    return Salvage(_build(rows, nodes), notes)


def _reachable(main: _Source, old: list[_Source]) -> tuple[dict[str, tuple[Any, ...]], int]:
    """The nodes whose whole path is there, by id, and how many are not among them."""
    known = dict(main.nodes)
    if "nodes" in main.lost:
        for source in old:
            known = {**source.nodes, **known}
    kept: dict[str, tuple[Any, ...]] = {}
    waiting = sorted(known.values(), key=lambda row: row[0] if isinstance(row[0], int) else 0)
    while waiting:
        later = []
        for row in waiting:
            if row[4] is None or row[4] in kept:
                kept[row[2]] = row
            else:
                later.append(row)
        if len(later) == len(waiting):
            return kept, len(later)
        waiting = later
    return kept, 0


def _missing(table: str, own: list[tuple[Any, ...]], old: list[_Source]) -> list[tuple[Any, ...]]:
    width = _KEYS.get(table, 1)
    known, added = {row[:width] for row in own}, []
    for source in old:
        for row in source.rows.get(table, ()):
            if row[:width] not in known:
                known.add(row[:width])
                added.append(row)
    return added


def _fit_conversations(rows: dict[str, list[Any]], nodes: dict[str, tuple[Any, ...]], notes: list[str]) -> None:
    """Every message has its conversation, and every head stands on a message that is there."""
    known = {row[0]: list(row) for row in rows["conversations"]}
    newest: dict[str, str] = {}
    for row in nodes.values():
        conversation_id = row[3]
        if row[1] is None:
            newest[conversation_id] = row[2]
        if conversation_id not in known:
            at = time.time()
            known[conversation_id] = [conversation_id, "(recovered)", at, "", at, len(known), None, None]
            notes.append(f"conversation {conversation_id[:12]} lost its title")
    for conversation_id, values in known.items():
        if (values[6] is not None and values[6] not in nodes) or (values[6] is None and values[1] == "(recovered)"):
            values[6] = newest.get(conversation_id)
            notes.append(f"conversation {conversation_id[:12]} stands at the last message that is whole")
    rows["conversations"] = [tuple(values) for values in known.values()]
    rows["positions"] = [row for row in rows["positions"] if row[1] in known and (row[2] is None or row[2] in nodes)]


def _build(rows: dict[str, list[tuple[Any, ...]]], nodes: dict[str, tuple[Any, ...]]) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.create_function("seal", -1, seals.seal, deterministic=True)
        connection.execute("BEGIN")
        for statement in (*TABLES.split(";"), *FORMAT_2):
            connection.execute(statement)
        for table, found in rows.items():
            columns = _STATE if table == "node_states" else seals.columns(table).removesuffix(", seal")
            marks = ",".join("?" * (columns.count(",") + 1))
            connection.executemany(f"INSERT OR IGNORE INTO {table}({columns}) VALUES ({marks})", found)
        marks = ",".join("?" * (_NODE.count(",") + 1))
        ordered = sorted(nodes.values(), key=lambda row: row[0] if isinstance(row[0], int) else 0)
        parents_first = [(number, *row[1:]) for number, row in enumerate(_parents_first(ordered), 1)]
        connection.executemany(f"INSERT INTO nodes({_NODE}) VALUES ({marks})", parents_first)
        connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('readable_by', ?)", (str(READABLE_BY),))
        for table in seals.SEALED:
            seals.seal_all(connection, table)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
        return connection.serialize()
    finally:
        connection.close()


def _parents_first(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    done, placed, waiting = [], set[str](), rows
    while waiting:
        later = []
        for row in waiting:
            if row[4] is None or row[4] in placed:
                done.append(row)
                placed.add(row[2])
            else:
                later.append(row)
        waiting = later
    return done
