"""How the threads of one forward pass meet: a spin barrier that yields, and a counter that hands out work.

All of a step runs in one nogil function a thread; nothing here allocates, raises or calls Python.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.options import OPTIONS
from engine.kernels.simd import I8, I32, I64, pointer
from engine.kernels.target import target

# Byte offsets in the sync area (SYNC_BYTES of zeros): a cache line each.
_ARRIVED, _GENERATION, _NEXT = 0, 64, 128
# Some 40 µs of spinning, then some milliseconds of yielding. A thread that sleeps sooner hides from the scheduler that
# two of ours share a processor while another is idle: it left them there, and a token took five times as long (seen).
_SPINS_BEFORE_YIELD = 2000
_YIELDS_BEFORE_SLEEP = 10_000
_SLEEP_NS = 50_000


@intrinsic
def _atomic_add(typingctx, address, value):
    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        return b.atomic_rmw("add", pointer(b, a[0], I64), a[1], "seq_cst")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def _atomic_load(typingctx, address):
    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        return b.load_atomic(pointer(b, a[0], I64), "seq_cst", 8)

    return types.int64(types.intp), codegen


@intrinsic
def _atomic_store(typingctx, address, value):
    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        b.store_atomic(a[1], pointer(b, a[0], I64), "seq_cst", 8)
        return ir.Constant(I8.as_pointer(), None)

    return types.void(types.intp, types.int64), codegen


@intrinsic
def _pause(typingctx):
    def codegen(_c: Any, b: Any, _s: Any, _a: Any) -> Any:
        if target().x86:
            fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause")
            b.call(fn, [])
        return ir.Constant(I8.as_pointer(), None)

    return types.void(), codegen


@intrinsic
def _yield_processor(typingctx):
    """Let another thread of the machine run: a busy neighbour must not wait for our spinning."""
    name, result = ("SwitchToThread", I32) if sys.platform == "win32" else ("sched_yield", I32)

    def codegen(_c: Any, b: Any, _s: Any, _a: Any) -> Any:
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(result, []), name), [])
        return ir.Constant(I8.as_pointer(), None)

    return types.void(), codegen


@intrinsic
def _sleep(typingctx):
    """Leave the processor for some 50 microseconds; where there is no nanosleep, only for others that wait for it."""

    def codegen(_c: Any, b: Any, _s: Any, _a: Any) -> Any:
        if sys.platform == "win32":
            b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(I32, []), "SwitchToThread"), [])
        else:
            span = cgutils.alloca_once_value(b, ir.Constant(ir.ArrayType(I64, 2), [0, _SLEEP_NS]))
            pointer_type = I64.as_pointer()
            kind = ir.FunctionType(I32, [pointer_type, pointer_type])
            fn = cgutils.get_or_insert_function(b.module, kind, "nanosleep")
            b.call(fn, [b.bitcast(span, pointer_type), ir.Constant(pointer_type, None)])
        return ir.Constant(I8.as_pointer(), None)

    return types.void(), codegen


@intrinsic
def default_rounding(typingctx):
    """Set this thread's floating-point mode to the default: a foreign library may have switched on flush-to-zero."""

    def codegen(_c: Any, b: Any, _s: Any, _a: Any) -> Any:
        if target().x86:
            mode = cgutils.alloca_once_value(b, ir.Constant(I32, 0x1F80))
            b.store(ir.Constant(I32, 0x1F80), mode)
            kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer()])
            fn = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.sse.ldmxcsr")
            b.call(fn, [b.bitcast(mode, I8.as_pointer())])
        elif target().arm64:
            kind = ir.FunctionType(ir.VoidType(), [I64])
            b.call(ir.InlineAsm(kind, "msr fpcr, $0", "r", side_effect=True), [ir.Constant(I64, 0)])
        return ir.Constant(I8.as_pointer(), None)

    return types.void(), codegen


@intrinsic
def call_kernel(typingctx, address, arguments):
    """Call the C function at `address`, void(int64, …), with a tuple of int64.

    Kernels that differ by model (tensor types, KV type) are compiled apart and called so: the forward pass is compiled
    once for all of them.
    """
    count = len(arguments)

    def codegen(_c: Any, b: Any, _s: Any, a: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * count)
        b.call(pointer(b, a[0], kind), cgutils.unpack_tuple(b, a[1], count))
        return ir.Constant(I8.as_pointer(), None)

    return types.void(types.int64, arguments), codegen


@njit(**OPTIONS)
def barrier(sync, threads):
    """All threads arrive, then all go on; the work counter starts again at 0. `sync` is the area's address."""
    generation = _atomic_load(sync + _GENERATION)
    if _atomic_add(sync + _ARRIVED, 1) == threads - 1:
        _atomic_store(sync + _ARRIVED, 0)
        _atomic_store(sync + _NEXT, 0)
        _atomic_add(sync + _GENERATION, 1)
        return
    spins = 0
    while _atomic_load(sync + _GENERATION) == generation:
        spins += 1
        if spins < _SPINS_BEFORE_YIELD:
            _pause()
        elif spins < _SPINS_BEFORE_YIELD + _YIELDS_BEFORE_SLEEP:
            _yield_processor()
        else:
            _sleep()


@njit(**OPTIONS)
def take(sync):
    """The next unit of work of this phase, 0, 1, 2, …; who takes which cannot change a bit."""
    return _atomic_add(sync + _NEXT, 1)


@njit(**OPTIONS)
def arrive(counter, expected):
    """Count up the int64 at `counter`; True for the last of `expected`, which also sets it back to 0."""
    if _atomic_add(counter, 1) == expected - 1:
        _atomic_store(counter, 0)
        return True
    return False
