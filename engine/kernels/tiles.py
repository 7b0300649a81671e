"""The inner loops of attention: scores, weighted sums of values, and keys and values widened to float32.

A tile is a few query rows by a few vectors of keys or channels, its sums in registers. How many it has of either is a
matter of speed alone: each sum is one fold, in order (NUMERICS rule 4). In a block of 64 tokens keys lie as (dim, 64
tokens), the lanes being keys; values as (64 tokens, dim), the lanes being channels. For q8_0, codes of 8 bits lie the
same way, and one half scale stands for 32 dims of a token: (dim/32, 64) and (64, dim/32).

The type of the first argument of each kernel, a marker without content, says how keys and values are stored.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels import plan
from engine.kernels.plan import BLOCK
from engine.kernels.simd import (
    F32,
    I8,
    I16,
    I32,
    I64,
    LANES,
    VF,
    VI16,
    VI32,
    const,
    fma,
    half_to_f32,
    load,
    splat,
    store,
)
from engine.kernels.target import target

VI8 = ir.VectorType(I8, LANES)
# What fits the registers: 32 of 16 lanes, or 16 of 8.
_WIDE = target().dot in ("vnni", "avx512bw")
MANY = plan.MANY if _WIDE else plan.SOME  # query rows of the largest tile
VECTORS = 2 if _WIDE else 1  # vectors of 16 keys or channels of a tile

_F32, _F16, _Q8_0 = (types.Opaque(f"kv {name}") for name in ("f32", "f16", "q8_0"))
_ITEM = {_F32: 4, _F16: 2, _Q8_0: 1}  # bytes of a number
_NULL = ir.Constant(I8.as_pointer(), None)


def _marker(kind: types.Opaque) -> Any:
    @intrinsic
    def make(typingctx):
        return kind(), lambda _c, _b, _s, _a: _NULL

    return make


as_f32, as_f16, as_q8_0 = _marker(_F32), _marker(_F16), _marker(_Q8_0)


def _n(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _wide(b: Any, kind: types.Opaque, at: Any, scale: Any) -> Any:
    """16 numbers at `at` as float32, exactly; `scale` is for q8_0 alone."""
    if kind is _F32:
        return load(b, at, VF)
    if kind is _F16:
        return half_to_f32(b, load(b, at, VI16))
    return b.fmul(b.sitofp(b.sext(load(b, at, VI8), VI32), VF), scale)


def _key_scale(b: Any, kind: types.Opaque, ks: Any, block: Any, vector: int) -> Any:
    """q8_0: the scales of 16 keys for the 32 dims of `block`; ks is the address of the first of them."""
    if kind is not _Q8_0:
        return None
    return half_to_f32(b, load(b, b.add(ks, b.add(b.mul(block, _n(2 * BLOCK)), _n(2 * LANES * vector))), VI16))


def _value_scale(b: Any, kind: types.Opaque, vs: Any) -> Any:
    """q8_0: the scale of 32 channels of one token, in all lanes."""
    if kind is not _Q8_0:
        return None
    return half_to_f32(b, splat(b, load(b, vs, I16), VI16))


def _prefetch(b: Any, at: Any) -> None:
    """Ask for the cache line at an address that may be none."""
    hint = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    fn = cgutils.get_or_insert_function(b.module, hint, "llvm.prefetch.p0i8")
    b.call(fn, [b.inttoptr(at, I8.as_pointer()), ir.Constant(I32, 0), ir.Constant(I32, 2), ir.Constant(I32, 1)])


def _dims(b: Any, kind: types.Opaque, dims: Any, body: Any) -> None:
    """body(d, block of 32 dims) for each dim in order; for q8_0 in two loops, so that a scale is converted once."""
    if kind is not _Q8_0:
        with cgutils.for_range(b, dims) as loop:
            body(None)(loop.index)
        return
    blocks = b.lshr(b.add(dims, _n(31)), _n(5))
    with cgutils.for_range(b, blocks) as outer:
        first = b.shl(outer.index, _n(5))
        end = b.add(first, _n(32))
        end = b.select(b.icmp_signed("<", end, dims), end, dims)
        step = body(outer.index)
        with cgutils.for_range_slice(b, first, end, _n(1), I64) as (d, _):
            step(d)


def _sums(b: Any, count: int) -> list[Any]:
    """Accumulators at zero, which LLVM keeps in registers."""
    sums = [cgutils.alloca_once_value(b, const(VF, 0.0)) for _ in range(count)]
    for p in sums:
        b.store(const(VF, 0.0), p)
    return sums


def _emit_scores(
    b: Any, kind: types.Opaque, rows: int, q: Any, k: Any, ks: Any, t: Any, dims: Any, s: Any, ahead: Any
) -> None:
    item = _ITEM[kind]
    keys = b.add(k, b.mul(t, _n(item)))
    ks = b.add(ks, b.mul(t, _n(2)))
    acc = _sums(b, rows * VECTORS)

    def block(j: Any) -> Any:
        scales = [_key_scale(b, kind, ks, j, v) for v in range(VECTORS)]

        def one(d: Any) -> None:
            at = b.add(keys, b.mul(d, _n(item * BLOCK)))
            if kind is not _F32:
                _prefetch(b, b.add(at, ahead))
            vectors = [_wide(b, kind, b.add(at, _n(item * LANES * v)), scales[v]) for v in range(VECTORS)]
            row = b.add(q, b.mul(d, _n(4 * rows)))
            for r in range(rows):
                x = splat(b, load(b, b.add(row, _n(4 * r)), F32), VF)
                for v in range(VECTORS):
                    p = acc[r * VECTORS + v]
                    b.store(fma(b, x, vectors[v], b.load(p)), p)

        return one

    _dims(b, kind, dims, block)
    to = b.add(s, b.mul(t, _n(4)))
    for r in range(rows):
        for v in range(VECTORS):
            store(b, b.load(acc[r * VECTORS + v]), b.add(to, _n(4 * (BLOCK * r + LANES * v))))


@intrinsic(prefer_literal=True)
def scores(typingctx, kv, rows, q, k, ks, t, dims, s, ahead):
    """Scores of VECTORS * 16 keys from key t on for a literal number of rows: fold over d of q[d, r] * key[d].

    q: address of (dims, rows) float32. k, ks: addresses of a block's keys and their scales. s: address of (rows, 64)
    float32, written. ahead: where the next block's keys lie, in bytes behind this one's.
    """
    count = rows.literal_value

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _emit_scores(b, kv, count, *a[2:])
        return _NULL

    return types.void(kv, rows, *[types.intp] * 7), codegen


def _emit_weigh(b: Any, kind: types.Opaque, rows: int, vectors: int, a: dict[str, Any]) -> None:
    item = _ITEM[kind]
    stride = b.mul(a["channels"], _n(item))
    values = b.add(a["v"], b.mul(a["c"], _n(item)))
    scales = b.add(a["vs"], b.mul(b.lshr(a["c"], _n(5)), _n(2)))
    scale_stride = b.mul(a["scale_blocks"], _n(2))
    row = [b.add(b.add(a["o"], b.mul(a["c"], _n(4))), b.mul(a["channels"], _n(4 * r))) for r in range(rows)]
    at = [b.add(row[r], _n(4 * LANES * v)) for r in range(rows) for v in range(vectors)]
    acc = _sums(b, rows * vectors)
    with b.if_then(b.icmp_signed("!=", a["go_on"], _n(0))):
        for p, address in zip(acc, at, strict=True):
            b.store(load(b, address, VF), p)
    with cgutils.for_range_slice(b, a["t0"], a["t1"], _n(1), I64) as (t, _):
        token = b.add(values, b.mul(t, stride))
        if kind is not _F32:
            _prefetch(b, b.add(token, a["ahead"]))
        # A tile's channels begin at a multiple of their number, so that 32 of them have one scale.
        scale = _value_scale(b, kind, b.add(scales, b.mul(t, scale_stride)))
        wide = [_wide(b, kind, b.add(token, _n(item * LANES * v)), scale) for v in range(vectors)]
        weight = b.add(a["p"], b.mul(t, _n(4)))
        for r in range(rows):
            x = splat(b, load(b, b.add(weight, _n(4 * BLOCK * r)), F32), VF)
            for v in range(vectors):
                p = acc[r * vectors + v]
                b.store(fma(b, x, wide[v], b.load(p)), p)
    for p, address in zip(acc, at, strict=True):
        store(b, b.load(p), address)


_WEIGH = ("p", "t0", "t1", "v", "vs", "scale_blocks", "channels", "c", "o", "go_on", "ahead")


@intrinsic(prefer_literal=True)
def weigh(typingctx, kv, rows, vectors, p, t0, t1, v, vs, scale_blocks, channels, c, o, go_on, ahead):
    """o[r, c:] = fold over tokens [t0, t1) of p[r, t] * value[t, c:], from zero, or from what o holds if `go_on`.

    rows and vectors (of 16 channels from c on) are literal. p: address of (rows, 64) float32. v, vs: addresses of a
    block's values and their scales. o: address of (rows, channels) float32. ahead: as for scores.
    """
    which, count = rows.literal_value, vectors.literal_value

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _emit_weigh(b, kv, which, count, dict(zip(_WEIGH, a[3:], strict=True)))
        return _NULL

    return types.void(kv, rows, vectors, *[types.intp] * 11), codegen


@intrinsic
def widen_keys(typingctx, kv, k, ks, dims, out):
    """A block's keys as float32, exactly: out (dims, 64)."""

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _, k, ks, dims, out = a

        def block(j: Any) -> Any:
            scales = [_key_scale(b, kv, ks, j, v) for v in range(BLOCK // LANES)]

            def one(d: Any) -> None:
                for v in range(BLOCK // LANES):
                    at = b.add(b.mul(d, _n(BLOCK)), _n(LANES * v))
                    wide = _wide(b, kv, b.add(k, b.mul(at, _n(_ITEM[kv]))), scales[v])
                    store(b, wide, b.add(out, b.mul(at, _n(4))))

            return one

        _dims(b, kv, dims, block)
        return _NULL

    return types.void(kv, *[types.intp] * 4), codegen


@intrinsic
def widen_values(typingctx, kv, v, vs, scale_blocks, channels, count, out):
    """A block's first `count` values as float32, exactly: out (64, channels)."""

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        _, v, vs, scale_blocks, channels, count, out = a
        with (
            cgutils.for_range(b, count) as token,
            cgutils.for_range_slice(b, _n(0), channels, _n(LANES), I64) as (c, _),
        ):
            at = b.add(b.mul(token.index, channels), c)
            scale = b.add(b.mul(token.index, scale_blocks), b.lshr(c, _n(5)))
            wide = _wide(b, kv, b.add(v, b.mul(at, _n(_ITEM[kv]))), _value_scale(b, kv, b.add(vs, b.mul(scale, _n(2)))))
            store(b, wide, b.add(out, b.mul(at, _n(4))))
        return _NULL

    return types.void(kv, *[types.intp] * 6), codegen
