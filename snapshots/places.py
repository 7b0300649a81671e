"""Where state files lie: names made of the state_key and the chain of tokens, so that finding needs no index.

The chain's link at a block's start hashes all tokens before it; a file for tokens [a, b) is named by the link of the
block's start extended by the tokens up to b, and by a. Equal names mean equal tokens, in any conversation.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from snapshots import ids
from snapshots.files import Files
from snapshots.records import BLOCK

LAYOUT = "states-1"
"""Directory of this layout: a later one lies beside it, so that old and new programs share a cache dir."""
LINK = 32
"""Bytes of a link."""
KEY_DIGITS = 32
"""Hex digits of the name of a state key's directory."""


Listing = dict[str, os.stat_result]
"""State files by their paths."""


def listed(files: Files, cache_dir: Path) -> Listing:
    """Every state file by its path. What vanishes while this looks is not in it."""
    found: Listing = {}
    for key, _ in files.scan(cache_dir / LAYOUT):
        for folder, _ in files.scan(cache_dir / LAYOUT / key) if len(key) == KEY_DIGITS else ():
            place = cache_dir / LAYOUT / key / folder
            base = f"{place}/"
            for name, facts in files.scan(place):
                if name.endswith((".seg", ".fin")):
                    found[base + name] = facts
    return found


class Piece(NamedTuple):
    """Tokens [start, stop) of one block, and the file that holds, or would hold, their state."""

    start: int
    stop: int
    path: Path


class Chain:
    """The names of one token list under one state_key. Links are computed as they are asked for."""

    def __init__(self, cache_dir: Path, state_key: str, tokens: Sequence[int] | ids.Packed) -> None:
        self._bytes = ids.packed(tokens).raw
        self.n_tokens = len(self._bytes) // 4
        self.state_key = state_key
        self.directory = cache_dir / LAYOUT / blake2b(state_key.encode(), digest_size=16).hexdigest()
        self._base = str(self.directory)
        self._links = bytearray(blake2b(b"forkpoint chain 1\0" + state_key.encode(), digest_size=LINK).digest())

    def between(self, start: int, stop: int) -> list[int]:
        """Tokens [start, stop)."""
        values = array("I")
        values.frombytes(self._bytes[4 * start : 4 * stop])
        if sys.byteorder == "big":
            values.byteswap()
        return values.tolist()

    def head(self, blocks: int) -> tuple[memoryview, bytes]:
        """The bytes of the first blocks' tokens and the links that follow from them, for `resume`."""
        self._link(blocks)
        return memoryview(self._bytes)[: 4 * BLOCK * blocks], bytes(self._links[: LINK * (blocks + 1)])

    def is_same(self, other: Chain) -> bool:
        """Whether it is of the same tokens and state_key."""
        return self.state_key == other.state_key and self._bytes == other._bytes

    def begins_with(self, head: memoryview) -> bool:
        """Whether these are the bytes of its first tokens."""
        return self._bytes.startswith(head)

    def resume(self, head: memoryview, links: bytes) -> int:
        """Take the links of the blocks that another list has in common with this one; gives how many those are."""
        blocks = len(head) // (4 * BLOCK)
        if not self.begins_with(head):
            low = 0
            while low < blocks:  # the number of blocks that are the same: what is equal is equal from the beginning on
                middle = (low + blocks + 1) // 2
                part = slice(4 * BLOCK * low, 4 * BLOCK * middle)
                if self._bytes[part] == bytes(head[part]):
                    low = middle
                else:
                    blocks = middle - 1
            blocks = low
        if LINK * (blocks + 1) > len(self._links):
            self._links = bytearray(links[: LINK * (blocks + 1)])
        return blocks

    def _link(self, block: int) -> bytes:
        """The link at the start of a block, over all blocks before it."""
        done = len(self._links) // LINK - 1
        link = bytes(self._links[-LINK:] if block >= done else self._links[LINK * block : LINK * (block + 1)])
        for start in range(4 * BLOCK * done, 4 * BLOCK * block, 4 * BLOCK):
            link = blake2b(link + self._bytes[start : start + 4 * BLOCK], digest_size=LINK).digest()
            self._links += link
        return link

    def at(self, stop: int) -> str:
        """The chain up to token `stop`, in hex; at the end of a block it is the next link."""
        if stop and stop % BLOCK == 0:
            return self._link(stop // BLOCK).hex()
        block = max(stop - 1, 0) // BLOCK
        link = self._link(block)
        return blake2b(link + self._bytes[4 * BLOCK * block : 4 * stop], digest_size=LINK).hexdigest()

    def segment(self, start: int, stop: int) -> Path:
        """The file for tokens [start, stop), which lie in one block."""
        return Path(self.segment_name(start, stop))

    def segment_name(self, start: int, stop: int) -> str:
        """The path of that file, for many looks at once: making paths of names takes longer than looking."""
        name = self.at(stop)
        return f"{self._base}/{name[:2]}/{name}-{start % BLOCK:02x}.seg"

    def final(self) -> Path:
        """The file for the logits behind all the tokens."""
        name = self.at(self.n_tokens)
        return self.directory / name[:2] / f"{name}.fin"

    def plan(self, exists: Callable[[str], bool], bad: Collection[Path] = (), known: int = 0) -> list[Piece]:
        """Pieces that cover the longest prefix without a gap, as few as can be; `exists` says which files are there.

        So many whole blocks from the beginning on are `known` and need not be looked for; they are left out.
        """
        pieces: list[Piece] = []
        for start in range(BLOCK * known, self.n_tokens, BLOCK):
            stop = min(start + BLOCK, self.n_tokens)
            found = self._cover(start, stop, exists, bad)
            pieces += found
            if not found or found[-1].stop < stop:
                break
        return pieces

    def _cover(self, start: int, stop: int, exists: Callable[[str], bool], bad: Collection[Path]) -> list[Piece]:
        """Pieces from a block's start that reach furthest."""
        name = self.segment_name(start, stop)
        if exists(name) and Path(name) not in bad:
            return [Piece(start, stop, Path(name))]
        names = [""] + [self.at(end) for end in range(start + 1, stop + 1)]
        reached: dict[int, Piece | None] = {start: None}
        base = self._base
        for place in range(start, stop):
            if place not in reached:
                continue
            for end in range(place + 1, stop + 1):
                name = names[end - start]
                if end not in reached and exists(f"{base}/{name[:2]}/{name}-{place % BLOCK:02x}.seg"):
                    piece = Piece(place, end, self.segment(place, end))
                    if piece.path not in bad:
                        reached[end] = piece
        found: list[Piece] = []
        last = reached[max(reached)]
        while last is not None:
            found.insert(0, last)
            last = reached[last.start]
        return found
