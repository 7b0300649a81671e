"""exp, SiLU and GELU on 16 lanes of float32, from IEEE operations alone (NUMERICS rule 5).

No library's exp is called: theirs give other bits on other CPUs. Non-finite lanes give non-finite or zero results and
never a trap or a loop.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.simd import (
    abs_f32,
    add_f32,
    bits_of,
    div_f32,
    fma_f32,
    from_bits,
    mul_f32,
    negative_first,
    shl23_i32,
    splat_f32,
    splat_i32,
    sub_f32,
    sub_i32,
    zero_below,
)

# 1.5 * 2^23: adding it rounds a small float to the nearest even integer, which then lies in the low bits.
_ROUNDER = np.float32(12582912.0)
_ROUNDER_BITS = np.int32(0x4B400000)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187e-06)
_SMALLEST = np.float32(-87.0)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / k) for k in (2.0, 6.0, 24.0, 120.0, 720.0, 5040.0))
_ONE = np.float32(1.0)
_GELU_CUBE, _GELU_SLOPE = np.float32(0.044715), np.float32(1.5957691216057308)  # the slope is 2 * sqrt(2/pi)


@njit(**OPTIONS)
def exp_nonpositive(x):
    """e**x of 16 lanes for x ≤ 0; 0 below -87; NaN stays NaN. Cody-Waite split by ln 2, Taylor to degree 7.

    The relative error is below 2^-22.
    """
    t = fma_f32(x, splat_f32(_LOG2_E), splat_f32(_ROUNDER))
    n = sub_f32(t, splat_f32(_ROUNDER))
    r = fma_f32(n, splat_f32(-_LN2_HIGH), x)
    r = fma_f32(n, splat_f32(-_LN2_LOW), r)
    p = fma_f32(splat_f32(_C7), r, splat_f32(_C6))
    p = fma_f32(p, r, splat_f32(_C5))
    p = fma_f32(p, r, splat_f32(_C4))
    p = fma_f32(p, r, splat_f32(_C3))
    p = fma_f32(p, r, splat_f32(_C2))
    p = fma_f32(p, r, splat_f32(_ONE))
    p = fma_f32(p, r, splat_f32(_ONE))
    power = sub_i32(bits_of(t), splat_i32(_ROUNDER_BITS - np.int32(127)))
    return zero_below(x, splat_f32(_SMALLEST), mul_f32(p, from_bits(shl23_i32(power))))


@njit(**OPTIONS)
def silu(z):
    """z * sigmoid(z) of 16 lanes, without overflow: exp is only taken of -|z|."""
    e = exp_nonpositive(mul_f32(abs_f32(z), splat_f32(-_ONE)))
    bottom = add_f32(splat_f32(_ONE), e)
    return div_f32(mul_f32(z, negative_first(z, e, splat_f32(_ONE))), bottom)


@njit(**OPTIONS)
def gelu(z):
    """GELU by its tanh of 16 lanes: z * sigmoid(2u), u = sqrt(2/pi) * (z + 0.044715 z³). Hendrycks and Gimpel 2016.

    As in `silu`, exp is only taken of -|2u|. Written so, nothing cancels where the tanh is near -1.
    """
    square = fma_f32(mul_f32(z, z), splat_f32(_GELU_CUBE), splat_f32(_ONE))
    e = exp_nonpositive(mul_f32(abs_f32(mul_f32(mul_f32(z, splat_f32(_GELU_SLOPE)), square)), splat_f32(-_ONE)))
    bottom = add_f32(splat_f32(_ONE), e)
    return div_f32(mul_f32(z, negative_first(z, e, splat_f32(_ONE))), bottom)


@njit(**OPTIONS)
def rounded_codes(x, inverse):
    """x * inverse rounded to the nearest even integer, as 16 lanes of i32, for |x * inverse| < 2^22."""
    t = add_f32(mul_f32(x, inverse), splat_f32(_ROUNDER))
    return sub_i32(bits_of(t), splat_i32(_ROUNDER_BITS))


__all__ = ["exp_nonpositive", "gelu", "rounded_codes", "silu"]
