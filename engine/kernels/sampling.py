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
def sort_by_key(n, keys, order, counts):
    """Sort order[0, :n] by ascending keys[0, :n], in place; equal keys keep their order. Radix sort.

    keys uint64 (2, ≥ n) and order int64 (2, ≥ n): the second rows are scratch; counts int64 (8, 256): scratch.
    """
    for digit in range(8):
        for value in range(256):
            counts[digit, value] = 0
    for i in range(n):
        key = keys[0, i]
        for digit in range(8):
            counts[digit, np.int64(key & np.uint64(255))] += 1
            key >>= np.uint64(8)
    now = 0
    for digit in range(8):
        total = 0
        trivial = False
        for value in range(256):
            count = counts[digit, value]
            trivial = trivial or count == n
            counts[digit, value] = total
            total += count
        if trivial:
            continue
        shift = np.uint64(8 * digit)
        for i in range(n):
            key = keys[now, i]
            value = np.int64((key >> shift) & np.uint64(255))
            at = counts[digit, value]
            counts[digit, value] = at + 1
            keys[1 - now, at] = key
            order[1 - now, at] = order[now, i]
        now = 1 - now
    if now == 1:
        for i in range(n):
            keys[0, i] = keys[1, i]
            order[0, i] = order[1, i]


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
def _all_in_order(logits, values, ids, keys, order, counts):
    """The candidates above -inf, sorted, as many as `values` holds; gives how many there are."""
    size = 0
    for token in range(len(logits)):
        if logits[token] > -np.inf:
            keys[0, size] = ~ordered_bits(logits[token])
            order[0, size] = token
            size += 1
    sort_by_key(size, keys, order, counts)
    size = min(size, len(values))
    for i in range(size):
        ids[i] = order[0, i]
        values[i] = logits[ids[i]]
    return size


@njit(**OPTIONS)
def best(logits, values, ids, keys, order, counts):
    """Fill values float64 (k,) and ids int64 (k,) with the k best of logits float64 (n,); gives how many, or NOT_FINITE.

    keys uint64 (2, n), order int64 (2, n), counts int64 (8, 256) are scratch, used for k above HEAP_LIMIT only.
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
    return _all_in_order(logits, values, ids, keys, order, counts)


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
def _typical(values, ids, size, mass, weights, keys, order, counts):
    """Keep the candidates whose surprise is nearest to the entropy, up to `mass`; gives the new size."""
    total = _weigh(values, 0, size, 1.0, weights)
    log_total = log64(total)
    entropy = 0.0
    for i in range(size):
        entropy += weights[i] / total * (log_total - (values[i] - values[0]))
    for i in range(size):
        order[0, i] = i
        # A weight that underflowed has no surprise that could be told apart: such candidates come last.
        surprise = log_total - (values[i] - values[0]) if weights[i] > 0.0 else np.inf
        keys[0, i] = ordered_bits(abs(surprise - entropy))
    sort_by_key(size, keys, order, counts)
    keep = size
    seen = 0.0
    for i in range(size):
        seen += weights[order[0, i]] / total
        if seen > mass:
            keep = i + 1
            break
    # Back into their own order: a second sort, by place.
    for i in range(keep):
        keys[0, i] = np.uint64(order[0, i])
    sort_by_key(keep, keys, order, counts)
    for i in range(keep):
        values[i], ids[i] = values[order[0, i]], ids[order[0, i]]
    return keep


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
    logits, values, ids, weights, keys, order, counts, typical_p, top_p, min_p, xtc, xtc_threshold, temperature, u
):
    """The chosen token, or NOT_FINITE. logits float64 (n,); u in [0, 1); `xtc` whether XTC acts now.

    The chain: top-k, typical, top-p, min-p, XTC, temperature, draw. At temperature 0 the best that is left. Top-k is
    the length k of the scratch arrays values, weights float64 (k,) and ids int64 (k,). The other scratch: keys uint64
    (2, m), order int64 (2, m), counts int64 (8, 256), where m is n for k above HEAP_LIMIT, else k for typical, else 0.
    """
    size = best(logits, values, ids, keys, order, counts)
    if size <= 0:
        return NOT_FINITE
    first = 0
    if typical_p < 1.0:
        size = _typical(values, ids, size, typical_p, weights, keys, order, counts)
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
    """DRY on values float64 (n,), in place: a token that would prolong a repetition of m ≥ allowed ≥ 1 tokens at the end
    of recent int64 (r,) loses multiplier * base**(m - allowed). Repetitions end at breakers (sorted int64 ids).

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
