"""How much the states may take on disk, and which go first: eviction demotes a savepoint, it never deletes a word.

States are kept in an order: pinned ones, those where somebody stands and the newest quicksaves, then the last used.
A file stays as long as a state in front of the cap needs it, so what many branches share goes last of all.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from snapshots import ids
from snapshots.database import Database
from snapshots.files import Files
from snapshots.looks import note_removal
from snapshots.places import LAYOUT, Chain, Listing, Piece, listed
from snapshots.records import BLOCK, Eviction

MOST = 10 << 30
SHARE_OF_DISK = 10
"""The cap where nobody says another one: the smaller of this many bytes and one part in so many of the disk."""
TARGET = 0.9
"""An eviction goes on to this share of the cap, so that the next save does not begin another one."""
FRESH_S = 600
"""Files so new may belong to a save whose row is not written yet."""
_SAME_START = 33  # bytes: the width and 8 to 16 tokens
_TOLD = 64  # removals between two notes of them
_LINEAGES = 64
_LINES = 16  # token lists of one conversation that are held at a time


def default_cap(files: Files, cache_dir: Path) -> int:
    """The cap in bytes. A disk that does not tell its size counts as large."""
    for place in (cache_dir, *cache_dir.parents):
        with contextlib.suppress(OSError):
            return min(MOST, files.disk_size(place) // SHARE_OF_DISK)
    return MOST


class StateFiles(NamedTuple):
    """The files of one state, in the order of their tokens; the last one may be its logits (`stop` = all tokens)."""

    node_id: str
    n_tokens: int
    pieces: tuple[Piece, ...]


# ------------------------------------------------------------------------------------------------------------- states


def note_use(tx: sqlite3.Connection, node_id: str) -> None:
    """Make a state the last used one. A counter orders them, so a wrong clock does no harm."""
    tx.execute(
        "INSERT OR REPLACE INTO state_uses(node_id, used)"
        " VALUES (?, (SELECT coalesce(max(used), 0) + 1 FROM state_uses))",
        (node_id,),
    )


def pin(tx: sqlite3.Connection, node_id: str, pinned: bool) -> None:
    """Pin a savepoint, or let it go."""
    if pinned:
        tx.execute("INSERT OR IGNORE INTO pins(node_id) VALUES (?)", (node_id,))
    else:
        tx.execute("DELETE FROM pins WHERE node_id = ?", (node_id,))


def pins(tx: sqlite3.Connection) -> list[str]:
    """The pinned savepoints."""
    return [row[0] for row in tx.execute("SELECT node_id FROM pins ORDER BY node_id")]


def spared(tx: sqlite3.Connection) -> list[str]:
    """Nodes whose states go last: pinned, where windows and conversations' last users stand, newest quicksaves."""
    rows = tx.execute(
        "SELECT node_id FROM pins"
        " UNION SELECT node_id FROM positions WHERE node_id IS NOT NULL AND window <> conversation_id"
        " UNION SELECT q.node_id FROM quicksaves q WHERE q.seq ="
        " (SELECT max(seq) FROM quicksaves WHERE conversation_id = q.conversation_id)"
    )
    return [row[0] for row in rows]


def in_order(tx: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """(node, conversation, state_key) of every state of a message that is not hidden, the one to keep longest first."""
    first = set(spared(tx))
    rows = tx.execute(
        "SELECT s.node_id, n.conversation_id, s.state_key, coalesce(u.used, 0), n.seq FROM node_states s"
        " JOIN nodes n ON n.id = s.node_id AND n.deleted IS NULL LEFT JOIN state_uses u ON u.node_id = s.node_id"
    ).fetchall()
    rows.sort(key=lambda row: (row[0] in first, row[3], row[4]), reverse=True)
    return [(row[0], row[1], row[2]) for row in rows]


class _Line:
    """The tokens of a path; each node of it has as many of the first as it says. Empty once it was let go."""

    def __init__(self, values: array[int]) -> None:
        self.values = values


class Lineage:
    """Token lists of a conversation's nodes, put together from their rows; unchecked, for names of files only.

    The nodes of one path share one list, or as many lists as there are messages would be held of a long conversation.
    """

    def __init__(self, tx: sqlite3.Connection, conversation_id: str) -> None:
        rows = tx.execute("SELECT id, parent_id, keep, tokens FROM nodes WHERE conversation_id = ?", (conversation_id,))
        self._rows = {row[0]: (row[1], row[2], row[3]) for row in rows}
        self._made: dict[str, tuple[_Line, int]] = {}
        self._lines: deque[_Line] = deque()

    def tokens(self, node_id: str) -> array[int]:
        """The whole list at a node; of a damaged row what can be made of it."""
        waiting: list[str] = []
        here: str | None = node_id
        while here is not None and here in self._rows and len(waiting) <= len(self._rows):
            made = self._made.get(here)
            if made is not None and made[0] in self._lines:
                break
            waiting.append(here)
            here = self._rows[here][0]
        for each in reversed(waiting):
            parent, keep, blob = self._rows[each]
            with contextlib.suppress(ValueError, TypeError, IndexError):
                self._made[each] = self._extended(self._made.get(parent), keep, array("I", ids.unpack_tokens(blob)))
        line, count = self._made.get(node_id, (_Line(array("I")), 0))
        return line.values[:count]

    def _extended(self, before: tuple[_Line, int] | None, keep: int, own: array[int]) -> tuple[_Line, int]:
        """What stands of the parent's list, and a node's own tokens: on the same line, where it ends there."""
        line, count = before if before is not None and before[0] in self._lines else (_Line(array("I")), 0)
        keep = len(line.values[:count][:keep]) if keep != count else count
        if keep < len(line.values) or line not in self._lines:
            line = _Line(line.values[:keep])
            self._lines.append(line)
            if len(self._lines) > _LINES:
                self._lines.popleft().values = array("I")
        line.values.extend(own)
        return line, keep + len(own)


class _Finder:
    """Files of many states: what was found of one beginning of a token list is not looked for again."""

    def __init__(self, cache_dir: Path, exists: Callable[[str], bool]) -> None:
        self._cache_dir = cache_dir
        self._exists = exists
        self._found: dict[str, tuple[memoryview, bytes, list[Piece]]] = {}

    def chain(self, state_key: str, tokens: Sequence[int]) -> tuple[Chain, list[Piece]]:
        """The names of a token list, and whole blocks from its beginning on that are known to be there."""
        chain = Chain(self._cache_dir, state_key, tokens)
        if state_key not in self._found:
            return chain, []
        head, links, pieces = self._found[state_key]
        return chain, pieces[: chain.resume(head, links)]

    def files(self, node_id: str, state_key: str, tokens: Sequence[int]) -> StateFiles:
        """Which files a state has on disk."""
        chain, known = self.chain(state_key, tokens)
        pieces = known + chain.plan(self._exists, known=len(known))
        whole = len(known)
        while whole < len(pieces) and pieces[whole].stop == (whole + 1) * BLOCK and pieces[whole].start % BLOCK == 0:
            whole += 1
        self._found[state_key] = (*chain.head(whole), pieces[:whole])
        final = chain.final()
        if self._exists(str(final)):
            pieces.append(Piece(len(tokens), len(tokens), final))
        return StateFiles(node_id, len(tokens), tuple(pieces))


def all_files(
    database: Database, cache_dir: Path, order: Iterable[tuple[str, str, str]], exists: Callable[[str], bool]
) -> Iterator[StateFiles]:
    """The files of many states, in their order. Looks into the tree for moments only: a writer need not wait."""
    known: dict[str, Lineage] = {}
    finder = _Finder(cache_dir, exists)
    for node_id, conversation_id, state_key in order:
        if conversation_id not in known:
            if len(known) >= _LINEAGES:
                known.pop(next(iter(known)))
            with database.read() as tx:
                known[conversation_id] = Lineage(tx, conversation_id)
        yield finder.files(node_id, state_key, known[conversation_id].tokens(node_id))


def relatives(tx: sqlite3.Connection, node_id: str) -> set[str]:
    """Conversations that may share files with a message's: those whose first tokens are the same, and its own."""
    found = {row[0] for row in tx.execute("SELECT conversation_id FROM nodes WHERE id = ?", (node_id,))}
    root = tx.execute(
        "WITH RECURSIVE up(id, parent_id, tokens) AS (SELECT id, parent_id, tokens FROM nodes WHERE id = ?"
        " UNION SELECT n.id, n.parent_id, n.tokens FROM nodes n JOIN up ON n.id = up.parent_id)"
        " SELECT tokens FROM up WHERE length(tokens) > 0 AND (parent_id IS NULL OR parent_id = '') LIMIT 1",
        (node_id,),
    ).fetchone()
    start = bytes(root[0])[:_SAME_START] if root is not None else b""
    for conversation_id, tokens in tx.execute(  # of no tokens SQLite takes no beginning: NULL
        "SELECT conversation_id, coalesce(substr(tokens, 1, ?), x'') FROM nodes WHERE parent_id IS NULL", (_SAME_START,)
    ):
        if tokens[: len(start)] == start[: len(tokens)] or tokens[:1] != start[:1]:
            found.add(conversation_id)
    return found


# ----------------------------------------------------------------------------------------------------------- eviction


def reach(state: StateFiles, there: Collection[str]) -> int:
    """How many of a state's tokens can be loaded if only some files are there."""
    done = 0
    for piece in state.pieces:
        if str(piece.path) not in there:
            break
        done = piece.stop
    return done


def sweep(files: Files, cache_dir: Path, listing: Listing, states: Iterable[StateFiles], budget: float) -> Eviction:
    """Remove every listed file that no state within the budget needs; `states` come in the order of their worth.

    The first state that does not fit keeps its beginning as far as it does. Files that were written just now stay:
    the row that needs them may be on its way.
    """
    kept: set[str] = set()
    used = demoted = 0
    full = False
    for state in states:
        missing = False
        for piece in state.pieces:
            path = str(piece.path)
            if path in kept:
                continue
            size = listing[path].st_size
            if full or used + size > budget:
                full = missing = True
                continue
            kept.add(path)
            used += size
        demoted += missing
    now = time.time()
    fresh = FRESH_S if budget == math.inf else 0
    doomed = {
        path: facts
        for path, facts in listing.items()
        if path not in kept and not (fresh and abs(now - facts.st_mtime) < fresh)
    }
    return remove(files, cache_dir, doomed)._replace(demoted=demoted)


def remove(files: Files, cache_dir: Path, doomed: Listing) -> Eviction:
    """Remove files and say so to all processes; what cannot be removed stays and is not counted."""
    removed = freed = 0
    try:
        for path, facts in doomed.items():
            if removed % _TOLD == 0:  # also while it goes on: it may take long, and may be killed
                note_removal(files, cache_dir / LAYOUT)
            with contextlib.suppress(OSError):
                files.unlink(Path(path))
                removed, freed = removed + 1, freed + facts.st_size
    finally:
        if removed:
            note_removal(files, cache_dir / LAYOUT)
    return Eviction(removed, freed, 0)


class Room:
    """How much the states take: counted once, and kept up to date by what this process writes."""

    def __init__(self, cap: int | None = None) -> None:
        self.cap = cap
        self._counted: int | None = None
        self._written = 0

    def written(self, size: int) -> None:
        """Note bytes that were written."""
        self._written += size

    def recount(self, files: Files, cache_dir: Path) -> int:
        """Count what is there now."""
        self._written = 0
        self._counted = sum(facts.st_size for facts in listed(files, cache_dir).values())
        return self._counted

    def is_over(self, files: Files, cache_dir: Path) -> bool:
        """Whether the cap is passed; where it seems so, all is counted again: others write and remove, too."""
        if self.cap is None:
            self.cap = default_cap(files, cache_dir)
        if self._counted is None or self._counted + self._written > self.cap:
            return self.recount(files, cache_dir) > self.cap
        return False
