"""One pass over the weights: lays the rows of a batch out in tables of addresses and runs the forward kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.hyperparameters import Hyperparameters
from engine.kernels import entry, plan
from engine.kernels.plan import CODES_BYTES, SYNC_BYTES, TILE, partial_bytes, scratch_bytes
from engine.kv import BLOCK, KVLayout
from engine.model_tables import ModelTables
from engine.pool import ThreadPool
from engine.repack import apart
from engine.weights import Weights

Floats = npt.NDArray[np.float32]
Table = npt.NDArray[np.int64]

_TILE_ROWS = 128  # query rows that share a pass over a KV head's blocks
_LEAST_BLOCKS = 4  # of a share
_MOST_PARTIAL = 64 << 20  # bytes
_UNITS_A_THREAD = 4
_STEPS_KEPT = 64
# Bytes of weights times (rows and what reading the weights costs, in rows): a core is through with less before two have
# met. Measured with models of 1 and 2.5 MB, 1 to 16 rows.
WORTH_WAKING = 32 << 20
_READING = 8


def _up(n: int, to: int = 32) -> int:
    return -(-n // to) * to


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring rows of one session: `count` tokens from position `start` on, over the block table at `table`."""

    start: int
    count: int
    table: int


class Runner:
    """The forward pass of one model, with its buffers. One call at a time; the results are fresh arrays."""

    def __init__(self, shape: Hyperparameters, weights: Weights, layout: KVLayout, context: int, pool: ThreadPool):
        self._shape, self._weights, self._layout, self._pool = shape, weights, layout, pool
        self._vocabulary = weights.matrices[-1].rows
        self._model = ModelTables(shape, weights, layout, context)
        self._buffers: dict[str, npt.NDArray[Any]] = {}
        self._addresses: dict[str, int] = {}
        self._steps: dict[tuple[int, int], _Step] = {}
        self._weight_bytes = sum(m.data.nbytes for m in weights.matrices)

    def _buffer(self, name: str, size: int, dtype: Any = np.float32) -> int:
        """The address of a zeroed buffer that only grows; kept for the next call. A vector behind it may be read."""
        have = self._buffers.get(name)
        if have is None or have.size < size + 16:
            have = self._buffers[name] = np.zeros(size + 16, dtype)
            self._addresses[name] = have.ctypes.data
            self._steps.clear()
        return self._addresses[name]

    def run(self, tokens: Sequence[int], runs: Sequence[Run], outputs: Sequence[int]) -> tuple[Floats, Floats]:
        """Feed `tokens`, which lie one run behind the other, and give the logits of the rows `outputs`.

        Writes keys and values into the runs' blocks. Gives float32 (outputs, vocabulary) and (outputs, dim).
        """
        step = self._step(len(tokens), len(outputs))
        step.x[:, : self._shape.dim] = self._weights.embedding.rows(tokens)
        if self._shape.embedding_scale != 1.0:
            with np.errstate(over="ignore"):
                step.x *= np.float32(self._shape.embedding_scale)
        step.x[:, self._shape.dim :] = 0.0
        step.place_rows(runs, outputs)
        self._split_attention(step, runs)
        shape, matrices, constants = self._model.addresses
        batch, forward = step.address, entry.forward

        def job(me: int) -> None:
            forward(me, shape, matrices, batch, constants)

        if step.threads == 1:
            job(0)
        else:
            self._pool.run(job)
        return self._finished(step.logits), step.last_hidden[:, : self._shape.dim].copy()

    def _finished(self, products: Floats) -> Floats:
        """A copy of the head's products with its bias and scale. Element by element, so exact on every machine."""
        logits = products[:, : self._vocabulary].copy()
        bias = self._weights.biases.get(len(self._weights.matrices) - 1)
        if bias is not None:
            logits += bias[: self._vocabulary]
        if self._shape.logit_scale != 1.0:
            with np.errstate(over="ignore"):
                logits *= np.float32(1.0 / self._shape.logit_scale)
        return logits

    def _step(self, rows: int, n_out: int) -> _Step:
        """The step of so many rows and outputs: made once, then only filled anew."""
        step = self._steps.get((rows, n_out))
        if step is None:
            step = self._make_step(rows, n_out)
            if len(self._steps) >= _STEPS_KEPT:
                self._steps.clear()
            self._steps[rows, n_out] = step
        return step

    def _make_step(self, rows: int, n_out: int) -> _Step:
        shape = self._shape
        table = np.zeros(plan.BATCH_SIZE, np.int64)
        table[plan.ROWS], table[plan.OUTPUTS], table[plan.THREADS] = rows, n_out, self._threads(rows)
        dim = int(self._model.shape[plan.DIM_STRIDE]) // 4
        q, kv, ffn = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.ffn
        columns = max(dim, q, ffn)

        def place(index: int, name: str, width: int, count: int = rows, dtype: Any = np.float32) -> None:
            table[index] = self._buffer(name, width * count, dtype)

        place(plan.X, "x", dim)
        place(plan.Y, "y", dim)
        strided = (
            (plan.HIDDEN, plan.HIDDEN_STRIDE, "hidden", dim, rows),
            (plan.Q, plan.Q_STRIDE, "q", _up(q), rows),
            (plan.K, plan.K_STRIDE, "k", _up(kv), rows),
            (plan.V, plan.V_STRIDE, "v", _up(kv), rows),
            (plan.ATTENDED, plan.ATTENDED_STRIDE, "attended", apart(q), rows),
            (plan.GATED, plan.GATED_STRIDE, "gated", apart(ffn), rows),
            (plan.RAISED, plan.RAISED_STRIDE, "raised", apart(ffn), rows),
            (plan.LOGITS, plan.LOGITS_STRIDE, "logits", _up(self._vocabulary), n_out),
        )
        for index, stride, name, width, count in strided:
            place(index, name, width, count)
            table[stride] = 4 * width
        place(plan.LAST_HIDDEN, "last_hidden", dim, n_out)
        tile_bytes = _up(columns) // 32 * CODES_BYTES * TILE
        place(plan.CODES, "codes", tile_bytes, -(-max(rows, n_out) // TILE), np.int8)
        table[plan.CODES_STRIDE] = tile_bytes
        place(plan.SYNC, "sync", SYNC_BYTES // 8, 1, np.int64)
        x, logits, hidden = (self._buffers[name] for name in ("x", "logits", "last_hidden"))
        width = _up(self._vocabulary)
        return _Step(
            table,
            x[: rows * dim].reshape(rows, dim),
            logits[: n_out * width].reshape(n_out, width),
            hidden[: n_out * dim].reshape(n_out, dim),
        )

    def _threads(self, rows: int) -> int:
        """How many threads share a pass: all, or the caller alone where the others would only be waited for."""
        return 1 if (_READING + rows) * self._weight_bytes < WORTH_WAKING else self._pool.size

    def _split_attention(self, step: _Step, runs: Sequence[Run]) -> None:
        """Into tiles of neighbouring tokens, and where these are too few for the threads, into shares of their blocks.

        What follows from the runs' lengths and their number of blocks stands in the step's table from one token to the
        next.
        """
        table, blocks = step.table, max(-(-(r.start + r.count) // BLOCK) for r in runs)
        split = (blocks, *(r.count for r in runs))
        if split == step.split:
            step.tiles[:, 2] = [r.table for r, tiles in zip(runs, step.tiles_of, strict=True) for _ in range(tiles)]
            return
        shape, channels, threads = self._shape, self._layout.channels, step.threads
        group = shape.heads // shape.kv_heads
        tiles = step.tiles = _tiles(runs, max(1, _TILE_ROWS // group))
        step.tiles_of = [-(-r.count // max(1, _TILE_ROWS // group)) for r in runs]
        rows = int(tiles[:, 1].max()) * group
        scratch = _up(scratch_bytes(rows, shape.head_dim, channels) // 4 + rows * shape.head_dim)
        items = len(tiles) * shape.kv_heads
        partial = partial_bytes(rows, channels) // 4 * blocks
        shares = min(-(-_UNITS_A_THREAD * threads // items), blocks // _LEAST_BLOCKS)
        if shares < 2 or threads == 1 or 4 * partial * items > _MOST_PARTIAL:
            shares, partial = 1, 0
        table[plan.TILE_TABLE], table[plan.TILES] = tiles.ctypes.data, len(tiles)
        table[plan.SCRATCH], table[plan.SCRATCH_STRIDE] = self._buffer("scratch", scratch * threads), 4 * scratch
        table[plan.PARTIAL], table[plan.PARTIAL_STRIDE] = self._buffer("partial", partial * items), 4 * partial
        table[plan.SHARES], table[plan.SHARES_DONE] = shares, self._buffer("shares_done", items, np.int64)
        step.split = split


class _Step:
    """The batch table for so many rows and outputs, and views of the buffers that it names."""

    def __init__(self, table: Table, x: Floats, logits: Floats, last_hidden: Floats) -> None:
        self.table, self.x, self.logits, self.last_hidden = table, x, logits, last_hidden
        self.address: int = table.ctypes.data
        self.threads = int(table[plan.THREADS])
        self.tiles = np.zeros((0, 3), np.int64)  # of the last pass, and how many of them each run had
        self.tiles_of: list[int] = []
        self.split: tuple[int, ...] = ()  # blocks of keys and the runs' lengths that the tiles were made for
        rows, n_out = len(x), len(logits)
        self._positions, self._tables = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._outputs = np.zeros(n_out, np.int64)
        for index, array in (
            (plan.POSITIONS, self._positions),
            (plan.TABLES, self._tables),
            (plan.OUTPUT_ROWS, self._outputs),
        ):
            table[index] = array.ctypes.data

    def place_rows(self, runs: Sequence[Run], outputs: Sequence[int]) -> None:
        """Each row's position and block table, and the rows whose logits are wanted."""
        first = 0
        for run in runs:
            last = first + run.count
            if run.count == 1:
                self._positions[first], self._tables[first] = run.start, run.table
                first = last
                continue
            self._positions[first:last] = np.arange(run.start, run.start + run.count)
            self._tables[first:last] = run.table
            first = last
        self._outputs[:] = outputs


def _tiles(runs: Sequence[Run], size: int) -> Table:
    """(tiles, 3) int64: first row, rows, block table; a tile lies within one run."""
    tiles = []
    first = 0
    for run in runs:
        tiles += [(first + at, min(size, run.count - at), run.table) for at in range(0, run.count, size)]
        first += run.count
    return np.array(tiles, np.int64).reshape(-1, 3)
