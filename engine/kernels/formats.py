"""The quantized tensor types as the kernels see them: how to get codes, scales and mins out of a repacked block.

A weight is scale * (code - offset), or scale * code - min. Everything here emits IR for 16 rows across the lanes, four
codes a lane: `unit` u holds the codes of k = 4u … 4u + 3 of a block of 32. A type of 256 weights has eight such blocks,
of which `q`, known at run time only, names one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from engine.kernels.simd import I8, I32, I64, VF, VI16, VI32, call, const, half_to_f32, load, splat
from engine.kernels.target import target
from engine.quants import IQ4_VALUES, MXFP4_VALUES, weights_of
from engine.repack import packed_block, packed_offset

V16B = ir.VectorType(I8, 16)


class Block:
    """A place in a repacked matrix: the step at address `at`, and in it the block `q` (an i64, None where only one).

    `vector` is what a load of codes gives: 16 lanes of i32, or 8 of them, those of the rows from `first_row` on.
    """

    def __init__(self, b: Any, kind: str, at: Any, q: Any, vector: Any = VI32, first_row: int = 0) -> None:
        self.b, self.kind, self.at, self.q, self.vector, self.first_row = b, kind, at, q, vector, first_row
        self._loaded: dict[tuple[str, int], Any] = {}

    def lanes(self, vector: Any, first_row: int) -> Block:
        """The same place, for codes in vectors of another width."""
        return Block(self.b, self.kind, self.at, self.q, vector, first_row)

    def address(self, field: str, offset: int | Any = 0) -> Any:
        """Address of a field of the step, plus bytes."""
        start = packed_offset(self.kind, field)
        if isinstance(offset, int):
            return self.b.add(self.at, ir.Constant(I64, start + offset))
        return self.b.add(self.b.add(self.at, offset), ir.Constant(I64, start))

    def units(self, unit: int, field: str = "codes", first: Any = None) -> Any:
        """Unit `unit` behind the unit `first` (an i64) of a field; loaded once however often it is asked for."""
        if (field, unit) not in self._loaded:
            offset: Any = 64 * unit + 4 * self.first_row
            if first is not None:
                offset = self.b.add(self.b.mul(first, ir.Constant(I64, 64)), ir.Constant(I64, offset))
            self._loaded[field, unit] = load(self.b, self.address(field, offset), self.vector)
        return self._loaded[field, unit]

    def halves(self, field: str) -> Any:
        """16 halves as f32."""
        return half_to_f32(self.b, load(self.b, self.address(field), VI16))

    def bytes(self, field: str, index: Any, signed: bool = False) -> Any:
        """Bytes of the 16 rows at element `index` (an i64) of a field, as i32."""
        raw = load(self.b, self.address(field, self.b.mul(index, ir.Constant(I64, 16))), V16B)
        return self.b.sext(raw, VI32) if signed else self.b.zext(raw, VI32)

    def mask(self, v: Any, byte: int) -> Any:
        """The same bits of every byte."""
        return self.b.and_(v, const(v.type, byte * 0x01010101))

    def right(self, v: Any, count: Any) -> Any:
        """Lanes shifted right by a number of bits known at run time (an i64)."""
        return self.b.lshr(v, splat(self.b, self.b.trunc(count, I32), v.type))

    def rotate(self, v: Any, count: Any) -> Any:
        """Lanes rotated right by a number of bits modulo 32 (an i64, or an int)."""
        amount = ir.Constant(I32, count % 32) if isinstance(count, int) else self.b.trunc(count, I32)
        return call(self.b, f"llvm.fshr.v{v.type.count}i32", v.type, v, v, splat(self.b, amount, v.type))


# --- codes: (block, unit) -> four a lane ------------------------------------------------------------------------------


def _nibbles(p: Block, unit: int) -> Any:
    """Types of 32 weights: the low nibbles of four units, then the high ones."""
    v = p.units(unit % 4)
    return p.mask(v if unit < 4 else p.b.lshr(v, const(v.type, 4)), 15)


def _fives(p: Block, unit: int) -> Any:
    """Q5_0, Q5_1: nibbles, and bit u of each byte of `high` as the fifth (engine/repack.py)."""
    return p.b.or_(_nibbles(p, unit), p.mask(p.rotate(p.units(0, "high"), unit - 4), 16))


def _bit(p: Block, q: Any, shift: int) -> tuple[Any, Any]:
    """(q >> shift, the bits below)."""
    n = lambda v: ir.Constant(I64, v)
    return p.b.lshr(q, n(shift)), p.b.and_(q, n((1 << shift) - 1))


def _times(p: Block, q: Any, factor: int, plus: int = 0) -> Any:
    return p.b.add(p.b.mul(q, ir.Constant(I64, factor)), ir.Constant(I64, plus))


def _by_64(p: Block, unit: int) -> Any:
    """Q4_K: eight units hold 64 weights, the low nibbles first."""
    pair, second = _bit(p, p.q, 1)
    v = p.units(unit, first=_times(p, pair, 8))
    return p.mask(p.right(v, _times(p, second, 4)), 15)


def _q5_k(p: Block, unit: int) -> Any:
    """Q4_K's, and bit q of each byte of `high` as the fifth."""
    return p.b.or_(_by_64(p, unit), p.mask(p.rotate(p.units(unit, "high"), _times(p, p.q, 1, 28)), 16))


def _two_bits(p: Block, unit: int, field: str, to: int) -> Any:
    """Eight units hold 128 weights, the lowest pairs of bits first; moved to bit `to` of each byte."""
    half, quarter = _bit(p, p.q, 2)
    v = p.units(unit, field, _times(p, half, 8))
    return p.mask(p.rotate(v, _times(p, quarter, 2, 32 - to)), 3 << to)


def _q3_k(p: Block, unit: int) -> Any:
    """Two bits, and bit q of each byte of `high` as the third."""
    third = p.mask(p.rotate(p.units(unit, "high"), _times(p, p.q, 1, 30)), 4)
    return p.b.or_(_two_bits(p, unit, "codes", 0), third)


def _q6_k(p: Block, unit: int) -> Any:
    """Sixteen units hold 128 weights: low nibbles of the first and second eight, then high ones; two bits above."""
    half, quarter = _bit(p, p.q, 2)
    high, odd = _bit(p, quarter, 1)
    v = p.units(unit, first=p.b.add(_times(p, half, 16), _times(p, odd, 8)))
    low = p.mask(p.right(v, _times(p, high, 4)), 15)
    return p.b.or_(low, _two_bits(p, unit, "high", 4))


def _iq4_xs(p: Block, unit: int) -> Any:
    v = p.units(unit % 4, first=_times(p, p.q, 4))
    return p.mask(v if unit < 4 else p.b.lshr(v, const(v.type, 4)), 15)


def _looked_up(codes: Callable[[Block, int], Any], values: tuple[int, ...]) -> Callable[[Block, int], Any]:
    """Codes of 4 bits replaced by their entries in a table of 16 bytes."""

    def look(p: Block, unit: int) -> Any:
        index = codes(p, unit)
        b, vector = p.b, index.type
        dot = target().dot
        if dot == "plain":
            return _table_by_bits(b, index, [v & 255 for v in values])
        width = vector.count * 4
        table = ir.Constant(ir.VectorType(I8, width), [v & 255 for v in values] * (width // 16))
        name = "llvm.x86.avx512.pshuf.b.512" if width == 64 else "llvm.x86.avx2.pshuf.b"
        return b.bitcast(call(b, name, table.type, table, b.bitcast(index, table.type)), vector)

    return look


def _table_by_bits(b: Any, index: Any, values: list[int]) -> Any:
    """The same by choosing between halves of the table, bit by bit, where no instruction looks up."""
    level: list[Any] = [ir.Constant(index.type, [v * 0x01010101] * index.type.count) for v in values]
    for bit in range(4):
        ones = b.and_(b.lshr(index, const(index.type, bit)), const(index.type, 0x01010101))
        chosen = b.mul(ones, const(index.type, 255))  # all bits of the bytes whose index has this bit
        level = [b.xor(x, b.and_(b.xor(x, y), chosen)) for x, y in zip(level[0::2], level[1::2], strict=True)]
    return level[0]


# --- scales: (block, halves' values) -> one f32 vector for each scale of a block of 32 --------------------------------


def _one(p: Block, d: list[Any]) -> list[Any]:
    return [d[0]]


def _by_block(p: Block, field: str, d: Any, signed: bool) -> Any:
    """d * (the block's byte), exactly: 11 bits times 8."""
    whole = p.bytes(field, p.q, signed)
    return p.b.fmul(d, p.b.sitofp(whole, VF))


def _by_half(p: Block, d: Any, signed: bool, shift: int = 0, mask: int = 255) -> list[Any]:
    """d * (a byte for each 16 weights), or of some bits of it."""
    out = []
    for half in range(2):
        whole = p.bytes("scales", _times(p, p.q, 2, half), signed)
        if not signed:
            whole = p.b.and_(p.b.lshr(whole, const(VI32, shift)), const(VI32, mask))
        out.append(p.b.fmul(d, p.b.sitofp(whole, VF)))
    return out


def _e8m0(p: Block, _d: list[Any]) -> list[Any]:
    """MXFP4: half of 2^(e - 127), which below e = 2 is no normal number. OCP Microscaling Formats 1.0."""
    b, e = p.b, p.bytes("e", ir.Constant(I64, 0))
    tiny = b.shl(const(VI32, 0x00200000), b.and_(e, const(VI32, 1)))
    normal = b.shl(b.sub(e, const(VI32, 1)), const(VI32, 23))
    return [b.bitcast(b.select(b.icmp_signed("<", e, const(VI32, 2)), tiny, normal), VF)]


def _minus(p: Block, v: Any) -> Any:
    return p.b.fneg(v)


@dataclass(frozen=True)
class Format:
    """One quantized type. `factors` names the fields of halves that its scales and mins are multiples of.

    codes: unsigned bytes up to `largest`, minus `offset` what they stand for; with `signed`, 8-bit numbers.
    scales: one vector a block, or two where 16 weights have one. mins: what is *added*, likewise, or None.
    pinned: of the first release, whose fold multiplies the two scales first (NUMERICS rule 1).
    """

    kind: str
    codes: Callable[[Block, int], Any]
    scales: Callable[[Block, list[Any]], list[Any]] = _one
    mins: Callable[[Block, list[Any]], list[Any]] | None = None
    factors: tuple[str, ...] = ("d",)
    offset: int = 0
    largest: int = 15
    signed: bool = False
    pinned: bool = False

    @property
    def blocks(self) -> int:
        """Blocks of 32 weights in a step."""
        return weights_of(self.kind) // 32

    @property
    def step_bytes(self) -> int:
        """Bytes of a step of GROUP rows."""
        return packed_block(self.kind).itemsize


def _k_scales(p: Block, d: list[Any]) -> list[Any]:
    return [_by_block(p, "scales", d[0], False)]


def _k_mins(p: Block, d: list[Any]) -> list[Any]:
    return [_minus(p, _by_block(p, "mins", d[1], False))]


_K: dict[str, Any] = {"scales": _k_scales, "mins": _k_mins, "factors": ("d", "dmin")}
_WITH_M: dict[str, Any] = {"mins": lambda p, d: [d[1]], "factors": ("d", "m")}
_SIGNED: dict[str, Any] = {"offset": 0, "largest": 128, "signed": True}

FORMATS: dict[str, Format] = {
    f.kind: f
    for f in (
        Format("Q8_0", lambda p, unit: p.units(unit), pinned=True, **_SIGNED),
        Format("Q4_0", _nibbles, offset=8, pinned=True),
        Format("Q4_1", _nibbles, **_WITH_M),
        Format("Q5_0", _fives, offset=16, largest=31),
        Format("Q5_1", _fives, largest=31, **_WITH_M),
        Format("Q4_K", _by_64, **_K),
        Format("Q5_K", _q5_k, largest=31, **_K),
        Format("Q6_K", _q6_k, scales=lambda p, d: _by_half(p, d[0], True), offset=32, largest=63),
        Format("Q3_K", _q3_k, scales=lambda p, d: _by_half(p, d[0], True), offset=4, largest=7),
        Format(
            "Q2_K",
            lambda p, unit: _two_bits(p, unit, "codes", 0),
            scales=lambda p, d: _by_half(p, d[0], False, 0, 15),
            mins=lambda p, d: [_minus(p, m) for m in _by_half(p, d[1], False, 4)],
            factors=("d", "dmin"),
            largest=3,
        ),
        Format("IQ4_NL", _looked_up(_nibbles, IQ4_VALUES), **_SIGNED),
        Format(
            "IQ4_XS",
            _looked_up(_iq4_xs, IQ4_VALUES),
            scales=lambda p, d: [_by_block(p, "scales", d[0], True)],
            **_SIGNED,
        ),
        Format(
            "MXFP4",
            _looked_up(_nibbles, tuple(16 + v for v in MXFP4_VALUES)),
            scales=_e8m0,
            factors=(),
            offset=16,
            largest=28,
        ),
    )
}
