"""Attention over paged keys and values, block by absolute 64-token block (NUMERICS rule 4).

A query row is one query head of one token. All rows of an item share a KV head, so that each key and value is read once
for all of them. A block gives each row m (largest score), p = exp(s - m), l (sum of p), o (sum of p*v in token order);
blocks merge left to right, the division comes last. A row's result does not depend on which rows share its item: decode
(few rows) and prefill (many) run this same code. Online softmax after Milakov and Gimelshein 2018.

Rows go in groups as large as the inner loops' tiles (kernels/tiles.py). What a block gives a group lies together: m
and l, 16 lanes each, and o as (rows, channels). Either it is merged at once, or, where an item's blocks are shared out
among threads, all blocks' results are kept and merged by whoever is last.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels.options import OPTIONS
from engine.kernels.plan import BLOCK, SOME
from engine.kernels.simd import (
    LANES,
    add_f32,
    div_f32,
    lanes_below,
    largest_f32,
    load_f32,
    load_f32x16,
    load_i64,
    max_f32,
    mul_f32,
    splat_f32,
    store_f32,
    store_f32x16,
    sub_f32,
    sum_f32,
)
from engine.kernels.tiles import (
    MANY,
    VECTORS,
    as_f16,
    as_f32,
    as_q8_0,
    scores,
    weigh,
    widen_keys,
    widen_values,
)
from engine.kernels.vector_math import exp_nonpositive

_MINUS_INFINITY, _ZERO = np.float32(-np.inf), np.float32(0.0)
_VECTOR = 4 * LANES


@njit(**OPTIONS)
def group_rows(left):
    """How many rows the next group has where `left` are left; more than `left` where it is filled up with copies."""
    if left > SOME:
        return MANY
    return SOME if left > 1 else 1


@njit(**OPTIONS)
def _result_bytes(rows, channels):
    """Bytes of what one block gives a group of `rows`: m, l and o."""
    return 2 * _VECTOR + 4 * rows * channels


@njit(**OPTIONS)
def _results_bytes(rows, channels):
    """Bytes of what one block gives all groups of an item of `rows`."""
    total = 0
    while rows > 0:
        count = group_rows(rows)
        total += _result_bytes(count, channels)
        rows -= count
    return total


@njit(**OPTIONS)
def seen(position, window, block):
    """Which keys of an absolute block a row sees: [first, last) within it, empty where last <= first."""
    return max(0, position + 1 - window - BLOCK * block), min(BLOCK, position + 1 - BLOCK * block)


@njit(**OPTIONS)
def _softmax(s, first, last):
    """Turn the scores [first, last) of one row into p in place; gives (m, l). `s` is the address of 64 float32."""
    low = splat_f32(_MINUS_INFINITY)
    m = low
    start = first - first % LANES
    for i in range(start, last, LANES):
        x = lanes_below(np.int32(last - i), load_f32x16(s + 4 * i), low)
        m = max_f32(lanes_below(np.int32(first - i), low, x), m)
    largest = largest_f32(m)
    total, zero = splat_f32(_ZERO), splat_f32(_ZERO)
    for i in range(start, last, LANES):
        p = exp_nonpositive(sub_f32(load_f32x16(s + 4 * i), splat_f32(largest)))
        p = lanes_below(np.int32(first - i), zero, lanes_below(np.int32(last - i), p, zero))
        store_f32x16(s + 4 * i, p)
        total = add_f32(total, p)
    return largest, sum_f32(total)


@njit(**OPTIONS)
def _softmax_whole(s):
    """_softmax(s, 0, 64), without the masks."""
    m = splat_f32(_MINUS_INFINITY)
    for i in range(0, 4 * BLOCK, _VECTOR):
        m = max_f32(load_f32x16(s + i), m)
    largest = largest_f32(m)
    total = splat_f32(_ZERO)
    for i in range(0, 4 * BLOCK, _VECTOR):
        p = exp_nonpositive(sub_f32(load_f32x16(s + i), splat_f32(largest)))
        store_f32x16(s + i, p)
        total = add_f32(total, p)
    return largest, sum_f32(total)


@njit(**OPTIONS)
def _score_group(kv, rows, q, k, ks, dims, keys, s, ahead):
    """Scores of a group's rows with a block's first `keys` keys."""
    for t in range(0, keys, LANES * VECTORS):
        if rows == MANY:
            scores(kv, MANY, q, k, ks, t, dims, s, ahead)
        elif rows == SOME:
            scores(kv, SOME, q, k, ks, t, dims, s, ahead)
        else:
            scores(kv, 1, q, k, ks, t, dims, s, ahead)


@njit(**OPTIONS)
def _weigh_group(kv, rows, p, t0, t1, v, vs, scale_blocks, channels, o, go_on, ahead):
    """The values [t0, t1) weighted for a group's rows; see `weigh`."""
    whole = channels - channels % (LANES * VECTORS)
    for c in range(0, whole, LANES * VECTORS):
        if rows == MANY:
            weigh(kv, MANY, VECTORS, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)
        elif rows == SOME:
            weigh(kv, SOME, VECTORS, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)
        else:
            weigh(kv, 1, VECTORS, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)
    for c in range(whole, channels, LANES):
        if rows == MANY:
            weigh(kv, MANY, 1, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)
        elif rows == SOME:
            weigh(kv, SOME, 1, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)
        else:
            weigh(kv, 1, 1, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead)


@njit(**OPTIONS)
def _clear(o, floats):
    for c in range(0, 4 * floats, _VECTOR):
        store_f32x16(o + c, splat_f32(_ZERO))


@njit(**OPTIONS)
def _position(positions, row, rows, group):
    """The position of a row's token; a row that only fills its group up has the last one's."""
    return load_i64(positions + 8 * (min(row, rows - 1) // group))


@njit(**OPTIONS)
def _one_block(kv, first, count, rows, group, sizes, q, positions, window, j, where, ahead, s, result):
    """What block j gives the `count` rows of a group from row `first` on: m, l and o at `result`.

    sizes: (dims, channels, scale_blocks). where: addresses of (keys, key scales, values, value scales). ahead: where
    the next block's keys and values lie, in bytes behind these. Rows that see nothing of the block get nothing of use.
    """
    dims, channels, scale_blocks = sizes
    k, ks, v, vs = where
    m, sums, o = result, result + _VECTOR, result + 2 * _VECTOR
    # Positions rise with the rows. What all rows of the group see is weighed together, what only some see, row by row.
    begin, high = seen(_position(positions, first, rows, group), window, j)
    low, keys = seen(_position(positions, first + count - 1, rows, group), window, j)
    uneven = begin != low or high != keys
    if keys <= 0 or (not uneven and low >= high):
        return
    # As variables, for Numba compiles a function anew for each literal that it is given.
    zero, one = np.int64(0), np.int64(1)
    _score_group(kv, count, q, k, ks, dims, keys, s, ahead)
    if not uneven:
        for i in range(count):
            at = s + 4 * BLOCK * i
            top, total = _softmax_whole(at) if low == 0 and high == BLOCK else _softmax(at, low, high)
            store_f32(m + 4 * i, top)
            store_f32(sums + 4 * i, total)
        _weigh_group(kv, count, s, low, high, v, vs, scale_blocks, channels, o, zero, ahead)
        return
    high = max(low, high)
    _clear(o, count * channels)
    for i in range(min(count, rows - first)):
        begin, end = seen(_position(positions, first + i, rows, group), window, j)
        if begin < end:
            at = s + 4 * BLOCK * i
            top, total = _softmax(at, begin, end)
            store_f32(m + 4 * i, top)
            store_f32(sums + 4 * i, total)
            if begin < min(low, end):
                own = o + 4 * channels * i
                _weigh_group(kv, one, at, begin, min(low, end), v, vs, scale_blocks, channels, own, one, ahead)
    if low < high:
        _weigh_group(kv, count, s, low, high, v, vs, scale_blocks, channels, o, one, ahead)
    for i in range(min(count, rows - first)):
        begin, end = seen(_position(positions, first + i, rows, group), window, j)
        if max(begin, high) < end:
            own = o + 4 * channels * i
            _weigh_group(
                kv, one, s + 4 * BLOCK * i, max(begin, high), end, v, vs, scale_blocks, channels, own, one, ahead
            )


@njit(**OPTIONS)
def _merge(first, count, rows, group, channels, positions, window, j, result, merged, state, o):
    """Merge block j's result into the group's running m and l (at `state`) and o, for the rows that see the block.

    merged: room for four vectors.
    """
    m_old, m_new = load_f32x16(state), load_f32x16(result)
    m = max_f32(m_new, m_old)
    a, w = exp_nonpositive(sub_f32(m_old, m)), exp_nonpositive(sub_f32(m_new, m))
    total = add_f32(mul_f32(load_f32x16(state + _VECTOR), a), mul_f32(load_f32x16(result + _VECTOR), w))
    store_f32x16(merged, m)
    store_f32x16(merged + _VECTOR, total)
    store_f32x16(merged + 2 * _VECTOR, a)
    store_f32x16(merged + 3 * _VECTOR, w)
    newest, oldest = _position(positions, first + count - 1, rows, group), _position(positions, first, rows, group)
    position = oldest
    for i in range(min(count, rows - first)):
        if newest != oldest:
            position = _position(positions, first + i, rows, group)
        begin, end = seen(position, window, j)
        if begin < end:
            starts = j == max(0, position + 1 - window) // BLOCK
            source = result if starts else merged
            store_f32(state + 4 * i, load_f32(source + 4 * i))
            store_f32(state + _VECTOR + 4 * i, load_f32(source + _VECTOR + 4 * i))
            kept = splat_f32(load_f32(merged + 2 * _VECTOR + 4 * i))
            new = splat_f32(load_f32(merged + 3 * _VECTOR + 4 * i))
            own, fresh = o + 4 * channels * i, result + 2 * _VECTOR + 4 * channels * i
            for c in range(0, 4 * channels, _VECTOR):
                x = load_f32x16(fresh + c)
                if not starts:
                    x = add_f32(mul_f32(load_f32x16(own + c), kept), mul_f32(x, new))
                store_f32x16(own + c, x)


@njit(**OPTIONS)
def _finish(rows, group, dims, channels, state, o, out, out_stride):
    """out = o / l for all rows over `dims` float32; only these are written, for the next head's lie behind them."""
    r, mine = 0, state
    while r < rows:
        count = group_rows(rows - r)
        for i in range(min(count, rows - r)):
            own = o + 4 * channels * (r + i)
            to = out + out_stride * ((r + i) // group) + 4 * dims * ((r + i) % group)
            total = load_f32(mine + _VECTOR + 4 * i)
            whole = dims - dims % LANES
            for c in range(0, whole, LANES):
                store_f32x16(to + 4 * c, div_f32(load_f32x16(own + 4 * c), splat_f32(total)))
            for c in range(whole, dims):
                store_f32(to + 4 * c, load_f32(own + 4 * c) / total)
        r += count
        mine += 2 * _VECTOR


@njit(**OPTIONS)
def _arrange(q, rows, dims, to):
    """Queries (rows, dims) as the tiles read them: each group as (dims, its rows), filled up with its last row."""
    r = 0
    while r < rows:
        count = group_rows(rows - r)
        for i in range(count):
            row = q + 4 * dims * min(r + i, rows - 1)
            for d in range(dims):
                store_f32(to + 4 * (count * d + i), load_f32(row + 4 * d))
        to += 4 * count * dims
        r += count


@njit(**OPTIONS)
def blocks_seen(positions, tokens, window):
    """The blocks [first, end) that any of an item's tokens sees."""
    first = max(0, load_i64(positions) + 1 - window) // BLOCK
    return first, load_i64(positions + 8 * (tokens - 1)) // BLOCK + 1


@njit(**OPTIONS)
def _layout(rows, sizes, scratch):
    """Where an item's parts lie in the scratch: see the names where it is called, and scratch_bytes."""
    dims, channels, _ = sizes
    keys = scratch
    values = keys + 4 * BLOCK * dims
    s = values + 4 * BLOCK * channels
    fresh = s + 4 * BLOCK * MANY
    merged = fresh + _result_bytes(MANY, channels)
    state = merged + 4 * _VECTOR
    o = state + 2 * _VECTOR * (rows + MANY)
    queries = o + 4 * (rows + MANY) * channels
    return keys, values, s, fresh, merged, state, o, queries


@njit(**OPTIONS)
def attend(
    kv, rows, group, sizes, q, positions, window, blocks, layer_offset, parts, share, partial, scratch, out, out_stride
):
    """One item: `rows` query rows of one KV head, `group` of them a token, against the blocks that they see.

    kv: how keys and values are stored (kernels/tiles.py). sizes: (dims, channels, scale_blocks). q: address of (rows,
    dims) float32, already rotated and scaled. positions: address of the tokens' int64 positions, one behind the other.
    window: how many of the newest keys a row sees, its own included. blocks: address of the session's block addresses.
    layer_offset: where the layer's keys begin in a block. parts: (keys, key scales, values, value scales) of this KV
    head in bytes behind that. share: (index, number); of more than one, only the blocks of that share are computed, and
    each block's results are left at `partial` for `merge_shares`. scratch: scratch_bytes of this thread's.
    out: address of the first token's row at this KV head's first query head; out_stride its row stride in bytes.
    """
    dims, channels, scale_blocks = sizes
    index, shares = share
    keys, values, s, fresh, merged, state, o, queries = _layout(rows, sizes, scratch)
    _arrange(q, rows, dims, queries)
    tokens = rows // group
    begin, end = blocks_seen(positions, tokens, window)
    first, last = begin + (end - begin) * index // shares, begin + (end - begin) * (index + 1) // shares
    alone = group_rows(rows) >= rows
    each = _results_bytes(rows, channels)
    for j in range(first, last):
        base = load_i64(blocks + 8 * j) + layer_offset
        ahead = load_i64(blocks + 8 * (j + 1)) + layer_offset - base if j + 1 < last else 0
        where = (base + parts[0], base + parts[1], base + parts[2], base + parts[3])
        if not alone:
            count = min(BLOCK, load_i64(positions + 8 * (tokens - 1)) + 1 - BLOCK * j)
            widen_keys(kv, where[0], where[1], dims, keys)
            widen_values(kv, where[2], where[3], scale_blocks, channels, count, values)
        result = fresh if shares == 1 else partial + each * (j - begin)
        r, mine = 0, state
        while r < rows:
            count = group_rows(rows - r)
            own = queries + 4 * dims * r
            if alone:
                _one_block(kv, r, count, rows, group, sizes, own, positions, window, j, where, ahead, s, result)
            else:
                wide = (keys, np.int64(0), values, np.int64(0))
                _one_block(as_f32(), r, count, rows, group, sizes, own, positions, window, j, wide, ahead, s, result)
            if shares == 1:
                to = o + 4 * channels * r
                _merge(r, count, rows, group, channels, positions, window, j, result, merged, mine, to)
            else:
                result += _result_bytes(count, channels)
            r += count
            mine += 2 * _VECTOR
    if shares == 1:
        _finish(rows, group, dims, channels, state, o, out, out_stride)


@njit(**OPTIONS)
def merge_shares(rows, group, sizes, positions, window, partial, scratch, out, out_stride):
    """Merge what `attend` left of all blocks of an item at `partial`, left to right; arguments as there."""
    dims, channels, _ = sizes
    _, _, _, _, merged, state, o, _ = _layout(rows, sizes, scratch)
    begin, end = blocks_seen(positions, rows // group, window)
    each = _results_bytes(rows, channels)
    r, mine = 0, state
    while r < rows:
        count = group_rows(rows - r)
        for j in range(begin, end):
            result, to = partial + each * (j - begin), o + 4 * channels * r
            _merge(r, count, rows, group, channels, positions, window, j, result, merged, mine, to)
        partial += _result_bytes(count, channels)
        r += count
        mine += 2 * _VECTOR
    _finish(rows, group, dims, channels, state, o, out, out_stride)


def attend_f16(
    rows, group, dims, channels, n, q, at, window, blocks, layer, k, ks, v, vs, i, shares, partial, scratch, out, stride
):
    """`attend` over f16 keys and values; compiled by kernels/entry.py."""
    sizes, parts, share = (dims, channels, n), (k, ks, v, vs), (i, shares)
    attend(as_f16(), rows, group, sizes, q, at, window, blocks, layer, parts, share, partial, scratch, out, stride)


def attend_q8_0(
    rows, group, dims, channels, n, q, at, window, blocks, layer, k, ks, v, vs, i, shares, partial, scratch, out, stride
):
    """`attend` over q8_0 keys and values; compiled by kernels/entry.py."""
    sizes, parts, share = (dims, channels, n), (k, ks, v, vs), (i, shares)
    attend(as_q8_0(), rows, group, sizes, q, at, window, blocks, layer, parts, share, partial, scratch, out, stride)
