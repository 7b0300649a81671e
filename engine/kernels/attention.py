"""Attention over paged keys and values, block by absolute 64-token block (NUMERICS rule 4).

A query row is one query head of one token. All rows of an item share a KV head, so that each key and value is read once
for all of them. A block gives each row m (largest score), p = exp(s - m), l (sum of p), o (sum of p*v in token order);
blocks merge left to right, the division comes last. A row's result does not depend on which rows share its item: decode
(few rows) and prefill (many) run this same code. Online softmax after Milakov and Gimelshein 2018.

Keys lie as (dim, 64 tokens): the lanes are keys. Values lie as (64 tokens, dim): the lanes are channels. For q8_0,
codes of 8 bits lie the same way, and one half scale stands for 32 dims of a token: (dim/32, 64) and (64, dim/32).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd import (
    F32,
    I8,
    I16,
    I64,
    LANES,
    VF,
    VI16,
    VI32,
    add_f32,
    const,
    div_f32,
    fma,
    half_to_f32,
    lanes_below,
    largest_f32,
    load,
    load_f32,
    load_f32x16,
    load_i64,
    max_f32,
    mul_f32,
    splat,
    splat_f32,
    store,
    store_f32,
    store_f32x16,
    sub_f32,
    sum_f32,
)
from engine.kernels.vector_math import OPTIONS, exp_nonpositive

BLOCK = 64
F16_KV, Q8_0_KV = 0, 1
ROWS_AT_ONCE = 4
_MINUS_INFINITY, _ZERO = np.float32(-np.inf), np.float32(0.0)
VI8 = ir.VectorType(I8, LANES)


def _emit_scores(b: Any, kv: int, rows: int, q: Any, q_stride: Any, k: Any, ks: Any, dims: Any, s: Any) -> None:
    """s[r, 0:16] = fold over d of q[r, d] * key[d, 0:16], rows 256 bytes apart. Keys are read once for all rows."""
    n = lambda v: ir.Constant(I64, v)
    acc = [cgutils.alloca_once_value(b, const(VF, 0.0)) for _ in range(rows)]
    for p in acc:
        b.store(const(VF, 0.0), p)
    with cgutils.for_range(b, dims) as loop:
        d = loop.index
        if kv == F16_KV:
            key = half_to_f32(b, load(b, b.add(k, b.mul(d, n(2 * BLOCK))), VI16))
        else:
            codes = b.sitofp(b.sext(load(b, b.add(k, b.mul(d, n(BLOCK))), VI8), VI32), VF)
            scale = half_to_f32(b, load(b, b.add(ks, b.mul(b.lshr(d, n(5)), n(2 * BLOCK))), VI16))
            key = b.fmul(codes, scale)
        for r in range(rows):
            x = load(b, b.add(b.add(q, b.mul(n(r), q_stride)), b.mul(d, n(4))), F32)
            b.store(fma(b, splat(b, x, VF), key, b.load(acc[r])), acc[r])
    for r in range(rows):
        store(b, b.load(acc[r]), b.add(s, n(4 * BLOCK * r)))


@intrinsic(prefer_literal=True)
def _scores(typingctx, kv, rows, q, q_stride, k, ks, dims, s):
    """16 keys for a literal number of query rows; addresses and strides in bytes."""
    which, count = kv.literal_value, rows.literal_value

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _emit_scores(b, which, count, *a[2:])
        return ir.Constant(I8.as_pointer(), None)

    return types.void(kv, rows, *[types.intp] * 6), codegen


def _emit_weigh(b: Any, kv: int, rows: int, a: dict[str, Any]) -> None:
    """o[r, 0:16] += fold over tokens [t0, t1) of p[r, t] * value[t, 0:16]; values are read once for all rows."""
    n = lambda v: ir.Constant(I64, v)
    out = [b.add(a["o"], b.mul(n(r), a["o_stride"])) for r in range(rows)]
    acc = [cgutils.alloca_once_value(b, const(VF, 0.0)) for _ in range(rows)]
    for r in range(rows):
        b.store(load(b, out[r], VF), acc[r])
    with cgutils.for_range_slice(b, a["t0"], a["t1"], n(1), I64) as (t, _):
        at = b.add(a["v"], b.mul(t, a["v_stride"]))
        if kv == F16_KV:
            value = half_to_f32(b, load(b, at, VI16))
        else:
            scale = half_to_f32(b, splat(b, load(b, b.add(a["vs"], b.mul(t, a["vs_stride"])), I16), VI16))
            value = b.fmul(b.sitofp(b.sext(load(b, at, VI8), VI32), VF), scale)
        for r in range(rows):
            p = load(b, b.add(b.add(a["p"], n(4 * BLOCK * r)), b.mul(t, n(4))), F32)
            b.store(fma(b, splat(b, p, VF), value, b.load(acc[r])), acc[r])
    for r in range(rows):
        store(b, b.load(acc[r]), out[r])


_WEIGH_ARGS = ("p", "t0", "t1", "v", "v_stride", "vs", "vs_stride", "o", "o_stride")


@intrinsic(prefer_literal=True)
def _weigh(typingctx, kv, rows, p, t0, t1, v, v_stride, vs, vs_stride, o, o_stride):
    """16 channels for a literal number of query rows; addresses and strides in bytes."""
    which, count = kv.literal_value, rows.literal_value

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _emit_weigh(b, which, count, dict(zip(_WEIGH_ARGS, a[2:], strict=True)))
        return ir.Constant(I8.as_pointer(), None)

    return types.void(kv, rows, *[types.intp] * 9), codegen


@njit(**OPTIONS)
def scores_f16(q, rows, dims, k, ks, keys, s):
    """Scores of one f16 block: s (rows, 64) float32 for the first `keys` keys; q (rows, dims) float32."""
    whole = rows - rows % ROWS_AT_ONCE
    for t in range(0, keys, LANES):
        for r in range(0, whole, ROWS_AT_ONCE):
            _scores(F16_KV, ROWS_AT_ONCE, q + 4 * dims * r, 4 * dims, k + 2 * t, 0, dims, s + 4 * (BLOCK * r + t))
        for r in range(whole, rows):
            _scores(F16_KV, 1, q + 4 * dims * r, 4 * dims, k + 2 * t, 0, dims, s + 4 * (BLOCK * r + t))


@njit(**OPTIONS)
def scores_q8_0(q, rows, dims, k, ks, keys, s):
    """As scores_f16, over codes k (dims, 64) i8 and scales ks (dims/32, 64) half."""
    whole = rows - rows % ROWS_AT_ONCE
    for t in range(0, keys, LANES):
        for r in range(0, whole, ROWS_AT_ONCE):
            _scores(Q8_0_KV, ROWS_AT_ONCE, q + 4 * dims * r, 4 * dims, k + t, ks + 2 * t, dims, s + 4 * (BLOCK * r + t))
        for r in range(whole, rows):
            _scores(Q8_0_KV, 1, q + 4 * dims * r, 4 * dims, k + t, ks + 2 * t, dims, s + 4 * (BLOCK * r + t))


@njit(**OPTIONS)
def weigh_f16(p, rows, t0, t1, v, vs, scale_blocks, channels, o):
    """o (rows, channels) += p (rows, 64) x values [t0, t1). rows is 1 or 4; f16 values (64, channels)."""
    for c in range(0, channels, LANES):
        if rows == ROWS_AT_ONCE:
            _weigh(F16_KV, ROWS_AT_ONCE, p, t0, t1, v + 2 * c, 2 * channels, 0, 0, o + 4 * c, 4 * channels)
        else:
            _weigh(F16_KV, 1, p, t0, t1, v + 2 * c, 2 * channels, 0, 0, o + 4 * c, 4 * channels)


@njit(**OPTIONS)
def weigh_q8_0(p, rows, t0, t1, v, vs, scale_blocks, channels, o):
    """As weigh_f16, over codes (64, channels) i8 and scales (64, scale_blocks) half."""
    step = 2 * scale_blocks
    for c in range(0, channels, LANES):
        at = vs + 2 * (c // 32)
        if rows == ROWS_AT_ONCE:
            _weigh(Q8_0_KV, ROWS_AT_ONCE, p, t0, t1, v + c, channels, at, step, o + 4 * c, 4 * channels)
        else:
            _weigh(Q8_0_KV, 1, p, t0, t1, v + c, channels, at, step, o + 4 * c, 4 * channels)


@njit(**OPTIONS)
def _softmax_block(s, first, last):
    """Turn the scores [first, last) of one row into p in place; gives (m, l). `s` is the address of 64 float32."""
    low = splat_f32(_MINUS_INFINITY)
    m = low
    start = first - first % LANES
    for i in range(start, last, LANES):
        seen = lanes_below(np.int32(last - i), load_f32x16(s + 4 * i), low)
        m = max_f32(lanes_below(np.int32(first - i), low, seen), m)
    largest = largest_f32(m)
    total, zero = splat_f32(_ZERO), splat_f32(_ZERO)
    for i in range(start, last, LANES):
        p = exp_nonpositive(sub_f32(load_f32x16(s + 4 * i), splat_f32(largest)))
        p = lanes_below(np.int32(first - i), zero, lanes_below(np.int32(last - i), p, zero))
        store_f32x16(s + 4 * i, p)
        total = add_f32(total, p)
    return largest, sum_f32(total)


@njit(**OPTIONS)
def _seen(position, window, block):
    """Which keys of an absolute block a row sees: [first, last) within it, empty where last <= first."""
    return max(0, position + 1 - window - BLOCK * block), min(BLOCK, position + 1 - BLOCK * block)


@njit(**OPTIONS)
def _weights_of_merge(m_old, m_new):
    """exp(m_old - m), exp(m_new - m) with m the larger, and m."""
    m = m_new if m_new > m_old else m_old
    a = largest_f32(exp_nonpositive(splat_f32(m_old - m)))
    c = largest_f32(exp_nonpositive(splat_f32(m_new - m)))
    return a, c, m


@njit(**OPTIONS)
def _merge(first, m_new, l_new, o_new, channels, state, o):
    """Merge one block's (m, l, o) into a row's running state (m, l as two float32) and o. All addresses."""
    if first:
        store_f32(state, m_new)
        store_f32(state + 4, l_new)
        for c in range(0, 4 * channels, 64):
            store_f32x16(o + c, load_f32x16(o_new + c))
        return
    a, w, m = _weights_of_merge(load_f32(state), m_new)
    store_f32(state, m)
    store_f32(state + 4, load_f32(state + 4) * a + l_new * w)
    old, new = splat_f32(a), splat_f32(w)
    for c in range(0, 4 * channels, 64):
        kept = mul_f32(load_f32x16(o + c), old)
        store_f32x16(o + c, add_f32(kept, mul_f32(load_f32x16(o_new + c), new)))


@njit(**OPTIONS)
def _finish(state, o, out, dims):
    """out = o / l over `dims` float32; only these are written, for the next head's lie behind them."""
    bottom = splat_f32(load_f32(state + 4))
    whole = dims - dims % LANES
    for c in range(0, whole, LANES):
        store_f32x16(out + 4 * c, div_f32(load_f32x16(o + 4 * c), bottom))
    for c in range(whole, dims):
        store_f32(out + 4 * c, load_f32(o + 4 * c) / load_f32(state + 4))


@njit(**OPTIONS)
def _weigh_row(p, t0, t1, v, vs, scale_blocks, channels, o, kv_f16, kv_q8_0):
    """The values [t0, t1), none where t1 <= t0, for one row alone."""
    one = np.int64(1)
    if t0 < t1:
        if kv_f16 is not None:
            weigh_f16(p, one, t0, t1, v, vs, scale_blocks, channels, o)
        if kv_q8_0 is not None:
            weigh_q8_0(p, one, t0, t1, v, vs, scale_blocks, channels, o)


@njit(**OPTIONS)
def _clear(o, floats):
    for c in range(0, 4 * floats, 64):
        store_f32x16(o + c, splat_f32(_ZERO))


@njit(**OPTIONS)
def attend(
    rows,
    group,
    dims,
    channels,
    scale_blocks,
    q,
    positions,
    window,
    blocks,
    layer_offset,
    parts,
    scratch,
    out,
    out_stride,
    kv_f16,
    kv_q8_0,
):
    """One item: `rows` query rows of one KV head, `group` of them a token, against the blocks that they see.

    q: address of (rows, dims) float32, already rotated and scaled. positions: address of the tokens' int64 positions,
    one behind the other. window: how many of the newest keys a row sees, its own included.
    blocks: address of the session's block addresses. layer_offset: where the layer's keys begin in a block. parts:
    (keys, key scales, values, value scales) of this KV head in bytes behind that. scratch: rows * (64 + 2 * channels
    + 4) float32 of this thread. out: address of the first token's row at this KV head's first query head; out_stride
    its row stride in bytes. kv_f16, kv_q8_0: one is None, and Numba leaves the code for it out.
    """
    # As variables, for Numba compiles a function anew for each literal that it is given.
    one, four = np.int64(1), np.int64(ROWS_AT_ONCE)
    tokens = rows // group
    s = scratch
    fresh = s + 4 * BLOCK * rows
    o = fresh + 4 * channels * rows
    state = o + 4 * channels * rows
    last = load_i64(positions + 8 * (tokens - 1))
    first_block = max(0, load_i64(positions) + 1 - window) // BLOCK
    for j in range(first_block, last // BLOCK + 1):
        base = load_i64(blocks + 8 * j) + layer_offset
        k, ks, v, vs = base + parts[0], base + parts[1], base + parts[2], base + parts[3]
        keys = min(BLOCK, last + 1 - BLOCK * j)
        if kv_f16 is not None:
            scores_f16(q, rows, dims, k, ks, keys, s)
        if kv_q8_0 is not None:
            scores_q8_0(q, rows, dims, k, ks, keys, s)
        _clear(fresh, channels * rows)
        r = 0
        while r < rows:
            count = four if r + ROWS_AT_ONCE <= rows else one
            # Rows see the newest keys up to their own position; what all of the tile see is weighed together.
            low, high = 0, BLOCK
            for i in range(r, r + count):
                first, end = _seen(load_i64(positions + 8 * (i // group)), window, j)
                low, high = max(low, first), min(high, end)
            high = max(low, high)
            at, to = s + 4 * BLOCK * r, fresh + 4 * channels * r
            for i in range(r, r + count):
                first, end = _seen(load_i64(positions + 8 * (i // group)), window, j)
                if first < end:
                    m, total = _softmax_block(s + 4 * BLOCK * i, first, end)
                    store_f32(state + 16 * i + 8, m)
                    store_f32(state + 16 * i + 12, total)
                    _weigh_row(
                        s + 4 * BLOCK * i,
                        first,
                        min(low, end),
                        v,
                        vs,
                        scale_blocks,
                        channels,
                        fresh + 4 * channels * i,
                        kv_f16,
                        kv_q8_0,
                    )
            if kv_f16 is not None:
                weigh_f16(at, count, low, high, v, vs, scale_blocks, channels, to)
            if kv_q8_0 is not None:
                weigh_q8_0(at, count, low, high, v, vs, scale_blocks, channels, to)
            for i in range(r, r + count):
                position = load_i64(positions + 8 * (i // group))
                first, end = _seen(position, window, j)
                if first < end:
                    own = fresh + 4 * channels * i
                    _weigh_row(
                        s + 4 * BLOCK * i, max(first, high), end, v, vs, scale_blocks, channels, own, kv_f16, kv_q8_0
                    )
                    m, total = load_f32(state + 16 * i + 8), load_f32(state + 16 * i + 12)
                    starts = j == max(0, position + 1 - window) // BLOCK
                    _merge(starts, m, total, own, channels, state + 16 * i, o + 4 * channels * i)
            r += count
    for i in range(rows):
        to = out + out_stride * (i // group) + 4 * dims * (i % group)
        _finish(state + 16 * i, o + 4 * channels * i, to, dims)


def attend_f16(rows, group, dims, channels, n, q, positions, window, blocks, layer, k, ks, v, vs, scratch, out, stride):
    """`attend` over f16 keys and values; compiled by kernels/entry.py."""
    parts = (k, ks, v, vs)
    attend(rows, group, dims, channels, n, q, positions, window, blocks, layer, parts, scratch, out, stride, 1, None)


def attend_q8_0(
    rows, group, dims, channels, n, q, positions, window, blocks, layer, k, ks, v, vs, scratch, out, stride
):
    """`attend` over q8_0 keys and values; compiled by kernels/entry.py."""
    parts = (k, ks, v, vs)
    attend(rows, group, dims, channels, n, q, positions, window, blocks, layer, parts, scratch, out, stride, None, 1)
