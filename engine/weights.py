"""Tensors of a GGUF as the kernels want them: checked, and repacked into groups of 16 interleaved rows.

Any supported type may stand in any matrix. Repacking moves whole codes and scales about and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BadTensor, MissingTensor, UnsupportedFeature, UnsupportedTensorType
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GROUP = 16
_LINE = 64  # bytes of a cache line
_PLAIN = {"F32": "<f4", "F16": "<u2", "BF16": "<u2"}
# One block of 32 codes of a row as GGUF stores it: a half scale, then the codes as 4-byte units.
_BLOCKS = {
    "Q4_0": np.dtype([("scale", "<u2"), ("codes", "<u4", 4)]),
    "Q8_0": np.dtype([("scale", "<u2"), ("codes", "<u4", 8)]),
}
SUPPORTED = frozenset(_PLAIN) | frozenset(_BLOCKS)
LAYER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Matrix:
    """A repacked (rows, columns) matrix: `groups` of 16 rows, the last padded with zeros, and `steps` over k."""

    kind: str
    rows: int
    columns: int
    groups: int
    steps: int
    group_bytes: int
    data: Bytes


@dataclass(frozen=True)
class Weights:
    """All of a model's tensors. `matrices` holds 7 a layer (LAYER_MATRICES), then the output head.

    norms: (2 * layers + 1, dim padded to 16) float32. embedding: (vocabulary, dim) rows in the file's own type.
    """

    matrices: tuple[Matrix, ...]
    norms: Floats
    embedding: Embedding

    @property
    def kinds(self) -> frozenset[str]:
        """The tensor types that the kernels must handle."""
        return frozenset(m.kind for m in self.matrices)


@dataclass(frozen=True)
class Embedding:
    """The token embedding, read row by row from the file's map."""

    kind: str
    raw: Bytes  # (vocabulary, bytes a row)
    dim: int

    def rows(self, tokens: Sequence[int]) -> Floats:
        """float32 (n, dim) of the tokens; every value is exact, so how it is computed does not matter."""
        raw = np.ascontiguousarray(self.raw[np.asarray(tokens, np.int64)])
        n = len(tokens)
        if self.kind == "F32":
            return raw.view("<f4").astype(np.float32).reshape(n, self.dim)
        if self.kind == "F16":
            return raw.view("<f2").astype(np.float32).reshape(n, self.dim)
        if self.kind == "BF16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(n, self.dim)
        block = raw.reshape(-1).view(_BLOCKS[self.kind]).reshape(n, -1)
        scale = block["scale"].copy().view("<f2").astype(np.float32)[..., None]
        codes = np.ascontiguousarray(block["codes"]).view(np.uint8)
        if self.kind == "Q8_0":
            return (codes.view(np.int8).astype(np.float32) * scale).reshape(n, self.dim)
        nibbles = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.int8) - np.int8(8)
        return (nibbles.astype(np.float32) * scale).reshape(n, self.dim)


def load_weights(
    gguf: GGUF, shape: Hyperparameters, threads: int, progress: Callable[[int, int], None] | None = None
) -> Weights:
    """Check every tensor and repack the matrices; `progress(done, total)` counts matrices.

    Raises MissingTensor, BadTensor (wrong shape), UnsupportedTensorType, UnsupportedFeature (a tensor that this forward
    pass would ignore).
    """
    reader = _Reader(gguf)
    vocabulary = _vocabulary(gguf)
    jobs: list[tuple[str, Bytes, int, int]] = []
    norms = np.zeros((2 * shape.layers + 1, -(-shape.dim // GROUP) * GROUP), np.float32)
    kv = shape.kv_heads * shape.head_dim
    q = shape.heads * shape.head_dim
    sizes = [
        (q, shape.dim), (kv, shape.dim), (kv, shape.dim), (shape.dim, q),
        (shape.ffn, shape.dim), (shape.ffn, shape.dim), (shape.dim, shape.ffn),
    ]  # fmt: skip
    for layer in range(shape.layers):
        norms[2 * layer, : shape.dim] = reader.vector(f"blk.{layer}.attn_norm.weight", shape.dim)
        norms[2 * layer + 1, : shape.dim] = reader.vector(f"blk.{layer}.ffn_norm.weight", shape.dim)
        for name, size in zip(LAYER_MATRICES, sizes, strict=True):
            jobs.append(reader.matrix(f"blk.{layer}.{name}.weight", *size))
    norms[-1, : shape.dim] = reader.vector("output_norm.weight", shape.dim)
    kind, raw = reader.rows("token_embd.weight", vocabulary, shape.dim)
    head = "output.weight" if "output.weight" in gguf.tensors else "token_embd.weight"
    jobs.append(reader.matrix(head, vocabulary, shape.dim))
    reader.refuse_the_rest()
    matrices: list[Matrix] = []
    with ThreadPoolExecutor(threads) as pool:
        for matrix in pool.map(_repack_job, jobs, _arena(jobs)):
            matrices.append(matrix)
            if progress is not None:
                progress(len(matrices), len(jobs))
    return Weights(tuple(matrices), norms, Embedding(kind, raw, shape.dim))


def _repack_job(job: tuple[str, Bytes, int, int], out: Bytes) -> Matrix:
    kind, raw, rows, columns = job
    return repack(kind, raw, rows, columns, out)


def _arena(jobs: Sequence[tuple[str, Bytes, int, int]]) -> list[Bytes]:
    """Room for every matrix in one piece of memory, which NumPy asks huge pages for (see CHANGELOG)."""
    ends, at = [], 0
    for kind, _, rows, columns in jobs:
        groups, _, group_bytes = packed_size(kind, rows, columns)
        ends.append((at, at + groups * group_bytes))
        at = _aligned(at + groups * group_bytes)
    memory = np.empty(at + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return [memory[first + a : first + b] for a, b in ends]


def _aligned(n: int) -> int:
    return -(-n // _LINE) * _LINE


def _vocabulary(gguf: GGUF) -> int:
    info = gguf.tensors.get("token_embd.weight")
    if info is None:
        raise MissingTensor("token_embd.weight")
    if len(info.shape) != 2:
        raise BadTensor("token_embd.weight", f"has {len(info.shape)} dimensions, where 2 are needed")
    return info.shape[0]


class _Reader:
    """Looks tensors up by name, checks them, and remembers which were asked for."""

    def __init__(self, gguf: GGUF) -> None:
        self._gguf = gguf
        self._seen: set[str] = set()

    def _check(self, name: str, shape: tuple[int, ...]) -> str:
        self._seen.add(name)
        info = self._gguf.tensors.get(name)
        if info is None:
            raise MissingTensor(name)
        if info.shape != shape:
            raise BadTensor(name, f"has the shape {info.shape}, where {shape} is needed")
        if info.type not in SUPPORTED:
            raise UnsupportedTensorType(name, info.type)
        return info.type

    def vector(self, name: str, size: int) -> Floats:
        """A norm's weights, (size,) float32; only F32 is written by converters."""
        kind = self._check(name, (size,))
        if kind != "F32":
            raise UnsupportedTensorType(name, kind)
        return self._gguf.tensor_bytes(name).view("<f4").astype(np.float32)

    def rows(self, name: str, rows: int, columns: int) -> tuple[str, Bytes]:
        """A matrix's type and its bytes as (rows, bytes a row), a view into the file's map."""
        kind = self._check(name, (rows, columns))
        return kind, self._gguf.tensor_bytes(name).reshape(rows, -1)

    def matrix(self, name: str, rows: int, columns: int) -> tuple[str, Bytes, int, int]:
        """Check now, repack later: what `repack` wants."""
        kind, raw = self.rows(name, rows, columns)
        return kind, raw, rows, columns

    def refuse_the_rest(self) -> None:
        """A tensor that nobody asked for (a bias, an adapter) would silently change nothing: refuse the file."""
        for name in self._gguf.tensors:
            if name not in self._seen:
                raise UnsupportedFeature(f"the tensor '{name}'")


def packed_size(kind: str, rows: int, columns: int) -> tuple[int, int, int]:
    """(groups, steps over k, bytes a group) of a repacked matrix."""
    groups = -(-rows // GROUP)
    if kind in _PLAIN:
        return groups, columns, columns * GROUP * np.dtype(_PLAIN[kind]).itemsize
    units = _BLOCKS[kind]["codes"].shape[0]
    return groups, columns // 32, columns // 32 * (32 + 64 * units)


def repack(kind: str, raw: Bytes, rows: int, columns: int, out: Bytes | None = None) -> Matrix:
    """Interleave 16 rows at a time into `out`. raw: uint8 (rows, bytes a row), as GGUF stores the type.

    Plain types: (group, k, 16 rows). Quantized: (group, block of 32 k) of 16 half scales, then (unit of 4 bytes, 16
    rows); a Q4_0 unit holds k, k+1, k+2, k+3 in its low and k+16, … in its high nibbles, as in the file.
    """
    groups, steps, group_bytes = packed_size(kind, rows, columns)
    if out is None:
        out = np.empty(groups * group_bytes, np.uint8)
    matrix = Matrix(kind, rows, columns, groups, steps, group_bytes, out)
    if kind in _PLAIN:
        values = _padded(raw.view(_PLAIN[kind]).reshape(rows, columns), groups)
        target = out.view(_PLAIN[kind]).reshape(groups, columns, GROUP)
        target[...] = values.reshape(groups, GROUP, columns).transpose(0, 2, 1)
        return matrix
    source = _padded(raw.reshape(-1).view(_BLOCKS[kind]).reshape(rows, steps), groups)
    source = source.reshape(groups, GROUP, steps)
    units = _BLOCKS[kind]["codes"].shape[0]
    blocks = out.reshape(groups, steps, 32 + 64 * units)
    blocks[:, :, :32].view(np.uint16)[...] = source["scale"].transpose(0, 2, 1)
    codes: Any = blocks[:, :, 32:].view(np.uint32).reshape(groups, steps, units, GROUP)
    codes[...] = source["codes"].transpose(0, 2, 3, 1)
    return matrix


def _padded(values: npt.NDArray[Any], groups: int) -> npt.NDArray[Any]:
    """The rows, and zero rows up to a whole number of groups."""
    missing = groups * GROUP - values.shape[0]
    if missing == 0:
        return values
    return np.concatenate([values, np.zeros((missing, values.shape[1]), values.dtype)])
