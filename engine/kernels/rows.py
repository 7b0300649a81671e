"""What happens to one token's row between the matrices: norm, quantization, activation, residual."""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.matmul import TILE
from engine.kernels.simd import (
    abs_f32,
    add_f32,
    add_f64,
    add_i32,
    bits_of,
    float_of,
    largest_i32,
    load_f32x16,
    max_i32,
    mul_f32,
    mul_f64,
    splat_f32,
    splat_f64,
    splat_i32,
    store_f32,
    store_f32x16,
    store_i8x16,
    store_i32,
    sum_f64,
    sum_i32,
    to_f64,
)
from engine.kernels.vector_math import OPTIONS, rounded_codes, silu

_INFINITY_BITS = np.int32(0x7F800000)
_TINIEST = np.float32(2.0**-100)
_ONE, _ZERO, _NAN = np.float32(1.0), np.float32(0.0), np.float32(np.nan)


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


@njit(**OPTIONS)
def quantize_row(x, n, codes, scales, sums):
    """Codes of 8 bits, one scale and one sum for each 32 of n float32 (NUMERICS rule 2). All are addresses.

    codes: i8 in ±127, scales: f32, sums: i32, of which a token's blocks lie TILE blocks apart (kernels/matmul.py). A
    non-finite block gets scale NaN and codes 0.
    """
    for k in range(n // 32):
        low, high = load_f32x16(x + 128 * k), load_f32x16(x + 128 * k + 64)
        # As integers, magnitudes order like the numbers, with NaN above Inf above all else.
        m = largest_i32(max_i32(bits_of(abs_f32(low)), bits_of(abs_f32(high))))
        d = float_of(m) / np.float32(127.0)
        if m >= _INFINITY_BITS:
            d = _NAN
        elif d < _TINIEST:
            d = _ZERO
        q_low, q_high = splat_i32(np.int32(0)), splat_i32(np.int32(0))
        if d > _ZERO:
            inverse = splat_f32(_ONE / d)
            q_low, q_high = rounded_codes(low, inverse), rounded_codes(high, inverse)
        at = k * TILE
        store_i8x16(codes + 32 * at, q_low)
        store_i8x16(codes + 32 * at + 16, q_high)
        store_f32(scales + 4 * at, d)
        store_i32(sums + 4 * at, sum_i32(add_i32(q_low, q_high)))
