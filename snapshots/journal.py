"""The journal of a reply in flight: what was sampled so far, in a file that outlives the process.

A journal lies in the data dir, outside the tree. Its kernel lock says that its writer lives; the lock of a dead
process is gone, whatever it died of. Records check themselves and their order, so a torn end loses only itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots.errors import JournalGone, StoreError
from snapshots.files import Files, typed
from snapshots.records import DeadReply, ReplyStart

if TYPE_CHECKING:
    from snapshots.database import Database

MAGIC = b"FKPTJRNL"
VERSION = 1
SYNC_EVERY_S = 0.25
_HEAD = struct.Struct("<8sHH16s")  # magic, version, 0, journal id
_RECORD = struct.Struct("<IB")  # payload bytes, kind
_START, _TOKENS = 1, 2
_DIGEST = 16
_LIMIT = 64 << 20
_ATTEMPTS = 3


def _digest(before: bytes, record: bytes) -> bytes:
    """The digest of a record covers the one before it, so records cannot be swapped, dropped or repeated."""
    return blake2b(record, digest_size=_DIGEST, key=before).digest()


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
        payload = struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens) + text.encode("utf-8", "replace")
        with self._guard:
            if self._fd is None:
                return
            try:
                self.add(_TOKENS, payload)
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
        record = _RECORD.pack(len(payload), kind) + payload
        last = _digest(self._last, record)
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
        self._begun: set[str] = set()  # by this process, and not known to be gone for good
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
            head = _HEAD.pack(MAGIC, VERSION, 0, journal_id)
            self._files.write(fd, head)
            journal = Journal(self._files, path, fd, blake2b(head, digest_size=_DIGEST).digest(), head)
            journal.add(_START, _start_to_json(start))
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
                if _is_foreign(self._files.read_fd(fd, _LIMIT)):
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
                if opened[1] is None and not _is_foreign(self._files.read_fd(opened[0], _LIMIT)):
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
                reply, size, last = _parse(path.stem, self._files.read_fd(fd, _LIMIT))
                return fd, reply, size, last
        except OSError:
            pass
        self._files.close(fd)
        return None

    def _is_finished(self, journal_id: str) -> bool:
        with self._db.read() as tx:
            row = tx.execute("SELECT 1 FROM finished_journals WHERE id = ?", (journal_id,)).fetchone()
        return row is not None


def _start_to_json(start: ReplyStart) -> bytes:
    values = {**start.__dict__, "tokens": list(start.tokens), "dice_key": start.dice_key.hex()}
    values["sampler"], values["extra"] = dict(start.sampler), dict(start.extra)
    return json.dumps(values, sort_keys=True).encode()


def _start_from_json(payload: bytes) -> ReplyStart | None:
    try:
        values = json.loads(payload)
        values["tokens"] = tuple(values["tokens"])
        values["dice_key"] = bytes.fromhex(values["dice_key"])
        return ReplyStart(**values)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_foreign(data: bytes) -> bool:
    return len(data) >= _HEAD.size and _HEAD.unpack_from(data)[:2] != (MAGIC, VERSION)


def readable(journal_id: str, data: bytes) -> bool:
    """Whether a journal's bytes hold a whole start, or are of another version, which is not for us to judge."""
    if _parse(journal_id, data)[0] is not None:
        return True
    try:
        ours = _HEAD.pack(MAGIC, VERSION, 0, bytes.fromhex(journal_id)) + data[_HEAD.size :]
    except (ValueError, struct.error):  # nobody's name for a journal
        return False
    is_ours = _parse(journal_id, ours)[0] is not None  # its records go on from our head: that one is damaged
    return data[: len(MAGIC)] == MAGIC and _is_foreign(data) and not is_ours


def _parse(journal_id: str, data: bytes) -> tuple[DeadReply | None, int, bytes]:
    """What a journal's bytes hold: the reply (None without a whole start), the size of its whole part, its digest."""
    head = data[: _HEAD.size]
    if len(head) < _HEAD.size or _HEAD.unpack(head)[:2] != (MAGIC, VERSION):
        return None, 0, b""
    if head[-16:].hex() != journal_id:  # another one's file under this name
        return None, 0, b""
    last = blake2b(head, digest_size=_DIGEST).digest()
    place, start, tokens, text = _HEAD.size, None, list[int](), list[str]()
    while place + _RECORD.size + _DIGEST <= len(data):
        length, kind = _RECORD.unpack_from(data, place)
        end = place + _RECORD.size + length
        digest = _digest(last, data[place:end])
        if end + _DIGEST > len(data) or digest != data[end : end + _DIGEST]:
            break
        payload = data[place + _RECORD.size : end]
        if kind == _START:
            start = _start_from_json(payload)
        elif kind == _TOKENS:
            (count,) = struct.unpack_from("<I", payload.ljust(4, b"\0"))
            if 4 + 4 * count > len(payload):
                break
            tokens.extend(struct.unpack_from(f"<{count}I", payload, 4))
            text.append(payload[4 + 4 * count :].decode("utf-8", "replace"))
        place, last = end + _DIGEST, digest
    if start is None:
        return None, place, last
    reply = DeadReply(journal_id, start, tuple(tokens), "".join(text), torn=place < len(data))
    return reply, place, last
