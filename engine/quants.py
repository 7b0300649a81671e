"""The tensor types of a GGUF: how a block of a row lies in the file, in a repacked matrix, and what it stands for.

Source of the file's layouts: ggml-common.h and ggml-quants.c of https://github.com/ggml-org/ggml
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GROUP = 16  # rows of a repacked matrix that lie together
PLAIN = {"F32": "<f4", "F16": "<u2", "BF16": "<u2"}

_HALF, _D, _MIN = ("m", "<u2"), ("d", "<u2"), ("dmin", "<u2")


def _units(n: int, name: str = "codes") -> tuple[str, str, int]:
    """Codes as they lie in the file, in n units of 4 bytes: the piece that is moved."""
    return name, "<u4", n


# A block of a row in the file. Codes of 4 bits: the low nibbles come first, then the high ones.
FILE: dict[str, np.dtype[Any]] = {
    kind: np.dtype(fields)
    for kind, fields in {
        "Q4_0": [_D, _units(4)],
        "Q4_1": [_D, _HALF, _units(4)],
        "Q5_0": [_D, ("high", "u1", 4), _units(4)],
        "Q5_1": [_D, _HALF, ("high", "u1", 4), _units(4)],
        "Q8_0": [_D, _units(8)],
        "Q2_K": [("scales", "u1", 16), _units(16), _D, _MIN],
        "Q3_K": [_units(8, "high"), _units(16), ("scales", "u1", 12), _D],
        "Q4_K": [_D, _MIN, ("scales", "u1", 12), _units(32)],
        "Q5_K": [_D, _MIN, ("scales", "u1", 12), _units(8, "high"), _units(32)],
        "Q6_K": [_units(32), _units(16, "high"), ("scales", "i1", 16), _D],
        "IQ4_NL": [_D, _units(4)],
        "IQ4_XS": [_D, ("scales_high", "<u2"), ("scales", "u1", 4), _units(32)],
        "MXFP4": [("e", "u1"), _units(4)],
    }.items()
}
# The same once repacked, GROUP rows at a time: what stands before the blocks of a step, and each of its blocks of 32.
# A field: name, element, how many a row; each element stands beside the same one of the other rows. Every block has its
# own codes behind its own scales, so that a matrix is read as one stream; scales of 6 bits have a byte of their own.
Fields = tuple[tuple[str, str, int], ...]
_BYTE_SCALE, _BYTE_MIN, _TWO_SCALES = ("scales", "i1", 1), ("mins", "u1", 1), ("scales", "i1", 2)
PACKED: dict[str, tuple[Fields, Fields]] = {
    "Q4_0": ((), (("d", "<u2", 1), _units(4))),
    "Q4_1": ((), (("d", "<u2", 1), ("m", "<u2", 1), _units(4))),
    "Q5_0": ((), (("d", "<u2", 1), _units(1, "high"), _units(4))),
    "Q5_1": ((), (("d", "<u2", 1), ("m", "<u2", 1), _units(1, "high"), _units(4))),
    "Q8_0": ((), (("d", "<u2", 1), _units(8))),
    "Q2_K": ((("d", "<u2", 1), ("dmin", "<u2", 1)), (("scales", "u1", 2), _units(2))),
    "Q3_K": ((("d", "<u2", 1),), (_TWO_SCALES, _units(3))),
    "Q4_K": ((("d", "<u2", 1), ("dmin", "<u2", 1)), (_BYTE_SCALE, _BYTE_MIN, _units(4))),
    "Q5_K": ((("d", "<u2", 1), ("dmin", "<u2", 1)), (_BYTE_SCALE, _BYTE_MIN, _units(1, "high"), _units(4))),
    "Q6_K": ((("d", "<u2", 1),), (_TWO_SCALES, _units(2, "high"), _units(4))),
    "IQ4_NL": ((), (("d", "<u2", 1), _units(4))),
    "IQ4_XS": ((("d", "<u2", 1),), (_BYTE_SCALE, _units(4))),
    "MXFP4": ((), (("e", "u1", 1), _units(4))),
}
SUPPORTED = frozenset(PLAIN) | frozenset(PACKED)
# What the 16 codes of the types with a table stand for. MXFP4's are doubled, and its scales halved.
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
MXFP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def weights_of(kind: str) -> int:
    """Weights of a row in one block, of which a row's length must be a multiple."""
    if kind in PLAIN:
        return 1
    return 256 if kind.endswith(("_K", "_XS")) else 32


def blocks_of(kind: str) -> int:
    """Blocks of 32 weights in what the file and a repacked matrix have as one piece."""
    return weights_of(kind) // 32


# --- fields that the repacked block has in another form than the file -------------------------------------------------


def scales_and_mins(packed: Array) -> tuple[Bytes, Bytes]:
    """Q4_K's and Q5_K's eight scales and eight mins of 6 bits, (…, 8) each, from (…, 12) bytes."""
    d, m, both = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([d & 63, (both & 15) | (d >> 6 << 4)], axis=-1)
    mins = np.concatenate([m & 63, (both >> 4) | (m >> 6 << 4)], axis=-1)
    return scales, mins


def q3_scales(packed: Array) -> Any:
    """Q3_K's sixteen scales, (…, 16) int8 from (…, 12) bytes: four bits of each, then two."""
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    high = np.concatenate([packed[..., 8:] >> s & 3 for s in (0, 2, 4, 6)], axis=-1)
    return (low | high << 4).astype(np.int8) - np.int8(32)


def iq4_scales(low: Array, high: Array) -> Any:
    """IQ4_XS's eight scales, (…, 8) int8 from (…, 4) bytes of nibbles and a 16-bit number of pairs of bits."""
    nibbles = np.stack([low & 15, low >> 4], axis=-1).reshape(*low.shape[:-1], 8)
    pairs = (high[..., None] >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & 3
    return (nibbles | pairs << 4).astype(np.int8) - np.int8(32)


# --- what a block stands for ------------------------------------------------------------------------------------------


def _half(bits: Array) -> Floats:
    """Halves as float32, with an axis for the codes that they scale."""
    return np.ascontiguousarray(bits).view("<f2").astype(np.float32)[..., None]


def _split(codes: Array, bits: int) -> Any:
    """Each byte's fields of `bits` bits, lowest first, as (…, 8 / bits, bytes)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (codes[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)


def _raw(block: Array, name: str = "codes") -> Bytes:
    return np.ascontiguousarray(block[name]).view(np.uint8)


def _nibbles(block: Array) -> Any:
    """(n, blocks, 32) codes of 4 bits of the types of 32 weights."""
    codes = _split(_raw(block), 4)
    return codes.reshape(*codes.shape[:-2], 32)


def _fives(block: Array) -> Any:
    """(n, blocks, 32) codes of Q5_0 and Q5_1: a fifth bit from a number of 32 bits."""
    high = np.unpackbits(np.ascontiguousarray(block["high"]), axis=-1, bitorder="little")
    return _nibbles(block) | high << 4


def _by_64(block: Array) -> Any:
    """(n, blocks, 8, 32) codes of 4 bits, of which 32 bytes hold 64."""
    codes = _raw(block).reshape(*block.shape, 4, 32)
    return _split(codes, 4).reshape(*block.shape, 8, 32)


def _by_128(block: Array, name: str = "codes") -> Any:
    """(n, blocks, 8, 32) codes of 2 bits, of which 32 bytes hold 128."""
    codes = _raw(block, name).reshape(*block.shape, 2, 32)
    return _split(codes, 2).reshape(*block.shape, 8, 32)


def _high_bits(block: Array) -> Any:
    """(n, blocks, 8, 32) single bits: bit s of byte i belongs to weight i of the s-th 32."""
    return _split(_raw(block, "high"), 1)


def _q2_k(block: Array) -> Any:
    codes = _by_128(block).reshape(*block.shape, 16, 16).astype(np.float32)
    scale = _half(block["d"]) * (block["scales"] & 15).astype(np.float32)
    least = _half(block["dmin"]) * (block["scales"] >> 4).astype(np.float32)
    return scale[..., None] * codes - least[..., None]


def _q3_k(block: Array) -> Any:
    codes = (_by_128(block) | _high_bits(block) << 2).astype(np.int8) - np.int8(4)
    scale = _half(block["d"]) * q3_scales(block["scales"]).astype(np.float32)
    return scale[..., None] * codes.reshape(*block.shape, 16, 16).astype(np.float32)


def _with_mins(block: Array, codes: Array) -> Any:
    scales, mins = scales_and_mins(block["scales"])
    scale = _half(block["d"]) * scales.astype(np.float32)
    least = _half(block["dmin"]) * mins.astype(np.float32)
    return scale[..., None] * codes.astype(np.float32) - least[..., None]


def _q6_k(block: Array) -> Any:
    low = _split(_raw(block).reshape(*block.shape, 2, 64), 4).reshape(*block.shape, 8, 32)
    codes = (low | _by_128(block, "high") << 4).astype(np.int8) - np.int8(32)
    scale = _half(block["d"]) * block["scales"].astype(np.float32)
    return scale[..., None] * codes.reshape(*block.shape, 16, 16).astype(np.float32)


def _iq4_xs(block: Array) -> Any:
    codes = _split(_raw(block).reshape(*block.shape, 8, 16), 4).reshape(*block.shape, 8, 32)
    scale = _half(block["d"]) * iq4_scales(block["scales"], block["scales_high"]).astype(np.float32)
    return scale[..., None] * np.array(IQ4_VALUES, np.float32)[codes]


def _mxfp4(block: Array) -> Any:
    e = block["e"].astype(np.uint32)
    scale = np.where(e < 2, np.uint32(0x00200000) << e, (e - np.uint32(1)) << np.uint32(23)).view(np.float32)
    return scale[..., None] * np.array(MXFP4_VALUES, np.float32)[_nibbles(block)]


_VALUES: dict[str, Callable[[Array], Any]] = {
    "Q4_0": lambda b: _half(b["d"]) * (_nibbles(b).astype(np.float32) - 8),
    "Q4_1": lambda b: _half(b["d"]) * _nibbles(b).astype(np.float32) + _half(b["m"]),
    "Q5_0": lambda b: _half(b["d"]) * (_fives(b).astype(np.float32) - 16),
    "Q5_1": lambda b: _half(b["d"]) * _fives(b).astype(np.float32) + _half(b["m"]),
    "Q8_0": lambda b: _half(b["d"]) * _raw(b).view(np.int8).astype(np.float32),
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": lambda b: _with_mins(b, _by_64(b)),
    "Q5_K": lambda b: _with_mins(b, _by_64(b) | _high_bits(b) << 4),
    "Q6_K": _q6_k,
    "IQ4_NL": lambda b: _half(b["d"]) * np.array(IQ4_VALUES, np.float32)[_nibbles(b)],
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}


def dequantize(kind: str, raw: Bytes, columns: int) -> Floats:
    """The numbers that rows of a supported type stand for: uint8 (n, bytes a row) to float32 (n, columns).

    As ggml computes them, product by product, so that one element is the same float32 there and here. Scales that are
    no numbers give such weights, without a warning: logits that are none are found where they are made.
    """
    raw, n = np.ascontiguousarray(raw), len(raw)
    if kind == "F32":
        return raw.view("<f4").astype(np.float32).reshape(n, columns)
    if kind == "F16":
        return raw.view("<f2").astype(np.float32).reshape(n, columns)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(n, columns)
    with np.errstate(all="ignore"):
        values: Array = _VALUES[kind](raw.reshape(-1).view(FILE[kind]).reshape(n, -1))
    return values.reshape(n, columns).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Embedding:
    """The token embedding, read row by row from the file's map."""

    kind: str
    raw: Bytes  # (vocabulary, bytes a row)
    dim: int

    def rows(self, tokens: Sequence[int]) -> Floats:
        """float32 (n, dim) of the tokens; every element is one exact product and at most one rounded difference."""
        return dequantize(self.kind, self.raw[np.asarray(tokens, np.int64)], self.dim)
