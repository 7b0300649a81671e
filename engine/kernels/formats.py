"""The quantized tensor types as the kernels see them: how to get codes, scales and mins out of a repacked block.

A weight is scale * (code - offset), or scale * code + min. Everything here emits IR for 16 rows across the lanes, four
codes a lane: `unit` u holds the codes of k = 4u … 4u + 3 of a block of 32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from engine.kernels.simd import I8, I64, VF, VI16, VI32, call, const, half_to_f32, load
from engine.kernels.target import target
from engine.quants import IQ4_VALUES, MXFP4_VALUES
from engine.repack import packed_offset, packed_step

V16B = ir.VectorType(I8, 16)


class Block:
    """A block of 32 in a repacked matrix, at address `at`, in the step at address `step`.

    `vector` is what a load of codes gives: 16 lanes of i32, or 8 of them, those of the rows from `first_row` on.
    """

    def __init__(self, b: Any, kind: str, step: Any, at: Any, vector: Any = VI32, first_row: int = 0) -> None:
        self.b, self.kind, self.step, self.at, self.vector, self.first_row = b, kind, step, at, vector, first_row
        self._loaded: dict[tuple[str, int], Any] = {}

    def lanes(self, vector: Any, first_row: int) -> Block:
        """The same place, for codes in vectors of another width."""
        return Block(self.b, self.kind, self.step, self.at, vector, first_row)

    def _load(self, field: str, offset: int, what: Any, start: Any = None) -> Any:
        at = ir.Constant(I64, packed_offset(self.kind, field) + offset)
        return load(self.b, self.b.add(self.at if start is None else start, at), what)

    def units(self, unit: int, field: str = "codes") -> Any:
        """A unit of a field, loaded once however often it is asked for."""
        if (field, unit) not in self._loaded:
            self._loaded[field, unit] = self._load(field, 64 * unit + 4 * self.first_row, self.vector)
        return self._loaded[field, unit]

    def halves(self, field: str) -> Any:
        """16 halves as f32."""
        start = self.step if field in (packed_step(self.kind).names or ()) else self.at
        return half_to_f32(self.b, self._load(field, 0, VI16, start))

    def bytes(self, field: str, element: int = 0, signed: bool = False) -> Any:
        """Bytes of the 16 rows, as i32."""
        raw = self._load(field, 16 * element, V16B)
        return self.b.sext(raw, VI32) if signed else self.b.zext(raw, VI32)

    def bits(self, v: Any, low: int, to: int, count: int) -> Any:
        """Of every byte of lanes, `count` bits from bit `low` on, moved to bit `to`."""
        if low != to:
            shift = self.b.shl if to > low else self.b.lshr
            v = shift(v, const(v.type, abs(to - low)))
        return self.b.and_(v, const(v.type, (((1 << count) - 1) << to) * 0x01010101))


# --- codes: (block, unit) -> four a lane ------------------------------------------------------------------------------


def _fours(p: Block, unit: int) -> Any:
    """The low nibbles of four units, then their high ones."""
    return p.bits(p.units(unit % 4), unit // 4 * 4, 0, 4)


def _twos(p: Block, unit: int, field: str, to: int) -> Any:
    """The pairs of bits of two units, four units' each, moved to bit `to`."""
    return p.bits(p.units(unit // 4, field), unit % 4 * 2, to, 2)


def _ones(p: Block, unit: int, to: int) -> Any:
    """The single bits of one unit, moved to bit `to`."""
    return p.bits(p.units(0, "high"), unit, to, 1)


def _fives(p: Block, unit: int) -> Any:
    return p.b.or_(_fours(p, unit), _ones(p, unit, 4))


def _sixes(p: Block, unit: int) -> Any:
    return p.b.or_(_fours(p, unit), _twos(p, unit, "high", 4))


def _threes(p: Block, unit: int) -> Any:
    """Two in the low six bits of each of three units; the last two's lows and highs lie in what is left."""
    if unit < 6:
        return p.bits(p.units(unit // 2), unit % 2 * 3, 0, 3)
    return p.b.or_(p.bits(p.units(unit - 6), 6, 0, 2), p.bits(p.units(2), unit, 2, 1))


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


# --- scales: (block, factors) -> one f32 vector for each scale of a block of 32 ---------------------------------------


def _one(p: Block, d: list[Any]) -> list[Any]:
    return [d[0]]


def _by_bytes(p: Block, field: str, d: Any, signed: bool, count: int = 1) -> list[Any]:
    """d * (a byte), exactly: 11 bits times 8."""
    return [p.b.fmul(d, p.b.sitofp(p.bytes(field, i, signed), VF)) for i in range(count)]


def _by_nibbles(p: Block, d: Any, low: int) -> list[Any]:
    """d * (four bits of the scales' bytes from bit `low` on), for both halves of a block."""
    both = [p.b.and_(p.b.lshr(p.bytes("scales", i), const(VI32, low)), const(VI32, 15)) for i in range(2)]
    return [p.b.fmul(d, p.b.sitofp(v, VF)) for v in both]


def _e8m0(p: Block, _d: list[Any]) -> list[Any]:
    """MXFP4: half of 2^(e - 127), which below e = 2 is no normal number. OCP Microscaling Formats 1.0."""
    b, e = p.b, p.bytes("e")
    tiny = b.shl(const(VI32, 0x00200000), b.and_(e, const(VI32, 1)))
    normal = b.shl(b.sub(e, const(VI32, 1)), const(VI32, 23))
    return [b.bitcast(b.select(b.icmp_signed("<", e, const(VI32, 2)), tiny, normal), VF)]


def _minus(p: Block, vectors: list[Any]) -> list[Any]:
    return [p.b.fneg(v) for v in vectors]


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
    def step_bytes(self) -> int:
        """Bytes of a step of GROUP rows."""
        return packed_step(self.kind).itemsize

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of GROUP rows."""
        return packed_step(self.kind)["blocks"].base.itemsize


_WITH_M: dict[str, Any] = {"mins": lambda p, d: [d[1]], "factors": ("d", "m")}
_WITH_DMIN: dict[str, Any] = {
    "scales": lambda p, d: _by_bytes(p, "scales", d[0], False),
    "mins": lambda p, d: _minus(p, _by_bytes(p, "mins", d[1], False)),
    "factors": ("d", "dmin"),
}
_BY_HALF: dict[str, Any] = {"scales": lambda p, d: _by_bytes(p, "scales", d[0], True, 2)}
_SIGNED: dict[str, Any] = {"largest": 128, "signed": True}

FORMATS: dict[str, Format] = {
    f.kind: f
    for f in (
        Format("Q8_0", lambda p, unit: p.units(unit), pinned=True, **_SIGNED),
        Format("Q4_0", _fours, offset=8, pinned=True),
        Format("Q4_1", _fours, **_WITH_M),
        Format("Q5_0", _fives, offset=16, largest=31),
        Format("Q5_1", _fives, largest=31, **_WITH_M),
        Format("Q4_K", _fours, **_WITH_DMIN),
        Format("Q5_K", _fives, largest=31, **_WITH_DMIN),
        Format("Q6_K", _sixes, offset=32, largest=63, **_BY_HALF),
        Format("Q3_K", _threes, offset=4, largest=7, **_BY_HALF),
        Format(
            "Q2_K",
            lambda p, unit: _twos(p, unit, "codes", 0),
            scales=lambda p, d: _by_nibbles(p, d[0], 0),
            mins=lambda p, d: _minus(p, _by_nibbles(p, d[1], 4)),
            factors=("d", "dmin"),
            largest=3,
        ),
        Format("IQ4_NL", _looked_up(_fours, IQ4_VALUES), **_SIGNED),
        Format(
            "IQ4_XS",
            _looked_up(_fours, IQ4_VALUES),
            scales=lambda p, d: _by_bytes(p, "scales", d[0], True),
            **_SIGNED,
        ),
        Format(
            "MXFP4",
            _looked_up(_fours, tuple(16 + v for v in MXFP4_VALUES)),
            scales=_e8m0,
            factors=(),
            offset=16,
            largest=28,
        ),
    )
}
