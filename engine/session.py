"""A session: the tokens that were fed, the blocks that hold their keys and values, and what the model says next."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import ContextFull
from engine.kv import BLOCK, Bytes, KVChunk, KVLayout
from engine.token_list import TokenList

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SessionState:
    """A copy of a session or of its tail: plain arrays and values, enough to go on bit for bit.

    tokens: all that were fed. chunks: KV in order without gaps, up to the last token. logits: float32 (vocabulary,) for
    the next position; hidden: float32 (dim,), the last normed hidden state; dice_key: 16 bytes or none.
    """

    tokens: Sequence[int]
    chunks: tuple[KVChunk, ...]
    logits: Floats | None
    hidden: Floats | None
    dice_key: bytes


def logits_digest(logits: Floats) -> str:
    """blake2b-256 hex of float32 logits, little-endian, in vocabulary order."""
    return hashlib.blake2b(np.ascontiguousarray(logits, "<f4").tobytes(), digest_size=32).hexdigest()


class Session:
    """Mutable and small. Made by Model.new_session, fed by Model.prefill and Model.step; one thread at a time."""

    def __init__(self, layout: KVLayout, context: int, dice_key: bytes = b"") -> None:
        self._layout = layout
        self._context = context
        self._blocks: list[Bytes] = []
        # Addresses of the blocks, for the kernels.
        self._table = np.zeros(-(-context // BLOCK) + 1, np.int64)
        self._table_address: int = self._table.ctypes.data
        self._tail_is_own = False
        self._foreseen: deque[tuple[int, Floats, Floats]] = deque()
        self.tokens = TokenList()
        self.logits: Floats | None = None
        self.hidden: Floats | None = None
        self.dice_key = dice_key

    @property
    def position(self) -> int:
        """How many tokens were fed; the index that the next one gets."""
        return len(self.tokens)

    @property
    def layout(self) -> KVLayout:
        """Where keys and values lie in the blocks; the same object for all sessions of a model."""
        return self._layout

    @property
    def table_address(self) -> int:
        """Address of the int64 block addresses, for the kernels."""
        return self._table_address

    def fork(self) -> Session:
        """A session with the same past. Blocks are shared; whoever writes the tail first copies it."""
        other = Session(self._layout, self._context, self.dice_key)
        other.tokens = self.tokens.fork()
        other._blocks = self._blocks.copy()
        other._table[:] = self._table
        other.logits, other.hidden = self.logits, self.hidden
        self._tail_is_own = False
        return other

    def truncate(self, n: int) -> None:
        """Forget the tokens from n on. Logits become None unless nothing was forgotten. Raises ValueError."""
        if not 0 <= n <= self.position:
            raise ValueError(f"cannot truncate {self.position} tokens to {n}")
        if n == self.position:
            return
        self.tokens.truncate(n)
        self._foreseen.clear()
        del self._blocks[-(-n // BLOCK) :]
        self._tail_is_own = False
        self.logits = self.hidden = None

    def logits_digest(self) -> str:
        """blake2b-256 hex of the logits; of no bytes where there are none."""
        return logits_digest(self.logits if self.logits is not None else np.zeros(0, np.float32))

    def make_room(self, count: int) -> None:
        """Own every slot of the next `count` positions: copy a shared tail, add blocks. Raises ContextFull first."""
        position = self.position
        if position + count > self._context:
            raise ContextFull(position, count, self._context)
        # A pass that failed, was interrupted or guessed left blocks behind that hold no recorded token.
        self._foreseen.clear()
        del self._blocks[-(-position // BLOCK) :]
        if position % BLOCK and not self._tail_is_own:
            self._set_block(position // BLOCK, self._blocks[-1].copy())
        for i in range(len(self._blocks), -(-(position + count) // BLOCK)):
            self._set_block(i, self._layout.new_block())
        self._tail_is_own = True

    def accept(self, tokens: list[int], logits: Floats | None, hidden: Floats | None) -> None:
        """Record tokens whose keys and values now stand in the blocks, and what the model says behind them."""
        self.tokens.extend(tokens)
        self.logits, self.hidden = logits, hidden

    def foresee(self, results: Sequence[tuple[int, Floats, Floats]]) -> None:
        """Keep what comes behind guessed tokens: (token, logits, hidden) in order, KV in the blocks behind the last."""
        self._foreseen.extend(results)

    def guessed(self, token: int) -> bool:
        """Whether the result of feeding `token` is there already."""
        return bool(self._foreseen) and self._foreseen[0][0] == token

    def advance(self) -> None:
        """Record the token that was guessed, and what the model says behind it."""
        token, logits, hidden = self._foreseen.popleft()
        self.accept([token], logits, hidden)

    def chunks(self, start: int) -> tuple[KVChunk, ...]:
        """Copies of the KV of the tokens [start, position), cut at block boundaries."""
        cuts = range(start - start % BLOCK, self.position, BLOCK)
        bounds = [(max(start, at), min(self.position, at + BLOCK)) for at in cuts]
        return tuple(self._layout.read(self._blocks[a // BLOCK], a, b) for a, b in bounds)

    def fill(self, state: SessionState) -> None:
        """Take over a captured state; this session must be empty. Raises StateMismatch, ValueError on gaps."""
        at = 0
        self.make_room(len(state.tokens))
        for chunk in state.chunks:
            inside = chunk.start // BLOCK == (chunk.stop - 1) // BLOCK
            if chunk.start != at or not inside or not at < chunk.stop <= len(state.tokens):
                raise ValueError(f"KV chunk [{chunk.start}, {chunk.stop}) does not continue at {at}")
            self._layout.write(self._blocks[at // BLOCK], chunk.start, chunk.stop, chunk.arrays)
            at = chunk.stop
        if at != len(state.tokens):
            raise ValueError(f"KV ends at {at} of {len(state.tokens)} tokens")
        self.accept(list(state.tokens), state.logits, state.hidden)

    def _set_block(self, index: int, block: Bytes) -> None:
        self._blocks[index:] = [block]
        self._table[index] = block.ctypes.data
