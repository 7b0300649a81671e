"""Matrix products: y[t, row] = sum over k of w[row, k] * x[t, k], for all tensor types and any number of tokens.

One tile is 16 rows by some tokens. The 16 rows lie across the lanes of a vector, so each output is one lane's fold over
k in order, and neither the tile's size, nor the number of tokens, nor the vector width of the machine can change its
bits (NUMERICS rule 1). One token is decode; TILE tokens share each load and unpacking of the weights. There is code for
a few sizes only: tokens that fill no tile take the next larger one, whose other results nobody stores.

Weights come repacked (engine/repack.py): groups of 16 rows, which hold step behind step of k. Activations are float32
rows for the plain types, and tiles of codes for the quantized ones (kernels/activations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.activations import MINUS_32_FIRST, MINUS_32_LAST, SCALE, SUM, place
from engine.kernels.dots import dots
from engine.kernels.formats import FORMATS, Block, Format
from engine.kernels.plan import CODES_BYTES, TILE, TILES_OF
from engine.kernels.simd import F32, I8, I32, I64, VF, VI16, VI32, const, fma, half_to_f32, load, splat, store
from engine.quants import blocks_of
from engine.repack import packed_offset

_PLAIN_CHAINS = 4
_STAY_BYTES = 1 << 18  # of weights that meet all tokens before the next: they stay in the second cache
# Weights are asked for so many bytes ahead where a tile has so much to compute that the processor sees too few of the
# next loads. Behind the matrix's end, too: asking never faults. One or two tokens are slower for it (CHANGELOG, Tried).
_AHEAD_BYTES, _AHEAD_FROM_TOKENS, _LINE = 4096, 4, 64
_PLAIN_BYTES = {"F32": 64, "F16": 32, "BF16": 32}  # of 16 rows at one k
KINDS = (*_PLAIN_BYTES, *FORMATS)


def _n(value: int) -> Any:
    return ir.Constant(I64, value)


def _plain_weights(b: Any, kind: str, at: Any) -> Any:
    """16 weights of one k as f32, exactly."""
    if kind == "F32":
        return load(b, at, VF)
    bits = load(b, at, VI16)
    if kind == "F16":
        return half_to_f32(b, bits)
    return b.bitcast(b.shl(b.zext(bits, VI32), const(VI32, 16)), VF)


def _plain_tile(b: Any, kind: str, acc: list[list[Any]], a: dict[str, Any]) -> None:
    """acc[group][token] += all of k of a plain type. Rows behind the last token are read as the last token's."""
    last = b.sub(a["count"], _n(1))
    rows = []
    for t in range(len(acc[0])):
        row = b.select(b.icmp_signed("<", _n(t), last), _n(t), last)
        rows.append(b.add(a["x"], b.mul(row, a["x_stride"])))
    with cgutils.for_range(b, a["steps"]) as loop:
        x = [splat(b, load(b, b.add(row, b.mul(loop.index, _n(4))), F32), VF) for row in rows]
        at = b.add(a["w"], b.mul(loop.index, _n(_PLAIN_BYTES[kind])))
        for g, of_group in enumerate(acc):
            value = _plain_weights(b, kind, b.add(at, b.mul(a["group_bytes"], _n(g))))
            for t, p in enumerate(of_group):
                b.store(fma(b, value, x[t], b.load(p)), p)


def _of_token(b: Any, x: Any, field: int, t: int, tokens: int, what: Any, vector: Any) -> Any:
    """A number of token t of a tile's block, in every lane."""
    return splat(b, load(b, b.add(x, _n(place(field, tokens) + 4 * t)), what), vector)


def _sums(b: Any, x: Any, t: int, tokens: int, parts: int) -> list[Any]:
    """The sums of a token's codes as f32: of the block, or of its halves; none where there are no mins."""
    if parts < 2:
        return [_of_token(b, x, SUM, t, tokens, F32, VF)] * parts
    both = [b.sitofp(_of_token(b, x, f, t, tokens, I32, VI32), VF) for f in (MINUS_32_FIRST, MINUS_32_LAST)]
    return [b.fmul(total, const(VF, -1 / 32)) for total in both]


def _add_block(b: Any, form: Format, block: Block, x: Any, acc: list[Any]) -> None:
    """acc += one block of 32 of a quantized type; the order of roundings is NUMERICS rule 1."""
    factors = [block.halves(name) for name in form.factors]
    scales = form.scales(block, factors)
    mins = form.mins(block, factors) if form.mins else []
    parts = max(len(scales), len(mins))
    found = dots(b, form, block, x, len(acc), parts)
    for t, p in enumerate(acc):
        whole = [b.sitofp(part[t], VF) for part in found]
        d = _of_token(b, x, SCALE, t, len(acc), F32, VF)
        if form.pinned:
            b.store(fma(b, whole[0], b.fmul(scales[0], d), b.load(p)), p)
            continue
        value = b.fmul(whole[0], scales[0])
        if parts == 2:
            value = fma(b, whole[1], scales[1], value)
        for least, total in zip(mins, _sums(b, x, t, len(acc), len(mins)), strict=True):
            value = fma(b, least, total, value)
        b.store(fma(b, value, d, b.load(p)), p)


def _ask_for(b: Any, at: Any, size: int) -> None:
    """Have the lines of `size` bytes at `at` brought into the nearest cache."""
    pointer, number = I8.as_pointer(), lambda n: ir.Constant(I32, n)
    kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
    prefetch = b.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    for line in range(0, size, _LINE):
        address = b.inttoptr(b.add(at, _n(line)), pointer)
        b.call(prefetch, [address, number(0), number(3), number(1)])  # to read, into all caches, data


def _quantized_tile(b: Any, form: Format, acc: list[Any], a: dict[str, Any]) -> None:
    """acc += all steps of a quantized type."""
    count, head = blocks_of(form.kind), packed_offset(form.kind, "blocks")
    codes = CODES_BYTES * len(acc)

    def add(block: Block, x: Any) -> None:
        if len(acc) >= _AHEAD_FROM_TOKENS:
            _ask_for(b, b.add(block.at, _n(_AHEAD_BYTES)), form.block_bytes)
        _add_block(b, form, block, x, acc)

    with cgutils.for_range(b, a["steps"]) as loop:
        step = b.add(a["w"], b.mul(loop.index, _n(form.step_bytes)))
        x = b.add(a["x"], b.mul(loop.index, _n(codes * count)))
        if count == 1:
            add(Block(b, form.kind, step, step), x)
        else:
            with cgutils.for_range(b, _n(count)) as inner:
                at = b.add(b.add(step, _n(head)), b.mul(inner.index, _n(form.block_bytes)))
                add(Block(b, form.kind, step, at), b.add(x, b.mul(inner.index, _n(codes))))


def _tile(b: Any, kind: str, size: int, groups: int, a: dict[str, Any]) -> None:
    """16 rows of each of `groups` times `size` tokens, of which the first a["count"] are stored; sums in registers."""
    acc = [[cgutils.alloca_once_value(b, const(VF, 0.0)) for _ in range(size)] for _ in range(groups)]
    for of_group in acc:
        for p in of_group:
            b.store(const(VF, 0.0), p)
    if kind in FORMATS:
        _quantized_tile(b, FORMATS[kind], acc[0], a)
    else:
        _plain_tile(b, kind, acc, a)
    for t in range(size):
        with b.if_then(b.icmp_signed("<", _n(t), a["count"])):
            y = b.add(a["y"], b.mul(_n(t), a["y_stride"]))
            for g in range(groups):
                store(b, b.load(acc[g][t]), b.add(y, _n(64 * g)))


_ARGS = ("w", "group_bytes", "x", "x_stride", "steps", "y", "y_stride", "tokens")


def _emit(b: Any, kind: str, a: dict[str, Any], first: Any, last: Any) -> None:
    """Loops: some groups that stay in the cache, over tiles of tokens, over those groups."""
    smaller = lambda x, y: b.select(b.icmp_signed("<", x, y), x, y)
    stay = b.add(b.udiv(_n(_STAY_BYTES), a["group_bytes"]), _n(1))
    tile_stride = a["x_stride"] if kind in FORMATS else b.mul(a["x_stride"], _n(TILE))
    with cgutils.for_range_slice(b, first, last, stay, I64) as (start, _):
        end = smaller(b.add(start, stay), last)
        with cgutils.for_range_slice(b, _n(0), a["tokens"], _n(TILE), I64) as (t, _):
            count = smaller(b.sub(a["tokens"], t), _n(TILE))
            x = b.add(a["x"], b.mul(b.udiv(t, _n(TILE)), tile_stride))
            y = b.add(a["y"], b.mul(t, a["y_stride"]))
            for below, size in zip((0, *TILES_OF), TILES_OF, strict=False):
                fits = b.and_(b.icmp_signed(">", count, _n(below)), b.icmp_signed("<=", count, _n(size)))
                with b.if_then(fits):
                    _groups(b, kind, size, a | {"x": x, "y": y, "count": count}, start, end)


def _groups(b: Any, kind: str, size: int, a: dict[str, Any], start: Any, end: Any) -> None:
    """A tile of tokens times the groups [start, end).

    A plain type's sum is one chain of additions over k, four cycles each: few tokens take several groups at a time.
    """

    def some(together: int, first: Any, last: Any) -> None:
        with cgutils.for_range_slice(b, first, last, _n(together), I64) as (g, _):
            at = {"w": b.add(a["w"], b.mul(g, a["group_bytes"])), "y": b.add(a["y"], b.mul(g, _n(64)))}
            _tile(b, kind, size, together, a | at)

    together = 1 if kind in FORMATS else max(1, _PLAIN_CHAINS // size)
    if together > 1:
        whole = b.sub(end, b.urem(b.sub(end, start), _n(together)))
        some(together, start, whole)
        start = whole
    some(1, start, end)


@intrinsic(prefer_literal=True)
def _matmul(typingctx, kind, w, group_bytes, x, x_stride, steps, y, y_stride, tokens, g0, g1):
    """Emit the loops for the type KINDS[kind], a literal; all else are addresses, strides (bytes) and counts."""
    name = KINDS[kind.literal_value]

    def codegen(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        _emit(b, name, dict(zip(_ARGS, args[1:9], strict=True)), args[9], args[10])
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(kind, *[types.intp] * 10), codegen


@cache
def product_of(kind: str) -> Callable[..., None]:
    """The Python function of one tensor type's product, to be compiled (kernels/entry.py).

    (w, group_bytes, x, x_stride, steps, y, y_stride, tokens, g0, g1): groups [g0, g1) of the matrix at w, times
    `tokens` rows or the codes of as many. x_stride: bytes of a row, or of a tile of codes. Writes float32 rows at y.
    """
    which = KINDS.index(kind)

    def product(w, group_bytes, x, x_stride, steps, y, y_stride, tokens, g0, g1):
        _matmul(which, w, group_bytes, x, x_stride, steps, y, y_stride, tokens, g0, g1)

    # Numba names the files of its cache by this.
    product.__qualname__ = product.__name__ = f"product_{kind.lower()}"
    return product
