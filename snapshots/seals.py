"""A digest in every row: SQLite returns a flipped bit as a good row, a seal does not.

Rows are sealed by triggers that live in the connection alone, so no statement can forget it, and a row whose seal is
broken cannot be changed into a good one. Readers ask `whole` before they believe a row.
"""

from __future__ import annotations

import functools
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

PREVIEW = 160
"""Characters of a node's text that a list gets, and that its seal covers; the rest is covered by its id."""

# Columns by table: t text, i integer, r real, b blob; the first `keys` of them find the row.
_TABLES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "meta": (1, "tt", ("key", "value")),
    "conversations": (
        1, "ttrtriti",
        ("id", "title", "created", "template_date", "last_used", "use_order", "head_id", "deleted"),
    ),
    "nodes": (
        1, "itttttiiitrib",
        ("seq", "id", "conversation_id", "parent_id", "role", f"substr(text, 1, {PREVIEW})", "keep", "n_tokens", "turn",
         "stop", "created", "deleted", "row_digest"),
    ),
    "labels": (1, "ttrri", ("name", "node_id", "created", "moved", "move_order")),
    "quicksaves": (1, "itt", ("seq", "conversation_id", "node_id")),
    "head_log": (1, "ittttr", ("seq", "conversation_id", "node_id", "reason", "window", "at")),
    "positions": (1, "ttti", ("window", "conversation_id", "node_id", "token")),
    "actions": (1, "itttri", ("seq", "conversation_id", "kind", "detail", "at", "state")),
    "finished_journals": (1, "t", ("id",)),
    "prompts": (1, "it", ("seq", "text")),
    "models": (1, "tttttt", ("state_key", "prompt_key", "name", "path", "state_fields", "prompt_fields")),
    "settings": (1, "tt", ("key", "value")),
    "origins": (1, "ttrt", ("node_id", "source", "at", "checked")),
}  # fmt: skip

SEALED = tuple(_TABLES)
"""The tables whose rows carry a seal. node_states has had a digest of its own since format 1."""


def columns(table: str, alias: str = "") -> str:
    """The list to SELECT for `whole`: every sealed column, then the seal."""
    dot = f"{alias}." if alias else ""
    names = _TABLES[table][2]
    return ", ".join(name.replace("(text", f"({dot}text") if "(" in name else dot + name for name in (*names, "seal"))


@functools.lru_cache(maxsize=4096)
def whole(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row as `columns` lists it has every type and value that was sealed."""
    kinds = _TABLES[table][1]
    values: list[object] = []
    for kind, value in zip(kinds, row[:-1], strict=True):
        if value is not None and not isinstance(value, _TYPES[kind]):
            return False
        values.append(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    return isinstance(row[-1], bytes) and seal(table, *values) == row[-1]


def believed(table: str, rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The rows that are whole, without their seals. What is not is left out here and named by fsck."""
    return [tuple(row[:-1]) for row in rows if whole(table, tuple(row))]


def install(connection: sqlite3.Connection) -> None:
    """Seal what this connection writes from now on. The triggers are temporary: no file holds them."""
    connection.create_function("seal", -1, seal, deterministic=True)
    for table, (keys, _, names) in _TABLES.items():
        plain = [name for name in names if "(" not in name] + ["text"] * (table == "nodes")
        same = " AND ".join(f"{name} = NEW.{name}" for name in names[:keys])
        old = f"{_call(table, 'OLD.')} IS OLD.seal"
        connection.execute(
            f"CREATE TEMP TRIGGER seal_new_{table} AFTER INSERT ON main.{table} BEGIN"
            f" UPDATE {table} SET seal = {_call(table)} WHERE {same}; END"
        )
        # A damaged message may be hidden and shown again, but stays damaged; other rows are not touched.
        again = f"CASE WHEN {old} THEN {_call(table)} END" if table == "nodes" else _call(table)
        connection.execute(
            f"CREATE TEMP TRIGGER seal_changed_{table} AFTER UPDATE OF {', '.join(plain)} ON main.{table} BEGIN"
            f" UPDATE {table} SET seal = {again} WHERE {same}; END"
        )
        if table != "nodes":
            connection.execute(
                f"CREATE TEMP TRIGGER check_{table} BEFORE UPDATE OF {', '.join(plain)} ON main.{table}"
                f" WHEN NOT ({old}) BEGIN SELECT RAISE(ABORT, '{BROKEN}{table}'); END"
            )


BROKEN = "a damaged row in the table "


def seal_all(connection: sqlite3.Connection, table: str) -> None:
    """Seal every row of a table as it is now; for a migration, behind a check of what can be checked."""
    connection.execute(f"UPDATE {table} SET seal = {_call(table)}")


def _call(table: str, dot: str = "") -> str:
    """The seal as SQL. Texts go as bytes: a function cannot be given a text that is not UTF-8."""
    values = []
    for kind, name in zip(*_TABLES[table][1:], strict=True):
        named = name.replace("(text", f"({dot}text") if "(" in name else dot + name
        values.append(f"CAST({named} AS BLOB)" if kind == "t" else named)
    return f"seal('{table}', {', '.join(values)})"


_TYPES: dict[str, type] = {"t": str, "i": int, "r": float, "b": bytes}


def seal(table: str, *values: object) -> bytes:
    """The seal of a row's values; texts are given as UTF-8."""
    digest = blake2b(b"forkpoint seal 1\0" + table.encode() + b"\0", digest_size=16)
    for value in values:
        if value is None:
            digest.update(b"-")
        elif isinstance(value, int):
            digest.update(b"i%d;" % value)
        elif isinstance(value, float):
            digest.update(b"r" + struct.pack("<d", value))
        else:
            assert isinstance(value, bytes)
            digest.update(b"b%d:" % len(value) + value)
    return digest.digest()
