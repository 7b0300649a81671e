"""Small random-weight Llama files, written at test time: every head size, grouping and tensor type that matters.

The weights come from the raw bits of PCG64 by exact arithmetic, so they are the same under every NumPy. `digest` names
the content; the goldens carry it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from conformance.random_blocks import KINDS, LIKELY, likely_rows

TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}


@dataclass(frozen=True)
class Shape:
    """One small model. `types` is used tensor by tensor, in turn."""

    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    types: tuple[str, ...]
    vocabulary: int = 512
    tied: bool = False
    key_length: bool = False
    eps: float = 1e-5
    rope_base: float = 10000.0
    seed: int = 1


MODELS: dict[str, Shape] = {
    # head sizes 8, 32, 64, 128; groups 1, 2, 4, 8; a feed-forward width that no vector divides
    "f32-head8": Shape(2, 64, 173, 8, 8, 8, ("F32",), tied=True),
    "f32-head32": Shape(3, 128, 200, 4, 2, 32, ("F32",), vocabulary=500, eps=1e-6, seed=2),
    "f32-head64": Shape(2, 256, 352, 4, 1, 64, ("F32",), rope_base=500000.0, seed=3),
    "f32-head128": Shape(2, 256, 346, 2, 1, 128, ("F32",), seed=4),
    "f32-group8": Shape(2, 128, 176, 8, 1, 16, ("F32",), tied=True, seed=5),
    # heads wider than dim / heads, as `attention.key_length` allows
    "f32-wide": Shape(2, 96, 160, 4, 2, 64, ("F32",), key_length=True, seed=6),
    "f16": Shape(3, 256, 704, 8, 4, 32, ("F16",), seed=11),
    "bf16": Shape(3, 256, 704, 8, 4, 32, ("BF16",), seed=12),
    "q8_0": Shape(3, 256, 704, 8, 4, 32, ("Q8_0",), tied=True, seed=13),
    "q4_0": Shape(3, 256, 704, 8, 4, 32, ("Q4_0",), seed=14),
    "mixed": Shape(3, 256, 704, 4, 1, 64, ("Q4_0", "Q8_0", "F16", "BF16", "F32"), seed=15),
}
FLOAT32 = tuple(name for name in MODELS if name.startswith("f32"))
QUANTIZED = ("f16", "bf16", "q8_0", "q4_0", "mixed")

# Smaller ones for the tests that compare bits with bits, one for each tensor type
BITS: dict[str, Shape] = {
    **{kind: Shape(2, 128, 160, 4, 2, 32, (kind,), vocabulary=500, seed=21) for kind in TYPES},
    "F32": Shape(2, 128, 150, 4, 2, 32, ("F32",), vocabulary=500, seed=21),
    "mixed": Shape(2, 128, 160, 4, 1, 32, ("Q8_0", "Q4_0", "F32", "BF16", "F16"), vocabulary=500, seed=22),
}
# One for each tensor type that came later, and a mix such as files of "K_M" have; rows of 256, as K types need them
TENSOR_TYPES: dict[str, Shape] = {
    kind.lower(): Shape(2, 256, 256, 4, 2, 64, (kind,), seed=30 + i)
    for i, kind in enumerate(kind for kind in KINDS if kind not in TYPES)
}
TENSOR_TYPES["k-mixed"] = Shape(2, 256, 512, 4, 1, 64, ("Q4_K", "Q6_K", "Q5_K", "Q5_0", "Q3_K"), tied=True, seed=50)


def shape_of(name: str) -> Shape:
    """The model of this name."""
    return {**TENSOR_TYPES, **BITS, **MODELS}[name]


class Bits:
    """Numbers of mean 0 and deviation 1 from raw generator bits: exact, hence equal everywhere."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def normal(self, *shape: int) -> np.ndarray:
        """float32 of this shape: each the centred sum of four 16-bit uniforms."""
        words = self._source.random_raw(int(np.prod(shape)))
        parts = [(words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
        total = np.sum(parts, axis=0).astype(np.float64) - 2 * 65535.0
        return (total * (3.0**0.5 / 65536.0)).astype(np.float32).reshape(shape)

    def integers(self, low: int, high: int, count: int) -> list[int]:
        """Whole numbers in [low, high)."""
        return [low + int(word % (high - low)) for word in self._source.random_raw(count).tolist()]

    def array(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """The same in an int64 array."""
        words = self._source.random_raw(int(np.prod(shape))) % np.uint64(high - low)
        return words.astype(np.int64).reshape(shape) + low


def vocabulary(size: int) -> tuple[list[bytes], list[float], list[int]]:
    """A SentencePiece vocabulary: unknown, start, end, 256 bytes, letters, then pairs and triples of letters."""
    tokens, types = [b"<unk>", b"<s>", b"</s>"], [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2]
    tokens += [b"<0x%02X>" % i for i in range(256)]
    types += [gguf.TokenType.BYTE] * 256
    letters = ["▁", *"etaoinshrdlucmfwypvbgkqjxz", *".,!?'\"-:;()0123456789ETAOINSHRDL"]
    pieces = [*letters, *("▁" + c for c in letters[1:27])]
    pieces += [a + b for a in "etaoinshr" for b in "etaoinshrdlu"]
    pieces += ["▁" + a + b for a in "taoinsh" for b in "etaoinshrd"]
    pieces = list(dict.fromkeys(pieces))[: size - len(tokens)]
    if len(tokens) + len(pieces) != size:
        raise ValueError(f"{size} tokens were asked for, {len(tokens) + len(pieces)} are there")
    tokens += [p.encode() for p in pieces]
    types += [gguf.TokenType.NORMAL] * len(pieces)
    scores = [0.0 if i < 259 else float(259 - i) for i in range(size)]
    return tokens, scores, [int(t) for t in types]


def add_vocabulary(w: gguf.GGUFWriter, size: int) -> None:
    """Write the fields of a model's vocabulary."""
    w.add_vocab_size(size)
    tokens, scores, types = vocabulary(size)
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)


def matrices(shape: Shape) -> list[tuple[str, int, int]]:
    """(name, rows, columns) of every matrix, in the file's order."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    out = [("token_embd", shape.vocabulary, shape.dim)]
    if not shape.tied:
        out.append(("output", shape.vocabulary, shape.dim))
    for i in range(shape.layers):
        out += [
            (f"blk.{i}.attn_q", q, shape.dim),
            (f"blk.{i}.attn_k", kv, shape.dim),
            (f"blk.{i}.attn_v", kv, shape.dim),
            (f"blk.{i}.attn_output", shape.dim, q),
            (f"blk.{i}.ffn_gate", shape.ffn, shape.dim),
            (f"blk.{i}.ffn_up", shape.ffn, shape.dim),
            (f"blk.{i}.ffn_down", shape.dim, shape.ffn),
        ]
    return out


def write(path: Path, shape: Shape, change=lambda name, values: values) -> Path:
    """Write one model; `change(name, float32 values)` may replace a tensor's values before they are quantized."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(path.stem)
    w.add_context_length(2048)
    w.add_embedding_length(shape.dim)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.ffn)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    if shape.key_length:
        w.add_key_length(shape.head_dim)
        w.add_value_length(shape.head_dim)
    w.add_layer_norm_rms_eps(shape.eps)
    w.add_rope_dimension_count(shape.head_dim)
    w.add_rope_freq_base(shape.rope_base)
    add_vocabulary(w, shape.vocabulary)
    bits = Bits(shape.seed)
    for i, (name, rows, columns) in enumerate(matrices(shape)):
        kind = gguf.GGMLQuantizationType[shape.types[i % len(shape.types)]]
        deviation = columns**-0.5
        if name == "token_embd":  # as large as what the layers add, or their rounding would be all that is seen
            deviation = 0.5 if shape.tied else 1.0
        if kind.name in LIKELY:
            w.add_tensor(f"{name}.weight", likely_rows(kind.name, rows, columns, bits.array, deviation), raw_dtype=kind)
            continue
        values = change(f"{name}.weight", bits.normal(rows, columns) * np.float32(deviation))
        w.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    norms = [f"blk.{i}.{n}.weight" for i in range(shape.layers) for n in ("attn_norm", "ffn_norm")]
    for name in [*norms, "output_norm.weight"]:
        values = change(name, np.float32(1) + np.float32(0.1) * bits.normal(shape.dim))
        w.add_tensor(name, values.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def digest(path: Path) -> str:
    """blake2b-128 hex over the tensors' names, types, shapes and bytes, in order of name."""
    out = hashlib.blake2b(digest_size=16)
    for tensor in sorted(gguf.GGUFReader(path).tensors, key=lambda t: t.name):
        out.update(f"{tensor.name} {tensor.tensor_type.name} {[int(n) for n in tensor.shape]}\n".encode())
        out.update(np.ascontiguousarray(tensor.data).tobytes())
    return out.hexdigest()


def token_list(shape_or_size, count: int, seed: int = 99) -> list[int]:
    """`count` ids: the start token, then any but the three special ones."""
    size = getattr(shape_or_size, "vocabulary", shape_or_size)
    return [1, *Bits(seed).integers(3, size, count - 1)]
