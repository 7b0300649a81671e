"""Choosing a token: order, filters and draw in float64 (NUMERICS rule 8).

Candidates are ordered by (logit descending, id ascending), and every sum runs in that order. No NumPy sort, exp or log:
theirs give other bits on other CPUs. Kernels never raise, so they allocate nothing: callers bring the memory, and what
cannot be is a negative result.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.scalar_math import OPTIONS, bits_of, exp64, log64

NOT_FINITE = -1  # a NaN, an infinite logit, or nothing but -inf

_SIGN = np.uint64(1 << 63)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_DIGIT = np.uint64(2047)
_LONG_WAY = 64
HEAP_LIMIT = 1024  # more candidates than this are cheaper to sort whole
_LARGEST_PENALTY = 1e30


@njit(**OPTIONS)
def ordered_bits(x):
    """An uint64 that rises with x; 0.0 and -0.0 give the same one."""
    bits = np.uint64(bits_of(x + 0.0))
    if bits & _SIGN:
        return ~bits
    return bits | _SIGN


@njit(**OPTIONS)
def _radix_sort(n, keys, other, counts):
    """Sort keys[:n] by their high 32 bits, in place; equal ones keep their order. Digits of 11, 11 and 10 bits."""
    for digit in range(3):
        for value in range(2048):
            counts[digit, value] = 0
    for i in range(n):
        high = keys[i] >> _HALF
        counts[0, np.int64(high & _DIGIT)] += 1
        counts[1, np.int64((high >> np.uint64(11)) & _DIGIT)] += 1
        counts[2, np.int64(high >> np.uint64(22))] += 1
    source, target = keys, other
    for digit in range(3):
        total = 0
        trivial = False
        for value in range(2048):
            count = counts[digit, value]
            trivial = trivial or count == n
            counts[digit, value] = total
            total += count
        if trivial:
            continue
        shift = np.uint64(32 + 11 * digit)
        for i in range(n):
            key = source[i]
            slot = np.int64((key >> shift) & _DIGIT)
            target[counts[digit, slot]] = key
            counts[digit, slot] += 1
        source, target = target, source
    if source is not keys:
        for i in range(n):
            keys[i] = source[i]


@njit(**OPTIONS)
def sort_indices(n, values, falling, keys, other, counts):
    """Order the indices that keys[:n] holds, in place, by values float64 at these indices, falling or rising; equal
    values keep their order. keys, other uint64 (≥ n); counts int64 (3, 2048): scratch, as `other` is.

    A radix sort by the high half of the values' bits; the low half decides within runs of equal high halves, which
    are short unless the values hardly differ: then the low half is sorted first, as radix sorts do.
    """
    flip = ~np.uint64(0) if falling else np.uint64(0)
    for i in range(n):
        index = keys[i] & _LOW
        keys[i] = ((ordered_bits(values[np.int64(index)]) ^ flip) & ~_LOW) | index
    _radix_sort(n, keys, other, counts)
    start = 0
    patient = True
    while start < n:
        stop = start + 1
        while stop < n and keys[stop] >> _HALF == keys[start] >> _HALF:
            stop += 1
        for i in range(start + 1, stop):
            key = keys[i]
            bits = ordered_bits(values[np.int64(key & _LOW)]) ^ flip
            at = i
            while at > start and ordered_bits(values[np.int64(keys[at - 1] & _LOW)]) ^ flip > bits:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
            if i - at > _LONG_WAY:
                patient = False
                break
        if not patient:
            break
        start = stop
    if not patient:
        # Elements were moved, but among equals of both halves never past each other: the order to keep is still there.
        for i in range(n):
            index = keys[i] & _LOW
            keys[i] = ((ordered_bits(values[np.int64(index)]) ^ flip) << _HALF) | index
        _radix_sort(n, keys, other, counts)
        for i in range(n):
            index = keys[i] & _LOW
            keys[i] = ((ordered_bits(values[np.int64(index)]) ^ flip) & ~_LOW) | index
        _radix_sort(n, keys, other, counts)
    for i in range(n):
        keys[i] &= _LOW


@njit(**OPTIONS)
def _sink(values, ids, size):
    """Restore the heap (the worst candidate on top) after its top was replaced."""
    value, token = values[0], ids[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            values[other] < values[child] or (values[other] == values[child] and ids[other] > ids[child])
        ):
            child = other
        if values[child] > value or (values[child] == value and ids[child] < token):
            break
        values[at], ids[at] = values[child], ids[child]
        at = child
    values[at], ids[at] = value, token


@njit(**OPTIONS)
def _best_by_heap(logits, values, ids):
    """The len(values) best candidates in order; gives how many there are (fewer where logits are -inf)."""
    limit, size = len(values), 0
    worst = -np.inf
    for token in range(len(logits)):
        x = logits[token]
        if not x > worst:
            continue
        if size < limit:
            # Sift up.
            at = size
            size += 1
            while at > 0:
                above = (at - 1) >> 1
                if values[above] < x:
                    break
                values[at], ids[at] = values[above], ids[above]
                at = above
            values[at], ids[at] = x, token
        else:
            values[0], ids[0] = x, token
            _sink(values, ids, size)
        if size == limit:
            worst = values[0]
    for last in range(size - 1, 0, -1):
        values[0], values[last] = values[last], values[0]
        ids[0], ids[last] = ids[last], ids[0]
        _sink(values, ids, last)
    return size


@njit(**OPTIONS)
def _all_in_order(logits, values, ids, keys, other, counts):
    """The candidates above -inf, sorted, as many as `values` holds; gives how many there are."""
    size = 0
    for token in range(len(logits)):
        if logits[token] > -np.inf:
            keys[size] = np.uint64(token)
            size += 1
    sort_indices(size, logits, True, keys, other, counts)
    size = min(size, len(values))
    for i in range(size):
        ids[i] = np.int64(keys[i])
        values[i] = logits[ids[i]]
    return size


@njit(**OPTIONS)
def best(logits, values, ids, keys, other, counts):
    """Fill values float64 (k,), ids int64 (k,) with the k best of logits float64 (n,); gives how many, or NOT_FINITE.

    keys, other uint64 (n,), counts int64 (3, 2048) are scratch, used for k above HEAP_LIMIT only.
    """
    finite = False
    for token in range(len(logits)):
        x = logits[token]
        if not x < np.inf:
            return NOT_FINITE
        if x > -np.inf:
            finite = True
    if not finite:
        return NOT_FINITE
    if len(values) <= HEAP_LIMIT:
        return _best_by_heap(logits, values, ids)
    return _all_in_order(logits, values, ids, keys, other, counts)


@njit(**OPTIONS)
def _weigh(values, first, last, temperature, weights):
    """weights[i] = e**((values[i] - values[first]) / temperature) for i in [first, last); gives their sum in order."""
    total = 0.0
    for i in range(first, last):
        w = exp64((values[i] - values[first]) / temperature)
        weights[i] = w
        total += w
    return total


@njit(**OPTIONS)
def _typical(values, ids, size, mass, weights, distances, keys, other, counts):
    """Keep the candidates whose surprise is nearest to the entropy, up to `mass`; gives the new size."""
    total = _weigh(values, 0, size, 1.0, weights)
    log_total = log64(total)
    entropy = 0.0
    for i in range(size):
        entropy += weights[i] / total * (log_total - (values[i] - values[0]))
    for i in range(size):
        keys[i] = np.uint64(i)
        # A weight that underflowed has no surprise that could be told apart: such candidates come last.
        surprise = log_total - (values[i] - values[0]) if weights[i] > 0.0 else np.inf
        distances[i] = abs(surprise - entropy)
    sort_indices(size, distances, False, keys, other, counts)
    for i in range(size):
        other[i] = np.uint64(0)
    seen = 0.0
    for i in range(size):
        other[np.int64(keys[i])] = np.uint64(1)
        seen += weights[np.int64(keys[i])] / total
        if seen > mass:
            break
    kept = 0
    for i in range(size):
        if other[i] == np.uint64(1):
            values[kept], ids[kept] = values[i], ids[i]
            kept += 1
    return kept


@njit(**OPTIONS)
def _top_p(values, size, mass, weights):
    """How many of the best candidates make up `mass`."""
    total = _weigh(values, 0, size, 1.0, weights)
    seen = 0.0
    for i in range(size):
        seen += weights[i] / total
        if seen >= mass:
            return i + 1
    return size


@njit(**OPTIONS)
def _min_p(values, size, share):
    """How many candidates have at least `share` of the best one's probability."""
    floor = values[0] + log64(share)
    for i in range(1, size):
        if values[i] < floor:
            return i
    return size


@njit(**OPTIONS)
def _xtc(values, size, threshold, weights):
    """Where the candidates begin when all those above the threshold but the last one are excluded."""
    total = _weigh(values, 0, size, 1.0, weights)
    above = 0
    while above < size and weights[above] / total >= threshold:
        above += 1
    return max(above - 1, 0)


@njit(**OPTIONS)
def choose(
    logits, values, ids, weights, distances, keys, other, counts,
    typical_p, top_p, min_p, xtc, xtc_threshold, temperature, u,
):  # fmt: skip
    """The chosen token, or NOT_FINITE. logits float64 (n,); u in [0, 1); `xtc` whether XTC acts now.

    The chain: top-k, typical, top-p, min-p, XTC, temperature, draw. At temperature 0 the best that is left. Top-k is
    the length k of the scratch arrays values, weights, distances float64 (k,) and ids int64 (k,). The other scratch:
    keys, other uint64 (m,), counts int64 (3, 2048), where m is n for k above HEAP_LIMIT, else k for typical, else 0.
    """
    size = best(logits, values, ids, keys, other, counts)
    if size <= 0:
        return NOT_FINITE
    first = 0
    if typical_p < 1.0:
        size = _typical(values, ids, size, typical_p, weights, distances, keys, other, counts)
    if top_p < 1.0:
        size = _top_p(values, size, top_p, weights)
    if min_p > 0.0:
        size = _min_p(values, size, min_p)
    if xtc:
        first = _xtc(values, size, xtc_threshold, weights)
    if temperature <= 0.0:
        return ids[first]
    total = _weigh(values, first, size, temperature, weights)
    target = u * total
    seen = 0.0
    for i in range(first, size):
        seen += weights[i]
        if target < seen:
            return ids[i]
    return ids[size - 1]


@njit(**OPTIONS)
def penalize(values, recent, counts, repeat, presence, frequency):
    """Repeat, frequency and presence penalties, in place, on values float64 (n,) for the tokens recent int64 (m,).

    counts int64 (n,) must be zeros, and is zeros again afterwards.
    """
    for token in recent:
        if 0 <= token < len(values):
            counts[token] += 1
    for token in recent:
        if 0 <= token < len(values) and counts[token] > 0:
            x = values[token]
            x = x * repeat if x <= 0.0 else x / repeat
            values[token] = x - counts[token] * frequency - presence
            counts[token] = 0


@njit(**OPTIONS)
def _contains(sorted_ids, token):
    low, high = 0, len(sorted_ids)
    while low < high:
        middle = (low + high) >> 1
        if sorted_ids[middle] < token:
            low = middle + 1
        else:
            high = middle
    return low < len(sorted_ids) and sorted_ids[low] == token


@njit(**OPTIONS)
def penalize_repetition(values, recent, matched, longest, breakers, multiplier, base, allowed):
    """DRY on values float64 (n,), in place: a token that would prolong a repetition of m ≥ allowed ≥ 1 tokens at the
    end of recent int64 (r,) loses multiplier * base**(m - allowed). Repetitions end at breakers (sorted int64 ids).

    Lengths come from the Z function of the reversed tokens, in linear time. matched int64 (r,) is scratch; longest
    int64 (n,) must be zeros.
    """
    n = len(recent)
    limit = n
    for i in range(n):
        if _contains(breakers, recent[n - 1 - i]):
            limit = i
            break
    if limit < allowed:
        return
    left, right = 0, 0
    for i in range(1, n):
        m = 0
        if i < right:
            m = min(right - i, matched[i - left])
        while i + m < n and recent[n - 1 - m] == recent[n - 1 - i - m]:
            m += 1
        matched[i] = m
        if i + m > right:
            left, right = i, i + m
        token = recent[n - i]  # what came behind the earlier occurrence
        if 0 <= token < len(values):
            longest[token] = max(longest[token], min(m, limit))
    for i in range(1, n):
        token = recent[n - i]
        if not 0 <= token < len(values) or longest[token] < allowed or _contains(breakers, token):
            continue
        power = 1.0
        for _ in range(longest[token] - allowed):
            power *= base
            if power > _LARGEST_PENALTY:
                break
        values[token] -= min(multiplier * power, _LARGEST_PENALTY)
        longest[token] = 0
