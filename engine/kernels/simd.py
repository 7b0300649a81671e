"""SIMD values as first-class Numba values, and the few operations on them that the kernels are made of.

A `Vec` is an LLVM vector in a register. All of them have 16 lanes, whatever the CPU: LLVM splits them into what the
machine has, and since no operation here crosses lanes except the fixed trees at the end, the split cannot change a bit
(NUMERICS rules 1, 3, 6). Memory is named by plain integer addresses in bytes, so that every kernel has one signature
for all shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

import engine.kernels.options  # noqa: F401  tells Numba which CPU to compile for
from engine.kernels.target import target

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
VI16, VI32, VF, VD = (ir.VectorType(t, LANES) for t in (I16, I32, F32, F64))
VHALF = ir.VectorType(ir.HalfType(), LANES)
V8 = ir.VectorType(I8, 64)


class Vec(types.Type):  # type: ignore[misc]
    """The Numba type of a 16-lane vector; `llvm` is its representation."""

    def __init__(self, name: str, llvm: ir.VectorType) -> None:
        self.llvm = llvm
        super().__init__(name=f"Vec<{name}x{llvm.count}>")


@register_model(Vec)
class VecModel(models.PrimitiveModel):  # type: ignore[misc]
    """A Vec is passed and returned as the bare LLVM vector."""

    def __init__(self, manager: Any, fe_type: Vec) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)


F32x16, I32x16, F64x16 = Vec("f32", VF), Vec("i32", VI32), Vec("f64", VD)

# --- building blocks for code that emits IR ---------------------------------------------------------------------------


def const(vector: ir.VectorType, value: float) -> ir.Constant:
    """The vector constant with `value` in all lanes."""
    return ir.Constant(vector, [value] * vector.count)


def pointer(b: ir.IRBuilder, address: Any, to: ir.Type) -> Any:
    """An i64 byte address as a pointer to `to`."""
    return b.inttoptr(address, to.as_pointer())


def load(b: ir.IRBuilder, address: Any, what: ir.Type) -> Any:
    """Load `what` from an i64 byte address; no alignment is assumed for vectors."""
    return b.load(pointer(b, address, what), align=1)


def store(b: ir.IRBuilder, value: Any, address: Any) -> None:
    """Store `value` at an i64 byte address; no alignment is assumed."""
    b.store(value, pointer(b, address, value.type), align=1)


def splat(b: ir.IRBuilder, scalar: Any, vector: ir.VectorType) -> Any:
    """`scalar` in all lanes of `vector`."""
    undef = ir.Constant(vector, ir.Undefined)
    one = b.insert_element(undef, scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(one, undef, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def call(b: ir.IRBuilder, name: str, result: ir.Type, *args: Any) -> Any:
    """Call an LLVM intrinsic or external function by name."""
    fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(fn, args)


def fma(b: ir.IRBuilder, x: Any, y: Any, z: Any) -> Any:
    """x*y + z with one rounding, on 16 lanes of f32."""
    return call(b, "llvm.fma.v16f32", VF, x, y, z)


def half_to_f32(b: ir.IRBuilder, half: Any) -> Any:
    """16 halves (as i16 bits) to f32, exactly. Without conversion instructions by integer arithmetic.

    A library call stands there otherwise, which the JIT cannot resolve (NUMERICS, last paragraph).
    """
    if target().half:
        return b.fpext(b.bitcast(half, VHALF), VF)
    bits = b.zext(half, VI32)
    sign = b.shl(b.and_(bits, const(VI32, 0x8000)), const(VI32, 16))
    magnitude = b.and_(bits, const(VI32, 0x7FFF))
    normal = b.add(b.shl(magnitude, const(VI32, 13)), const(VI32, 0x38000000))
    tiny = b.bitcast(b.fmul(b.sitofp(magnitude, VF), const(VF, 2.0**-24)), VI32)
    special = b.or_(b.shl(magnitude, const(VI32, 13)), const(VI32, 0x7F800000))
    quiet = b.or_(special, const(VI32, 0x00400000))
    special = b.select(b.icmp_signed(">", magnitude, const(VI32, 0x7C00)), quiet, special)
    value = b.select(b.icmp_signed("<", magnitude, const(VI32, 0x0400)), tiny, normal)
    value = b.select(b.icmp_signed(">=", magnitude, const(VI32, 0x7C00)), special, value)
    return b.bitcast(b.or_(value, sign), VF)


def f32_to_half(b: ir.IRBuilder, x: Any) -> Any:
    """16 f32 to halves (as i16 bits), to nearest even; overflow is Inf (NUMERICS rule 7)."""
    if target().half:
        return b.bitcast(b.fptrunc(x, VHALF), VI16)
    bits = b.bitcast(x, VI32)
    sign = b.and_(b.lshr(bits, const(VI32, 16)), const(VI32, 0x8000))
    a = b.and_(bits, const(VI32, 0x7FFFFFFF))
    odd = b.and_(b.lshr(a, const(VI32, 13)), const(VI32, 1))
    normal = b.lshr(b.sub(b.add(b.add(a, const(VI32, 0xFFF)), odd), const(VI32, 0x38000000)), const(VI32, 13))
    # 0.5 has its last bit at 2^-24, the smallest half: the addition rounds a small number to a multiple of that.
    tiny = b.sub(b.bitcast(b.fadd(b.bitcast(a, VF), const(VF, 0.5)), VI32), const(VI32, 0x3F000000))
    payload = b.and_(b.lshr(a, const(VI32, 13)), const(VI32, 0x3FF))
    value = b.select(b.icmp_signed("<", a, const(VI32, 0x38800000)), tiny, normal)
    value = b.select(b.icmp_signed(">=", a, const(VI32, 0x477FF000)), const(VI32, 0x7C00), value)
    value = b.select(b.icmp_signed(">", a, const(VI32, 0x7F800000)), b.or_(payload, const(VI32, 0x7E00)), value)
    return b.trunc(b.or_(value, sign), VI16)


def _shuffle(b: ir.IRBuilder, v: Any, lanes: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
    return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), mask)


def _tree(b: ir.IRBuilder, v: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Reduce 16 lanes by the fixed tree 8-4-2-1 (NUMERICS rule 3): lane i with lane i + half."""
    for half in (8, 4, 2, 1):
        v = combine(_shuffle(b, v, range(half)), _shuffle(b, v, range(half, 2 * half)))
    return b.extract_element(v, ir.Constant(I32, 0))


# --- operations that kernels call -------------------------------------------------------------------------------------


def _op(result: Any, *operands: Any) -> Callable[[Callable[..., Any]], Any]:
    """An intrinsic whose body is one IR-building function of (builder, operands)."""

    def wrap(emit: Callable[..., Any]) -> Any:
        def codegen(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
            return emit(b, *args)

        signature = result(*operands)
        if len(operands) == 0:

            def typed0(typingctx: Any) -> Any:
                return signature, codegen

            return intrinsic(typed0)
        if len(operands) == 1:

            def typed1(typingctx: Any, x: Any) -> Any:
                return signature, codegen

            return intrinsic(typed1)
        if len(operands) == 2:

            def typed2(typingctx: Any, x: Any, y: Any) -> Any:
                return signature, codegen

            return intrinsic(typed2)

        def typed3(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
            return signature, codegen

        return intrinsic(typed3)

    return wrap


_N = types.intp


def _store(b: Any, address: Any, value: Any) -> Any:
    store(b, value, address)
    return ir.Constant(I8.as_pointer(), None)


def _scatter(b: Any, address: Any, stride: Any, value: Any) -> Any:
    """Store each lane, `stride` bytes apart."""
    for i in range(LANES):
        at = b.add(address, b.mul(stride, ir.Constant(I64, i)))
        store(b, b.extract_element(value, ir.Constant(I32, i)), at)
    return ir.Constant(I8.as_pointer(), None)


def _twice(b: Any, address: Any) -> Any:
    """8 floats, each in two lanes."""
    return _shuffle(b, load(b, address, ir.VectorType(F32, LANES // 2)), [i // 2 for i in range(LANES)])


# memory: (address) -> value, (address, value) -> none
load_f32x16 = _op(F32x16, _N)(lambda b, at: load(b, at, VF))
load_twice8 = _op(F32x16, _N)(_twice)
load_i32x16 = _op(I32x16, _N)(lambda b, at: load(b, at, VI32))
load_f32 = _op(types.float32, _N)(lambda b, at: load(b, at, F32))
load_i32 = _op(types.int32, _N)(lambda b, at: load(b, at, I32))
load_i64 = _op(types.int64, _N)(lambda b, at: load(b, at, I64))
load_f64 = _op(types.float64, _N)(lambda b, at: load(b, at, F64))
load_half = _op(types.float32, _N)(
    lambda b, at: b.extract_element(half_to_f32(b, splat(b, load(b, at, I16), VI16)), ir.Constant(I32, 0))
)
store_f32x16 = _op(types.void, _N, F32x16)(_store)
store_f32 = _op(types.void, _N, types.float32)(_store)
store_i32 = _op(types.void, _N, types.int32)(_store)
store_i64 = _op(types.void, _N, types.int64)(_store)
store_f64 = _op(types.void, _N, types.float64)(_store)
store_half16 = _op(types.void, _N, F32x16)(lambda b, at, x: _store(b, at, f32_to_half(b, x)))
store_half = _op(types.void, _N, types.float32)(
    lambda b, at, x: _store(b, at, b.extract_element(f32_to_half(b, splat(b, x, VF)), ir.Constant(I32, 0)))
)
scatter_half16 = _op(types.void, _N, _N, F32x16)(lambda b, at, stride, x: _scatter(b, at, stride, f32_to_half(b, x)))
store_i8x16 = _op(types.void, _N, I32x16)(lambda b, at, x: _store(b, at, b.trunc(x, ir.VectorType(I8, LANES))))
store_i8 = _op(types.void, _N, types.int32)(lambda b, at, x: _store(b, at, b.trunc(x, I8)))

# constants and conversions
splat_f32 = _op(F32x16, types.float32)(lambda b, x: splat(b, x, VF))
splat_i32 = _op(I32x16, types.int32)(lambda b, x: splat(b, x, VI32))
splat_f64 = _op(F64x16, types.float64)(lambda b, x: splat(b, x, VD))
to_f64 = _op(F64x16, F32x16)(lambda b, x: b.fpext(x, VD))
bits_of = _op(I32x16, F32x16)(lambda b, x: b.bitcast(x, VI32))
from_bits = _op(F32x16, I32x16)(lambda b, x: b.bitcast(x, VF))
bits_of_f32 = _op(types.int32, types.float32)(lambda b, x: b.bitcast(x, I32))
float_of = _op(types.float32, types.int32)(lambda b, x: b.bitcast(x, F32))

# arithmetic, lane by lane; never contracted, never reordered (NUMERICS rule 6)
add_f32 = _op(F32x16, F32x16, F32x16)(lambda b, x, y: b.fadd(x, y))
sub_f32 = _op(F32x16, F32x16, F32x16)(lambda b, x, y: b.fsub(x, y))
mul_f32 = _op(F32x16, F32x16, F32x16)(lambda b, x, y: b.fmul(x, y))
div_f32 = _op(F32x16, F32x16, F32x16)(lambda b, x, y: b.fdiv(x, y))
fma_f32 = _op(F32x16, F32x16, F32x16, F32x16)(fma)
max_f32 = _op(F32x16, F32x16, F32x16)(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
abs_f32 = _op(F32x16, F32x16)(lambda b, x: b.bitcast(b.and_(b.bitcast(x, VI32), const(VI32, 0x7FFFFFFF)), VF))
add_f64 = _op(F64x16, F64x16, F64x16)(lambda b, x, y: b.fadd(x, y))
mul_f64 = _op(F64x16, F64x16, F64x16)(lambda b, x, y: b.fmul(x, y))
add_i32 = _op(I32x16, I32x16, I32x16)(lambda b, x, y: b.add(x, y))
sub_i32 = _op(I32x16, I32x16, I32x16)(lambda b, x, y: b.sub(x, y))
max_i32 = _op(I32x16, I32x16, I32x16)(lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y))
shl23_i32 = _op(I32x16, I32x16)(lambda b, x: b.shl(x, const(VI32, 23)))

# choice: where x < y take a, else b; where lane < count take a, else b
lanes_below = _op(F32x16, types.int32, F32x16, F32x16)(
    lambda b, n, x, y: b.select(b.icmp_signed("<", ir.Constant(VI32, list(range(LANES))), splat(b, n, VI32)), x, y)
)
zero_below = _op(F32x16, F32x16, F32x16, F32x16)(
    lambda b, x, limit, y: b.select(b.fcmp_ordered("<", x, limit), const(VF, 0.0), y)
)
negative_first = _op(F32x16, F32x16, F32x16, F32x16)(
    lambda b, z, x, y: b.select(b.fcmp_ordered("<", z, const(VF, 0.0)), x, y)
)

# pairs of lanes (2i, 2i+1): changed over; the first of each negated
swap_pairs = _op(F32x16, F32x16)(lambda b, x: _shuffle(b, x, [i ^ 1 for i in range(LANES)]))
negate_firsts = _op(F32x16, F32x16)(
    lambda b, x: b.bitcast(b.xor(b.bitcast(x, VI32), ir.Constant(VI32, [-(1 << 31), 0] * (LANES // 2))), VF)
)

# reductions by the fixed tree
sum_f32 = _op(types.float32, F32x16)(lambda b, v: _tree(b, v, b.fadd))
sum_f64 = _op(types.float64, F64x16)(lambda b, v: _tree(b, v, b.fadd))
sum_i32 = _op(types.int32, I32x16)(lambda b, v: _tree(b, v, b.add))
largest_f32 = _op(types.float32, F32x16)(
    lambda b, v: _tree(b, v, lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
)
largest_i32 = _op(types.int32, I32x16)(lambda b, v: _tree(b, v, lambda x, y: b.select(b.icmp_signed(">", x, y), x, y)))
