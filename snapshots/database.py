"""tree.db: one connection for all threads of the process, whole transactions only, typed errors.

Another process may hold SQLite's lock; it is waited for, up to PATIENCE_S, with short random pauses, so that "database
is locked" never reaches a person. SQLite before 3.51.3 can corrupt a WAL database with two connections, so there the
rollback journal is used, with synchronous=EXTRA: its directory entry is on disk before a commit returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from snapshots import copies, seals
from snapshots.errors import LibraryDamaged, LibraryIsNewer, StoreBusy, StoreError, StoreFull, StoreReadOnly
from snapshots.files import Files, typed
from snapshots.schema import APPLICATION_ID, FORMAT, FORMAT_2, READABLE_BY, TABLES

PATIENCE_S = 30.0
_WAL_IS_SAFE = sqlite3.sqlite_version_info >= (3, 51, 3)


class Database:
    """An open tree.db. `read_only` is None, or the error that every change raises."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, read_only: StoreReadOnly | None, files: Files
    ) -> None:
        self.path = path
        self.files = files
        self.read_only = read_only
        self._connection = connection
        self._guard = threading.RLock()
        self._commits = 0
        self._seen = 0
        self._shared = -1  # the lock that tells a repair that somebody has the library open

    @classmethod
    def open(cls, data_dir: Path, files: Files | None = None) -> Database:
        """Open or make `tree.db` in `data_dir`. Raises LibraryDamaged, LibraryIsNewer, StoreError."""
        path, files = data_dir / "tree.db", files or Files()
        blocked = _touch(path, files)
        shared = files.share(data_dir / "library.lock") if blocked is None else -1
        if shared is None:
            raise StoreBusy(0, path=path)
        mode = f"mode={'ro' if blocked else 'rw'}"
        if blocked is not None and not files.is_writable(data_dir) and not files.facts(data_dir / "tree.db-journal"):
            mode += "&immutable=1"  # nobody can write there: no lock is needed, and none could be had
        try:
            database = cls._connect(path, f"{path.absolute().as_uri()}?{mode}", blocked, files)
        except BaseException:
            if shared >= 0:
                files.close(shared)
            raise
        database._shared = shared
        return database

    @classmethod
    def in_memory(cls) -> Database:
        """Make an empty tree that no file of any kind holds."""
        return cls._connect(Path(":memory:"), "file::memory:", None, Files())

    @classmethod
    def _connect(cls, path: Path, uri: str, blocked: StoreReadOnly | None, files: Files) -> Database:
        with typed_errors(path):
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0.1)
            # A damaged text is found by the node's digest and stays one node's trouble; decoding must not raise first.
            connection.text_factory = _decoded
            try:
                database = cls(path, connection, blocked, files)
                database._patiently(database._prepare)
            except BaseException:
                connection.close()
                raise
        return database

    def _prepare(self) -> None:
        """Check and set what needs to be; can be done again where another process's lock came between."""
        found = self._pragma("user_version")  # the first read: waits for a writer, finds a bad file
        for setting in (
            "trusted_schema=OFF",
            "secure_delete=ON",  # from the first byte on, so that forgetting for good needs no VACUUM
            "cell_size_check=ON",
            "temp_store=MEMORY",
            "cache_size=-8000",
        ):
            self._connection.execute(f"PRAGMA {setting}")
        if found == 0 and self.read_only is None:
            self._migrate(0)
            found = FORMAT
        if self._pragma("application_id") != APPLICATION_ID:
            raise LibraryDamaged("this tree.db is not a library of forkpoint", path=self.path)
        if found > FORMAT:
            self.read_only = LibraryIsNewer(found, FORMAT, path=self.path)
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'readable_by'").fetchone()
            if row is None or int(row[0]) > FORMAT:
                raise self.read_only
        elif found < FORMAT and self.read_only is not None:
            self._migrate_in_memory()
        elif self.read_only is None:
            self._set_journal()
            if found < FORMAT:
                try:
                    copies.write(self._connection, self.path.parent, self.files, keep_as=f"format-{found}")
                except OSError as error:
                    raise typed(error, copies.folder(self.path.parent)) from error
                self._migrate(found)
            seals.install(self._connection)

    def _set_journal(self) -> None:
        self._connection.execute(f"PRAGMA synchronous={'FULL' if _WAL_IS_SAFE else 'EXTRA'}")
        wanted = "wal" if _WAL_IS_SAFE else "delete"
        if self._connection.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
            # Another process may be reading at this moment: then the mode stays as it is, which is only slower.
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute(f"PRAGMA journal_mode={wanted}")

    def _migrate(self, found: int) -> None:
        """Bring the file from format `found` (0: it is empty) to FORMAT in one transaction."""
        if found == 0 and str(self.path) != ":memory:":
            self.files.keep_name(self.path)
        self._set_journal()
        self._connection.create_function("seal", -1, seals.seal, deterministic=True)
        with self.write() as tx:
            if self._pragma("user_version") != found:
                return  # another process was faster
            if found == 0:
                if copies.listed(self.path.parent, self.files):
                    raise LibraryDamaged("tree.db is empty, but there are backups of it", path=self.path)
                if tx.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise LibraryDamaged("this tree.db is not a library of forkpoint", path=self.path)
                for statement in TABLES.split(";"):
                    tx.execute(statement)
                tx.execute("INSERT INTO meta(key, value) VALUES ('library_id', ?)", (os.urandom(16).hex(),))
            upgrade(tx)

    def _migrate_in_memory(self) -> None:
        """Read a library of an older format that may not be changed: a copy in memory is brought up to date."""
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        copy.text_factory = _decoded
        self._connection.backup(copy)
        copy.create_function("seal", -1, seals.seal, deterministic=True)
        copy.execute("BEGIN")
        upgrade(copy)
        copy.execute("COMMIT")
        self._connection.close()
        self._connection = copy

    def _pragma(self, name: str) -> int:
        found: list[int] = []
        self._patiently(lambda: found.append(int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])))
        return found[-1]

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent look at the tree: the lock is taken before the body runs, so the body never meets a writer."""
        with self._guard, typed_errors(self.path):
            if self._connection.in_transaction:  # a look inside this thread's own change
                yield self._connection
                return
            try:
                self._patiently(self._begin_reading)
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One change: on disk when the body has ended, undone whole if it raises."""
        if self.read_only is not None:
            raise self.read_only.with_traceback(None)
        with self._guard, typed_errors(self.path):
            try:
                self._patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
                yield self._connection
                self._patiently(lambda: self._connection.execute("COMMIT"))
                self._commits += 1
                self.files.committed(self.path)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _begin_reading(self) -> None:
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except BaseException:
            if self._connection.in_transaction:  # some errors end it
                self._connection.execute("ROLLBACK")
            raise

    def _patiently(self, call: Callable[[], object]) -> None:
        start, pause = time.monotonic(), 0.001
        while True:
            try:
                call()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if time.monotonic() - start > PATIENCE_S:
                    raise StoreBusy(PATIENCE_S, path=self.path) from error
            time.sleep(pause * (0.5 + os.urandom(1)[0] / 256))
            pause = min(2 * pause, 0.05)

    def changes(self) -> int:
        """Differs after any commit to the file, of this process or another one."""
        with self._guard, typed_errors(self.path):
            return (self._pragma("data_version") << 32) + self._commits

    def outside_changes(self) -> int:
        """Differs after a commit of another process. Waits for nobody: while the library is busy, what it gave last."""
        if not self._guard.acquire(blocking=False):
            return self._seen
        try:
            if not self._connection.in_transaction:
                with typed_errors(self.path):
                    self._seen = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except StoreBusy:
            pass
        finally:
            self._guard.release()
        return self._seen

    def compact(self) -> None:
        """Write the file anew, so that nothing of what was removed is in it, nor in a write-ahead log.

        SQLite overwrites a row that it removes (secure_delete), but not the copies of rows that moved between pages.
        """
        if self.read_only is not None:
            raise self.read_only.with_traceback(None)
        with self._guard, typed_errors(self.path):
            self._patiently(lambda: self._connection.execute("VACUUM"))
            self.files.committed(self.path)
            self._patiently(lambda: self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    def close(self) -> None:
        """Close the connection. Calling it twice is harmless."""
        with self._guard:
            self._connection.close()
            if self._shared >= 0:
                self.files.close(self._shared)
                self._shared = -1


def upgrade(tx: sqlite3.Connection) -> None:
    """Make format 2 of format 1, whose rows are taken as they are: nothing in them told a good one from a bad one."""
    for statement in FORMAT_2:
        tx.execute(statement)
    tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('readable_by', ?)", (str(READABLE_BY),))
    for table in seals.SEALED:
        seals.seal_all(tx, table)
    tx.execute(f"PRAGMA application_id={APPLICATION_ID}")
    tx.execute(f"PRAGMA user_version={FORMAT}")


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _touch(path: Path, files: Files) -> StoreReadOnly | None:
    """Make the file where it is missing; gives why it can only be read, if so. Raises StoreError, StoreFull."""
    try:
        files.make_dirs(path.parent)
        fd = files.open_or_create(path)
    except OSError as error:
        facts = files.facts(path)
        if facts is not None and stat.S_ISLNK(facts.st_mode):
            raise StoreError("is a symbolic link, which is not followed", path=path) from error
        reason = typed(error, path)
        if not isinstance(reason, StoreReadOnly) or facts is None or not stat.S_ISREG(facts.st_mode):
            raise reason from error
        return reason
    facts = files.facts_of(fd)
    files.close(fd)
    _must_be_plain(path, facts)
    check_beside(path, files)
    return None


def check_beside(path: Path, files: Files) -> None:
    """Refuse a database with strange things beside it: SQLite would write through them, or wait for them."""
    for beside in ("-journal", "-wal", "-shm"):
        facts = files.facts(path.with_name(path.name + beside))
        if facts is not None:
            _must_be_plain(path.with_name(path.name + beside), facts)


def _must_be_plain(path: Path, facts: os.stat_result) -> None:
    """What is written in place must be a file of its own: another name of it would be another file's bytes."""
    if not stat.S_ISREG(facts.st_mode):
        raise StoreError("is not a regular file", path=path)
    if facts.st_nlink > 1:
        raise StoreError("has a second name (a hard link), under which it would be changed too", path=path)


def is_obstacle(error: sqlite3.Error) -> bool:
    """Whether SQLite was kept from the file (no access, lock or memory), which tells nothing about what is in it."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _OBSTACLES and code not in _DAMAGE


_OBSTACLES = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        *("PERM", "BUSY", "LOCKED", "NOMEM", "READONLY", "INTERRUPT", "IOERR", "FULL", "CANTOPEN", "PROTOCOL"),
        *("NOLFS", "AUTH"),
    )
}
_DAMAGE = {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}


@contextlib.contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Make the store's own errors of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        kind = code & 0xFF
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or seals.BROKEN in str(error):
            raise LibraryDamaged(str(error), path=path) from error
        if kind == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR_WRITE and Files().is_full(path)):
            raise StoreFull("no space left", path=path) from error
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_cut_off(path):
            words = "a crash cut off a change (tree.db-journal), and undoing it needs leave to write here once"
            raise StoreReadOnly(words, path=path) from error
        if kind == sqlite3.SQLITE_READONLY:
            raise StoreReadOnly(str(error), path=path) from error
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy(PATIENCE_S, path=path) from error
        raise StoreError(str(error), path=path) from error
    except MemoryError as error:
        raise StoreError("there is not enough memory", path=path) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:  # only a damaged row or page holds such text
        raise LibraryDamaged("a row holds unreadable text", path=path) from error


def _is_cut_off(path: Path) -> bool:
    """Whether a journal lies beside that SQLite would have to play back, and cannot."""
    journal, files = path.with_name(path.name + "-journal"), Files()
    return files.facts(journal) is not None and not (files.is_writable(journal) and files.is_writable(path.parent))
