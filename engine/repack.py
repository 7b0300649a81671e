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


@cache
def packed_block(kind: str) -> np.dtype[Any]:
    """The dtype of one repacked block of GROUP rows: each field is (elements a row, GROUP)."""
    return np.dtype([(name, element, (count, GROUP)) for name, element, count in PACKED[kind]])


def packed_offset(kind: str, field: str) -> int:
    """Byte at which a field begins in a repacked block."""
    fields = packed_block(kind).fields
    assert fields is not None
    return int(fields[field][1])


def packed_size(kind: str, rows: int, columns: int) -> tuple[int, int, int]:
    """(groups, steps over k, bytes a group) of a repacked matrix; `columns` is a multiple of the type's block."""
    groups = -(-rows // GROUP)
    if kind in PLAIN:
        return groups, columns, columns * GROUP * np.dtype(PLAIN[kind]).itemsize
    steps = columns // weights_of(kind)
    return groups, steps, steps * packed_block(kind).itemsize


def _q5(block: Array) -> dict[str, Array]:
    """Fifth bits: that of weight 4u + j goes from bit 4u + j to bit 8j + u, so that a shift by u suits all four j."""
    bits = np.unpackbits(np.ascontiguousarray(block["high"]), axis=-1, bitorder="little")
    by_byte = bits.reshape(*block.shape, 8, 4).swapaxes(-1, -2).reshape(*block.shape, 32)
    return {"high": np.packbits(by_byte, axis=-1, bitorder="little").view("<u4")}


def _k_scales(block: Array) -> dict[str, Array]:
    scales, mins = scales_and_mins(block["scales"])
    return {"scales": scales, "mins": mins}


_OTHER_FORM: dict[str, Callable[[Array], dict[str, Array]]] = {
    "Q5_0": _q5,
    "Q5_1": _q5,
    "Q3_K": lambda block: {"scales": q3_scales(block["scales"])},
    "Q4_K": _k_scales,
    "Q5_K": _k_scales,
    "IQ4_XS": lambda block: {"scales": iq4_scales(block["scales"], block["scales_high"])},
}


def repack(kind: str, raw: Bytes, rows: int, columns: int, out: Bytes | None = None) -> Matrix:
    """Interleave 16 rows at a time into `out`. raw: uint8 (rows, bytes a row), as GGUF stores the type.

    Plain types: (group, k, 16 rows). Quantized: (group, block) of the fields in quants.PACKED, each (elements, 16
    rows).
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
    target = out.view(packed_block(kind)).reshape(groups, steps)
    other = _OTHER_FORM[kind](source) if kind in _OTHER_FORM else {}
    for name, _, count in PACKED[kind]:
        values = other[name] if name in other else source[name]
        target[name][...] = values.reshape(groups, GROUP, steps, count).transpose(0, 2, 3, 1)


def _padded(raw: Bytes, rows: int) -> Bytes:
    """The rows, and zero rows up to `rows`."""
    missing = rows - len(raw)
    if missing == 0:
        return np.ascontiguousarray(raw)
    return np.concatenate([raw, np.zeros((missing, raw.shape[1]), np.uint8)])
