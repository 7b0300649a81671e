"""What a process has verified of the token lists that it saved last: a turn's save need not look at all of it again.

A directory's inode and time tell whether a name in it came or went. Blocks in directories that did not change are
there; those in the others are looked at one by one. A file that was changed in its place changes no directory, so some
of the rest are looked at every time, too: all of a short list, of a long one some at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files
from snapshots.places import Chain, Look, Piece
from snapshots.records import BLOCK

_LISTS = 4
_SHORT, _LOOKED_AT = 128, 64
_TICK = 50_000_000  # ns: names that come and go within one tick of the file system's clock leave one time behind


class _Kept(NamedTuple):
    """Whole blocks from a list's beginning that were verified when its directories looked so."""

    state_key: str
    head: memoryview
    links: list[bytes]
    pieces: list[Piece]
    look: Look


class Trust:
    """The whole blocks of a few token lists, and the signatures of files that were verified. For several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._kept: tuple[_Kept, ...] = ()
        self._next = 0
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
        count, best = 0, None
        for kept in self._kept:
            if kept.state_key == chain.state_key:
                shared = chain.resume(kept.head, kept.links)
                if best is None or shared > count:
                    count, best = shared, kept
        if best is None:
            return []
        pieces = best.pieces[:count]
        if look is None:
            return pieces
        signature = self._files.signature
        suspects = self._suspects(best, count, look)
        changed = [at for at in suspects if not self.is_as_verified(pieces[at].path, signature(pieces[at].path))]
        if changed:
            count = min(changed)
            pieces = pieces[:count]
            shorter = best._replace(head=best.head[: 4 * BLOCK * count], links=best.links[: count + 1], pieces=pieces)
            self._kept = tuple(shorter if kept is best else kept for kept in self._kept)
        return pieces

    def _suspects(self, kept: _Kept, count: int, look: Look) -> set[int]:
        """Numbers of the blocks to look at: those in directories that may have changed, and some of the others."""
        if count <= _SHORT:
            return set(range(count))
        found = {at % count for at in range(self._next, self._next + _LOOKED_AT)}
        self._next = (self._next + _LOOKED_AT) % count
        # A block's directory is the beginning of its name, and that of its link.
        firsts = b"".join(kept.links[1 : count + 1])[:: len(kept.links[0])]
        before, now, recent = kept.look.directories, look.directories, kept.look.at - _TICK
        for name in {f"{first:02x}" for first in set(firsts)}:
            if name not in now or now[name] != before.get(name) or now[name][1] > recent:
                at = firsts.find(int(name, 16))
                while at >= 0:
                    found.add(at)
                    at = firsts.find(int(name, 16), at + 1)
        return found

    def keep(self, chain: Chain, known: Sequence[Piece], found: Iterable[Piece], look: Look) -> None:
        """Pieces were found whole after this look at the directories: `known`, as `blocks` gave them, and those behind.

        Whole blocks are kept, in the place of lists that end within them.
        """
        whole = [*known, *itertools.takewhile(self._is_whole_block, found)]
        if not whole:
            return
        head, links = chain.head(len(whole))
        others = [k for k in self._kept if k.state_key != chain.state_key or not chain.begins_with(k.head)]
        self._kept = (_Kept(chain.state_key, head, links, whole, look), *others)[:_LISTS]

    def _is_whole_block(self, piece: Piece) -> bool:
        return piece.stop - piece.start == BLOCK and piece.path in self._signatures
