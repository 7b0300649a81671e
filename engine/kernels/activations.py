"""Activations as the quantized matrices read them: 8-bit codes by blocks of 32, with what each block needs beside.

A tile of tokens lies together, block by block, so that it is one stream of memory. A block of a tile holds for each
of its tokens 32 codes, then for each a number of: the scale (f32), -8 and -128 times the sum of the codes (i32), -32
times the sums of the first and of the last 16 codes (i32), the sum of the codes (f32). Everything but codes and scale
follows from the codes; it stands here, multiplied as the tensor types want it, because all rows of a matrix need it.

TILE tokens make a tile, and those that are left a smaller one, no wider than it must be: all of it is read again for
each 16 rows of a matrix, and what one token needs of a wide tile's lines does not stay in the nearest cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.plan import CODES_BYTES, TILE, TILES_OF
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

SCALE, MINUS_8, MINUS_128, MINUS_32_FIRST, MINUS_32_LAST, SUM = range(6)

_INFINITY_BITS = np.int32(0x7F800000)
_TINIEST = np.float32(2.0**-100)
_ONE, _ZERO, _NAN = np.float32(1.0), np.float32(0.0), np.float32(np.nan)


def place(field: int, tokens: int) -> int:
    """Where in a block of a tile of so many tokens the first one's number lies, in bytes."""
    return tokens * (32 + 4 * field)


@njit(**OPTIONS)
def _width(tokens):
    """The tokens of the smallest tile that has room for so many."""
    for size in TILES_OF:
        if tokens <= size:
            return size
    return TILE


@njit(**OPTIONS)
def quantize_row(x, first, last, tiles, stride, row, rows):
    """Write the codes and scales of the float32 [first, last) of row `row` of `rows`, at x, into its tile (NUMERICS
    rule 2). `first` is a multiple of 32.

    tiles: address of the first tile. stride: bytes of a whole tile. A non-finite block gets scale NaN and codes 0.
    """
    tile = row // TILE
    lane, width = row - TILE * tile, _width(rows - TILE * tile)
    numbers = width * 32 + 4 * lane
    at = tiles + stride * tile + width * CODES_BYTES * (first // 32)
    for k in range(first // 32, last // 32):
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
        low_sum, high_sum = sum_i32(q_low), sum_i32(q_high)
        total = low_sum + high_sum
        store_f32(at + numbers + 4 * width * SCALE, d)
        store_i32(at + numbers + 4 * width * MINUS_8, np.int32(-8) * total)
        store_i32(at + numbers + 4 * width * MINUS_128, np.int32(-128) * total)
        store_i32(at + numbers + 4 * width * MINUS_32_FIRST, np.int32(-32) * low_sum)
        store_i32(at + numbers + 4 * width * MINUS_32_LAST, np.int32(-32) * high_sum)
        store_f32(at + numbers + 4 * width * SUM, np.float32(total))
        at += width * CODES_BYTES
