"""How state files come to be: written aside, synced, renamed, and their directories synced, a batch at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from snapshots.files import Files

_OPEN_AT_ONCE = 32


class Batch:
    """Files on their way. Nothing has its final name before every byte of all files of a group is on the disk."""

    def __init__(self, files: Files, drafts: Path, prefix: str) -> None:
        self._files = files
        self._drafts = drafts
        self._prefix = prefix
        self._open: list[tuple[int, Path, Path]] = []
        self._made = 0
        self._touched: set[Path] = set()
        self.made: set[Path] = set()  # directories that were not there before
        self.paths: list[Path] = []
        self.size = 0

    def add(self, path: Path, data: bytes) -> None:
        """Write a file's bytes aside. Raises OSError."""
        draft = self._drafts / f"{self._prefix}.{self._made}.tmp"
        self._made += 1
        self._open.append((self._files.create(draft), draft, path))
        self._files.write(self._open[-1][0], data)
        self.paths.append(path)
        self.size += len(data)
        if len(self._open) >= _OPEN_AT_ONCE:
            self.publish()

    def cover(self, directories: Iterable[Path]) -> None:
        """Sync these directories, too, when the batch is finished."""
        self._touched.update(directories)

    def publish(self) -> None:
        """Sync what was written, then give it its names. Raises OSError."""
        for fd, _, _ in self._open:
            self._files.sync(fd)
        while self._open:
            fd, draft, path = self._open[0]
            if path.parent not in self._touched and not self._files.is_there(str(path.parent)):
                self.made.add(path.parent)
            self._files.make_dirs(path.parent)
            self._files.rename(draft, path)
            self._touched.add(path.parent)
            self._open.pop(0)
            self._files.close(fd)

    def finish(self) -> None:
        """Publish, then sync the directories: only now may a row say that the files are there. Raises OSError."""
        self.publish()
        for directory in sorted(self._touched):
            self._files.sync_dir(directory)

    def abandon(self) -> None:
        """Remove what has no name yet. After a failed sync a descriptor is never tried again."""
        for fd, draft, _ in self._open:
            with contextlib.suppress(OSError):
                self._files.close(fd)
            with contextlib.suppress(OSError):
                self._files.unlink(draft)
        self._open = []


class Writer:
    """This process's right to write drafts: a lock file in the data dir that a purge of the cache does not touch."""

    def __init__(self, root: Path, locks: Path, files: Files) -> None:
        self._drafts = root / "tmp"
        self._locks = locks
        self._files = files
        self._id = os.urandom(12).hex()
        self._lock: int | None = None
        self._batches = 0

    @contextlib.contextmanager
    def batch(self) -> Iterator[Batch]:
        """A batch that is finished when the body ends, and removed if it raises. Raises OSError."""
        if self._lock is None:
            self._files.make_dirs(self._locks)
            self._lock = self._files.create_locked(self._locks / f"{self._id}.lock")
        self._files.make_dirs(self._drafts)
        self._batches += 1
        batch = Batch(self._files, self._drafts, f"{self._id}.{self._batches}")
        try:
            yield batch
            batch.finish()
        except BaseException:
            batch.abandon()
            raise

    def clean(self) -> None:
        """Remove drafts and lock files of writers that died. Never an error: what cannot be removed stays."""
        dead: dict[str, bool] = {}
        for path in [*self._files.listdir(self._drafts), *self._files.listdir(self._locks)]:
            if path.suffix == ".new":  # the lock file of one that died before it was named
                self._remove_unheld(path)
            if path.suffix not in (".tmp", ".lock"):
                continue
            writer = path.name.split(".", 1)[0]
            if writer not in dead:
                dead[writer] = writer != self._id and self._is_dead(writer)
            if dead[writer]:
                with contextlib.suppress(OSError):
                    self._files.unlink(path)

    def _remove_unheld(self, path: Path) -> None:
        """Remove a file that nobody has locked. Whoever was about to lock it begins again, as `Bundles.save` does."""
        with contextlib.suppress(OSError):
            fd = self._files.open_existing(path)
            try:
                if self._files.lock(fd):
                    self._files.unlink(path)
            finally:
                self._files.close(fd)

    def _is_dead(self, writer: str) -> bool:
        try:
            fd = self._files.open_existing(self._locks / f"{writer}.lock")
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return self._files.lock(fd)
        finally:
            self._files.close(fd)

    def close(self) -> None:
        """Let go of the lock and remove its file."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._files.unlink(self._locks / f"{self._id}.lock")
            self._files.close(self._lock)
            self._lock = None
