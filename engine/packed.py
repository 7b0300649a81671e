"""Repacked weights on disk: later starts map them, copy nothing, and share them with other processes.

A file belongs to the tensors' digest, the code that repacks and the matrices in question. It holds a magic line, the
header's length, its digest, the header, and from 2 MiB on the matrices, each at a multiple of 64 bytes. The header
names every matrix and its digest. A start checks all but the matrices' bytes (reading those is what it wants to save);
`check` reads them. A file is written beside its place, in the background, and renamed when all of it is on the disk.
Whatever is missing, damaged or cannot be written costs a repacking and nothing else. The folder has a quota; files that
were used longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.cache_files import cache_root, only_ours, open_regular
from engine.errors import DamagedWeights
from engine.repack import Matrix, packed_size

Bytes = npt.NDArray[np.uint8]
Job = tuple[str, Bytes, int, int]  # tensor type, the rows as the file has them, rows, columns

SMALLEST = 64 << 20  # bytes of matrices below which repacking is as fast as mapping
MOST = 10 << 30
SPARE = 1 << 30  # bytes of the disk that are left to others
LINE = 64  # bytes of a cache line
_MAGIC = b"forkpoint weights 1\n"
_DIGEST_BYTES = 32
_BEGIN = 2 << 20
_PIECE = 16 << 20
_STALE_S = 3600.0


def default_quota() -> int:
    """Bytes: 10 GiB, or a tenth of the disk that holds the cache where that is less."""
    place = cache_root()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return min(MOST, shutil.disk_usage(place).total // 10)
    except OSError:
        return 0


def places(jobs: Sequence[Job]) -> tuple[list[tuple[int, int]], int]:
    """Where each repacked matrix lies in one piece of memory: (begin, end) in bytes; and how long that is."""
    found, at = [], 0
    for kind, _, rows, columns in jobs:
        groups, _, group_bytes = packed_size(kind, rows, columns)
        found.append((at, at + groups * group_bytes))
        at = -(-found[-1][1] // LINE) * LINE
    return found, at


class PackedWeights:
    """The kept matrices of one model. Without them there is only more to do: nothing but `check` raises."""

    def __init__(self, tensors: Callable[[], str], quota: int | None = None) -> None:
        """`tensors` gives the digest of the model's tensors; it is asked where matrices are worth keeping.

        `quota`: most bytes of all models together; 0 keeps none; None: see default_quota.
        """
        self._tensors = tensors
        self._quota = quota
        self._path: Path | None = None
        self._mapped: mmap.mmap | None = None
        self._digests: list[str] = []
        self._places: list[tuple[int, int]] = []
        self._writer: threading.Thread | None = None
        self._give_up = threading.Event()
        self.unkept = ""  # why `keep` keeps nothing, for a person to read

    @property
    def mapped(self) -> bool:
        """Whether the matrices come from a file."""
        return self._mapped is not None

    def find(self, jobs: Sequence[Job]) -> list[Matrix] | None:
        """The repacked matrices, read-only and shared with whoever maps the file, or None where they are not kept."""
        self._places, size = places(jobs)
        if size < SMALLEST or self._quota == 0:
            return None
        self._path = cache_root() / "weights" / f"{_key(self._tensors(), jobs)}.packed"
        try:
            with open_regular(self._path) as file:
                found = os.fstat(file.fileno())
                if not only_ours(found) or found.st_size != _BEGIN + size:
                    return None
                self._digests = _read_header(file.read(_BEGIN), len(jobs))
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            os.utime(self._path)  # used last: evicted last
        except (OSError, ValueError):
            if self._mapped is None:
                return None
        if hasattr(mmap, "MADV_WILLNEED"):
            with contextlib.suppress(OSError):
                self._mapped.madvise(mmap.MADV_WILLNEED)
        data = np.frombuffer(self._mapped, np.uint8, offset=_BEGIN)
        return [
            Matrix(kind, rows, columns, *packed_size(kind, rows, columns), data[begin:end])
            for (kind, _, rows, columns), (begin, end) in zip(jobs, self._places, strict=True)
        ]

    def keep(self, matrices: Sequence[Matrix]) -> None:
        """Begin to write the matrices that `find` did not find, in the background; where they have no room, say why."""
        if self._path is None:
            return
        self.unkept = self._make_room()
        if not self.unkept:
            self._writer = threading.Thread(target=self._write, args=(list(matrices),), name="weights", daemon=True)
            self._writer.start()

    def finish(self, patience: float = 5.0) -> None:
        """Wait so many seconds for the writing, then give it up."""
        if self._writer is not None:
            self._writer.join(patience)
            self._give_up.set()
            self._writer.join()
            self._writer = None

    def check(self) -> None:
        """Read a mapped file whole. Raises DamagedWeights where it is not what was written, and removes it."""
        if self._mapped is None or self._path is None:
            return
        data = memoryview(self._mapped)[_BEGIN:]
        for (begin, end), digest in zip(self._places, self._digests, strict=True):
            if _digest(data[begin:end]) != digest:
                with contextlib.suppress(OSError):
                    self._path.unlink()
                raise DamagedWeights(self._path)

    @property
    def _size(self) -> int:
        """Bytes of the file."""
        return -(-(_BEGIN + self._places[-1][1]) // LINE) * LINE

    def _make_room(self) -> str:
        """Make the folder and room in it; give why that cannot be done, or ""."""
        assert self._path is not None
        quota = self._quota if self._quota is not None else default_quota()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            room = _make_room(self._path.parent, self._size, quota)
        except OSError as error:
            return f"{self._path.parent}: {(error.strerror or str(error)).lower()}"
        if room:
            return ""
        takes = f"they take {self._size / 1e9:.1f} GB"
        if self._size > quota:
            return f"{takes}, and weights-cache allows {quota / 1e9:.1f} GB"
        return f"{takes}, and the disk has no room for them"

    def _write(self, matrices: list[Matrix]) -> None:
        assert self._path is not None
        size, temporary = self._size, None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f"{os.getpid()}-", suffix=".tmp")
            with os.fdopen(descriptor, "wb") as file:
                file.truncate(size)
                digests = []
                for (begin, _), matrix in zip(self._places, matrices, strict=True):
                    data: Any = matrix.data
                    for at in range(0, data.size, _PIECE):
                        if self._give_up.is_set():
                            raise OSError("no longer wanted")
                        file.seek(_BEGIN + begin + at)
                        file.write(data[at : at + _PIECE])
                    digests.append(_digest(data))
                file.seek(0)
                file.write(_header(digests))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def _key(tensors: str, jobs: Sequence[Job]) -> str:
    """The tensors, the code that repacks them, and which parts of them are wanted in which order."""
    first = min(raw.ctypes.data for _, raw, _, _ in jobs)
    wanted = [[kind, rows, columns, raw.ctypes.data - first] for kind, raw, rows, columns in jobs]
    text = json.dumps([tensors, _code(), wanted])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def _code() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("quants.py", "repack.py"):
        digest.update(Path(__file__).with_name(name).read_bytes() + b"\0")
    return digest.hexdigest()


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _header(digests: list[str]) -> bytes:
    text = json.dumps(digests).encode()
    return _MAGIC + len(text).to_bytes(8, "little") + hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest() + text


def _read_header(head: bytes, count: int) -> list[str]:
    """The matrices' digests. Raises ValueError where the header is not what was written."""
    begin = len(_MAGIC) + 8 + _DIGEST_BYTES
    text = head[begin : begin + int.from_bytes(head[len(_MAGIC) : len(_MAGIC) + 8], "little")]
    digests = json.loads(text)
    if head[: begin + len(text)] != _header(digests) or len(digests) != count:
        raise ValueError("not the header that was written")
    return list(digests)


def _make_room(folder: Path, size: int, quota: int) -> bool:
    """Remove what was used longest ago until `size` more bytes fit the quota; tell whether they fit it and the disk."""
    kept = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            found = path.stat()
            if path.suffix == ".tmp" and _left_behind(path, found):
                path.unlink()
            elif path.suffix == ".packed":
                kept.append((found.st_mtime, found.st_size, path))
    if size > quota:
        return False
    total = sum(length for _, length, _ in kept)
    for _, length, path in sorted(kept):
        if total + size <= quota:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            total -= length
    return total + size <= quota and shutil.disk_usage(folder).free >= size + SPARE


def _left_behind(temporary: Path, found: os.stat_result) -> bool:
    """Whether the process that wrote a file is gone; where that cannot be asked, whether an hour has passed."""
    owner = temporary.name.split("-")[0]
    if os.name == "posix" and owner.isdecimal():
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return time.time() - found.st_mtime > _STALE_S
