"""Row 4: the write protocol with one thing left out. Every sync of the store has its mutant, found in its source.

A site is "module.function n": the n-th call in that function that makes something last.
"""

import ast
import contextlib
import functools
import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import snapshots
from faults.power import Recorder
from snapshots import database, journal, states
from snapshots.bundles import Bundles
from snapshots.writer import Batch

SOURCES = Path(snapshots.__file__).parent
SYNCS = {"sync", "sync_dir", "keep_name", "_sync"}
HELPERS = {"keep_name", "_sync"}
"""Their callers are the sites."""


@functools.cache
def sites():
    """Every place of the store's source where something is made to last: name -> (file, first line, last line)."""
    found = {}
    for path in sorted(SOURCES.glob("*.py")):
        for function, calls in _functions(ast.parse(path.read_text()), ""):
            if function.rpartition(".")[2] in {*SYNCS, "sync_dir"} and path.name != "journal.py":
                continue
            calls = [call for call in calls if not (path.name == "journal.py" and function.endswith("._sync"))]
            for number, call in enumerate(sorted(calls, key=lambda call: call.lineno), 1):
                found[f"{path.stem}.{function} {number}"] = (str(path), call.lineno, call.end_lineno)
    return found


def _functions(tree, prefix):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            calls = [
                each
                for each in ast.walk(node)
                if isinstance(each, ast.Call) and getattr(each.func, "attr", getattr(each.func, "id", "")) in SYNCS
            ]
            if calls:
                yield f"{prefix}{node.name}", calls


def site():
    """The site that is being executed."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if Path(code.co_filename).parent == SOURCES and code.co_name not in HELPERS:
            for name, (path, first, last) in sites().items():
                if path == code.co_filename and first <= frame.f_lineno <= last:
                    return name
        frame = frame.f_back
    return None


class Without(Recorder):
    """The store without the syncs of one site."""

    left_out = ""

    def sync(self, fd):
        if site() != self.left_out:
            super().sync(fd)

    def sync_dir(self, path):
        if site() != self.left_out:
            super().sync_dir(path)


class RenameFirst(Recorder):
    """State files get their names first and are synced afterwards, just before their directories."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.late = []

    def sync(self, fd):
        if any(p.suffix == ".tmp" for p, i in self.inodes.items() if i == self.open[fd]):
            self.late.append(self.open[fd])
        else:
            super().sync(fd)

    def sync_dir(self, path):
        if len(path.name) == 2:
            for inode in self.late:
                self.note("sync", inode=inode)
            self.late = []
        super().sync_dir(path)


def behind(kind, pattern):
    """The process dies right behind such an operation."""
    return lambda ops: bool(ops) and ops[-1].kind == kind and fnmatch(ops[-1].path.name, pattern)


class Mutant(NamedTuple):
    """What is left out, and the scenario that shows it; `killed` and `failing` as Recorder takes them.

    `then` is what the next process does where one is killed.
    """

    site: str
    scenario: str = "save"
    killed: object = None
    failing: object = None
    then: str = "go on"
    patch: object = contextlib.nullcontext
    recorder: type = Without


def _row_first():
    real, kept, where = Bundles.save, states.save_state, []

    def save(self, state_key, tokens, *rest):
        node_id, base = where[-1]
        with base.write() as tx:
            states.put_state(tx, states.NodeState(node_id, state_key, len(tokens.raw) // 4, "x", True, 1, 0.0))
        return real(self, state_key, tokens, *rest)

    def save_state(base, bundles, paths, node_id, *rest):
        where.append((node_id, base))
        return kept(base, bundles, paths, node_id, *rest)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(states, "save_state", save_state))
    stack.enter_context(mock.patch.object(Bundles, "save", save))
    return stack


def _sync_again():
    """A state file whose fsync failed is synced once more instead of written anew."""
    real = Batch.publish

    def publish(self):
        try:
            real(self)
        except OSError:
            real(self)

    return mock.patch.object(Batch, "publish", publish)


def _journal_sync_again():
    """A journal whose fsync failed is synced once more instead of written anew."""
    return mock.patch.object(journal.Journal, "_write_anew", lambda self: self._files.sync(self._fd))


def _without_covering():
    return mock.patch.object(Batch, "cover", return_value=None)


MUTANTS = {
    "state files without fsync": Mutant("writer.Batch.publish 1"),
    "state directories without fsync": Mutant("writer.Batch.finish 1"),
    "new directories without fsync": Mutant("files.Files.make_dirs 1"),
    "directories of a new library without fsync": Mutant(
        "database.Database._migrate 1", killed=behind("mkdir", "data")
    ),
    "directories of the cache that a killed process made, without fsync": Mutant(
        "lasting.Lasting.cover 1", killed=behind("mkdir", "states-1")
    ),
    "names that a killed process gave, without fsync": Mutant(
        "", "tell", behind("rename", "*.tmp"), patch=_without_covering
    ),
    "names before bytes": Mutant("", recorder=RenameFirst),
    "the row before the files": Mutant("", patch=_row_first),
    "a failed fsync of a state file done again instead of the file": Mutant("", failing=2, patch=_sync_again),
    "a failed fsync of a journal done again instead of the file": Mutant("", failing=1, patch=_journal_sync_again),
    "journal's head without fsync": Mutant("journal.Journals._begin 1"),
    "journal's name without fsync": Mutant("journal.Journals._begin 2"),
    "journals' directory without fsync": Mutant("journal.Journals._begin 3", killed=behind("mkdir", "journals")),
    "journal's tokens without fsync": Mutant("journal.Journal.sync 1"),
    "journal's tokens without fsync each 250 ms": Mutant("journal.Journal.append 1", "stream"),
    "journal written anew without fsync": Mutant("journal.Journal._write_anew 1", failing=1),
    "journal written anew, its name without fsync": Mutant("journal.Journal._write_anew 2", failing=1),
    "name of an adopted journal without fsync": Mutant("journal.Journals.adopt 1", killed=behind("rename", "*.new")),
    "end of a journal without fsync before its note goes": Mutant("journal.Journals.mark_finished 1", "together"),
    "backup without fsync": Mutant("copies.write 1", "back up"),
    "backup's name without fsync": Mutant("copies.write 2", "back up"),
    "backups' directory without fsync": Mutant(
        "copies.write 3", "back up", behind("mkdir", "backups"), then="only back up"
    ),
    "copy before a migration without fsync": Mutant("copies.write 1", "migrate"),
    "name of the copy before a migration without fsync": Mutant("copies.write 2", "migrate"),
    "repaired tree without fsync": Mutant("fsck._mend_tree 1", "repair"),
    "repaired tree's name without fsync": Mutant("fsck._mend_tree 2", "repair"),
    "what a repair replaces without fsync": Mutant("fsck._set_aside 1", "repair"),
    "name of what a repair replaces without fsync": Mutant("fsck._set_aside 2", "repair"),
    "directory of what a repair replaces without fsync": Mutant(
        "fsck._set_aside 3", "repair", killed=behind("mkdir", "damaged")
    ),
    "journals of what is forgotten, their end without fsync": Mutant("purge._forget_files 1", "forget"),
    "copies of what is forgotten, their end without fsync": Mutant("purge._forget_files 2", "forget"),
    "states of what is forgotten, their end without fsync": Mutant("purge._remove_states 1", "forget"),
}
"""All are caught by cutting the power in a recording through the store's seam."""


def _synchronous(level):
    """SQLite syncs less than it should."""
    kept = database.Database._set_journal

    def set_journal(self):
        kept(self)
        self._connection.execute(f"PRAGMA synchronous={level}")

    return mock.patch.object(database.Database, "_set_journal", set_journal)


class _NoFsync:
    """The module os, but for one thing."""

    fsync = staticmethod(lambda fd: None)

    def __getattr__(self, name):
        return getattr(os, name)


def _export_unsynced():
    from app import travelling

    return mock.patch.object(travelling, "os", _NoFsync())


def _export_unnamed():
    from app import travelling

    return mock.patch.object(travelling, "_sync_names", return_value=None)


TRACED = {
    "the tree commits with synchronous=OFF": ("save", lambda: _synchronous("OFF")),
    "the tree commits with synchronous=NORMAL": ("save", lambda: _synchronous("NORMAL")),
    "the tree commits with synchronous=FULL": ("save", lambda: _synchronous("FULL")),
    "an export without fsync": ("export", _export_unsynced),
    "an export's name without fsync": ("export", _export_unnamed),
}
"""These leave out what SQLite or the app does, and are caught in a recording by strace."""
