"""The one seam to the file system for all but SQLite itself: small calls that a test can replace one by one.

Nothing here follows a link at the end of a path, and every file and directory is private to the user (0600, 0700).
Calls raise OSError; `typed` makes a StoreFull or StoreError of it at the edges of the store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from snapshots.errors import StoreError, StoreFull, StoreReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_DIR_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP}
_CHUNK = 1 << 24


def typed(error: OSError, path: Path) -> StoreError:
    """The store's own error for an OSError: StoreFull, StoreReadOnly, or a StoreError with the system's words."""
    words = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return StoreFull(words, path=path)
    if error.errno in _READ_ONLY:
        return StoreReadOnly(words, path=path)
    return StoreError(words, path=path)


class Files:
    """The real file system. Tests subclass it to fail, tear or record single calls."""

    def make_dirs(self, path: Path) -> None:
        """Make a directory and its parents where missing, mode 0700, each new name synced."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_dirs(path.parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path)) from None
        with contextlib.suppress(PermissionError):  # a parent that may be entered but not opened
            self.sync_dir(path.parent)

    def create(self, path: Path) -> int:
        """Make a file that must not exist and open it for reading and writing; returns the descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def open_or_create(self, path: Path) -> int:
        """Open a file for reading and writing, made empty where there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)

    def open_existing(self, path: Path) -> int:
        """Open a regular file for reading and writing. Raises OSError (EINVAL) for anything that is not one."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of `data` at the descriptor's place."""
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(fd, view[:_CHUNK]) :]

    def append_byte(self, path: Path) -> None:
        """Make a file longer by one byte, and make it where there is none: others see that something happened."""
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, how, 0o600)
        try:
            os.write(fd, b".")
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes and stand at its end."""
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)

    def sync(self, fd: int) -> None:
        """Make what was written survive a power cut."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Put `source` in the place of `target`, atomically."""
        os.replace(source, target)

    def sync_dir(self, path: Path) -> None:
        """Make the names in a directory survive a power cut, where the file system has that."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_DIR_SYNC:
                raise
        finally:
            os.close(fd)

    def keep_name(self, directory: Path) -> None:
        """Make a directory's own name survive a power cut, and those above it: whoever made them may have been killed.

        What is above the store may belong to somebody else and not be opened: that is no error.
        """
        for parent in directory.absolute().parents:
            with contextlib.suppress(OSError):
                self.sync_dir(parent)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is gone already is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def remove_all(self, path: Path) -> None:
        """Remove a file, or a directory and what is in it; no link is followed. What is gone already is no error."""
        import shutil

        facts = self.facts(path)
        if facts is not None and stat.S_ISDIR(facts.st_mode):
            shutil.rmtree(path)
        else:
            self.unlink(path)

    def read(self, path: Path, limit: int) -> bytes:
        """A regular file's bytes, at most `limit` of them. Raises OSError (EFBIG) for a larger one."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return self.read_fd(fd, limit)
        finally:
            os.close(fd)

    def head(self, path: Path, size: int) -> bytes:
        """The first bytes of a regular file; nothing where there is none."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, size, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)

    def read_fd(self, fd: int, limit: int) -> bytes:
        """All bytes of an open regular file, from its start."""
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if facts.st_size > limit:
            raise OSError(errno.EFBIG, "larger than any file of this kind")
        parts, place = [], 0
        while part := os.pread(fd, min(_CHUNK, limit + 1 - place), place):
            parts.append(part)
            place += len(part)
        return b"".join(parts)

    @contextlib.contextmanager
    def alone(self, path: Path) -> Iterator[bool]:
        """Hold a lock file alone; False where another process holds it. The file stays."""
        fd = self.open_or_create(path)
        try:
            yield self.lock(fd)
        finally:
            self.close(fd)

    def share(self, path: Path) -> int | None:
        """Hold a lock file together with others until `close`; None where one holds it alone, -1 where none can be."""
        try:
            fd = self.open_or_create(path)
        except OSError:
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            self.close(fd)
            return None if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else -1
        return fd

    def lock(self, fd: int) -> bool:
        """Take the kernel's exclusive lock on an open file without waiting; it ends with the process or `close`."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def create_locked(self, path: Path) -> int:
        """Make a file that is locked before it has its name, so that nobody can take it for a dead process's."""
        draft = path.with_suffix(".new")
        fd = self.create(draft)
        try:
            if not self.lock(fd):
                raise OSError(errno.EBUSY, "locked by another process", str(draft))
            self.rename(draft, path)
        except BaseException:
            self.close(fd)
            self.unlink(draft)
            raise
        return fd

    def committed(self, path: Path) -> None:
        """A transaction of the database at `path` is on the disk: SQLite wrote it, the store's order hangs on it."""

    def listdir(self, path: Path) -> list[Path]:
        """What lies in a directory, sorted by name; nothing where there is none or it cannot be read."""
        try:
            return sorted(path / name for name in os.listdir(path))
        except OSError:
            return []

    def scan(self, path: Path) -> list[tuple[str, os.stat_result]]:
        """What lies in a directory, by name and with its facts, in no order; links are not followed.

        Nothing where there is none or it cannot be read; what vanishes while this looks is left out.
        """
        found: list[tuple[str, os.stat_result]] = []
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except OSError:
                    continue
        return found

    def is_there(self, path: str) -> bool:
        """Whether there is something of this name; no more is looked at."""
        return os.access(path, os.F_OK)

    def is_full(self, path: Path) -> bool:
        """Whether no file beside this one may grow beyond its size: no room, no quota, or a limit of file sizes."""
        import tempfile

        facts = self.facts(path)
        if facts is None:
            return False
        try:
            with tempfile.TemporaryFile(dir=path.parent) as probe:
                os.pwrite(probe.fileno(), bytes(1 << 16), facts.st_size)
                os.fsync(probe.fileno())
        except OSError as error:
            return error.errno in _FULL
        return False

    def is_writable(self, path: Path) -> bool:
        """Whether a file, or a directory's names, may be changed."""
        return os.access(path, os.W_OK)

    def facts(self, path: Path | str) -> os.stat_result | None:
        """What the system says of a name, whose link is not followed; None where there is none."""
        try:
            return os.lstat(path)
        except OSError:
            return None

    def facts_of(self, fd: int) -> os.stat_result:
        """What the system says of an open file."""
        return os.fstat(fd)

    def place(self, fd: int) -> int:
        """Where in its file a descriptor stands."""
        return os.lseek(fd, 0, os.SEEK_CUR)

    def disk_size(self, path: Path) -> int:
        """Bytes of the disk that a directory lies on. Raises OSError."""
        import shutil

        return shutil.disk_usage(path).total

    def spool(self, directory: Path, in_memory: int) -> IO[bytes]:
        """A file without a name for what streams in: in memory up to so many bytes, then in a directory."""
        import tempfile

        return cast("IO[bytes]", tempfile.SpooledTemporaryFile(in_memory, dir=str(directory)))

    def signature(self, path: Path | str) -> tuple[int, ...] | None:
        """What changes when a file is replaced or written to; None where there is none."""
        facts = self.facts(path)
        if facts is None:
            return None
        return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)

    def is_linked(self, fd: int, path: Path) -> bool:
        """Whether `path` still is the file behind the descriptor."""
        try:
            named = os.lstat(path)
        except FileNotFoundError:
            return False
        held = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
