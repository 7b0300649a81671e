"""Matrix products: y[t, row] = sum over k of w[row, k] * x[t, k], for all tensor types and any number of tokens.

One tile is 16 rows by T tokens. The 16 rows lie across the lanes of a vector, so each output is one lane's fold over k
in order, and neither T, nor the number of tokens, nor the vector width of the machine can change its bits (NUMERICS
rule 1). T = 1 is decode, T = TILE shares each load and unpacking of the weights among as many tokens.

Weights come repacked (engine/repack.py): groups of 16 rows. In a group, for quantized types, each 32-wide block of k
holds 16 half scales and then chunks of 64 bytes in which lane r's four bytes belong to row r; for plain types each k
holds 16 values. Activations are float32 rows, or codes of 8 bits with one scale and one sum a block (kernels/rows.py):
TILE tokens lie together, block by block, so that a tile reads one stream. Token t's block k begins at
(t // TILE) * x_stride + k * 32 * TILE + 32 * (t % TILE), its scale and sum likewise with 4 for 32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd import (
    F32,
    I16,
    I32,
    I64,
    V8,
    VF,
    VI16,
    VI32,
    call,
    const,
    fma,
    half_to_f32,
    load,
    splat,
    store,
)
from engine.kernels.target import target

TILE = 6
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
F32_KIND, F16_KIND, BF16_KIND, Q8_0_KIND, Q4_0_KIND = range(5)
BLOCK_BYTES = {Q8_0_KIND: 32 + 512, Q4_0_KIND: 32 + 256}

V32B, VI16x16, VI32x8 = ir.VectorType(ir.IntType(8), 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)


def _low(b: Any, v: Any) -> Any:
    return b.and_(v, const(v.type, 0x0F0F0F0F))


def _high(b: Any, v: Any) -> Any:
    return b.and_(b.lshr(v, const(v.type, 4)), const(v.type, 0x0F0F0F0F))


def _chunks(kind: int) -> list[tuple[int, Callable[[Any, Any], Any], int]]:
    """Where a block's codes are: (byte offset behind the scales, how to unpack 4 codes a lane, first k of the four)."""
    if kind == Q4_0_KIND:
        return [(64 * c, f, k + 4 * c) for c in range(4) for f, k in ((_low, 0), (_high, 16))]
    return [(64 * c, lambda b, v: v, 4 * c) for c in range(8)]


def _weights(b: Any, at: Any, offset: int, unpack: Any, width: ir.Type, cache: dict[Any, Any]) -> Any:
    """Lanes of four codes at `at` + offset; one load serves both nibbles."""
    if offset not in cache:
        cache[offset] = load(b, b.add(at, ir.Constant(I64, offset)), width)
    return unpack(b, cache[offset])


def _dots_plain(b: Any, kind: int, at: Any, x_of: list[Any], sums: list[Any]) -> list[Any]:
    """Dot products of 32 codes by shifts and 32-bit products: any CPU."""
    dots = [ir.Constant(VI32, [0] * 16) for _ in x_of]
    cache: dict[Any, Any] = {}
    for offset, unpack, k in _chunks(kind):
        w = _weights(b, at, offset, unpack, VI32, cache)
        for byte in range(4):
            lane = b.ashr(b.shl(w, const(VI32, 24 - 8 * byte)), const(VI32, 24))
            for t, x in enumerate(x_of):
                code = b.sext(load(b, b.add(x, ir.Constant(I64, k + byte)), ir.IntType(8)), I32)
                dots[t] = b.add(dots[t], b.mul(lane, splat(b, code, VI32)))
    if kind == Q4_0_KIND:
        dots = [b.sub(d, b.shl(splat(b, s, VI32), const(VI32, 3))) for d, s in zip(dots, sums, strict=True)]
    return dots


def _dpbusd(b: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """acc + the sum of four products u8 * i8 in each 32-bit lane, exactly."""
    return call(b, "llvm.x86.avx512.vpdpbusd.512", VI32, acc, unsigned, signed)


def _dots_vnni(b: Any, kind: int, at: Any, x_of: list[Any], sums: list[Any]) -> list[Any]:
    """vpdpbusd wants unsigned weights: Q4_0's codes are (offset 8), Q8_0's become so by flipping the sign bit (128)."""
    shift = 3 if kind == Q4_0_KIND else 7
    dots = [b.sub(const(VI32, 0), b.shl(splat(b, s, VI32), const(VI32, shift))) for s in sums]
    cache: dict[Any, Any] = {}
    for offset, unpack, k in _chunks(kind):
        w = _weights(b, at, offset, unpack, VI32, cache)
        if kind == Q8_0_KIND:
            w = b.xor(w, const(VI32, -0x7F7F7F80))
        for t, x in enumerate(x_of):
            code = splat(b, load(b, b.add(x, ir.Constant(I64, k)), I32), VI32)
            dots[t] = _dpbusd(b, dots[t], b.bitcast(w, V8), b.bitcast(code, V8))
    return dots


def _pin(b: Any, v: Any) -> Any:
    """The same value, as an empty instruction that LLVM may not move.

    Left alone it adds up one token's products first and spills the unpacked weights for the next (CHANGELOG, Tried).
    """
    kind = ir.FunctionType(v.type, [v.type])
    return b.asm(kind, "", "=x,0", [v], side_effect=True)


def _dots_avx2(b: Any, kind: int, at: Any, x_of: list[Any], sums: list[Any]) -> list[Any]:
    """vpmaddubsw makes pairs of products in 16 bits, which saturate above 32767.

    Q4_0: a pair is at most 2*15*127 = 3810, and the eight pairs of a block at most 30480: they are added in 16 bits.
    Q8_0: |w| * (x with w's sign); a pair is at most 2*128*127 = 32512, so each pair is widened before it is added.
    """
    ones = const(VI16x16, 1)
    halves: list[list[Any]] = []
    for half in range(2):
        base = b.add(at, ir.Constant(I64, 32 * half))
        cache: dict[Any, Any] = {}
        pairs: list[Any] = [None] * len(x_of)
        for offset, unpack, k in _chunks(kind):
            w = b.bitcast(_weights(b, base, offset, unpack, VI32x8, cache), V32B)
            if kind == Q8_0_KIND:
                zero = const(V32B, 0)
                size = b.select(b.icmp_signed("<", w, zero), b.sub(zero, w), w)
            for t, x in enumerate(x_of):
                code = b.bitcast(splat(b, load(b, b.add(x, ir.Constant(I64, k)), I32), VI32x8), V32B)
                if kind == Q8_0_KIND:
                    code = call(b, "llvm.x86.avx2.psign.b", V32B, code, w)
                    product = call(b, "llvm.x86.avx2.pmadd.ub.sw", VI16x16, size, code)
                    product = call(b, "llvm.x86.avx2.pmadd.wd", VI32x8, product, ones)
                else:
                    product = call(b, "llvm.x86.avx2.pmadd.ub.sw", VI16x16, w, code)
                pairs[t] = product if pairs[t] is None else b.add(pairs[t], product)
            pairs = [_pin(b, p) for p in pairs]
        if kind == Q4_0_KIND:
            pairs = [
                b.sub(call(b, "llvm.x86.avx2.pmadd.wd", VI32x8, p, ones), b.shl(splat(b, s, VI32x8), const(VI32x8, 3)))
                for p, s in zip(pairs, sums, strict=True)
            ]
        halves.append(pairs)
    both = ir.Constant(ir.VectorType(I32, 16), list(range(16)))
    return [b.shuffle_vector(low, high, both) for low, high in zip(*halves, strict=True)]


def _dots(b: Any, kind: int, at: Any, x_of: list[Any], sums: list[Any]) -> list[Any]:
    """Exact integer dot products of one block: 16 rows (lanes) with each token's 32 codes. (list of T) vectors i32."""
    dot = target().dot
    if dot == "vnni":
        return _dots_vnni(b, kind, at, x_of, sums)
    if dot in ("avx2", "avx512bw"):
        return _dots_avx2(b, kind, at, x_of, sums)
    return _dots_plain(b, kind, at, x_of, sums)


def _plain_weights(b: Any, kind: int, at: Any) -> Any:
    """16 weights of one k as f32, exactly."""
    if kind == F32_KIND:
        return load(b, at, VF)
    bits = load(b, at, VI16)
    if kind == F16_KIND:
        return half_to_f32(b, bits)
    return b.bitcast(b.shl(b.zext(bits, VI32), const(VI32, 16)), VF)


def _emit_tile(b: Any, kind: int, tokens: int, a: dict[str, Any]) -> None:
    """16 rows x `tokens` tokens: the loop over k with the accumulators in registers, then the stores."""
    n = lambda v: ir.Constant(I64, v)
    acc = [cgutils.alloca_once_value(b, const(VF, 0.0)) for _ in range(tokens)]
    for p in acc:
        b.store(const(VF, 0.0), p)
    quantized = kind in BLOCK_BYTES
    step = BLOCK_BYTES[kind] if quantized else (64 if kind == F32_KIND else 32)
    with cgutils.for_range(b, a["steps"]) as loop:
        k = loop.index
        w = b.add(a["w"], b.mul(k, n(step)))
        if not quantized:
            value = _plain_weights(b, kind, w)
            for t in range(tokens):
                x = load(b, b.add(b.add(a["x"], b.mul(n(t), a["x_stride"])), b.mul(k, n(4))), F32)
                b.store(fma(b, value, splat(b, x, VF), b.load(acc[t])), acc[t])
        else:
            x_of = [b.add(b.add(a["x"], b.mul(k, n(32 * TILE))), n(32 * t)) for t in range(tokens)]
            meta = [b.add(b.mul(k, n(4 * TILE)), n(4 * t)) for t in range(tokens)]
            sums = [load(b, b.add(a["sum"], m), I32) for m in meta]
            dots = _dots(b, kind, b.add(w, n(32)), x_of, sums)
            d = half_to_f32(b, load(b, w, VI16))
            for t in range(tokens):
                scale = b.fmul(d, splat(b, load(b, b.add(a["scale"], meta[t]), F32), VF))
                b.store(fma(b, b.sitofp(dots[t], VF), scale, b.load(acc[t])), acc[t])
    for t in range(tokens):
        store(b, b.load(acc[t]), b.add(a["y"], b.mul(n(t), a["y_stride"])))


_GROUPS_AT_ONCE = 4  # groups of rows that share a tile's activations while these are in the nearest cache
_ARGS = ("w", "group_bytes", "x", "x_stride", "scale", "sum", "s_stride", "steps", "y", "y_stride", "tokens")


def _emit_matmul(b: Any, kind: int, a: dict[str, Any], first: Any, last: Any) -> None:
    """Loops over blocks of groups, tiles of tokens, groups; the tokens that fill no tile go one by one."""
    n = lambda v: ir.Constant(I64, v)

    def tile(count: int, t: Any, g: Any) -> None:
        at = {
            "w": b.add(a["w"], b.mul(g, a["group_bytes"])),
            "y": b.add(b.add(a["y"], b.mul(t, a["y_stride"])), b.mul(g, n(64))),
        }
        if kind in BLOCK_BYTES:
            which, lane = b.udiv(t, n(TILE)), b.urem(t, n(TILE))
            for name, size, stride in (("x", 32, "x_stride"), ("scale", 4, "s_stride"), ("sum", 4, "s_stride")):
                at[name] = b.add(b.add(a[name], b.mul(which, a[stride])), b.mul(lane, n(size)))
        else:
            at["x"] = b.add(a["x"], b.mul(t, a["x_stride"]))
        _emit_tile(b, kind, count, a | at)

    whole = b.sub(a["tokens"], b.urem(a["tokens"], n(TILE)))
    with cgutils.for_range_slice(b, first, last, n(_GROUPS_AT_ONCE), I64) as (block, _):
        end = b.add(block, n(_GROUPS_AT_ONCE))
        end = b.select(b.icmp_signed("<", end, last), end, last)
        with (
            cgutils.for_range_slice(b, n(0), whole, n(TILE), I64) as (t, _),
            cgutils.for_range_slice(b, block, end, n(1), I64) as (g, _),
        ):
            tile(TILE, t, g)
        with (
            cgutils.for_range_slice(b, whole, a["tokens"], n(1), I64) as (t, _),
            cgutils.for_range_slice(b, block, end, n(1), I64) as (g, _),
        ):
            tile(1, t, g)


@intrinsic(prefer_literal=True)
def _matmul(typingctx, kind, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Emit the loops for one tensor type; `kind` is a literal, all else addresses, strides (bytes) and counts."""
    which = kind.literal_value

    def codegen(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        _emit_matmul(b, which, dict(zip(_ARGS, args[1:12], strict=True)), args[12], args[13])
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(kind, *[types.intp] * 13), codegen


def matmul_f32(w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Groups [g0, g1) of an F32 matrix; see the module's docstring. Writes y."""
    _matmul(F32_KIND, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1)


def matmul_f16(w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Groups [g0, g1) of an F16 matrix. Writes y."""
    _matmul(F16_KIND, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1)


def matmul_bf16(w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Groups [g0, g1) of a BF16 matrix. Writes y."""
    _matmul(BF16_KIND, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1)


def matmul_q8_0(w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Groups [g0, g1) of a Q8_0 matrix. Writes y."""
    _matmul(Q8_0_KIND, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1)


def matmul_q4_0(w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1):
    """Groups [g0, g1) of a Q4_0 matrix. Writes y."""
    _matmul(Q4_0_KIND, w, group_bytes, x, x_stride, scale, total, s_stride, steps, y, y_stride, tokens, g0, g1)
