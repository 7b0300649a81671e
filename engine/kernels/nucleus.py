"""Top-p over a whole vocabulary without sorting it: the nucleus is small, and the rest need only be weighed.

What top-p keeps follows from the sum of all weights, which the contract wants in the order of the candidates. Its last
bits matter only where the border falls on them. So the sum is bounded from both sides: candidates are sorted and summed
exactly, what lies below a floor is summed in float32, in any order. Where both bounds cut at the same place, the exact
sum would, because each term, and so each sum of terms, falls as the total rises. Where they do not, nobody can tell
here, and the caller sorts everything.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.ordering import CHUNK, all_in_order, best_by_heap
from engine.kernels.scalar_math import OPTIONS, exp64, log64
from engine.kernels.simd import (
    add_f64,
    load_f32,
    load_f32x16,
    load_f64,
    load_i64,
    splat_f32,
    splat_f64,
    store_f32,
    store_f32x16,
    store_f64,
    sub_f32,
    sum_f64,
    to_f64,
    zero_below,
)
from engine.kernels.vector_math import exp_nonpositive

UNKNOWN = -1  # sort everything

# A float32 weight is wrong by 2^-22 and by the rounding of its exponent, which is at most 87 * 2^-24.
_TAIL_ERROR = 6e-6
_SUM_ERROR = 1e-15  # for each candidate, of float64 sums in whatever order, and of exp64
_DEEPEST = 87.0  # below the largest logit: what is less weighs nothing in float32
_LARGEST_SHIFT = 20.0  # between the largest logit and the best candidate, where penalties changed it
_HALVINGS = 8


@njit(**OPTIONS)
def _weigh_all(logits, n, largest, weights):
    """weights float32 (n,) = e**(logit - largest)."""
    whole = n // 16
    for i in range(whole):
        x = sub_f32(load_f32x16(logits + 64 * i), splat_f32(largest))
        store_f32x16(weights + 64 * i, exp_nonpositive(x))
    for i in range(16 * whole, n):
        store_f32(weights + 4 * i, np.float32(exp64(np.float64(load_f32(logits + 4 * i)) - np.float64(largest))))


@njit(**OPTIONS)
def _below(logits, n, weights, floor):
    """Sum of the weights of all logits below `floor`."""
    whole = n // 16
    total = splat_f64(0.0)
    for i in range(whole):
        w = load_f32x16(weights + 64 * i)
        above = zero_below(load_f32x16(logits + 64 * i), splat_f32(floor), w)
        total = add_f64(total, to_f64(sub_f32(w, above)))
    rest = sum_f64(total)
    for i in range(16 * whole, n):
        if load_f32(logits + 4 * i) < floor:
            rest += np.float64(load_f32(weights + 4 * i))
    return rest


@njit(**OPTIONS)
def _find_floor(logits, n, weights, largest, target, deepest):
    """A floor below which about `target` of weight lies, and not more; at most `deepest` below the largest logit."""
    high, low = np.float64(largest), np.float64(largest) - deepest
    if _below(logits, n, weights, np.float32(low)) >= target:
        return np.float32(low)
    for _ in range(_HALVINGS):
        middle = 0.5 * (high + low)
        rest = _below(logits, n, weights, np.float32(middle))
        if rest > target:
            high = middle
        else:
            low = middle
            if 8.0 * rest > target:
                break
    return np.float32(low)


@njit(**OPTIONS)
def _cuts(weights, size, least, most, mass):
    """How many of the weights make up `mass` of the totals `least` and `most`; size + 1 where all do not."""
    early, late = 0.0, 0.0
    first = size + 1
    for i in range(size):
        w = load_f64(weights + 8 * i)
        early += w / least
        late += w / most
        if first > size and early >= mass:
            first = i + 1
        if late >= mass:
            return first, i + 1
    return first, size + 1


@njit(**OPTIONS)
def nucleus(
    logits, n, maxima, marks, patched, patches, count, mass, min_p, values, ids, weights, spare, keys, other, counts
):  # fmt: skip
    """The candidates that top-p, and then min-p, leave of all, in order; gives how many, 0 where there is none, or
    UNKNOWN.

    Addresses as in `ordering`; weights float64 and spare float32, one a logit, are scratch.
    """
    largest = np.float32(-np.inf)
    for chunk in range((n + CHUNK - 1) // CHUNK):
        largest = max(largest, load_f32(maxima + 4 * chunk))
    if best_by_heap(logits, n, maxima, marks, patched, patches, count, 1, values, ids) == 0:
        return 0
    best = load_f64(values)
    shift = np.float64(largest) - best
    if not abs(shift) <= _LARGEST_SHIFT:
        return UNKNOWN
    _weigh_all(logits, n, largest, spare)
    for i in range(count):
        store_f32(spare + 4 * load_i64(patched + 8 * i), np.float32(0.0))
    scale = exp64(shift)  # from weights below the largest logit to weights below the best candidate
    # No deeper than a little below the border of min-p: what is lower falls away whatever top-p says.
    border = best + log64(min_p) if min_p > 0.0 else -np.inf
    deepest = min(_DEEPEST, np.float64(largest) - border + 1e-5 * abs(border) + 1e-5)
    all_weights = scale * _below(logits, n, spare, np.float32(np.inf))
    floor = _find_floor(logits, n, spare, largest, 0.6 * (1.0 - mass) * all_weights / scale, deepest)
    all_of_min_p = np.float64(floor) <= border
    size = all_in_order(
        logits, n, maxima, marks, patched, patches, count, np.float64(floor), n, values, ids, keys, other, counts
    )
    total = 0.0
    for i in range(size):
        w = exp64(load_f64(values + 8 * i) - best)
        store_f64(weights + 8 * i, w)
        total += w
    for i in range(count):
        if load_f64(patches + 8 * i) < np.float64(floor):
            total += exp64(load_f64(patches + 8 * i) - best)
    rest = scale * _below(logits, n, spare, floor)
    slack = 1e-9 + n * _SUM_ERROR
    if min_p > 0.0:
        left = 1
        while left < size and not load_f64(values + 8 * left) < border:
            left += 1
        size = left
    least = (total + rest * (1.0 - _TAIL_ERROR)) * (1.0 - slack)
    most = (total + rest * (1.0 + _TAIL_ERROR)) * (1.0 + slack)
    first, last = _cuts(weights, size, least, most, mass)
    if all_of_min_p:
        first, last = min(first, size), min(last, size)
    return first if first == last and last <= size else UNKNOWN
