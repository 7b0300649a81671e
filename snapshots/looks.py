"""What was seen of a state key's directories: their inodes and times tell whether a name in them came or went.

A key has up to 256 of them. To look at all of them for every save would make it slower as a conversation grows, so most
looks take an eighth, in turn. Who removes states says so with a mark, and then all are looked at: only a file that a
stranger's hand removed is noticed later, by one of the next eight looks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files

MARK = "removals"
"""A file beside the directories of the state keys; it grows by a byte whenever states were removed."""
NAMES = tuple(f"{number:02x}" for number in range(256))
"""The names that a key's directories can have: the first byte of what lies in them."""
_ALL = frozenset(NAMES)
_SHARES = 8
TICK = 50_000_000
"""Nanoseconds: names that come and go within one tick of the file system's clock leave one time behind."""

Seen = dict[str, tuple[int, int]]
"""Inode and time (ns) of directories, by name."""


class Look(NamedTuple):
    """The directories of a state key as far as they are known, and those that may have changed unseen since.

    Those had changed just before: within a tick of the clock more can change and leave no other time.
    `place` is the inode of the directory that they are in (0: there is none) and the signature of the mark. `turn` is
    how many looks there were before it for the same list.
    """

    place: tuple[int, ...]
    seen: Seen
    in_doubt: frozenset[str]
    turn: int = 0

    def is_at(self, directory: Path, files: Files) -> bool:
        """Whether neither a purge took that directory nor anybody said that states were removed."""
        return self.place[0] != 0 and self.place == _place(files, directory)

    def changed(self, later: Look) -> Collection[str]:
        """Directories that a later look saw otherwise or missed, or that were in doubt; all, if states were removed."""
        if self.place != later.place:
            return NAMES
        return {name for name, _ in later.seen.items() ^ self.seen.items()} | self.in_doubt

    def settled(self, names: set[str], own: Collection[str]) -> Look:
        """The look to compare a later one with, where files in the directories `names` are to be there.

        What it tells nothing of is in doubt, too, and what this process wrote to since: its `own` directories.
        """
        doubt = (names - self.seen.keys()) | (names & self.in_doubt) | names.intersection(own)
        return self._replace(in_doubt=frozenset(doubt))


def look(files: Files, directory: Path) -> Look:
    """At all directories of a state key."""
    recent, place = time.time_ns() - TICK, _place(files, directory)
    seen = {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in files.scan(directory) if name in _ALL}
    return Look(place, seen, frozenset(name for name, (_, changed) in seen.items() if changed > recent))


def look_again(files: Files, directory: Path, before: Look) -> Look:
    """At those that were in doubt and a share of the others, where nobody removed anything since; else at all."""
    recent, place = time.time_ns() - TICK, _place(files, directory)
    if place != before.place or not place[0]:
        return look(files, directory)
    base, seen, in_doubt = str(directory), dict(before.seen), set[str]()
    turn = before.turn + 1
    for name in {*before.in_doubt, *seen.keys() & NAMES[turn % _SHARES :: _SHARES]}:
        facts = files.facts(f"{base}/{name}")
        if facts is None:
            seen.pop(name, None)
        else:
            seen[name] = (facts.st_ino, facts.st_mtime_ns)
            if facts.st_mtime_ns > recent:
                in_doubt.add(name)
    return Look(place, seen, frozenset(in_doubt), turn)


def note_removal(files: Files, layout: Path) -> None:
    """Tell every process that states were removed; where that cannot be told, it will be noticed."""
    with contextlib.suppress(OSError):
        files.append_byte(layout / MARK)


def _place(files: Files, directory: Path) -> tuple[int, ...]:
    facts = files.facts(directory)
    if facts is None:
        return (0,)
    return (facts.st_ino, *(files.signature(directory.parent / MARK) or ()))
