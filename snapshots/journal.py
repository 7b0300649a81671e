"""The journal of a reply in flight: what was sampled so far, in a file that outlives the process.

A journal lies in the data dir, outside the tree. Its kernel lock says that its writer lives; the lock of a dead
process is gone, whatever it died of. Records check themselves and their order, so a torn end loses only itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots import journal_records as lines
from snapshots.errors import JournalGone, StoreError
from snapshots.files import Files, typed
from snapshots.records import DeadReply, ReplyStart

if TYPE_CHECKING:
    from snapshots.database import Database

SYNC_EVERY_S = 0.25
_LIMIT = 64 << 20
_ATTEMPTS = 3


class Journal:
    """An open journal, locked by this process. Safe to use from one thread at a time beside `close`."""

    def __init__(self, files: Files, path: Path, fd: int, last: bytes, data: bytes) -> None:
        self._files = files
        self._fd: int | None = fd
        self._last = last
        self._data = bytearray(data)  # the file's bytes: after a failed sync the kernel's copy is not to be trusted
        self._is_doubtful = False
        self._synced = time.monotonic()
        self._guard = threading.Lock()
        self.path = path

    @property
    def id(self) -> str:
        """The journal's random id, in hex."""
        return self.path.stem

    def append(self, tokens: Sequence[int], text: str = "") -> None:
        """Add sampled ids and the text they streamed; call it for every token.

        The bytes reach the kernel at once (a killed process loses nothing) and the disk every 250 ms (a power cut loses
        no more than that). Does nothing once closed. Raises StoreFull or StoreError; the reply itself may go on.
        """
        payload = lines.tokens_payload(tokens, text)
        with self._guard:
            if self._fd is None:
                return
            try:
                self.add(lines.TOKENS, payload)
                if time.monotonic() - self._synced >= SYNC_EVERY_S:
                    self._sync()
            except OSError as error:
                raise typed(error, self.path) from error

    def sync(self) -> None:
        """Put what was appended on the disk now."""
        with self._guard:
            if self._fd is not None:
                try:
                    self._sync()
                except OSError as error:
                    raise typed(error, self.path) from error

    def _sync(self) -> None:
        """Put it on the disk. Where that failed before, in a new file: a second fsync would say yes to lost bytes."""
        assert self._fd is not None
        if self._is_doubtful:
            self._write_anew()
        else:
            try:
                self._files.sync(self._fd)
            except OSError:
                self._is_doubtful = True
                raise
        self._synced = time.monotonic()

    def _write_anew(self) -> None:
        assert self._fd is not None
        draft = self.path.with_suffix(".new")
        self._files.unlink(draft)
        fd = self._files.create(draft)
        try:
            if not self._files.lock(fd):
                raise OSError(errno.EBUSY, "locked by another process", str(draft))
            self._files.write(fd, bytes(self._data))
            self._files.sync(fd)
            self._files.rename(draft, self.path)
        except BaseException:
            self._files.close(fd)
            self._files.unlink(draft)
            raise
        old, self._fd, self._is_doubtful = self._fd, fd, False
        self._files.close(old)
        try:
            self._files.sync_dir(self.path.parent)
        except OSError:
            self._is_doubtful = True
            raise

    def close(self) -> None:
        """Let go of the journal but leave its file: the reply counts as dead from here on, and can be adopted."""
        with self._guard:
            if self._fd is not None:
                self._files.close(self._fd)
                self._fd = None

    def discard(self) -> None:
        """Remove the file and close it: the reply is in the tree or not wanted."""
        with self._guard:
            if self._fd is None:
                return
            try:
                self._files.unlink(self.path)
            except OSError as error:
                raise typed(error, self.path) from error
            finally:
                self._files.close(self._fd)
                self._fd = None

    def add(self, kind: int, payload: bytes) -> None:
        """Write one record; what could not be written whole is taken back. Raises OSError."""
        assert self._fd is not None
        record, last = lines.record(kind, payload, self._last)
        place = self._files.place(self._fd)
        try:
            self._files.write(self._fd, record + last)
            self._data += record + last
        except OSError:
            # A record that was cut short would hide every later one: go back to the end of the last whole record.
            self._files.truncate(self._fd, place)
            raise
        self._last = last


class Journals:
    """All journals of a library."""

    def __init__(self, data_dir: Path, database: Database, files: Files) -> None:
        self._dir = data_dir / "journals"
        self._begun: set[str] = set()  # or taken over by this process, and not known to be gone for good
        self._gone: set[str] = set()
        self._db = database
        self._files = files

    def begin(self, start: ReplyStart) -> Journal:
        """A new journal, locked from its first byte on and named only once its head is on the disk."""
        for _ in range(_ATTEMPTS):
            try:
                self._files.make_dirs(self._dir)
                gone = {each for each in self._begun if not self._files.is_there(str(self._path(each)))}
                journal = self._begin(os.urandom(16), start)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise typed(error, self._dir) from error
            if journal is not None:
                self._begun = (self._begun - gone) | {journal.id}
                self._gone |= gone  # for good: the directory was synced since
                return journal
        raise StoreError("a new journal was taken away", path=self._dir)

    def _begin(self, journal_id: bytes, start: ReplyStart) -> Journal | None:
        """One try: None, or FileNotFoundError, where `dead` of another process came between creating and locking."""
        path, draft = self._dir / f"{journal_id.hex()}.journal", self._dir / f"{journal_id.hex()}.new"
        fd = self._files.create(draft)
        try:
            if not self._files.lock(fd):
                self._files.close(fd)
                return None
            head, last = lines.head(journal_id)
            self._files.write(fd, head)
            journal = Journal(self._files, path, fd, last, head)
            journal.add(lines.START, lines.start_payload(start))
            self._files.sync(fd)
            self._files.rename(draft, path)
            self._files.sync_dir(self._dir)
            self._files.sync_dir(self._dir.parent)  # a process that was killed may have made the directory a moment ago
        except BaseException:
            self._files.close(fd)
            self._files.unlink(draft)
            raise
        return journal

    def mark_finished(self, tx: sqlite3.Connection, journal: Journal) -> None:
        """Note in the node's own transaction that its journal is done, in case the process dies before `discard`.

        Notes of journals whose files are gone for good are dropped here, so there is seldom more than one: a file that
        a power cut brings back must still be known as finished.
        """
        noted = [row[0] for row in tx.execute("SELECT id FROM finished_journals")]
        gone = [each for each in noted if not self._files.is_there(str(self._path(each)))]
        with contextlib.suppress(OSError):
            if not self._gone.issuperset(gone):
                self._files.sync_dir(self._dir)
            tx.executemany("DELETE FROM finished_journals WHERE id = ?", [(each,) for each in gone])
            self._gone.difference_update(gone)
        tx.execute("INSERT OR IGNORE INTO finished_journals(id) VALUES (?)", (journal.id,))

    def dead(self) -> list[DeadReply]:
        """Journals that nobody holds, newest first. Drafts and those that are finished are removed.

        A journal of another format version is neither shown nor removed: it waits for its own program. So does one
        whose start is damaged, for it had a whole one when it got its name: fsck names it and keeps it aside.
        """
        found: list[tuple[float, DeadReply]] = []
        for path in self._files.listdir(self._dir):
            if path.suffix not in (".journal", ".new"):
                continue
            opened = self._take(path)
            if opened is None:
                continue
            fd, reply, _, _ = opened
            try:
                if lines.is_foreign(self._files.read_fd(fd, _LIMIT)):
                    continue
                if path.suffix == ".new" or self._is_finished(path.stem):
                    self._files.unlink(path)
                elif reply is not None:
                    found.append((self._files.facts_of(fd).st_mtime, reply))
            except OSError:
                continue  # a directory that cannot be written: what is there can still be shown
            finally:
                self._files.close(fd)
        return [reply for _, reply in sorted(found, key=lambda pair: -pair[0])]

    def elsewhere(self) -> list[ReplyStart]:
        """The starts of journals that other processes hold; those that are finished are left out."""
        found: list[ReplyStart] = []
        for path in self._files.listdir(self._dir):
            if path.suffix != ".journal" or path.stem in self._begun:
                continue
            try:
                fd = self._files.open_existing(path)
            except OSError:
                continue
            try:
                reply = None if self._files.lock(fd) else lines.parse(path.stem, self._files.read_fd(fd, _LIMIT))[0]
            except OSError:
                continue
            finally:
                self._files.close(fd)
            if reply is not None and not self._is_finished(path.stem):
                found.append(reply.start)
        return found

    def adopt(self, journal_id: str) -> tuple[DeadReply, Journal]:
        """Lock a dead journal and go on behind its last whole record. Raises JournalGone."""
        path = self._path(journal_id)
        opened = self._take(path)
        if opened is None:
            raise JournalGone("the reply was taken over by another window", path=path)
        fd, reply, size, last = opened
        if reply is None:
            self._files.close(fd)
            raise JournalGone("the reply's journal is empty", path=path)
        try:
            data = self._files.read_fd(fd, _LIMIT)[:size]
            self._files.truncate(fd, size)
            self._files.sync_dir(self._dir)  # its process may have been killed before it did
        except OSError as error:
            self._files.close(fd)
            raise typed(error, path) from error
        self._begun = self._begun | {journal_id}
        return reply, Journal(self._files, path, fd, last, data)

    def discard(self, journal_id: str) -> None:
        """Remove a dead journal. Raises JournalGone where it lives again; one that is gone already is no error."""
        path = self._path(journal_id)
        opened = self._take(path)
        if opened is None:
            if self._files.is_there(str(path)):
                raise JournalGone("the reply was taken over by another window", path=path)
            return
        try:
            self._files.unlink(path)
        except OSError as error:
            raise typed(error, path) from error
        finally:
            self._files.close(opened[0])

    def discard_damaged(self) -> None:
        """Remove dead journals whose start cannot be read. Raises StoreError."""
        for path in self._files.listdir(self._dir):
            opened = self._take(path)
            if opened is None:
                continue
            try:
                if opened[1] is None and not lines.is_foreign(self._files.read_fd(opened[0], _LIMIT)):
                    self._files.unlink(path)
            except OSError as error:
                raise typed(error, path) from error
            finally:
                self._files.close(opened[0])

    def _path(self, journal_id: str) -> Path:
        if not journal_id.isalnum():
            raise JournalGone("no such reply")
        return self._dir / f"{journal_id}.journal"

    def _take(self, path: Path) -> tuple[int, DeadReply | None, int, bytes] | None:
        """Open and lock a journal and read it; None where another holds it, or it is gone or not a plain file."""
        try:
            fd = self._files.open_existing(path)
        except OSError:
            return None
        try:
            if self._files.lock(fd) and self._files.is_linked(fd, path):
                reply, size, last = lines.parse(path.stem, self._files.read_fd(fd, _LIMIT))
                return fd, reply, size, last
        except OSError:
            pass
        self._files.close(fd)
        return None

    def _is_finished(self, journal_id: str) -> bool:
        with self._db.read() as tx:
            row = tx.execute("SELECT 1 FROM finished_journals WHERE id = ?", (journal_id,)).fetchone()
        return row is not None
