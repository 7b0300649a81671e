"""Tensors of a GGUF as the kernels want them: checked, and repacked. Any supported type may stand in any matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.errors import BadTensor, MissingTensor, UnsupportedFeature, UnsupportedTensorType
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.packed import LINE, Job, PackedWeights, places
from engine.quants import GROUP, PLAIN, SUPPORTED, Bytes, Embedding, Floats, dequantize
from engine.repack import Matrix, apart, repack

LAYER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Weights:
    """All of a model's tensors. `matrices` holds 7 a layer (LAYER_MATRICES), then the output head.

    norms: (2 * layers + 1, dim padded to 16) float32. head_norms: (2 * layers, head_dim padded) of queries and keys,
    post_norms: (2 * layers, dim padded) behind attention and feed-forward part, where the family has them. biases: by
    place in `matrices`, padded to 16. factors: what rotary frequencies are divided by. embedding: (vocabulary, dim)
    rows in the file's own type.
    """

    matrices: tuple[Matrix, ...]
    norms: Floats
    head_norms: Floats | None
    post_norms: Floats | None
    biases: dict[int, Floats]
    factors: Floats | None
    embedding: Embedding

    @property
    def kinds(self) -> frozenset[str]:
        """The tensor types that the kernels must handle."""
        return frozenset(m.kind for m in self.matrices)


def load_weights(
    gguf: GGUF,
    shape: Hyperparameters,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    kept: PackedWeights | None = None,
) -> Weights:
    """Check every tensor; map the repacked matrices from `kept`, or repack them: `progress(done, total)` counts them.

    Raises MissingTensor, BadTensor (wrong shape), UnsupportedTensorType, UnsupportedFeature (a tensor that this forward
    pass would ignore).
    """
    reader = _Reader(gguf)
    vocabulary = _vocabulary(gguf)
    jobs: list[Job] = []
    biases: dict[int, Floats] = {}
    for layer in range(shape.layers):
        for job, bias in _layer_matrices(reader, shape, f"blk.{layer}."):
            if bias is not None:
                biases[len(jobs)] = bias
            jobs.append(job)
    layers = range(shape.layers)
    norms = [f"blk.{layer}.{name}.weight" for layer in layers for name in ("attn_norm", "ffn_norm")]
    all_norms = reader.vectors([*norms, "output_norm.weight"], shape.dim)
    head_norms = post_norms = None
    if shape.family.head_norms:
        names = [f"blk.{layer}.{name}.weight" for layer in layers for name in ("attn_q_norm", "attn_k_norm")]
        head_norms = reader.vectors(names, shape.head_dim)
    if shape.family.post_norms:
        names = [f"blk.{layer}.{name}.weight" for layer in layers for name in ("post_attention_norm", "post_ffw_norm")]
        post_norms = reader.vectors(names, shape.dim)
    kind, raw = reader.rows("token_embd.weight", vocabulary, shape.dim)
    head = "output.weight" if "output.weight" in gguf.tensors else "token_embd.weight"
    if "output.bias" in gguf.tensors:
        biases[len(jobs)] = reader.vectors(["output.bias"], vocabulary)[0]
    jobs.append(reader.matrix(head, vocabulary, shape.dim))
    factors = _factors(reader, shape)
    reader.refuse_the_rest()
    matrices = _packed(gguf, jobs, threads, progress, kept)
    embedding = Embedding(kind, raw, shape.dim)
    return Weights(tuple(matrices), all_norms, head_norms, post_norms, biases, factors, embedding)


def _layer_matrices(reader: _Reader, shape: Hyperparameters, at: str) -> list[tuple[Job, Floats | None]]:
    """A layer's matrices in the order of LAYER_MATRICES, each with its bias if the file has one.

    Where a file keeps several in one tensor, each is a range of its rows.
    """
    q, kv, dim, ffn = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.dim, shape.ffn
    if reader.has(f"{at}attn_qkv.weight"):
        out = reader.fused(f"{at}attn_qkv", ("attn_q", "attn_k", "attn_v"), (q, kv, kv), dim)
    else:
        out = [reader.biased(f"{at}{n}", rows, dim) for n, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv))]
    out.append(reader.biased(f"{at}attn_output", dim, q))
    if shape.family.fused_gate:
        out += reader.fused(f"{at}ffn_up", ("ffn_gate", "ffn_up"), (ffn, ffn), dim)
    else:
        out += [reader.biased(f"{at}{n}", ffn, dim) for n in ("ffn_gate", "ffn_up")]
    out.append(reader.biased(f"{at}ffn_down", dim, ffn))
    return out


def _factors(reader: _Reader, shape: Hyperparameters) -> Floats | None:
    """What the rotary frequencies are divided by; the file's other sets of factors are checked, too."""
    found = None
    for name in ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"):
        if shape.family.frequency_factors and reader.has(name):
            factors = reader.vector(name, shape.rope_dims // 2)
            if not (np.isfinite(factors) & (factors > 0.0)).all():
                raise BadTensor(name, "holds a factor that is not positive")
            found = factors if name == shape.factors else found
    return found


def _packed(
    gguf: GGUF,
    jobs: Sequence[Job],
    threads: int,
    progress: Callable[[int, int], None] | None,
    kept: PackedWeights | None,
) -> list[Matrix]:
    """The matrices, mapped where they are kept, else repacked, and then kept."""
    found = kept.find(jobs) if kept is not None else None
    if found is not None:
        return found
    matrices: list[Matrix] = []
    with ThreadPoolExecutor(threads) as pool:
        for job, matrix in zip(jobs, pool.map(_repack_job, jobs, _arena(jobs)), strict=True):
            matrices.append(matrix)
            gguf.let_go(job[1])
            if progress is not None:
                progress(len(matrices), len(jobs))
    if kept is not None:
        kept.keep(matrices)
    return matrices


def _repack_job(job: Job, out: Bytes) -> Matrix:
    kind, raw, rows, columns = job
    return repack(kind, raw, rows, columns, out)


def _arena(jobs: Sequence[Job]) -> list[Bytes]:
    """Room for every matrix in one piece of memory, which NumPy asks huge pages for (see CHANGELOG)."""
    ends, size = places(jobs)
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return [memory[first + a : first + b] for a, b in ends]


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

    def has(self, name: str) -> bool:
        return name in self._gguf.tensors

    def vector(self, name: str, size: int) -> Floats:
        """A norm's weights or a bias, (size,) float32. Converters write F32; what is half as wide widens exactly."""
        kind = self._check(name, (size,))
        if kind not in PLAIN:
            raise UnsupportedTensorType(name, kind)
        values: Floats = dequantize(kind, self._gguf.tensor_bytes(name)[None], size)[0]
        return values

    def vectors(self, names: Sequence[str], size: int) -> Floats:
        """Several of one size, (names, size padded with zeros to whole vectors) float32."""
        out = np.zeros((len(names), apart(size)), np.float32)
        for row, name in zip(out, names, strict=True):
            row[:size] = self.vector(name, size)
        return out

    def rows(self, name: str, rows: int, columns: int) -> tuple[str, Bytes]:
        """A matrix's type and its bytes as (rows, bytes a row), a view into the file's map."""
        kind = self._check(name, (rows, columns))
        return kind, self._gguf.tensor_bytes(name).reshape(rows, -1)

    def matrix(self, name: str, rows: int, columns: int) -> Job:
        """Check now, repack later: what `repack` wants."""
        kind, raw = self.rows(name, rows, columns)
        return kind, raw, rows, columns

    def biased(self, name: str, rows: int, columns: int) -> tuple[Job, Floats | None]:
        """The matrix `name` and, where the file has it, its bias."""
        job = self.matrix(f"{name}.weight", rows, columns)
        bias = self.vectors([f"{name}.bias"], rows)[0] if self.has(f"{name}.bias") else None
        return job, bias

    def fused(
        self, name: str, parts: Sequence[str], sizes: Sequence[int], columns: int
    ) -> list[tuple[Job, Floats | None]]:
        """The matrices that lie one behind the other in the rows of `name`. Biases: as one, or by the parts' names."""
        kind, raw = self.rows(f"{name}.weight", sum(sizes), columns)
        whole = self.vector(f"{name}.bias", sum(sizes)) if self.has(f"{name}.bias") else None
        out: list[tuple[Job, Floats | None]] = []
        at = 0
        for part, rows in zip(parts, sizes, strict=True):
            bias = None
            own = f"{name[: name.rindex('.')]}.{part}.bias"
            if whole is not None:
                bias = np.zeros(-(-rows // GROUP) * GROUP, np.float32)
                bias[:rows] = whole[at : at + rows]
            elif self.has(own):
                bias = self.vectors([own], rows)[0]
            out.append(((kind, raw[at : at + rows], rows, columns), bias))
            at += rows
        return out

    def refuse_the_rest(self) -> None:
        """A tensor that nobody asked for (an adapter, say) would silently change nothing: refuse the file."""
        for name in self._gguf.tensors:
            if name not in self._seen:
                raise UnsupportedFeature(f"the tensor '{name}'")
