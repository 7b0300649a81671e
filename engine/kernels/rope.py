"""Rotary positions, and the writing of keys and values into a block. Su et al. 2021, RoFormer.

Angles are computed in float64 by our own sine and cosine (NUMERICS rule 5) once for all positions of a context, and
rounded to float32 tables.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.plan import BLOCK
from engine.kernels.simd import (
    LANES,
    add_f32,
    bits_of_f32,
    float_of,
    load_f32,
    load_f32x16,
    load_half,
    load_twice8,
    mul_f32,
    negate_firsts,
    scatter_half16,
    store_f32,
    store_f32x16,
    store_half,
    store_half16,
    store_i8,
    sub_f32,
    swap_pairs,
)
from engine.kernels.tables import floats32, floats64

# pi/2 in three parts of which the first two have 33 significant bits: n * part is exact for n < 2^20 (fdlibm's split).
_TWO_OVER_PI = 0.6366197723675814
_PIO2_1, _PIO2_2, _PIO2_3 = 1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52
_MAGIC_HALF = np.float32(12582912.0)  # 1.5 * 2^23


@njit(**OPTIONS)
def _sine_cosine(x):
    """(sin x, cos x) for |x| < 2^20, within 2^-50: reduced by pi/2, then Taylor series to degree 17 on |r| ≤ pi/4."""
    n = (x * _TWO_OVER_PI + _ROUNDER) - _ROUNDER
    r = ((x - n * _PIO2_1) - n * _PIO2_2) - n * _PIO2_3
    z = r * r
    s = 1.0
    c = 1.0
    for k in range(8, 0, -1):
        s = 1.0 - s * (z / ((2.0 * k) * (2.0 * k + 1.0)))
        c = 1.0 - c * (z / ((2.0 * k - 1.0) * (2.0 * k)))
    s = s * r
    quadrant = np.int64(n) & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:
        return -s, -c
    return -c, s


def fill_rope_table(frequencies_at, pairs, cosines_at, sines_at, first, last):
    """cos and sin of position * frequency for positions [first, last).

    Addresses of frequencies (pairs,) float64; of cosines, sines (positions, pairs) float32, written.
    """
    frequencies = floats64(frequencies_at, pairs)
    cosines, sines = floats32(cosines_at, last * pairs), floats32(sines_at, last * pairs)
    for position in range(first, last):
        for i in range(pairs):
            s, c = _sine_cosine(position * frequencies[i])
            cosines[position * pairs + i] = np.float32(c)
            sines[position * pairs + i] = np.float32(s)


@njit(**OPTIONS)
def rotate_halves(row, heads, dims, pairs, cosine, sine):
    """Rotate the pairs (i, i + pairs), i < `pairs`, of each head of a row (addresses; float32), in place."""
    whole = pairs - pairs % LANES
    for h in range(heads):
        first = row + 4 * dims * h
        second = first + 4 * pairs
        for i in range(0, 4 * whole, 4 * LANES):
            a, b = load_f32x16(first + i), load_f32x16(second + i)
            c, s = load_f32x16(cosine + i), load_f32x16(sine + i)
            store_f32x16(first + i, sub_f32(mul_f32(a, c), mul_f32(b, s)))
            store_f32x16(second + i, add_f32(mul_f32(a, s), mul_f32(b, c)))
        for i in range(4 * whole, 4 * pairs, 4):
            x, y = load_f32(first + i), load_f32(second + i)
            cos, sin = load_f32(cosine + i), load_f32(sine + i)
            store_f32(first + i, x * cos - y * sin)
            store_f32(second + i, x * sin + y * cos)


@njit(**OPTIONS)
def rotate(row, heads, dims, pairs, cosine, sine):
    """Rotate the pairs (2i, 2i+1), i < `pairs`, of each head of a row (addresses; float32), in place."""
    whole = pairs - pairs % (LANES // 2)
    for h in range(heads):
        at = row + 4 * dims * h
        for i in range(0, 4 * whole, 2 * LANES):
            x = load_f32x16(at + 2 * i)
            turned = mul_f32(swap_pairs(x), negate_firsts(load_twice8(sine + i)))
            store_f32x16(at + 2 * i, add_f32(mul_f32(x, load_twice8(cosine + i)), turned))
        for i in range(whole, pairs):
            a, b = load_f32(at + 8 * i), load_f32(at + 8 * i + 4)
            c, s = load_f32(cosine + 4 * i), load_f32(sine + 4 * i)
            store_f32(at + 8 * i, a * c - b * s)
            store_f32(at + 8 * i + 4, a * s + b * c)


def write_kv_f16(key, value, dims, channels, scale_blocks, slot, k, ks, v, vs):
    """One token's key and value of one head (float32 addresses), rounded to half, into slot `slot` of a block."""
    whole = dims - dims % LANES
    k += 2 * slot
    v += 2 * channels * slot
    for i in range(0, whole, LANES):
        scatter_half16(k + 2 * BLOCK * i, 2 * BLOCK, load_f32x16(key + 4 * i))
        store_half16(v + 2 * i, load_f32x16(value + 4 * i))
    for i in range(whole, dims):
        store_half(k + 2 * BLOCK * i, load_f32(key + 4 * i))
        store_half(v + 2 * i, load_f32(value + 4 * i))


@njit(**OPTIONS)
def _q8_scale(x, first, last):
    """The scale of one 32-block as it will be read back, a half: max|x| / 127."""
    m = np.int32(0)
    for i in range(first, last):
        # As integers, magnitudes order with NaN above all: it makes the scale NaN, which is refused above the kernel.
        m = max(m, bits_of_f32(load_f32(x + 4 * i)) & np.int32(0x7FFFFFFF))
    return float_of(m) / np.float32(127.0)


@njit(**OPTIONS)
def _q8_code(x, inverse):
    """x * inverse to the nearest even integer in ±127; 0 for what is not a number."""
    t = x * inverse
    if not abs(t) <= np.float32(127.0):
        return np.int32(127) if t > np.float32(0.0) else (np.int32(-127) if t < np.float32(0.0) else np.int32(0))
    return np.int32((t + _MAGIC_HALF) - _MAGIC_HALF)


def write_kv_q8_0(key, value, dims, channels, scale_blocks, slot, k, ks, v, vs):
    """As write_kv_f16, as codes of 8 bits with one half scale for 32 dims of the token."""
    for j in range(scale_blocks):
        first, last = 32 * j, min(dims, 32 * j + 32)
        at = ks + 2 * (BLOCK * j + slot)
        store_half(at, _q8_scale(key, first, last))
        inverse = _inverse(load_half(at))
        for i in range(first, last):
            store_i8(k + BLOCK * i + slot, _q8_code(load_f32(key + 4 * i), inverse))
        at = vs + 2 * (scale_blocks * slot + j)
        store_half(at, _q8_scale(value, first, last))
        inverse = _inverse(load_half(at))
        for i in range(first, last):
            store_i8(v + channels * slot + i, _q8_code(load_f32(value + 4 * i), inverse))


@njit(**OPTIONS)
def _inverse(d):
    return np.float32(1.0) / d if d > np.float32(0.0) else np.float32(0.0)
