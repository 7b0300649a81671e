"""Copies of tree.db in the data dir: whole files, checked before an older one is let go.

A copy is taken inside a read transaction, so it is one moment of the library whatever other processes do. It is due a
day after the newest one, or when the clock makes no sense, and only where something was committed since.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from snapshots.copies import KEPT, folder, listed, read, rotate, sweep, write
from snapshots.database import Database
from snapshots.errors import LibraryDamaged
from snapshots.files import Files, typed

__all__ = ["KEPT", "back_up", "check_copy", "is_due", "listed", "read"]

DUE_S = 20 * 3600.0
_CHANGES = slice(24, 28)  # the change counter in the header of an SQLite file


def back_up(database: Database, data_dir: Path, files: Files, *, now: bool) -> bool:
    """Make a copy where one is due, and check it; drafts that a crash left go.

    Raises StoreError; LibraryDamaged where the copy is not whole.
    """
    if database.read_only is not None or str(database.path) == ":memory:":
        return False
    sweep(data_dir, files)
    if not (now or is_due(data_dir, files)):
        return False
    try:
        with database.read() as tx:
            path = write(tx, data_dir, files)
        wrong = check_copy(path, files)
        if wrong:
            files.unlink(path)
            raise LibraryDamaged(wrong[0], path=database.path)
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
    except sqlite3.Error as error:
        return [str(error)]
    finally:
        copy.close()


def is_due(data_dir: Path, files: Files) -> bool:
    """Whether a day has passed since the newest copy and tree.db was changed since."""
    newest = next(iter(listed(data_dir, files)), None)
    if newest is None:
        return True
    facts = files.signature(newest)
    if facts is None or abs(time.time() - facts[3] / 1e9) < DUE_S:
        return False
    return files.head(newest, 100)[_CHANGES] != files.head(data_dir / "tree.db", 100)[_CHANGES]
