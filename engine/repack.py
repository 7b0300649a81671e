"""Matrices as the kernels read them: groups of 16 interleaved rows.

Repacking moves whole codes and scales about and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.quants import BLOCKS, PLAIN, Bytes

GROUP = 16


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


def packed_size(kind: str, rows: int, columns: int) -> tuple[int, int, int]:
    """(groups, steps over k, bytes a group) of a repacked matrix."""
    groups = -(-rows // GROUP)
    if kind in PLAIN:
        return groups, columns, columns * GROUP * np.dtype(PLAIN[kind]).itemsize
    units = BLOCKS[kind]["codes"].shape[0]
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
    if kind in PLAIN:
        values = _padded(raw.view(PLAIN[kind]).reshape(rows, columns), groups)
        target = out.view(PLAIN[kind]).reshape(groups, columns, GROUP)
        target[...] = values.reshape(groups, GROUP, columns).transpose(0, 2, 1)
        return matrix
    source = _padded(raw.reshape(-1).view(BLOCKS[kind]).reshape(rows, steps), groups)
    source = source.reshape(groups, GROUP, steps)
    units = BLOCKS[kind]["codes"].shape[0]
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
