"""Is everything there and true? Checks the database, the journals and every state file; mends what can be mended.

A repair removes no text: what is damaged goes to `damaged/` in the data dir, as it was, before anything takes its
place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from snapshots import copies, segment, tree_check
from snapshots.database import check_beside, is_obstacle, typed_errors
from snapshots.errors import DamagedFile, LibraryIsNewer, StoreBusy
from snapshots.files import Files, typed
from snapshots.journal_records import readable
from snapshots.looks import note_removal
from snapshots.places import LAYOUT
from snapshots.records import BLOCK
from snapshots.salvage import salvage
from snapshots.schema import FORMAT
from snapshots.tree_check import Problem

_LIMIT = 1 << 40


class Report(NamedTuple):
    """What was found, and what a repair did about it, in sentences. `left` counts problems that remain."""

    problems: list[Problem]
    done: list[str]
    left: int
    messages: int
    journals: int
    state_files: int


def fsck(data_dir: Path, cache_dir: Path, *, repair: bool = False, files: Files | None = None) -> Report:
    """Check a library and, if asked, mend it.

    Raises StoreBusy where another process has the library open and the database must be put together anew;
    LibraryIsNewer; StoreError.
    """
    files = files or Files()
    done: list[str] = []
    try:
        found, messages = _check_tree(data_dir, files)
        broken_tree = bool(found)
        if repair and broken_tree:
            done += _mend_tree(data_dir, files)
            left, messages = _check_tree(data_dir, files)
        else:
            left = list(found)
        journals = 0
        for path in files.listdir(data_dir / "journals"):
            journals += 1
            if path.suffix == ".journal" and not _is_readable(path, files):
                problem = Problem("journals", path.name, "does not begin as a journal does")
                found.append(problem)
                if repair:
                    done.append(f"{path.name} is kept as {_set_aside(path, data_dir, files, move=True)}")
                else:
                    left.append(problem)
        state_files = 0
        for path, why in _state_files(cache_dir, files):
            state_files += 1
            if why:
                problem = Problem("states", path.name, why)
                found.append(problem)
                if repair:
                    files.unlink(path)
                    note_removal(files, cache_dir / LAYOUT)
                    done.append(f"{path.name} is removed; what it held is computed again")
                else:
                    left.append(problem)
    except OSError as error:
        raise typed(error, data_dir) from error
    return Report(found, done, len(left), messages, journals, state_files)


def _open(data_dir: Path, files: Files) -> sqlite3.Connection:
    path = data_dir / "tree.db"
    facts = files.facts(path)
    if facts is None or not stat.S_ISREG(facts.st_mode):
        raise sqlite3.DatabaseError("there is no tree.db")
    check_beside(path, files)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _check_tree(data_dir: Path, files: Files) -> tuple[list[Problem], int]:
    try:
        with contextlib.closing(_open(data_dir, files)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
            if version > FORMAT and known:
                raise LibraryIsNewer(version, FORMAT, path=data_dir / "tree.db")
            connection.execute("BEGIN")
            found = tree_check.problems(connection)
            return found, int(connection.execute("SELECT count(*) FROM nodes").fetchone()[0])
    except sqlite3.Error as error:
        if is_obstacle(error) and not _is_bad_medium(data_dir / "tree.db", files):
            with typed_errors(data_dir / "tree.db"):
                raise
        return [Problem("tree.db", "", str(error))], 0


def _is_bad_medium(path: Path, files: Files) -> bool:
    """Whether the disk does not give the file's bytes: only then is lost what SQLite cannot get at."""
    try:
        files.read(path, 1 << 40)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def _mend_tree(data_dir: Path, files: Files) -> list[str]:
    """Put a new tree.db in the place of the damaged one, which is kept. Nobody else may have it open."""
    path = data_dir / "tree.db"
    with files.alone(data_dir / LOCK) as alone:
        if not alone:
            raise StoreBusy(0, path=path)
        whole: list[sqlite3.Connection] = []
        for copy in copies.listed(data_dir, files):
            with contextlib.suppress(OSError, sqlite3.Error):
                whole.append(copies.read(copy, files))
        damaged: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.DatabaseError):
            damaged = _open(data_dir, files)
        try:
            with typed_errors(path):  # what cannot be reached is not lost: nothing is put in its place
                bad = _is_bad_medium(path, files)
                made = salvage(damaged, whole, bad_medium=bad)
        finally:
            for each in (damaged, *whole):
                if each is not None:
                    each.close()
        done = []
        if files.signature(path):  # what cannot be read cannot be copied: it gets another name
            done.append(f"tree.db is kept as {_set_aside(path, data_dir, files, move=bad)}")
        journal = data_dir / "tree.db-journal"
        if files.signature(journal):
            _set_aside(journal, data_dir, files, move=True)
        draft = data_dir / "tree.new"
        files.unlink(draft)
        fd = files.create(draft)
        try:
            files.write(fd, made.data)
            files.sync(fd)
            files.rename(draft, path)
            files.sync_dir(data_dir)
        finally:
            files.close(fd)
    return [*done, *made.notes]


LOCK = "library.lock"
"""Held shared by every process that has the library open, and alone by a repair that replaces tree.db."""


def _set_aside(path: Path, data_dir: Path, files: Files, *, move: bool = False) -> str:
    """Keep a damaged file under a new name in `damaged/`; gives that name."""
    kept = data_dir / copies.DAMAGED
    files.make_dirs(kept)
    target = kept / f"{len(files.listdir(kept)) + 1:04d}-{os.urandom(3).hex()}-{path.name}"
    if move:
        files.rename(path, target)
    else:
        data = files.read(path, _LIMIT)
        fd = files.create(target)
        try:
            files.write(fd, data)
            files.sync(fd)
        finally:
            files.close(fd)
    files.sync_dir(kept)
    files.sync_dir(data_dir)
    return f"{copies.DAMAGED}/{target.name}"


def _is_readable(path: Path, files: Files) -> bool:
    try:
        return readable(path.stem, files.read(path, 64 << 20))
    except OSError:
        return False


def _state_files(cache_dir: Path, files: Files) -> Iterator[tuple[Path, str]]:
    """Every state file, and what is wrong with it."""
    for key in files.listdir(cache_dir / LAYOUT):
        for folder in files.listdir(key) if len(key.name) == 32 else ():
            for path in files.listdir(folder):
                if path.suffix in (".seg", ".fin"):
                    try:
                        yield path, _fault(path, key.name, segment.decode(path, files.read(path, segment.FILE_LIMIT)))
                    except DamagedFile as error:
                        yield path, error.why
                    except OSError as error:
                        if not isinstance(error, FileNotFoundError):
                            yield path, os.strerror(error.errno or 5).lower()


def _fault(path: Path, key: str, contents: segment.Contents) -> str:
    """Whether a file lies where its header says; "" if so."""
    header = contents.header
    try:
        state_key = str(header["state_key"]).encode()
        if blake2b(state_key, digest_size=16).hexdigest() != key:
            return "belongs to another model"
        if path.suffix == ".fin":
            return "" if header["chain"] == path.stem else "belongs elsewhere"
        start, tokens = int(header["start"]), list(header["tokens"])
        name, _, within = path.stem.partition("-")
        if int(within, 16) != start % BLOCK:
            return "belongs elsewhere"
        if start % BLOCK:
            return ""  # its name also hashes tokens that lie in other files
        link = bytes.fromhex(header["before"])
        if start == 0:
            link = blake2b(b"forkpoint chain 1\0" + state_key, digest_size=32).digest()
        ids = b"".join(int(token).to_bytes(4, "little") for token in tokens)
        return "" if blake2b(link + ids, digest_size=32).hexdigest() == name else "belongs elsewhere"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "has an unreadable header"
