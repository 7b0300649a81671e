"""Tensors of a GGUF as the kernels want them: checked, and repacked. Any supported type may stand in any matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.errors import BadTensor, MissingTensor, UnsupportedFeature, UnsupportedTensorType
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.quants import GROUP, SUPPORTED, Bytes, Embedding, Floats
from engine.repack import Matrix, packed_size, repack

_LINE = 64  # bytes of a cache line
LAYER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


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
