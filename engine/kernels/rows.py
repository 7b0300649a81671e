"""What happens to one token's row between the matrices: norm, activation, residual."""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.simd import (
    add_f32,
    add_f64,
    load_f32x16,
    mul_f32,
    mul_f64,
    splat_f32,
    splat_f64,
    store_f32x16,
    sum_f64,
    to_f64,
)
from engine.kernels.vector_math import silu


@njit(**OPTIONS)
def add_row(x, h, n):
    """x += h over n float32 (both addresses; whole vectors of 16 are touched)."""
    for i in range(0, 4 * n, 64):
        store_f32x16(x + i, add_f32(load_f32x16(x + i), load_f32x16(h + i)))


@njit(**OPTIONS)
def rms_norm(x, weight, y, n, eps):
    """y = x / sqrt(mean(x²) + eps) * weight over n float32; squares are summed in float64 (NUMERICS rule 3).

    All three are addresses of rows padded with zeros to whole vectors. Zhang and Sennrich 2019.
    """
    total = splat_f64(0.0)
    for i in range(0, 4 * n, 64):
        v = to_f64(load_f32x16(x + i))
        total = add_f64(total, mul_f64(v, v))
    r = splat_f32(np.float32(1.0 / np.sqrt(sum_f64(total) / n + eps)))
    for i in range(0, 4 * n, 64):
        store_f32x16(y + i, mul_f32(mul_f32(load_f32x16(x + i), r), load_f32x16(weight + i)))


@njit(**OPTIONS)
def silu_row(gate, up, n):
    """gate = silu(gate) * up over n float32 (addresses; whole vectors are touched). Shazeer 2020, SwiGLU."""
    for i in range(0, 4 * n, 64):
        store_f32x16(gate + i, mul_f32(silu(load_f32x16(gate + i)), load_f32x16(up + i)))
