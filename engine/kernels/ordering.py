"""Finding and ordering candidates by (logit descending, id ascending), for the sampler. Everything by address.

A vocabulary is large and hardly any of it has a chance: the best are found by looking at the largest of each 128
logits, which vectors find fast. Where all are wanted, float32 logits sort by radix. What penalties changed is float64
and lies beside them ("patched", and marked), so it is offered or merged.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.scalar_math import OPTIONS, bits_of
from engine.kernels.simd import (
    add_f32,
    bits_of_f32,
    float_of,
    largest_f32,
    load_f32,
    load_f32x16,
    load_f64,
    load_i32,
    load_i64,
    max_f32,
    splat_f32,
    store_f32,
    store_f64,
    store_i64,
    sub_f32,
    sum_f32,
)

CHUNK = 128
_SIGN = np.uint64(1 << 63)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_DIGIT = np.uint64(2047)
_LONG_WAY = 64


# ---- sorting ---------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def ordered_bits(x):
    """An uint64 that rises with x; 0.0 and -0.0 give the same one."""
    bits = np.uint64(bits_of(x + 0.0))
    if bits & _SIGN:
        return ~bits
    return bits | _SIGN


@njit(**OPTIONS)
def _key_of(x, token):
    """Sorts by float32 x falling (high half), and holds the token (low half)."""
    bits = np.int64(bits_of_f32(x)) & 0xFFFFFFFF
    if bits == 0x80000000:
        bits = 0
    rising = bits ^ 0xFFFFFFFF if bits & 0x80000000 else bits | 0x80000000
    return ((rising ^ 0xFFFFFFFF) << 32) | token


@njit(**OPTIONS)
def _value_of(key):
    """The float64 that `_key_of` was made of; 0.0 for -0.0."""
    rising = ((key >> 32) & 0xFFFFFFFF) ^ 0xFFFFFFFF
    bits = rising ^ 0x80000000 if rising & 0x80000000 else rising ^ 0xFFFFFFFF
    return np.float64(float_of(np.int32(bits)))


@njit(**OPTIONS)
def _u64(address, i):
    return np.uint64(load_i64(address + 8 * i))


@njit(**OPTIONS)
def _set_u64(address, i, x):
    store_i64(address + 8 * i, np.int64(x))


@njit(**OPTIONS)
def _radix_sort(n, keys, other, counts):
    """Sort n uint64 by their high 32 bits; equal ones keep their order. Gives the address where the result is: keys or
    other. Digits of 11, 11 and 10 bits.
    """
    for i in range(3 * 2048):
        store_i64(counts + 8 * i, 0)
    for i in range(n):
        high = _u64(keys, i) >> _HALF
        for digit in range(3):
            at = counts + 8 * (2048 * digit + np.int64((high >> np.uint64(11 * digit)) & _DIGIT))
            store_i64(at, load_i64(at) + 1)
    source, target = keys, other
    for digit in range(3):
        total = 0
        trivial = False
        for value in range(2048):
            at = counts + 8 * (2048 * digit + value)
            count = load_i64(at)
            trivial = trivial or count == n
            store_i64(at, total)
            total += count
        if trivial:
            continue
        shift = np.uint64(32 + 11 * digit)
        for i in range(n):
            key = _u64(source, i)
            at = counts + 8 * (2048 * digit + np.int64((key >> shift) & _DIGIT))
            slot = load_i64(at)
            _set_u64(target, slot, key)
            store_i64(at, slot + 1)
        source, target = target, source
    return source


@njit(**OPTIONS)
def _radix_sort_in_place(n, keys, other, counts):
    if _radix_sort(n, keys, other, counts) != keys:
        for i in range(n):
            _set_u64(keys, i, _u64(other, i))


@njit(**OPTIONS)
def _rank(values, key, flip):
    return ordered_bits(load_f64(values + 8 * np.int64(key & _LOW))) ^ flip


@njit(**OPTIONS)
def sort_indices(n, values, falling, keys, other, counts):
    """Order the indices that keys[:n] holds, in place, by values float64 at these indices, falling or rising; equal
    values keep their order. Addresses of keys, other uint64 (≥ n) and counts int64 (3, 2048): scratch, as `other` is.

    A radix sort by the high half of the values' bits; the low half decides within runs of equal high halves, which
    are short unless the values hardly differ: then the low half is sorted first, as radix sorts do.
    """
    flip = ~np.uint64(0) if falling else np.uint64(0)
    for i in range(n):
        index = _u64(keys, i) & _LOW
        _set_u64(keys, i, (_rank(values, index, flip) & ~_LOW) | index)
    _radix_sort_in_place(n, keys, other, counts)
    start = 0
    patient = True
    while start < n and patient:
        stop = start + 1
        while stop < n and _u64(keys, stop) >> _HALF == _u64(keys, start) >> _HALF:
            stop += 1
        for i in range(start + 1, stop):
            key = _u64(keys, i)
            rank = _rank(values, key, flip)
            at = i
            while at > start and _rank(values, _u64(keys, at - 1), flip) > rank:
                _set_u64(keys, at, _u64(keys, at - 1))
                at -= 1
            _set_u64(keys, at, key)
            if i - at > _LONG_WAY:
                patient = False
                break
        start = stop
    if not patient:
        # Elements were moved, but among equals of both halves never past each other: the order to keep is still there.
        for i in range(n):
            index = _u64(keys, i) & _LOW
            _set_u64(keys, i, (_rank(values, index, flip) << _HALF) | index)
        _radix_sort_in_place(n, keys, other, counts)
        for i in range(n):
            index = _u64(keys, i) & _LOW
            _set_u64(keys, i, (_rank(values, index, flip) & ~_LOW) | index)
        _radix_sort_in_place(n, keys, other, counts)
    for i in range(n):
        _set_u64(keys, i, _u64(keys, i) & _LOW)


# ---- the best candidates ---------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _worse(value, token, other_value, other_token):
    return value < other_value or (value == other_value and token > other_token)


@njit(**OPTIONS)
def _offer(value, token, values, ids, size, limit):
    """Push a candidate onto the heap of the `limit` best, whose worst lies on top; gives the new size."""
    if size < limit:
        at = size
        while at > 0:
            above = (at - 1) >> 1
            if _worse(load_f64(values + 8 * above), load_i64(ids + 8 * above), value, token):
                break
            store_f64(values + 8 * at, load_f64(values + 8 * above))
            store_i64(ids + 8 * at, load_i64(ids + 8 * above))
            at = above
        store_f64(values + 8 * at, value)
        store_i64(ids + 8 * at, token)
        return size + 1
    if _worse(load_f64(values), load_i64(ids), value, token):
        _sink(value, token, values, ids, size)
    return size


@njit(**OPTIONS)
def _sink(value, token, values, ids, size):
    """Put a candidate in place of the heap's top."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _worse(
            load_f64(values + 8 * other),
            load_i64(ids + 8 * other),
            load_f64(values + 8 * child),
            load_i64(ids + 8 * child),
        ):
            child = other
        if _worse(value, token, load_f64(values + 8 * child), load_i64(ids + 8 * child)):
            break
        store_f64(values + 8 * at, load_f64(values + 8 * child))
        store_i64(ids + 8 * at, load_i64(ids + 8 * child))
        at = child
    store_f64(values + 8 * at, value)
    store_i64(ids + 8 * at, token)


@njit(**OPTIONS)
def chunk_maxima(logits, n, maxima):
    """The largest of each 128 logits, float32 (n / 128 rounded up,); gives whether all is well: no NaN and no +inf."""
    bad = splat_f32(np.float32(0.0))
    whole = n // CHUNK
    for chunk in range(whole):
        at = logits + 4 * CHUNK * chunk
        first = load_f32x16(at)
        largest, bad = first, add_f32(bad, sub_f32(first, first))
        for i in range(1, CHUNK // 16):
            x = load_f32x16(at + 64 * i)
            largest, bad = max_f32(x, largest), add_f32(bad, sub_f32(x, x))
        store_f32(maxima + 4 * chunk, largest_f32(largest))
    if CHUNK * whole < n:
        largest_rest = np.float32(-np.inf)
        for i in range(CHUNK * whole, n):
            x = load_f32(logits + 4 * i)
            if not x < np.inf:
                return False
            largest_rest = max(largest_rest, x)
        store_f32(maxima + 4 * whole, largest_rest)
    if sum_f32(bad) == 0.0:
        return True
    # x - x is no number for -inf either, and -inf may be: somebody ruled a token out.
    for i in range(n):
        if not load_f32(logits + 4 * i) < np.inf:
            return False
    for chunk in range(whole):
        largest_one = np.float32(-np.inf)
        for i in range(CHUNK * chunk, CHUNK * (chunk + 1)):
            largest_one = max(largest_one, load_f32(logits + 4 * i))
        store_f32(maxima + 4 * chunk, largest_one)
    return True


@njit(**OPTIONS)
def best_by_heap(logits, n, maxima, marks, patched, patches, count, limit, values, ids):
    """The `limit` best candidates in order; gives how many there are (fewer where logits are -inf)."""
    size = 0
    for i in range(count):
        x = load_f64(patches + 8 * i)
        if x > -np.inf:
            size = _offer(x, load_i64(patched + 8 * i), values, ids, size, limit)
    worst = load_f64(values) if size == limit else -np.inf
    for first in range(0, n, CHUNK):
        if load_f32(maxima + 4 * (first // CHUNK)) < worst:
            continue
        for token in range(first, min(n, first + CHUNK)):
            x = np.float64(load_f32(logits + 4 * token))
            if x < worst or not x > -np.inf or (count and load_i32(marks + 4 * token) != 0):
                continue
            size = _offer(x, token, values, ids, size, limit)
            if size == limit:
                worst = load_f64(values)
    for last in range(size - 1, 0, -1):
        value, token = load_f64(values + 8 * last), load_i64(ids + 8 * last)
        store_f64(values + 8 * last, load_f64(values))
        store_i64(ids + 8 * last, load_i64(ids))
        _sink(value, token, values, ids, last)
    return size


@njit(**OPTIONS)
def all_in_order(logits, n, maxima, marks, patched, patches, count, floor, limit, values, ids, keys, other, counts):
    """The candidates above -inf and not below `floor`, sorted, `limit` of them at most; gives how many there are.

    Sorts the logits and the patched ones apart and merges both.
    """
    size = 0
    lowest = -np.inf
    for first in range(0, n, CHUNK):
        if load_f32(maxima + 4 * (first // CHUNK)) < floor:
            continue
        for token in range(first, min(n, first + CHUNK)):
            x = load_f32(logits + 4 * token)
            if x > lowest and not x < floor and not (count and load_i32(marks + 4 * token) != 0):
                store_i64(keys + 8 * size, _key_of(x, token))
                size += 1
    sorted_keys = _radix_sort(size, keys, other, counts)
    # Ids and values lie elsewhere, so both buffers of keys are free once they are read.
    free = other if sorted_keys == keys else keys
    for i in range(size):
        key = load_i64(sorted_keys + 8 * i)
        store_i64(ids + 8 * i, key & 0xFFFFFFFF)
        store_f64(values + 8 * i, _value_of(key))
    kept = 0
    for i in range(count):
        x = load_f64(patches + 8 * i)
        if x > lowest and not x < floor:
            store_i64(sorted_keys + 8 * kept, (load_i64(patched + 8 * i) << 32) | i)
            kept += 1
    if kept:
        _radix_sort_in_place(kept, sorted_keys, free, counts)  # by id, for equal values keep their order below
        sort_indices(kept, patches, True, sorted_keys, free, counts)
        _merge(size, values, ids, kept, sorted_keys, patched, patches)
    return min(size + kept, limit)


@njit(**OPTIONS)
def _merge(size, values, ids, kept, order, patched, patches):
    """Merge the `kept` patched candidates in their order into values[:size], ids[:size], from the end."""
    a, b = size - 1, kept - 1
    for to in range(size + kept - 1, -1, -1):
        if b < 0:
            break
        index = load_i64(order + 8 * b)
        value, token = load_f64(patches + 8 * index), load_i64(patched + 8 * index)
        if a >= 0 and _worse(load_f64(values + 8 * a), load_i64(ids + 8 * a), value, token):
            value, token = load_f64(values + 8 * a), load_i64(ids + 8 * a)
            a -= 1
        else:
            b -= 1
        store_f64(values + 8 * to, value)
        store_i64(ids + 8 * to, token)
