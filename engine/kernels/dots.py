"""Exact integer dot products of a block: 16 rows across the lanes with each token's 32 codes, by instruction set.

All ways give the same integers, so the choice cannot change a bit (NUMERICS rule 1).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir

from engine.kernels.activations import MINUS_8, MINUS_32_FIRST, MINUS_32_LAST, MINUS_128, place
from engine.kernels.formats import Block, Format
from engine.kernels.simd import I8, I16, I32, I64, V8, VI32, call, const, load, splat
from engine.kernels.target import target

VI32x8, VI16x16, V32B = ir.VectorType(I32, 8), ir.VectorType(I16, 16), ir.VectorType(I8, 32)
_LARGEST_ACTIVATION = 127
_IN_FLIGHT = 4  # chains of vpdpbusd that keep the unit busy; more only cost additions


def dots(b: Any, form: Format, block: Block, x: Any, tokens: int, parts: int) -> list[list[Any]]:
    """For each of `parts` (1, or 2 halves of 16) of the block, for each token, 16 lanes of i32.

    x: address of the tile's block (kernels/activations.py).
    """
    kind = target().dot
    way = _vnni if kind == "vnni" else _avx2 if kind in ("avx2", "avx512bw") else _plain
    return way(b, form, block, x, tokens, parts)


def _at(b: Any, x: Any, offset: int) -> Any:
    return b.add(x, ir.Constant(I64, offset))


def _minus_offsets(b: Any, x: Any, tokens: int, parts: int, offset: int, vector: Any) -> list[list[Any]]:
    """-offset * (sum of a token's codes), for each part; `offset` is a power of two or 0."""
    if offset == 0:
        return [[const(vector, 0)] * tokens for _ in range(parts)]
    if parts == 1:
        where = [(MINUS_128, 128) if offset == 128 else (MINUS_8, 8)]
    else:
        where = [(MINUS_32_FIRST, 32), (MINUS_32_LAST, 32)]
    out = []
    for field, times in where:
        sums = [splat(b, load(b, _at(b, x, place(field, tokens) + 4 * t), I32), vector) for t in range(tokens)]
        if offset > times:
            sums = [b.shl(s, const(vector, (offset // times).bit_length() - 1)) for s in sums]
        elif offset < times:  # exact: the sums are multiples of it
            sums = [b.ashr(s, const(vector, (times // offset).bit_length() - 1)) for s in sums]
        out.append(sums)
    return out


def _four_codes(b: Any, x: Any, token: int, unit: int, vector: Any) -> Any:
    """A token's codes of one unit, in every lane."""
    return splat(b, load(b, _at(b, x, 32 * token + 4 * unit), I32), vector)


def _dpbusd(b: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """acc + the sum of four products u8 * i8 in each 32-bit lane, exactly."""
    return call(b, "llvm.x86.avx512.vpdpbusd.512", VI32, acc, unsigned, signed)


def _vnni(b: Any, form: Format, block: Block, x: Any, tokens: int, parts: int) -> list[list[Any]]:
    """vpdpbusd wants unsigned weights: 8-bit numbers become so by flipping the sign bit, which adds 128.

    It takes four cycles and one may begin in each, so that few tokens go in several chains of sums.
    """
    chains = max(1, _IN_FLIGHT // (tokens * parts))
    zero = const(VI32, 0)
    first = _minus_offsets(b, x, tokens, parts, 128 if form.signed else form.offset, VI32)
    out = [[part, *([zero] * tokens for _ in range(chains - 1))] for part in first]
    for unit in range(8):
        sums = out[unit * parts // 8][unit % chains]
        w = form.codes(block, unit)
        if form.signed:
            w = b.xor(w, const(VI32, -0x7F7F7F80))
        for t in range(tokens):
            sums[t] = _dpbusd(b, sums[t], b.bitcast(w, V8), b.bitcast(_four_codes(b, x, t, unit, VI32), V8))
    return [[reduce(b.add, chain) for chain in zip(*part, strict=True)] for part in out]


def _plain(b: Any, form: Format, block: Block, x: Any, tokens: int, parts: int) -> list[list[Any]]:
    """By shifts and 32-bit products: any CPU."""
    out = _minus_offsets(b, x, tokens, parts, form.offset, VI32)
    for unit in range(8):
        sums = out[unit * parts // 8]
        w = form.codes(block, unit)
        for byte in range(4):
            lane = b.shl(w, const(VI32, 24 - 8 * byte))
            lane = b.ashr(lane, const(VI32, 24)) if form.signed else b.lshr(lane, const(VI32, 24))
            for t in range(tokens):
                code = b.sext(load(b, _at(b, x, 32 * t + 4 * unit + byte), I8), I32)
                sums[t] = b.add(sums[t], b.mul(lane, splat(b, code, VI32)))
    return out


def _pin(b: Any, v: Any) -> Any:
    """The same value, as an empty instruction that LLVM may not move.

    Left alone it adds up one token's products first and spills the unpacked weights for the next (CHANGELOG, Tried).
    """
    kind = ir.FunctionType(v.type, [v.type])
    return b.asm(kind, "", "=x,0", [v], side_effect=True)


def _avx2(b: Any, form: Format, block: Block, x: Any, tokens: int, parts: int) -> list[list[Any]]:
    """vpmaddubsw makes pairs of products in 16 bits, which saturate above 32767.

    Unsigned codes: a pair is at most 2 * largest * 127, and as many pairs as fit are added in 16 bits before they are
    widened. 8-bit numbers: |w| * (x with w's sign); a pair is at most 2 * 128 * 127 = 32512.
    """
    fit = 32767 // (2 * form.largest * _LARGEST_ACTIVATION)
    together = max(n for n in (1, 2, 4, 8) if n <= min(fit, 8 // parts))
    ones, both = const(VI16x16, 1), ir.Constant(ir.VectorType(I32, 16), list(range(16)))
    by_rows = []
    for first_row in (0, 8):
        here = block.lanes(VI32x8, first_row)
        sums = _minus_offsets(b, x, tokens, parts, form.offset, VI32x8)
        for start in range(0, 8, together):
            pairs: list[Any] = [None] * tokens
            for unit in range(start, start + together):
                w = b.bitcast(form.codes(here, unit), V32B)
                size = b.select(b.icmp_signed("<", w, const(V32B, 0)), b.sub(const(V32B, 0), w), w)
                for t in range(tokens):
                    code = b.bitcast(_four_codes(b, x, t, unit, VI32x8), V32B)
                    if form.signed:
                        code = call(b, "llvm.x86.avx2.psign.b", V32B, code, w)
                        product = call(b, "llvm.x86.avx2.pmadd.ub.sw", VI16x16, size, code)
                    else:
                        product = call(b, "llvm.x86.avx2.pmadd.ub.sw", VI16x16, w, code)
                    pairs[t] = product if pairs[t] is None else b.add(pairs[t], product)
                if together > 1:
                    pairs = [_pin(b, p) for p in pairs]
            part = sums[start * parts // 8]
            for t in range(tokens):
                part[t] = b.add(part[t], call(b, "llvm.x86.avx2.pmadd.wd", VI32x8, pairs[t], ones))
            if together == 1:
                part[:] = [_pin(b, s) for s in part]
        by_rows.append(sums)
    return [
        [b.shuffle_vector(low, high, both) for low, high in zip(*halves, strict=True)]
        for halves in zip(*by_rows, strict=True)
    ]
