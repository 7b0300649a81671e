"""The compiled kernels as the engine calls them: the forward pass, and addresses of what it calls.

Kernels that differ by tensor type or KV type are C functions of int64 arguments, compiled when a model needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import cfunc, types

from engine.kernels import attention, rope
from engine.kernels.formats import FORMATS
from engine.kernels.forward import forward
from engine.kernels.matmul import KINDS, product_of
from engine.kernels.rope import fill_rope_table
from engine.kernels.vector_math import OPTIONS

Table = npt.NDArray[np.int64]
KV_TYPES = ("f16", "q8_0")

_ATTENTION: dict[str, Callable[..., None]] = {"f16": attention.attend_f16, "q8_0": attention.attend_q8_0}
_WRITERS: dict[str, Callable[..., None]] = {"f16": rope.write_kv_f16, "q8_0": rope.write_kv_q8_0}
QUANTIZED = frozenset(FORMATS)


@cache
def _address(function: Callable[..., None], arguments: int) -> int:
    """Compile, or load from the cache, a kernel void(int64, …), and give its address for the life of the process."""
    compiled = cfunc(types.void(*(types.int64,) * arguments), **OPTIONS)(function)
    _alive.append(compiled)
    return int(cast(int, compiled.address))


_alive: list[Any] = []


def product(kind: str) -> int:
    """The address of the matrix product for a tensor type."""
    return _address(product_of(kind), 10)


def attend(kv_type: str) -> int:
    """The address of attention over a KV type."""
    return _address(_ATTENTION[kv_type], 20)


def write_kv(kv_type: str) -> int:
    """The address of the writer of keys and values of a KV type."""
    return _address(_WRITERS[kv_type], 10)


def compile_forward() -> None:
    """Compile, or load from the cache, the forward pass."""
    table = types.Array(types.int64, 1, "C")
    forward.compile((types.int64, table, types.Array(types.int64, 2, "C"), table, types.Array(types.float64, 1, "C")))


def compile_rope() -> None:
    """Compile, or load from the cache, the table of angles."""
    n, floats = types.int64, types.Array(types.float32, 2, "C")
    fill_rope_table.compile((types.Array(types.float64, 1, "C"), floats, floats, n, n))


def parts(kinds: frozenset[str], kv_type: str) -> list[tuple[str, Callable[[], Any]]]:
    """What a model with these tensor types and this KV type needs compiled, with names."""
    needed: list[tuple[str, Callable[[], Any]]] = [("forward", compile_forward), ("rope", compile_rope)]
    needed += [(kind, partial(product, kind)) for kind in KINDS if kind in kinds]
    needed += [(f"attend {kv_type}", partial(attend, kv_type)), (f"write {kv_type}", partial(write_kv, kv_type))]
    return needed


__all__ = ["KV_TYPES", "QUANTIZED", "attend", "fill_rope_table", "forward", "parts", "product", "write_kv"]
