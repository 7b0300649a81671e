"""Many pieces of a state at once: what their files' headers must say, and their arrays as files and back.

Small segments are coded together, a megabyte of them, so that the interpreter's part of the work is done once;
large ones in two threads, for most of their work needs no interpreter.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from snapshots import segment
from snapshots.errors import DamagedFile
from snapshots.files import Files
from snapshots.places import Chain, Piece
from snapshots.records import BLOCK, Chunk

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]

_T = TypeVar("_T")
_THREADS = 2
LARGE = 1 << 18
"""Bytes of a segment from which on two threads are faster: below, handing the interpreter over costs more."""
GROUP = 1 << 20
"""Bytes of segments that are coded at once: with more of them, memory is not at hand again and all becomes slower."""


def read(
    files: Files, chain: Chain, pieces: Sequence[Piece], sizes: Sequence[int]
) -> list[Arrays | DamagedFile | OSError]:
    """The arrays of pieces, or what is wrong with each. `sizes` are about the bytes of their files."""
    groups = list(_groups(pieces, sizes))
    if len(groups) < _THREADS or sizes[0] < LARGE:
        return [each for group in groups for each in _read_group(files, chain, group)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_THREADS) as pool:
        done = pool.map(lambda group: _read_group(files, chain, group), groups)
        return [each for group in done for each in group]


def _read_group(files: Files, chain: Chain, pieces: Sequence[Piece]) -> list[Arrays | DamagedFile | OSError]:
    contents: list[tuple[Path, bytes]] = []
    missing: dict[Path, OSError] = {}
    for piece in pieces:
        try:
            contents.append((piece.path, files.read(piece.path, segment.FILE_LIMIT)))
        except OSError as error:
            missing[piece.path] = error
    decoded = iter(segment.decode_alike(contents))
    found: list[Arrays | DamagedFile | OSError] = []
    for piece in pieces:
        if piece.path in missing:
            found.append(missing[piece.path])
            continue
        each = next(decoded)
        try:
            if isinstance(each, DamagedFile):
                raise each
            compare(piece.path, each.header, segment_header(chain, piece))
        except DamagedFile as error:
            found.append(error)
        else:
            found.append(each.arrays)
    return found


def _groups(items: Sequence[_T], sizes: Sequence[int]) -> Iterator[Sequence[_T]]:
    """Neighbours that are `GROUP` bytes together, or a little more."""
    begin = size = 0
    for end, own in enumerate(sizes, 1):
        size += own
        if size >= GROUP or end == len(items):
            yield items[begin:end]
            begin, size = end, 0


def encoded(chain: Chain, todo: Sequence[tuple[Piece, Chunk]]) -> Iterator[tuple[Piece, bytes]]:
    """The bytes of each piece, in order. Alike ones are made at once, many in threads, ahead of whoever takes them."""

    def make(group: Sequence[tuple[Piece, Chunk]]) -> Sequence[tuple[Piece, bytes]]:
        headers = [segment_header(chain, piece) for piece, _ in group]
        done = segment.encode_alike(headers, [chunk.arrays for _, chunk in group])
        return [(piece, data) for (piece, _), data in zip(group, done, strict=True)]

    shapes = [tuple((name, a.dtype.str, a.shape) for name, a in chunk.arrays.items()) for _, chunk in todo]
    alike = [list(run) for _, run in itertools.groupby(range(len(todo)), lambda at: shapes[at])]
    groups: list[Sequence[tuple[Piece, Chunk]]] = []
    size = 0
    for run in alike:
        size = sum(array.nbytes for array in todo[run[0]][1].arrays.values())
        groups += _groups([todo[at] for at in run], [size] * len(run))
    if len(groups) < _THREADS or size < LARGE:
        for group in groups:
            yield from make(group)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: deque[Future[Sequence[tuple[Piece, bytes]]]] = deque()
        for group in groups:
            ahead.append(pool.submit(make, group))
            if len(ahead) > _THREADS:
                yield from ahead.popleft().result()
        for future in ahead:
            yield from future.result()


def segment_header(chain: Chain, piece: Piece) -> dict[str, Any]:
    """What the header of a piece must say. `before` is the chain up to the block, for tools that list files."""
    block = piece.start - piece.start % BLOCK
    return {
        "kind": "blocks",
        "state_key": chain.state_key,
        "before": chain.at(block),
        "start": piece.start,
        "tokens": chain.between(piece.start, piece.stop),
    }


def final_header(chain: Chain) -> dict[str, Any]:
    """What the header of the file behind all tokens must say."""
    return {
        "kind": "final",
        "state_key": chain.state_key,
        "chain": chain.at(chain.n_tokens),
        "n_tokens": chain.n_tokens,
    }


def compare(path: Path, header: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises DamagedFile where a header says something else than it must."""
    for field, value in wanted.items():
        if header.get(field) != value:
            raise DamagedFile(path, f"belongs elsewhere ({field})")
