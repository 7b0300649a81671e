"""What a process has verified of the token lists that it saved last: a turn's save need not look at all of it again.

A directory's inode and time tell whether a name in it came or went. Blocks in directories that did not change are
there; those in the others are looked at one by one. A file that was changed in its place changes no directory, so some
of the rest are looked at every time, too: all of a short list, of a long one some at a time. A save looks once, so that
its time does not grow with the list.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files
from snapshots.looks import NAMES, Look, Seen, look, look_again
from snapshots.places import Chain, Piece
from snapshots.records import BLOCK

_LISTS = 4
_LOOKED_AT = 32
_RECENT_S = 0.25  # a save begins with `save_from`, whose look is its own


class _Kept(NamedTuple):
    """Whole blocks from a list's beginning that were verified when its directories looked so.

    `firsts` are the first bytes of the blocks' names, which say in which directories they are.
    """

    state_key: str
    head: memoryview
    links: list[bytes]
    firsts: bytes
    pieces: list[Piece]
    look: Look

    def before(self, gone: dict[int, Path]) -> _Kept:
        """Its blocks up to the first of those that are gone, by their numbers."""
        held = [at for at, path in gone.items() if at < len(self.pieces) and self.pieces[at].path == path]
        if not held:
            return self
        count = min(held)
        return self._replace(
            head=self.head[: 4 * BLOCK * count],
            links=self.links[: count + 1],
            firsts=self.firsts[:count],
            pieces=self.pieces[:count],
        )


class Trust:
    """The whole blocks of a few token lists, and the signatures of files that were verified. For several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._kept: tuple[_Kept, ...] = ()
        self._looked: tuple[str, Look, float] | None = None
        self._match: tuple[Chain, tuple[_Kept, ...], _Kept | None, int] | None = None
        self._next = self._share = 0
        self._signatures: dict[Path, tuple[int, ...]] = {}

    def verified(self, path: Path, signature: tuple[int, ...] | None) -> None:
        """A file was found whole, or was written, and looked so."""
        if signature is not None:
            self._signatures[path] = signature

    def is_as_verified(self, path: Path, signature: tuple[int, ...] | None) -> bool:
        """Whether a file that looks so was verified."""
        return signature is not None and self._signatures.get(path) == signature

    def blocks(self, chain: Chain, look: Look | None = None) -> list[Piece]:
        """The blocks from a list's beginning on that were verified, up to the first that changed since.

        Without a look at the directories: what was verified, be it there or not.
        """
        best, count = self._best(chain)
        if best is None:
            return []
        if look is not None:
            signature, pieces = self._files.signature, best.pieces
            suspects = self._suspects(best, count, look)
            for some in (suspects, range(count)):  # where anything is gone or changed, much may be
                changed = [at for at in some if not self.is_as_verified(pieces[at].path, signature(pieces[at].path))]
                if not changed:
                    break
            if changed:
                count = min(changed)
                gone = {at: pieces[at].path for at in changed}
                self._kept = tuple(kept.before(gone) for kept in self._kept)
        return best.pieces[:count]

    def look(self, chain: Chain) -> Look:
        """Look at the directories where its blocks are: no more than is needed after the last look."""
        best, _ = self._best(chain)
        if best is None:
            return look(self._files, chain.directory)
        self._share += 1
        return look_again(self._files, chain.directory, best.look, self._share)

    def _best(self, chain: Chain) -> tuple[_Kept | None, int]:
        """The list that has most blocks in common with this one from the beginning on, and how many."""
        lists = self._kept
        if self._match is not None and self._match[0] is chain and self._match[1] is lists:
            return self._match[2], self._match[3]
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
        self._looked = chain.state_key, look, time.monotonic()

    def recent_look(self, chain: Chain) -> Look | None:
        """The look that was made for a save, once, as long as it tells how things are."""
        looked, self._looked = self._looked, None
        if looked is None or looked[0] != chain.state_key or time.monotonic() - looked[2] > _RECENT_S:
            return None
        return looked[1]

    def _suspects(self, kept: _Kept, count: int, look: Look) -> set[int]:
        """Numbers of the blocks to look at: those in directories that may have changed, and some of the others."""
        if count <= _LOOKED_AT:
            return set(range(count))
        found = {at % count for at in range(self._next, self._next + _LOOKED_AT)}
        self._next = (self._next + _LOOKED_AT) % count
        for name in kept.look.changed(look):
            at = kept.firsts.find(int(name, 16), 0, count)
            while at >= 0:
                found.add(at)
                at = kept.firsts.find(int(name, 16), at + 1, count)
        return found

    def keep(
        self, chain: Chain, known: Sequence[Piece], found: Iterable[Piece], look: Look, own: Seen | None = None
    ) -> None:
        """Pieces were found whole after this look at the directories: `known`, as `blocks` gave them, and those behind.

        Whole blocks are kept, in the place of lists that end within them. `own` are directories behind own changes.
        """
        whole = [*known, *itertools.takewhile(self._is_whole_block, found)]
        if not whole:
            return
        head, links = chain.head(len(whole))
        best, count = self._best(chain)
        begin = b"" if best is None else best.firsts[: min(count, len(whole))]
        firsts = begin + bytes(link[0] for link in links[len(begin) + 1 :])
        others = [k for k in self._kept if k.state_key != chain.state_key or not chain.begins_with(k.head)]
        settled = look.settled({NAMES[first] for first in set(firsts)}, own or {})
        self._kept = (_Kept(chain.state_key, head, links, firsts, whole, settled), *others)[:_LISTS]

    def _is_whole_block(self, piece: Piece) -> bool:
        return piece.stop - piece.start == BLOCK and piece.path in self._signatures
