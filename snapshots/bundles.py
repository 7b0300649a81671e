"""The states on disk: which pieces of a token list's state are there, whole, and how more are added.

Any file here may vanish or rot at any moment: that ends a prefix, it is never an error. What is there is found by name
(places.py); what a file holds is believed only after its digest (segment.py).
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from snapshots import pieces as many
from snapshots import segment
from snapshots.errors import DamagedFile, StoreError
from snapshots.files import Files, typed
from snapshots.ids import Packed
from snapshots.lasting import Lasting
from snapshots.places import LAYOUT, Chain, Piece, listed
from snapshots.records import BLOCK, Chunk, FileCheck, LoadedState, SaveReport
from snapshots.trust import Trust
from snapshots.writer import Writer

if TYPE_CHECKING:
    import numpy as np

_T = TypeVar("_T")
_Use = Callable[[Chain, Sequence[Piece]], Sequence[_T | DamagedFile | OSError]]
_ATTEMPTS = 3


class _Written(NamedTuple):
    """What a save did: segments written, reused and healed, bytes, and whether all was there that was thought to be.

    `names` are those of the files that it wrote or found whole, and that last; `own` are the directories it wrote to.
    """

    segments: int
    reused: int
    healed: int
    size: int
    as_known: bool
    names: set[str]
    own: set[str]


class Bundles:
    """The state files of a cache dir. Safe to use from several threads; saves take turns."""

    def __init__(self, cache_dir: Path, data_dir: Path, files: Files) -> None:
        self._cache_dir = cache_dir
        self._files = files
        self._saving = threading.Lock()
        self._trust = Trust(files)
        self._lasting = Lasting(files)
        self._writer = Writer(cache_dir / LAYOUT, data_dir / "locks", files)
        self._writer.clean()

    def clean(self) -> None:
        """Remove what dead writers left."""
        self._writer.clean()

    def close(self) -> None:
        """Let go of the writer's lock."""
        self._writer.close()

    # ------------------------------------------------------------------------------------------------------ reading

    def longest_prefix(self, state_key: str, tokens: Sequence[int]) -> int:
        """How many tokens have files, by their names."""
        chain = Chain(self._cache_dir, state_key, tokens)
        known = self._trust.blocks(chain, self._trust.look(chain))
        pieces = chain.plan(self._files.is_there, known=known)
        return pieces[-1].stop if pieces else BLOCK * known

    def load(self, state_key: str, tokens: Sequence[int]) -> LoadedState:
        """The longest whole prefix, decoded, with what belongs to its end."""
        chain = Chain(self._cache_dir, state_key, tokens)
        look = self._trust.look(chain)
        found, bad = self._walk(chain, self._decode)
        self._lasting.found(piece.path for piece, _ in found)
        self._trust.keep(chain, 0, (piece for piece, _ in found), look)
        chunks = tuple(Chunk(piece.start, piece.stop, arrays) for piece, arrays in found)
        valid = chunks[-1].stop if chunks else 0
        logits, hidden, dice_key = None, None, b""
        if valid == chain.n_tokens:
            try:
                final = self._read_final(chain)
                logits, hidden = final.arrays.get("logits"), final.arrays.get("hidden")
                dice_key = bytes.fromhex(final.header["dice_key"])
            except FileNotFoundError:
                pass
            except (DamagedFile, OSError):
                bad.add(chain.final())
        return LoadedState(chain.n_tokens, valid, chunks, logits, hidden, dice_key, len(bad))

    def check(self, state_key: str, tokens: Sequence[int], shared: int) -> FileCheck:
        """Read and decode everything; pieces that end behind token `shared` count as unique."""
        chain = Chain(self._cache_dir, state_key, tokens)
        found, bad = self._walk(chain, self._decode)
        sizes = [(piece, (self._files.signature(piece.path) or (0, 0, 0))[2]) for piece, _ in found]
        final = "whole"
        try:
            self._read_final(chain)
            sizes.append((Piece(0, len(tokens), chain.final()), (self._files.signature(chain.final()) or (0, 0, 0))[2]))
        except FileNotFoundError:
            final = "missing"
        except (DamagedFile, OSError):
            final = "damaged"
            bad.add(chain.final())
        return FileCheck(
            n_tokens=len(tokens),
            n_valid=found[-1][0].stop if found else 0,
            segments=len(found),
            size_bytes=sum(size for _, size in sizes),
            unique_bytes=sum(size for piece, size in sizes if piece.stop > shared),
            final=final,  # type: ignore[arg-type]
            damaged=tuple(sorted(path.name for path in bad)),
        )

    def usage(self) -> tuple[int, int]:
        """Count and bytes of the state files."""
        found = listed(self._files, self._cache_dir)
        return len(found), sum(facts.st_size for facts in found.values())

    def _walk(self, chain: Chain, use: _Use[_T], known: int = 0) -> tuple[list[tuple[Piece, _T]], set[Path]]:
        """`use` every piece of the longest prefix; a piece that it cannot use is gone round, where others can serve.

        So many whole blocks from the beginning on are `known` and passed over.

        Returns the pieces with what `use` made of them, and the paths that are damaged (not those that are missing).
        """
        results: dict[Path, _T] = {}
        bad: set[Path] = set()
        gone: set[Path] = set()
        while True:
            plan = chain.plan(self._files.is_there, bad | gone, known)
            todo = [piece for piece in plan if piece.path not in results]
            failed = False
            for piece, result in zip(todo, use(chain, todo), strict=True):
                if isinstance(result, (DamagedFile, OSError)):
                    (gone if isinstance(result, FileNotFoundError) else bad).add(piece.path)
                    failed = True
                else:
                    results[piece.path] = result
            if not failed:
                return [(piece, results[piece.path]) for piece in plan], bad

    def _decode(self, chain: Chain, pieces: Sequence[Piece]) -> list[many.Arrays | DamagedFile | OSError]:
        """The pieces' arrays, or what is wrong with each."""
        before = [self._files.signature(piece.path) for piece in pieces]
        found = many.read(self._files, chain, pieces, [signature[2] if signature else 0 for signature in before])
        for piece, signature, each in zip(pieces, before, found, strict=True):
            if not isinstance(each, (DamagedFile, OSError)):
                self._trust.verified(piece.path, signature)
        return found

    def _verify_all(self, chain: Chain, pieces: Sequence[Piece]) -> list[bool | DamagedFile | OSError]:
        found: list[bool | DamagedFile | OSError] = []
        for piece in pieces:
            try:
                found.append(self._verify(chain, piece))
            except (DamagedFile, OSError) as error:
                found.append(error)
        return found

    def _verify(self, chain: Chain, piece: Piece) -> bool:
        """True for a piece whose digest holds; read once a process unless it changes. Raises DamagedFile, OSError."""
        before = self._files.signature(piece.path)
        if before is None:
            raise FileNotFoundError(errno.ENOENT, "gone", str(piece.path))
        if not self._trust.is_as_verified(str(piece.path), before):
            header, *_ = segment.check(piece.path, self._files.read(piece.path, segment.FILE_LIMIT))
            many.compare(piece.path, header, many.segment_header(chain, piece))
            self._trust.verified(piece.path, before)
        return True

    def _read_final(self, chain: Chain) -> segment.Contents:
        path = chain.final()
        before = self._files.signature(path)
        contents = segment.decode(path, self._files.read(path, segment.FILE_LIMIT))
        many.compare(path, contents.header, many.final_header(chain))
        if not isinstance(contents.header.get("dice_key"), str) or len(contents.header["dice_key"]) > 1024:
            raise DamagedFile(path, "has no dice key")
        self._trust.verified(path, before)
        return contents

    # ------------------------------------------------------------------------------------------------------ writing

    def save_from(self, state_key: str, tokens: Sequence[int]) -> int:
        """The first token whose chunk `save` wants: what is before it is on disk and whole."""
        chain = Chain(self._cache_dir, state_key, tokens)
        look = self._trust.look(chain)
        known = self._trust.blocks(chain, look)
        found, _ = self._walk(chain, self._verify_all, known)
        self._lasting.found(piece.path for piece, _ in found)
        self._trust.keep(chain, known, (piece for piece, _ in found), look)
        self._trust.looked(chain, look)
        covered = found[-1][0].stop if found else BLOCK * known
        block = covered - covered % BLOCK
        return block if covered < chain.n_tokens and block + BLOCK <= chain.n_tokens else covered

    def save(
        self,
        state_key: str,
        tokens: Sequence[int] | Packed,
        chunks: Sequence[Chunk],
        logits: np.ndarray | None,
        hidden: np.ndarray | None,
        dice_key: bytes,
    ) -> SaveReport:
        """Write the chunks that are not there whole, and the final file. Raises StoreFull, StoreError."""
        begun = time.perf_counter()
        chain = Chain(self._cache_dir, state_key, tokens)
        for chunk in chunks:
            _check_chunk(chunk, chain.n_tokens)
        with self._saving:
            look, known = self._trust.recent_look(chain), self._trust.blocks(chain)
            for attempt in range(_ATTEMPTS):
                try:
                    if look is None:
                        look = self._trust.look(chain)
                        known = self._trust.blocks(chain, look)
                    done = self._save_once(chain, known, chunks, logits, hidden, dice_key)
                    break
                except FileNotFoundError as error:  # the cache was purged under the writer: begin again
                    look = None
                    if attempt == _ATTEMPTS - 1:
                        raise typed(error, chain.directory) from error
                except OSError as error:
                    raise typed(error, chain.directory) from error
        if look is None or not done.as_known or not look.is_at(chain.directory, self._files):
            look = self._trust.look(chain)
            known = min(known, self._trust.blocks(chain, look))
        # What others put there meanwhile does not count: nobody synced its names yet.
        plan = chain.plan(lambda name: name in done.names and self._files.is_there(name), known=known)
        self._trust.keep(chain, known, plan, look, done.own)
        covered = plan[-1].stop if plan else BLOCK * known
        complete = covered == chain.n_tokens and (logits is not None or not chain.n_tokens)
        took = 1e3 * (time.perf_counter() - begun)
        return SaveReport(chain.n_tokens, covered, complete, done.segments, done.reused, done.healed, done.size, took)

    def _save_once(
        self,
        chain: Chain,
        known: int,
        chunks: Sequence[Chunk],
        logits: np.ndarray | None,
        hidden: np.ndarray | None,
        dice_key: bytes,
    ) -> _Written:
        """One try. Of blocks that are `known` only those are looked at that a chunk hangs on."""
        found, bad = self._walk(chain, self._verify_all, known)
        there = [piece.path for piece, _ in found]
        covered = found[-1][0].stop if found else BLOCK * known
        written = reused = healed = 0
        as_known = True
        with self._writer.batch() as batch:
            todo: list[tuple[Piece, Chunk]] = []
            for chunk in chunks:
                piece = Piece(chunk.start, chunk.stop, chain.segment(chunk.start, chunk.stop))
                if self._is_whole(chain, piece, bad):
                    there.append(piece.path)
                    reused += 1
                    continue
                if self._is_within(chain, chunk, covered, known, bad):
                    reused += 1
                    continue
                written += 1
                as_known = as_known and chunk.stop > covered
                healed += piece.path in bad
                todo.append((piece, chunk))
            for piece, data in many.encoded(chain, todo):
                batch.add(piece.path, data)
            if logits is not None and self._has_final(chain, logits, hidden):
                there.append(chain.final())
            elif logits is not None:
                arrays = {"logits": logits} if hidden is None else {"logits": logits, "hidden": hidden}
                header = {**many.final_header(chain), "dice_key": dice_key.hex()}
                batch.add(chain.final(), segment.encode(header, arrays))
            batch.publish()
            self._lasting.found(there)
            lasting = self._lasting.cover(batch)
        self._lasting.synced(lasting)
        for path in batch.paths:
            self._trust.verified(path, self._files.signature(path))
        names, own = {str(path) for path in (*there, *batch.paths)}, {path.parent.name for path in batch.paths}
        return _Written(written, reused, healed, batch.size, as_known and not bad, names, own)

    def _is_within(self, chain: Chain, chunk: Chunk, covered: int, known: int, bad: set[Path]) -> bool:
        """Whether a chunk that is no whole block is told by what covers the list's beginning."""
        if chunk.stop > covered or chunk.stop - chunk.start == BLOCK:
            return False
        start = chunk.start - chunk.start % BLOCK
        whole = Piece(start, start + BLOCK, chain.segment(start, start + BLOCK))
        return start >= BLOCK * known or self._is_whole(chain, whole, bad)

    def _is_whole(self, chain: Chain, piece: Piece, bad: set[Path]) -> bool:
        """Whether this very file is there and whole; a damaged one is noted in `bad`."""
        if piece.path in bad:
            return False
        try:
            return self._verify(chain, piece)
        except FileNotFoundError:
            return False
        except (DamagedFile, OSError):
            bad.add(piece.path)
            return False

    def _has_final(self, chain: Chain, logits: np.ndarray, hidden: np.ndarray | None) -> bool:
        """Whether the final file is there with these very numbers."""
        try:
            arrays = self._read_final(chain).arrays
        except (DamagedFile, OSError):
            return False
        wanted = {"logits": logits} if hidden is None else {"logits": logits, "hidden": hidden}
        return all(
            name in arrays and arrays[name].dtype == array.dtype and arrays[name].tobytes() == array.tobytes()
            for name, array in wanted.items()
        )


def _check_chunk(chunk: Chunk, n_tokens: int) -> None:
    inside = 0 <= chunk.start < chunk.stop <= n_tokens
    if not inside or chunk.start // BLOCK != (chunk.stop - 1) // BLOCK:
        raise StoreError(f"a chunk of tokens [{chunk.start}, {chunk.stop}) does not lie in one block of the list")
