"""Copies of tree.db in the data dir: whole files, checked before an older one is let go.

A copy is taken inside a read transaction, so it is one moment of the library whatever other processes do. It is due a
day after the newest one, or when the clock makes no sense, and only where something was committed since.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots.errors import LibraryDamaged
from snapshots.files import Files, typed

if TYPE_CHECKING:
    from snapshots.database import Database

KEPT = 5
DUE_S = 20 * 3600.0
_CHANGES = slice(24, 28)  # the change counter in the header of an SQLite file
_LIMIT = 1 << 40


def folder(data_dir: Path) -> Path:
    """Where the copies lie."""
    return data_dir / "backups"


def back_up(database: Database, data_dir: Path, files: Files, *, now: bool) -> bool:
    """Make a copy where one is due, and check it. Raises StoreError; LibraryDamaged where the copy is not whole."""
    if database.read_only is not None or str(database.path) == ":memory:" or not (now or is_due(data_dir, files)):
        return False
    try:
        with database.read() as tx:
            path = write(tx, data_dir, files)
        problems = check_copy(path, files)
        if problems:
            files.unlink(path)
            raise LibraryDamaged(problems[0], path=database.path)
        rotate(data_dir, files)
    except OSError as error:
        raise typed(error, folder(data_dir)) from error
    return True


def check_copy(path: Path, files: Files) -> list[str]:
    """What is wrong with a copy: [] for one that can be restored."""
    from snapshots.tree_check import problems

    try:
        copy = read(path, files)
    except (OSError, sqlite3.Error) as error:
        return [f"{path.name} cannot be read: {error}"]
    try:
        return [problem.what for problem in problems(copy)]
    finally:
        copy.close()


def listed(data_dir: Path, files: Files) -> list[Path]:
    """The daily copies, newest first."""
    return [path for path in reversed(files.listdir(folder(data_dir))) if path.name.startswith("tree-")]


def is_due(data_dir: Path, files: Files) -> bool:
    """Whether a day has passed since the newest copy and tree.db was changed since."""
    newest = next(iter(listed(data_dir, files)), None)
    if newest is None:
        return True
    facts = files.signature(newest)
    if facts is None or abs(time.time() - facts[3] / 1e9) < DUE_S:
        return False
    return files.head(newest, 100)[_CHANGES] != files.head(data_dir / "tree.db", 100)[_CHANGES]


def write(connection: sqlite3.Connection, data_dir: Path, files: Files, *, keep_as: str = "") -> Path:
    """Copy the library as it is now; `keep_as` names a copy that no later one replaces. Raises OSError.

    The order is that of every file here: aside, synced, renamed, the directory synced.
    """
    data = connection.serialize()
    files.make_dirs(folder(data_dir))
    newest = next(iter(listed(data_dir, files)), None)
    number = int(newest.stem.split("-")[1]) + 1 if newest is not None and newest.stem[5:].isdigit() else 1
    path = folder(data_dir) / (f"{keep_as}.db" if keep_as else f"tree-{number:06d}.db")
    draft = folder(data_dir) / f"{os.urandom(8).hex()}.new"
    fd = files.create(draft)
    try:
        files.write(fd, data)
        files.sync(fd)
        files.rename(draft, path)
        files.sync_dir(path.parent)
    except BaseException:
        files.unlink(draft)
        raise
    finally:
        files.close(fd)
    return path


def rotate(data_dir: Path, files: Files) -> None:
    """Let the oldest copies go, and drafts that a crash left."""
    for old in listed(data_dir, files)[KEPT:]:
        files.unlink(old)
    for path in files.listdir(folder(data_dir)):
        facts = files.signature(path)
        if path.suffix == ".new" and facts is not None and abs(time.time() - facts[3] / 1e9) > DUE_S:
            files.unlink(path)


def read(path: Path, files: Files) -> sqlite3.Connection:
    """A copy, opened in memory: nothing can change the file. Raises OSError, sqlite3.Error."""
    data = files.read(path, _LIMIT)
    if not data.startswith(b"SQLite format 3\0"):
        raise sqlite3.DatabaseError("file is not a database")  # sqlite3 itself runs out of memory over an empty one
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.deserialize(data)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        undo.pop_all()
    return connection
