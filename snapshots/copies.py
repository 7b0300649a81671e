"""Whole copies of tree.db as files in the data dir: written like every file here, and opened in memory.

`backups` decides when one is made and checks it; a migration keeps what was there before under a name of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path

from snapshots.files import Files

KEPT = 5
OLD_DRAFT_S = 20 * 3600.0
_LIMIT = 1 << 40
_TRIES = 100  # far more than drafts that sweeps can take away one after the other


def folder(data_dir: Path) -> Path:
    """Where the copies lie."""
    return data_dir / "backups"


DAMAGED = "damaged"
"""The folder of the data dir where a repair keeps what it replaced."""


def listed(data_dir: Path, files: Files) -> list[Path]:
    """The daily copies, newest first."""
    return [path for path in reversed(files.listdir(folder(data_dir))) if path.name.startswith("tree-")]


def write(connection: sqlite3.Connection, data_dir: Path, files: Files, *, keep_as: str = "") -> Path:
    """Copy the library as it is now; `keep_as` names a copy that no later one replaces. Raises OSError.

    The order is that of every file here: aside, synced, renamed, the directory synced.
    """
    data = connection.serialize()
    files.make_dirs(folder(data_dir))
    newest = next(iter(listed(data_dir, files)), None)
    number = int(newest.stem.split("-")[1]) + 1 if newest is not None and newest.stem[5:].isdigit() else 1
    path = folder(data_dir) / (f"{keep_as}.db" if keep_as else f"tree-{number:06d}.db")
    draft, fd = _create_draft(data_dir, files)
    try:
        files.write(fd, data)
        files.sync(fd)
        files.rename(draft, path)
        files.sync_dir(path.parent)
        files.sync_dir(data_dir)  # a process that was killed may have made the directory a moment ago
    except BaseException:
        files.unlink(draft)
        raise
    finally:
        files.close(fd)
    return path


def _create_draft(data_dir: Path, files: Files) -> tuple[Path, int]:
    """Make a draft that is locked while it is written, so that `sweep` tells it from one that a crash left."""
    for _ in range(_TRIES):
        draft = folder(data_dir) / f"{os.urandom(8).hex()}.new"
        fd = files.create(draft)
        try:
            # Between its making and the lock a sweep may have taken it for a dead one's.
            if files.lock(fd) and files.is_linked(fd, draft):
                return draft, fd
        except OSError:  # a file system without locks
            return draft, fd
        files.close(fd)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder(data_dir)))


def rotate(data_dir: Path, files: Files) -> None:
    """Let the oldest copies go."""
    for old in listed(data_dir, files)[KEPT:]:
        files.unlink(old)


def sweep(data_dir: Path, files: Files) -> None:
    """Remove the drafts that a crash left: those that nobody holds; where nothing can be locked, those of yesterday."""
    for path in files.listdir(folder(data_dir)):
        if path.suffix == ".new" and _is_left(path, files):
            with contextlib.suppress(OSError):
                files.unlink(path)


def _is_left(path: Path, files: Files) -> bool:
    facts = files.signature(path)
    if facts is None:
        return False
    old = abs(time.time() - facts[3] / 1e9) > OLD_DRAFT_S
    try:
        fd = files.open_existing(path)
    except OSError:
        return old
    try:
        return files.lock(fd)
    except OSError:
        return old
    finally:
        files.close(fd)


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
