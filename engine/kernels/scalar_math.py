"""exp and log of one float64, from IEEE operations alone (NUMERICS rule 5): the same bits on every CPU.

No library is called, nothing raises, and no subnormal number is made or relied on, so that a foreign library that has
switched on flush-to-zero changes nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS

_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the high one has 32 significant bits, so that its products with exponents are exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to the nearest integer, which then lies in the low bits
_LARGEST, _SMALLEST = 709.782712893384, -708.0
_MANTISSA = 0x000FFFFFFFFFFFFF
_ONE_BITS = 0x3FF0000000000000
_SQRT_2 = 1.4142135623730951
_SMALLEST_NORMAL = 2.2250738585072014e-308


@njit(**OPTIONS)
def bits_of(x):
    """The bits of a float64 as int64."""
    return np.float64(x).view(np.int64)


@njit(**OPTIONS)
def from_bits(n):
    """The float64 with these bits."""
    return np.int64(n).view(np.float64)


@njit(**OPTIONS)
def exp64(x):
    """e**x to about 1 ulp; 0 below -708, inf above 709.78; NaN stays NaN. Taylor to degree 13 on [-ln2/2, ln2/2]."""
    if np.isnan(x):
        return x
    if x < _SMALLEST:
        return 0.0
    if x > _LARGEST:
        return np.inf
    shifted = x * _LOG2_E + _ROUNDER
    n = shifted - _ROUNDER
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = 1.0 + (r + r * r * p)
    k = np.int64(n)
    if k > 1023:
        return p * 2.0 * from_bits((k + 1022) << 52)
    return p * from_bits((k + 1023) << 52)


@njit(**OPTIONS)
def log64(x):
    """The natural logarithm to about 1 ulp; -inf for 0 and for subnormals, NaN below 0. By 2 artanh((m-1)/(m+1))."""
    if np.isnan(x) or x == np.inf:
        return x
    if x < 0.0:
        return np.nan
    if x < _SMALLEST_NORMAL:
        return -np.inf
    bits = bits_of(x)
    e = np.float64((bits >> 52) - 1023)
    m = from_bits((bits & _MANTISSA) | _ONE_BITS)
    if m > _SQRT_2:
        m *= 0.5
        e += 1.0
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    p = 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    # log m = 2s + z s p = f - s f + z s p, where f is exact and s f is small beside it.
    return e * _LN2_HIGH + (f - (s * f - (z * s * p + e * _LN2_LOW)))
