"""From kernels to machine code: one part of `entry.PARTS` to one object file. The only importer of Numba at run time.

Each kernel is a Python function of integers; a C function of its own name is put around what Numba makes of it, and
all of a part is optimized and compiled as one. The object refers to nothing of Numba or Python: it is loaded by later
processes that import neither (engine/machine_code.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

import engine.kernels.options  # noqa: F401  tells Numba which CPU to compile for
from engine.kernels.kernel import Kernel
from engine.kernels.target import processor

# All that compiled code may name: what the barrier yields and sleeps with; the square root becomes an instruction.
EXTERNAL = frozenset(["nanosleep", "sched_yield", "SwitchToThread", "sqrt"])
_TYPES = {"i": types.int64, "d": types.float64, "": types.void}


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile_part(name: str, kernels: Sequence[Kernel]) -> bytes:
    """An object file with one C function a kernel. Raises RuntimeError where a kernel needs more than machine code."""
    typing, context = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    context.refresh()
    codegen = context.codegen()
    if tuple(codegen.magic_tuple()[1:]) != processor():
        raise RuntimeError(f"Numba compiles for {codegen.magic_tuple()[1:]} already")
    library = codegen.create_library(name)
    library.enable_object_caching()
    doors = library.create_ir_module(name)
    for kernel in kernels:
        function = getattr(importlib.import_module(f"engine.kernels.{kernel.module}"), kernel.function)
        arguments = tuple(_TYPES[letter] for letter in kernel.arguments)
        compiled = compiler.compile_extra(
            typing,
            context,
            function(kernel.of) if kernel.of else function,
            arguments,
            _TYPES[kernel.result],
            _flags(),
            locals={},
            library=library,
        )
        _add_door(context, doors, kernel, compiled.fndesc)
    library.add_ir_module(doors)
    library.finalize()
    _check(name, library)
    return bytes(library._get_compiled_object())


def _flags() -> Any:
    """As `options.OPTIONS`, and with neither Python's nor Numba's own way in."""
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.release_gil = True
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    return flags


def _add_door(context: Any, module: ir.Module, kernel: Kernel, compiled: Any) -> None:
    """A C function by the kernel's symbol that calls it by Numba's convention; the status is dropped (it is none)."""
    convention = context.call_conv
    inner = ir.Function(
        module, convention.get_function_type(compiled.restype, compiled.argtypes), compiled.llvm_func_name
    )
    result = context.get_value_type(compiled.restype) if kernel.result else ir.VoidType()
    arguments = [context.get_value_type(kind) for kind in compiled.argtypes]
    door = ir.Function(module, ir.FunctionType(result, arguments), kernel.symbol)
    builder = ir.IRBuilder(door.append_basic_block("entry"))
    _, value = convention.call_function(builder, inner, compiled.restype, compiled.argtypes, door.args)
    if kernel.result:
        builder.ret(value)
    else:
        builder.ret_void()


def _check(name: str, library: Any) -> None:
    """LLVM ends the process that loads code whose callees it cannot find: better say so here."""
    declared = {f.name for f in library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if declared - EXTERNAL:
        raise RuntimeError(f"the kernels of {name} call {', '.join(sorted(declared - EXTERNAL))}")
