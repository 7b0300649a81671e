"""The part of a library that says and bounds how much the states take on disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots import places, quota, tree
from snapshots.database import Database
from snapshots.errors import LibraryIsNewer
from snapshots.files import Files
from snapshots.records import Eviction, Footprint

if TYPE_CHECKING:
    from snapshots.bundles import Bundles


class Space:
    """Quota, pins and sizes of a library; what may be raised by every method is said at `Library`."""

    _db: Database
    _disk: Files
    _room: quota.Room
    _making_room: threading.Lock
    cache_dir: Path

    def _files(self) -> Bundles:
        raise NotImplementedError

    @property
    def cap(self) -> int:
        """The most bytes that the states may take; by default the smaller of 10 GiB and a tenth of the disk."""
        if self._room.cap is None:
            self._room.cap = quota.default_cap(self._disk, self.cache_dir)
        return self._room.cap

    def set_cap(self, cap: int | None) -> None:
        """Put another bound in force, in bytes; None is the default."""
        self._room.cap = cap

    def make_room(self, written: int = 0) -> Eviction | None:
        """Evict states where the cap is passed, the last used ones last; None where it is not.

        Meant for a thread in the background: it may take seconds. `written` are bytes that were written since the last
        call; the first call counts what is there.
        """
        self._room.written(written)
        if self._db.read_only is not None or not self._room.is_over(self._disk, self.cache_dir):
            return None
        return self._sweep(self.cap * quota.TARGET)

    def collect_garbage(self) -> Eviction:
        """Remove states that no message needs, and drafts and locks of dead writers.

        Raises LibraryIsNewer: what a newer program's messages need is not known here.
        """
        if isinstance(self._db.read_only, LibraryIsNewer):
            raise self._db.read_only.with_traceback(None)
        self._files().clean()
        return self._sweep(float("inf"))

    def _sweep(self, budget: float) -> Eviction:
        with self._making_room:
            listing = places.listed(self._disk, self.cache_dir)
            with self._db.read() as tx:
                order = quota.in_order(tx)
            states = quota.all_files(self._db, self.cache_dir, order, listing.__contains__)
            found = quota.sweep(self._disk, self.cache_dir, listing, states, budget)
            self._room.recount(self._disk, self.cache_dir)
        return found

    def footprint(self, node_id: str) -> Footprint:
        """What a savepoint's states take on disk, and what of it no other savepoint needs. Raises UnknownNode."""
        listing, mine, needed, states = self._shared(node_id)
        size = sum(listing[path].st_size for path in mine)
        unique = sum(listing[path].st_size for path in mine - needed)
        with self._db.read() as tx:
            n_tokens = tree.glance(tx, node_id).n_tokens
            pinned = node_id in quota.pins(tx)
        now = max((quota.reach(state, mine) for state in states), default=0)
        left = max((quota.reach(state, needed) for state in states), default=0)
        return Footprint(n_tokens, now, size, unique, size - unique, n_tokens - left, pinned)

    def _shared(self, node_id: str) -> tuple[places.Listing, set[str], set[str], list[quota.StateFiles]]:
        """All files, those of a savepoint, those that others need, and the savepoint's states."""
        listing = places.listed(self._disk, self.cache_dir)
        with self._db.read() as tx:
            tree.glance(tx, node_id)
            related = quota.relatives(tx, node_id)
            order = [entry for entry in quota.in_order(tx) if entry[1] in related]
        own = [entry for entry in order if entry[0] == node_id]
        others = [entry for entry in order if entry[0] != node_id]
        there = listing.__contains__
        states = list(quota.all_files(self._db, self.cache_dir, own, there))
        mine = {str(piece.path) for state in states for piece in state.pieces}
        needed: set[str] = set()
        for state in quota.all_files(self._db, self.cache_dir, others, there):
            needed |= {str(piece.path) for piece in state.pieces}
        return listing, mine, needed, states

    def note_use(self, node_id: str) -> None:
        """Make a savepoint's state the last used one."""
        with self._db.write() as tx:
            quota.note_use(tx, node_id)

    def pin(self, node_id: str, pinned: bool = True) -> None:
        """Keep a savepoint's state before all that are not pinned, or let it go again. Raises UnknownNode."""
        with self._db.write() as tx:
            tree.glance(tx, node_id)
            quota.pin(tx, node_id, pinned)

    def pins(self) -> list[str]:
        """Ids of the pinned savepoints."""
        with self._db.read() as tx:
            return quota.pins(tx)
