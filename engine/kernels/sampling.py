"""Choosing a token: penalties, order, filters and draw in float64 (NUMERICS rule 8).

Candidates are ordered by (logit descending, id ascending), and every sum runs in that order. No NumPy sort, exp or log:
theirs give other bits on other CPUs. Kernels get addresses and numbers, never raise and allocate nothing: callers bring
the memory, and what cannot be is a negative result.

Logits stay the float32 numbers that they are; the few that penalties change lie beside them ("patched": id and float64
value, marked in one int32 a token).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.nucleus import UNKNOWN, nucleus
from engine.kernels.ordering import CHUNK, all_in_order, best_by_heap, chunk_maxima, sort_indices
from engine.kernels.scalar_math import OPTIONS, exp64, log64
from engine.kernels.simd import load_f32, load_f64, load_i32, load_i64, store_f64, store_i32, store_i64

NOT_FINITE = -1  # a NaN, an infinite logit, or nothing but -inf

HEAP_LIMIT = 1024  # more candidates than this are cheaper to sort whole

# What the table of `choose` holds, int64 each (entry.SAMPLING_TABLE_SIZE of them).
LOGITS, VOCABULARY, SCRATCH, MARKS, TOP_K, WANTED = 0, 1, 2, 3, 4, 5
RECENT, RECENT_COUNT, DRY_RECENT, DRY_COUNT, BREAKERS, BREAKER_COUNT, DRY_ALLOWED, XTC = 6, 7, 8, 9, 10, 11, 12, 13
# And what its table of float64 numbers holds (entry.SAMPLING_NUMBERS_SIZE).
REPEAT, PRESENCE, FREQUENCY, DRY_MULTIPLIER, DRY_BASE = 0, 1, 2, 3, 4
TYPICAL_P, TOP_P, MIN_P, XTC_THRESHOLD, TEMPERATURE, DICE = 5, 6, 7, 8, 9, 10

_COUNTS_BYTES = 3 * 2048 * 8
_LARGEST_PENALTY = 1e30


def scratch_bytes(n, k, recent, dry):
    """Bytes of scratch that `choose` needs for n logits, top-k k and that many tokens under penalties and DRY."""
    patched = min(n, recent + dry)
    whole = n if k > HEAP_LIMIT else k
    return 8 * (4 * (whole + 2) + 2 * (max(whole, patched) + 2) + 3 * patched + dry + n // CHUNK + 2) + _COUNTS_BYTES


# ---- the chain -------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _weigh(values, first, last, temperature, weights):
    """weights[i] = e**((values[i] - values[first]) / temperature) for i in [first, last); gives their sum in order."""
    total = 0.0
    best = load_f64(values + 8 * first)
    for i in range(first, last):
        w = exp64((load_f64(values + 8 * i) - best) / temperature)
        store_f64(weights + 8 * i, w)
        total += w
    return total


@njit(**OPTIONS)
def _typical(values, ids, size, mass, weights, distances, keys, other, counts):
    """Keep the candidates whose surprise is nearest to the entropy, up to `mass`; gives the new size."""
    total = _weigh(values, 0, size, 1.0, weights)
    log_total = log64(total)
    best = load_f64(values)
    entropy = 0.0
    for i in range(size):
        entropy += load_f64(weights + 8 * i) / total * (log_total - (load_f64(values + 8 * i) - best))
    for i in range(size):
        store_i64(keys + 8 * i, i)
        # A weight that underflowed has no surprise that could be told apart: such candidates come last.
        told = load_f64(weights + 8 * i) > 0.0
        surprise = log_total - (load_f64(values + 8 * i) - best) if told else np.inf
        store_f64(distances + 8 * i, abs(surprise - entropy))
    sort_indices(size, distances, False, keys, other, counts)
    for i in range(size):
        store_i64(other + 8 * i, 0)
    seen = 0.0
    for i in range(size):
        index = load_i64(keys + 8 * i)
        store_i64(other + 8 * index, 1)
        seen += load_f64(weights + 8 * index) / total
        if seen > mass:
            break
    kept = 0
    for i in range(size):
        if load_i64(other + 8 * i) == 1:
            store_f64(values + 8 * kept, load_f64(values + 8 * i))
            store_i64(ids + 8 * kept, load_i64(ids + 8 * i))
            kept += 1
    return kept


@njit(**OPTIONS)
def _top_p(values, size, mass, weights):
    """How many of the best candidates make up `mass`."""
    total = _weigh(values, 0, size, 1.0, weights)
    seen = 0.0
    for i in range(size):
        seen += load_f64(weights + 8 * i) / total
        if seen >= mass:
            return i + 1
    return size


@njit(**OPTIONS)
def _min_p(values, size, floor):
    """How many candidates are not below `floor`: at least the best one."""
    for i in range(1, size):
        if load_f64(values + 8 * i) < floor:
            return i
    return size


@njit(**OPTIONS)
def _xtc(values, size, threshold, weights):
    """Where the candidates begin when all those above the threshold but the last one are excluded."""
    total = _weigh(values, 0, size, 1.0, weights)
    above = 0
    while above < size and load_f64(weights + 8 * above) / total >= threshold:
        above += 1
    return max(above - 1, 0)


@njit(**OPTIONS)
def _draw(values, ids, first, size, temperature, weights, u):
    """The token that u in [0, 1) falls on."""
    total = _weigh(values, first, size, temperature, weights)
    target = u * total
    seen = 0.0
    for i in range(first, size):
        seen += load_f64(weights + 8 * i)
        if target < seen:
            return load_i64(ids + 8 * i)
    return load_i64(ids + 8 * (size - 1))


# ---- penalties -------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _contains(sorted_ids, count, token):
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if load_i64(sorted_ids + 8 * middle) < token:
            low = middle + 1
        else:
            high = middle
    return low < count and load_i64(sorted_ids + 8 * low) == token


@njit(**OPTIONS)
def _patch(logits, token, marks, patched, patches, extra, count):
    """Make sure that a token is patched; marks[token] is its place + 1. Gives the number of patched tokens."""
    if load_i32(marks + 4 * token) == 0:
        store_i32(marks + 4 * token, np.int32(count + 1))
        store_i64(patched + 8 * count, token)
        store_f64(patches + 8 * count, np.float64(load_f32(logits + 4 * token)))
        store_i64(extra + 8 * count, 0)
        return count + 1
    return count


@njit(**OPTIONS)
def _penalize(logits, n, marks, patched, patches, extra, recent, recent_count, repeat, presence, frequency):
    """Repeat, frequency and presence penalties for the tokens recent int64; gives the number of patched tokens."""
    count = 0
    for i in range(recent_count):
        token = load_i64(recent + 8 * i)
        if 0 <= token < n:
            count = _patch(logits, token, marks, patched, patches, extra, count)
            at = extra + 8 * (load_i32(marks + 4 * token) - 1)
            store_i64(at, load_i64(at) + 1)
    for i in range(count):
        x = load_f64(patches + 8 * i)
        x = x * repeat if x <= 0.0 else x / repeat
        store_f64(patches + 8 * i, x - load_i64(extra + 8 * i) * frequency - presence)
        store_i64(extra + 8 * i, 0)
    return count


@njit(**OPTIONS)
def _penalize_repetition(
    logits, n, marks, patched, patches, longest, count, recent, recent_count, matched, breakers, breaker_count,
    multiplier, base, allowed,
):  # fmt: skip
    """DRY: a token that would prolong a repetition of m ≥ allowed ≥ 1 tokens at the end of recent int64 loses
    multiplier * base**(m - allowed). Repetitions end at breakers (sorted int64 ids). Gives how many tokens are patched.

    Lengths come from the Z function of the reversed tokens, in linear time. matched int64 (recent_count,) is scratch;
    longest int64, one for each patched token, must be zeros.
    """
    end = recent + 8 * (recent_count - 1)
    limit = recent_count
    for i in range(recent_count):
        if _contains(breakers, breaker_count, load_i64(end - 8 * i)):
            limit = i
            break
    if limit < allowed:
        return count
    left, right = 0, 0
    for i in range(1, recent_count):
        m = 0
        if i < right:
            m = min(right - i, load_i64(matched + 8 * (i - left)))
        while i + m < recent_count and load_i64(end - 8 * m) == load_i64(end - 8 * (i + m)):
            m += 1
        store_i64(matched + 8 * i, m)
        if i + m > right:
            left, right = i, i + m
        token = load_i64(end - 8 * (i - 1))  # what came behind the earlier occurrence
        m = min(m, limit)
        if 0 <= token < n and m >= allowed and not _contains(breakers, breaker_count, token):
            count = _patch(logits, token, marks, patched, patches, longest, count)
            at = longest + 8 * (load_i32(marks + 4 * token) - 1)
            store_i64(at, max(load_i64(at), m))
    for i in range(count):
        m = load_i64(longest + 8 * i)
        if m < allowed:
            continue
        power = 1.0
        for _ in range(m - allowed):
            power *= base
            if power > _LARGEST_PENALTY:
                break
        store_f64(patches + 8 * i, load_f64(patches + 8 * i) - min(multiplier * power, _LARGEST_PENALTY))
    return count


# ---- the one entry ---------------------------------------------------------------------------------------------------


def choose(table, numbers):
    """Choose a token; gives its id, or NOT_FINITE. `table` and `numbers` are addresses, laid out as named above.

    The chain: penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature, draw; at temperature 0 the best that is
    left. With WANTED > 0 instead: the WANTED ≤ TOP_K best behind the penalties are left in scratch as int64 ids, and
    their number is given. SCRATCH has scratch_bytes(…) bytes; MARKS is int32, one a token, zeros before and after.
    """
    n, k = load_i64(table + 8 * VOCABULARY), load_i64(table + 8 * TOP_K)
    recent_count, dry_count = load_i64(table + 8 * RECENT_COUNT), load_i64(table + 8 * DRY_COUNT)
    logits, marks = load_i64(table + 8 * LOGITS), load_i64(table + 8 * MARKS)
    most = min(n, recent_count + dry_count)
    whole = n if k > HEAP_LIMIT else k
    ids = load_i64(table + 8 * SCRATCH)
    values = ids + 8 * (whole + 2)
    weights = values + 8 * (whole + 2)
    distances = weights + 8 * (whole + 2)
    keys = distances + 8 * (whole + 2)
    other = keys + 8 * (max(whole, most) + 2)
    patched = other + 8 * (max(whole, most) + 2)
    patches, extra = patched + 8 * most, patched + 16 * most
    matched = patched + 24 * most
    counts = matched + 8 * dry_count
    maxima = counts + _COUNTS_BYTES

    if not chunk_maxima(logits, n, maxima):
        return NOT_FINITE
    count = 0
    if recent_count:
        count = _penalize(
            logits, n, marks, patched, patches, extra, load_i64(table + 8 * RECENT), recent_count,
            load_f64(numbers + 8 * REPEAT), load_f64(numbers + 8 * PRESENCE), load_f64(numbers + 8 * FREQUENCY),
        )  # fmt: skip
    if dry_count:
        count = _penalize_repetition(
            logits, n, marks, patched, patches, extra, count, load_i64(table + 8 * DRY_RECENT), dry_count, matched,
            load_i64(table + 8 * BREAKERS), load_i64(table + 8 * BREAKER_COUNT),
            load_f64(numbers + 8 * DRY_MULTIPLIER), load_f64(numbers + 8 * DRY_BASE), load_i64(table + 8 * DRY_ALLOWED),
        )  # fmt: skip
    typical_p, top_p = load_f64(numbers + 8 * TYPICAL_P), load_f64(numbers + 8 * TOP_P)
    min_p = load_f64(numbers + 8 * MIN_P)
    wanted = load_i64(table + 8 * WANTED)
    size = UNKNOWN
    if k == n and n > HEAP_LIMIT and wanted == 0 and top_p < 1.0 and typical_p >= 1.0:
        size = nucleus(
            logits, n, maxima, marks, patched, patches, count, top_p, min_p, values, ids, weights, distances, keys,
            other, counts,
        )  # fmt: skip
    if size != UNKNOWN:
        top_p, min_p = 1.0, 0.0  # both are done
    elif k <= HEAP_LIMIT:
        size = best_by_heap(logits, n, maxima, marks, patched, patches, count, k, values, ids)
    else:
        floor = -np.inf
        if k == n and wanted == 0 and min_p > 0.0 and top_p >= 1.0 and typical_p >= 1.0:
            # Nothing in front of min-p looks at the rest: it need not be sorted.
            size = best_by_heap(logits, n, maxima, marks, patched, patches, count, 1, values, ids)
            floor = load_f64(values) + log64(min_p) if size else floor
        size = all_in_order(
            logits, n, maxima, marks, patched, patches, count, floor, k, values, ids, keys, other, counts
        )
    for i in range(count):
        store_i32(marks + 4 * load_i64(patched + 8 * i), np.int32(0))
    if size <= 0:
        return NOT_FINITE
    if wanted:
        return min(size, wanted)
    if typical_p < 1.0:
        size = _typical(values, ids, size, typical_p, weights, distances, keys, other, counts)
    if top_p < 1.0:
        size = _top_p(values, size, top_p, weights)
    if min_p > 0.0:
        size = _min_p(values, size, load_f64(values) + log64(min_p))
    first = 0
    if load_i64(table + 8 * XTC):
        first = _xtc(values, size, load_f64(numbers + 8 * XTC_THRESHOLD), weights)
    temperature = load_f64(numbers + 8 * TEMPERATURE)
    if temperature <= 0.0:
        return load_i64(ids + 8 * first)
    return _draw(values, ids, first, size, temperature, weights, load_f64(numbers + 8 * DICE))
