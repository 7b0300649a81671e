"""Activations as the quantized matrices read them: 8-bit codes by blocks of 32, with what each block needs beside.

TILE tokens lie together, block by block, so that a tile of tokens is one stream of memory. A block of a tile holds
TILE times 32 codes, then TILE numbers of each of: the scale (f32), -8 and -128 times the sum of the codes (i32), -32
times the sums of the first and of the last 16 codes (i32), the sum of the codes (f32). Everything but codes and scale
follows from the codes; it stands here, multiplied as the tensor types want it, because all rows of a matrix need it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.plan import CODES_BYTES, TILE
from engine.kernels.simd import (
    abs_f32,
    bits_of,
    float_of,
    largest_i32,
    load_f32x16,
    max_i32,
    splat_f32,
    splat_i32,
    store_f32,
    store_i8x16,
    store_i32,
    sum_i32,
)
from engine.kernels.vector_math import rounded_codes

SCALE, MINUS_8, MINUS_128, MINUS_32_FIRST, MINUS_32_LAST, SUM = (TILE * (32 + 4 * i) for i in range(6))

_INFINITY_BITS = np.int32(0x7F800000)
_TINIEST = np.float32(2.0**-100)
_ONE, _ZERO, _NAN = np.float32(1.0), np.float32(0.0), np.float32(np.nan)


@njit(**OPTIONS)
def quantize_row(x, n, tiles, stride, row):
    """Write the codes and scales of row `row`, n float32 at x, into its tile (NUMERICS rule 2).

    tiles: address of the first tile. stride: bytes of a tile. A non-finite block gets scale NaN and codes 0.
    """
    lane = row % TILE
    at = tiles + stride * (row // TILE)
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
        store_i8x16(at + 32 * lane, q_low)
        store_i8x16(at + 32 * lane + 16, q_high)
        first, last = sum_i32(q_low), sum_i32(q_high)
        store_f32(at + SCALE + 4 * lane, d)
        total = first + last
        store_i32(at + MINUS_8 + 4 * lane, np.int32(-8) * total)
        store_i32(at + MINUS_128 + 4 * lane, np.int32(-128) * total)
        store_i32(at + MINUS_32_FIRST + 4 * lane, np.int32(-32) * first)
        store_i32(at + MINUS_32_LAST + 4 * lane, np.int32(-32) * last)
        store_f32(at + SUM + 4 * lane, np.float32(total))
        at += CODES_BYTES
