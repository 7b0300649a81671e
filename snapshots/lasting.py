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
from snapshots.looks import TICK, Seen
from snapshots.writer import Batch


class Covered(NamedTuple):
    """What a batch syncs when it is finished: directories as they look, and how many finds were known of then.

    `own` are those that it wrote to, by name.
    """

    directories: dict[Path, tuple[int, int]]
    at: int
    finds: int
    own: Seen


class Lasting:
    """Directories as they were when this process synced them, and those with names found since. For several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._synced: dict[Path, tuple[int, int]] = {}
        self._named: set[Path] = set()  # directories whose own names were made to last
        self._in_doubt: dict[Path, int] = {}  # which find it was that put a name in doubt
        self._finds = 0

    def found(self, paths: Iterable[Path]) -> None:
        """Files were found under these names, and may be relied upon."""
        directories = {path.parent for path in paths}
        with self._lock:
            self._finds += 1
            self._in_doubt.update(dict.fromkeys(directories, self._finds))

    def cover(self, batch: Batch) -> Covered:
        """Have a batch that is published sync what is in doubt, too. A directory that is not there holds no name."""
        with self._lock:
            in_doubt, finds = set(self._in_doubt), self._finds
        at = time.time_ns()
        now: dict[Path, tuple[int, int]] = {}
        for directory in in_doubt | {path.parent for path in batch.paths}:
            facts = self._files.facts(directory)
            if facts is not None:
                now[directory] = (facts.st_ino, facts.st_mtime_ns)
        for above in {directory.parent for directory in now} - self._named:
            self._files.keep_name(above / "any")
            self._named.add(above)
        changed = {directory for directory, seen in now.items() if self._synced.get(directory) != seen}
        batch.cover(changed)
        batch.cover({directory.parent for directory in changed & in_doubt - self._named})
        own = {path.name: now[path] for path in {path.parent for path in batch.paths} & now.keys()}
        return Covered(now, at, finds, own)

    def synced(self, covered: Covered) -> None:
        """A batch that covered this was finished. What had changed just before may change again and look the same."""
        before = covered.at - TICK
        with self._lock:
            self._synced.update((path, seen) for path, seen in covered.directories.items() if seen[1] <= before)
            self._named |= covered.directories.keys()
            self._in_doubt = {path: find for path, find in self._in_doubt.items() if find > covered.finds}
