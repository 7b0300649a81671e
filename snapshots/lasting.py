"""Which directories of state files were synced as they are now: a name that a save relies on must outlive a power cut.

Whoever gave a file its name may have been killed before it synced the directory, so names that were found are in doubt
until this process has synced their directory itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files
from snapshots.looks import TICK
from snapshots.writer import Batch

Seen = dict[Path, tuple[int, int]]
"""Inode and time (ns) of directories."""


class Covered(NamedTuple):
    """What a batch syncs when it is finished: directories as they looked `at` a time (ns).

    `named` are the inodes of those whose own names last then, `finds` how many finds were known of.
    """

    at: int
    directories: Seen
    named: dict[Path, int]
    finds: int


class Lasting:
    """Directories as they were when this process synced them, and those with names found since. For several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._synced: Seen = {}
        self._named: dict[Path, int] = {}
        self._in_doubt: dict[Path, int] = {}  # which find it was that put a name in doubt
        self._finds = 0

    def found(self, paths: Iterable[Path]) -> None:
        """Files were found under these names, and are going to be relied upon."""
        directories = {path.parent for path in paths}
        with self._lock:
            self._finds += 1
            self._in_doubt.update(dict.fromkeys(directories, self._finds))

    def cover(self, batch: Batch) -> Covered:
        """Have a batch that is published sync what is in doubt, too. A directory that is not there holds no name."""
        with self._lock:
            in_doubt, finds = set(self._in_doubt), self._finds
        at = time.time_ns()
        now = self._seen(in_doubt | {path.parent for path in batch.paths})
        above = self._seen({directory.parent for directory in now})
        batch.cover(directory for directory, seen in now.items() if self._synced.get(directory) != seen)
        named = {directory: inode for directory, (inode, _) in {**now, **above}.items()}
        unknown = {directory for directory, inode in named.items() if self._named.get(directory) != inode}
        batch.cover(directory.parent for directory in unknown & now.keys() - batch.made)
        for directory in unknown & above.keys():
            self._files.keep_name(directory)
        return Covered(at, now, named, finds)

    def _seen(self, directories: Iterable[Path]) -> Seen:
        found = {directory: self._files.facts(directory) for directory in directories}
        return {path: (facts.st_ino, facts.st_mtime_ns) for path, facts in found.items() if facts is not None}

    def synced(self, covered: Covered) -> None:
        """A batch that covered this was finished. What had changed just before may change again and look the same."""
        before = covered.at - TICK
        with self._lock:
            self._synced.update((path, seen) for path, seen in covered.directories.items() if seen[1] <= before)
            self._named.update(covered.named)
            self._in_doubt = {path: find for path, find in self._in_doubt.items() if find > covered.finds}
