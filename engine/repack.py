"""Matrices as the kernels read them: groups of 16 interleaved rows.

Repacking moves whole codes and scales about and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from engine.quants import (
    FILE,
    GROUP,
    PACKED,
    PLAIN,
    Array,
    Bytes,
    blocks_of,
    iq4_scales,
    q3_scales,
    scales_and_mins,
    weights_of,
)

_AT_ONCE = 1 << 18  # bytes of rows that are moved at a time, so that they are still in the cache when needed again


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


def apart(floats: int) -> int:
    """Width of a float32 row of activations in memory: whole vectors and lines, no multiple of 4096 bytes.

    A tile reads a column of eight rows at once; rows 4096 bytes apart would share one set of the nearest cache.
    """
    width = -(-floats // 32) * 32
    return width + GROUP if width % 1024 == 0 else width


@cache
def packed_step(kind: str) -> np.dtype[Any]:
    """The dtype of one repacked step of GROUP rows: fields of (elements a row, GROUP), then `blocks` of such fields."""
    head, block = PACKED[kind]
    fields: list[Any] = [(name, element, (count, GROUP)) for name, element, count in block]
    step: list[Any] = [(name, element, (count, GROUP)) for name, element, count in head]
    return np.dtype([*step, ("blocks", np.dtype(fields), (blocks_of(kind),))])


def packed_offset(kind: str, field: str) -> int:
    """Byte at which a field begins in a repacked step; for a field of the blocks, in a block."""
    step = packed_step(kind)
    return _offset(step if field in (step.names or ()) else step["blocks"].base, field)


def _offset(dtype: np.dtype[Any], field: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[field][1])


def packed_size(kind: str, rows: int, columns: int) -> tuple[int, int, int]:
    """(groups, steps over k, bytes a group) of a repacked matrix; `columns` is a multiple of the type's block."""
    groups = -(-rows // GROUP)
    if kind in PLAIN:
        return groups, columns, columns * GROUP * np.dtype(PLAIN[kind]).itemsize
    steps = columns // weights_of(kind)
    return groups, steps, steps * packed_step(kind).itemsize


# --- fields that the repacked block has in another form than the file: (…, blocks, elements a row) -------------------

_NIBBLE, _PAIR, _BIT = np.uint32(0x0F0F0F0F), np.uint32(0x03030303), np.uint32(0x01010101)


def _together(units: Array, bits: int) -> Array:
    """Units with `bits` bits in each byte, as many of them in one unit as fit, the first lowest.

    Nibbles: unit u takes those of u and u + 4, as Q4_0 has them in the file; fewer bits: those of neighbours.
    """
    fit = 8 // bits
    parts = [units[..., :4], units[..., 4:]] if bits == 4 else [units[..., i::fit] for i in range(fit)]
    out = parts[0].copy()
    for i, part in enumerate(parts[1:], 1):
        out |= part << np.uint32(bits * i)
    return out


def _of_blocks(units: Array, bits: int, mask: np.uint32) -> Array:
    """(…, eight units of a stretch of the file) to (…, blocks that share them, eight units), `bits` in each byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint32)[:, None]
    return (units[..., None, :] >> shifts) & mask


def _k_fours(block: Array) -> Array:
    """Q4_K, Q5_K: eight units hold the low and the high nibbles of two blocks."""
    units = _of_blocks(block["codes"].reshape(*block.shape, 4, 8), 4, _NIBBLE)
    return _together(units.reshape(*block.shape, 8, 8), 4)


def _q6_fours(block: Array) -> Array:
    """Q6_K: of sixteen units, eight hold the nibbles of the first and third block, eight of the second and fourth."""
    units = _of_blocks(block["codes"].reshape(*block.shape, 2, 2, 8), 4, _NIBBLE)
    return _together(units.swapaxes(-2, -3).reshape(*block.shape, 8, 8), 4)


def _twos(block: Array, field: str) -> Array:
    """Eight units hold two bits each of four blocks."""
    units = _of_blocks(block[field].reshape(*block.shape, 2, 8), 2, _PAIR)
    return _together(units.reshape(*block.shape, 8, 8), 2)


def _ones(block: Array) -> Array:
    """Eight units hold one bit each of eight blocks."""
    return _together(_of_blocks(block["high"], 1, _BIT), 1)


def _threes(block: Array) -> Array:
    """Q3_K: three units hold eight of 3 bits. Each has two whole ones; of the last two, the lows lie in the first two
    units and the highs in the third, so that six of eight are one shift and one mask away.
    """
    low = _of_blocks(block["codes"].reshape(*block.shape, 2, 8), 2, _PAIR).reshape(*block.shape, 8, 8)
    codes = low | _of_blocks(block["high"], 1, _BIT) << np.uint32(2)
    first, second, last = codes[..., 0:6:2], codes[..., 1:6:2], codes[..., 6:]
    out: Array = first | second << np.uint32(3)
    out[..., :2] |= (last & _PAIR) << np.uint32(6)
    high = last >> np.uint32(2) & _BIT
    out[..., 2] |= high[..., 0] << np.uint32(6) | high[..., 1] << np.uint32(7)
    return out


def _fifths(block: Array) -> Array:
    """Q5_0, Q5_1: the bit of weight 4u + j goes from bit 4u + j to bit 8j + u, where `_together` would put it."""
    bits = np.unpackbits(np.ascontiguousarray(block["high"]), axis=-1, bitorder="little")
    by_byte = bits.reshape(*block.shape, 8, 4).swapaxes(-1, -2).reshape(*block.shape, 32)
    return np.packbits(by_byte, axis=-1, bitorder="little").view("<u4")


_OTHER_FORM: dict[str, dict[str, Callable[[Array], Array]]] = {
    "Q5_0": {"high": _fifths},
    "Q5_1": {"high": _fifths},
    "Q2_K": {"codes": lambda b: _twos(b, "codes")},
    "Q3_K": {"codes": _threes, "scales": lambda b: q3_scales(b["scales"])},
    "Q4_K": {"codes": _k_fours},
    "Q5_K": {"codes": _k_fours, "high": _ones},
    "Q6_K": {"codes": _q6_fours, "high": lambda b: _twos(b, "high")},
    "IQ4_XS": {"scales": lambda b: iq4_scales(b["scales"], b["scales_high"])},
}
for _kind in ("Q4_K", "Q5_K"):
    _OTHER_FORM[_kind] |= {
        "scales": lambda b: scales_and_mins(b["scales"])[0].view(np.int8),
        "mins": lambda b: scales_and_mins(b["scales"])[1],
    }


def repack(kind: str, raw: Bytes, rows: int, columns: int, out: Bytes | None = None) -> Matrix:
    """Interleave 16 rows at a time into `out`. raw: uint8 (rows, bytes a row), as GGUF stores the type.

    Plain types: (group, k, 16 rows). Quantized: (group, step) of quants.PACKED, whose fields are (elements, 16 rows).
    """
    groups, steps, group_bytes = packed_size(kind, rows, columns)
    if out is None:
        out = np.empty(groups * group_bytes, np.uint8)
    at_once = max(1, _AT_ONCE // (GROUP * raw.shape[1]))
    for first in range(0, groups, at_once):
        last = min(groups, first + at_once)
        part = _padded(raw[first * GROUP : last * GROUP], (last - first) * GROUP)
        _interleave(kind, part, steps, out[first * group_bytes : last * group_bytes])
    return Matrix(kind, rows, columns, groups, steps, group_bytes, out)


def _interleave(kind: str, raw: Bytes, steps: int, out: Bytes) -> None:
    groups = len(raw) // GROUP
    if kind in PLAIN:
        values = raw.view(PLAIN[kind]).reshape(groups, GROUP, steps)
        out.view(PLAIN[kind]).reshape(groups, steps, GROUP)[...] = values.transpose(0, 2, 1)
        return
    source = raw.reshape(-1).view(FILE[kind]).reshape(groups, GROUP, steps)
    target = out.view(packed_step(kind)).reshape(groups, steps)
    other = _OTHER_FORM.get(kind, {})
    head, block = PACKED[kind]
    for name, _, count in block:
        values = other[name](source) if name in other else source[name]
        values = values.reshape(groups, GROUP, steps, blocks_of(kind), count)
        target["blocks"][name][...] = values.transpose(0, 2, 3, 4, 1)
    for name, _, _ in head:
        target[name][:, :, 0, :] = source[name].transpose(0, 2, 1)


def _padded(raw: Bytes, rows: int) -> Bytes:
    """The rows, and zero rows up to `rows`."""
    missing = rows - len(raw)
    if missing == 0:
        return np.ascontiguousarray(raw)
    return np.concatenate([raw, np.zeros((missing, raw.shape[1]), np.uint8)])
