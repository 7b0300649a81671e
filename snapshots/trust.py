"""What a process has verified of the token lists that it saved last: a turn's save need not look at all of it again.

A directory's inode and time tell whether a name in it came or went. Blocks in directories that did not change are
there; those in the others are looked at one by one. A file that was changed in its place changes no directory, so some
of the rest are looked at every time, too: all of a short list, of a long one some at a time. A save looks once, so that
its time does not grow with the list.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files
from snapshots.looks import NAMES, Look, look, look_again
from snapshots.places import LINK, Chain, Piece
from snapshots.records import BLOCK

_LISTS = 4
_LOOKED_AT = 32
_RECENT_S = 0.25  # a save begins with `save_from`, whose look is its own


class _Kept(NamedTuple):
    """Whole blocks from a list's beginning that were verified when its directories looked so: tokens and links."""

    state_key: str
    head: memoryview
    links: bytes
    look: Look

    @property
    def blocks(self) -> int:
        """How many blocks."""
        return len(self.links) // LINK - 1

    @property
    def firsts(self) -> bytes:
        """The first byte of each block's name, which says in which directory it is."""
        return self.links[LINK::LINK]

    def before(self, gone: dict[int, bytes]) -> _Kept:
        """Its blocks up to the first of those that are gone, by their numbers and links."""
        held = [at for at, link in gone.items() if self.link(at) == link]
        if not held:
            return self
        return self._replace(head=self.head[: 4 * BLOCK * min(held)], links=self.links[: LINK * (min(held) + 1)])

    def link(self, at: int) -> bytes:
        """What names a block; nothing where there is none."""
        return self.links[LINK * (at + 1) : LINK * (at + 2)]


class Trust:
    """The whole blocks of a few token lists, and the signatures of files that were verified. For several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._kept: tuple[_Kept, ...] = ()
        self._looked: tuple[Chain, Look, float] | None = None
        self._match: tuple[Chain, tuple[_Kept, ...], _Kept | None, int] | None = None
        self._signatures: dict[str, tuple[int, ...]] = {}

    def verified(self, path: Path, signature: tuple[int, ...] | None) -> None:
        """A file was found whole, or was written, and looked so."""
        if signature is not None:
            self._signatures[str(path)] = signature

    def is_as_verified(self, path: str, signature: tuple[int, ...] | None) -> bool:
        """Whether a file that looks so was verified."""
        return signature is not None and self._signatures.get(path) == signature

    def blocks(self, chain: Chain, look: Look | None = None) -> int:
        """How many blocks from a list's beginning on were verified, up to the first that changed since.

        Without a look at the directories: what was verified, be it there or not.
        """
        best, count = self._best(chain)
        if best is None or look is None:
            return count
        for some in (self._suspects(best, count, look), range(count)):  # where anything is gone or changed, much may be
            changed = [at for at in some if not self._is_as_kept(chain, at)]
            if not changed:
                return count
        gone = {at: best.link(at) for at in changed}
        self._kept = tuple(kept.before(gone) for kept in self._kept)
        return min(changed)

    def _is_as_kept(self, chain: Chain, at: int) -> bool:
        path = chain.segment_name(BLOCK * at, BLOCK * (at + 1))
        return self.is_as_verified(path, self._files.signature(path))

    def look(self, chain: Chain) -> Look:
        """Look at the directories where its blocks are: no more than is needed after the last look."""
        best, _ = self._best(chain)
        if best is None:
            return look(self._files, chain.directory)
        return look_again(self._files, chain.directory, best.look)

    def _best(self, chain: Chain) -> tuple[_Kept | None, int]:
        """The list that has most blocks in common with this one from the beginning on, and how many."""
        lists, match = self._kept, self._match
        if match is not None and match[0] is chain and match[1] is lists:
            return match[2], match[3]
        best, count = None, 0
        for kept in lists:
            if kept.state_key == chain.state_key:
                shared = chain.resume(kept.head, kept.links)
                if best is None or shared > count:
                    best, count = kept, shared
        self._match = chain, lists, best, count
        return best, count

    def looked(self, chain: Chain, look: Look) -> None:
        """A save of this list is about to begin, for which this look was made."""
        self._looked = chain, look, time.monotonic()

    def recent_look(self, chain: Chain) -> Look | None:
        """The look that was made for a save, once, as long as it tells how things are."""
        looked, self._looked = self._looked, None
        if looked is None or not looked[0].is_same(chain) or time.monotonic() - looked[2] > _RECENT_S:
            return None
        return looked[1]

    def _suspects(self, kept: _Kept, count: int, look: Look) -> set[int]:
        """Numbers of the blocks to look at: those in directories that may have changed, and some of the others."""
        if count <= _LOOKED_AT:
            return set(range(count))
        begin = _LOOKED_AT * look.turn
        found = {at % count for at in range(begin, begin + _LOOKED_AT)}
        firsts = kept.firsts
        for name in kept.look.changed(look):
            at = firsts.find(int(name, 16), 0, count)
            while at >= 0:
                found.add(at)
                at = firsts.find(int(name, 16), at + 1, count)
        return found

    def keep(self, chain: Chain, known: int, found: Iterable[Piece], look: Look, own: Collection[str] = ()) -> None:
        """Pieces were found whole after this look at the directories: those behind as many blocks as are `known`.

        Whole blocks are kept, in the place of lists that end within them. `own` are directories behind own changes.
        """
        count = known + sum(1 for _ in itertools.takewhile(self._is_whole_block, found))
        if not count:
            return
        head, links = chain.head(count)
        kept = _Kept(chain.state_key, head, links, look)
        settled = look.settled({NAMES[first] for first in set(kept.firsts)}, own)
        others = [k for k in self._kept if k.state_key != chain.state_key or not chain.begins_with(k.head)]
        self._kept = (kept._replace(look=settled), *others)[:_LISTS]

    def _is_whole_block(self, piece: Piece) -> bool:
        whole = piece.stop - piece.start == BLOCK
        return whole and self.is_as_verified(str(piece.path), self._files.signature(piece.path))
