"""What happens to one token's row between the matrices: norm, activation, residual."""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.simd import (
    add_f32,
    add_f64,
    lanes_below,
    load_f32,
    load_f32x16,
    mul_f32,
    mul_f64,
    splat_f32,
    splat_f64,
    store_f32,
    store_f32x16,
    sum_f64,
    to_f64,
)
from engine.kernels.vector_math import gelu, silu


@njit(**OPTIONS)
def add_row(x, h, n):
    """x += h over n float32 (both addresses; whole vectors of 16 are touched)."""
    for i in range(0, 4 * n, 64):
        store_f32x16(x + i, add_f32(load_f32x16(x + i), load_f32x16(h + i)))


@njit(**OPTIONS)
def add_scaled_row(x, h, n, scale):
    """x += h * scale, two roundings; as add_row."""
    by = splat_f32(scale)
    for i in range(0, 4 * n, 64):
        store_f32x16(x + i, add_f32(load_f32x16(x + i), mul_f32(load_f32x16(h + i), by)))


@njit(**OPTIONS)
def scale_row(x, n, scale):
    """x *= scale over n float32 (address; whole vectors of 16 are touched)."""
    by = splat_f32(scale)
    for i in range(0, 4 * n, 64):
        store_f32x16(x + i, mul_f32(load_f32x16(x + i), by))


@njit(**OPTIONS)
def copy_scaled(x, y, n, scale):
    """y = x * scale over n float32 (addresses), and not one more."""
    whole = n - n % 16
    for i in range(0, 4 * whole, 64):
        store_f32x16(y + i, mul_f32(load_f32x16(x + i), splat_f32(scale)))
    for i in range(4 * whole, 4 * n, 4):
        store_f32(y + i, load_f32(x + i) * scale)


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
def norm_heads(x, heads, dims, weight, eps):
    """rms_norm of each of a row's heads, in place. Up to 15 float32 behind the row are read and count for nothing.

    weight: address of `dims` float32 padded to whole vectors.
    """
    whole = dims - dims % 16
    for h in range(heads):
        at = x + 4 * dims * h
        total = splat_f64(0.0)
        for i in range(0, dims, 16):
            v = to_f64(lanes_below(np.int32(dims - i), load_f32x16(at + 4 * i), splat_f32(np.float32(0.0))))
            total = add_f64(total, mul_f64(v, v))
        r = np.float32(1.0 / np.sqrt(sum_f64(total) / dims + eps))
        for i in range(0, whole, 16):
            y = mul_f32(mul_f32(load_f32x16(at + 4 * i), splat_f32(r)), load_f32x16(weight + 4 * i))
            store_f32x16(at + 4 * i, y)
        for i in range(whole, dims):
            store_f32(at + 4 * i, (load_f32(at + 4 * i) * r) * load_f32(weight + 4 * i))


@njit(**OPTIONS)
def gelu_row(gate, up, n):
    """gate = gelu(gate) * up over n float32; as silu_row. Shazeer 2020, GEGLU."""
    for i in range(0, 4 * n, 64):
        store_f32x16(gate + i, mul_f32(gelu(load_f32x16(gate + i)), load_f32x16(up + i)))


@njit(**OPTIONS)
def silu_row(gate, up, n):
    """gate = silu(gate) * up over n float32 (addresses; whole vectors are touched). Shazeer 2020, SwiGLU."""
    for i in range(0, 4 * n, 64):
        store_f32x16(gate + i, mul_f32(silu(load_f32x16(gate + i)), load_f32x16(up + i)))
