"""The compiled forward pass as the engine calls it: which parts a model needs, and the call itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from engine.kernels import attention, matmul
from engine.kernels.forward import forward
from engine.kernels.matmul import BLOCK_BYTES, KINDS
from engine.kernels.rope import fill_rope_table

Table = npt.NDArray[np.int64]
_PRODUCTS = (matmul.matmul_f32, matmul.matmul_f16, matmul.matmul_bf16, matmul.matmul_q8_0, matmul.matmul_q4_0)
_QUANTIZED = frozenset(KINDS[kind] for kind in BLOCK_BYTES)
KV_TYPES = ("f16", "q8_0")


def switches(kinds: frozenset[str], kv_type: str) -> tuple[int | None, ...]:
    """The trailing arguments of `forward`: 1 for what the model uses, None for code to leave out."""
    used = [1 if kind in kinds else None for kind in KINDS]
    codes = 1 if kinds & _QUANTIZED else None
    return (*used, codes, *(1 if kv_type == kv else None for kv in KV_TYPES))


def parts(kinds: frozenset[str], kv_type: str) -> list[Callable[[], Any]]:
    """What has to be compiled, smallest first; the last is the whole and contains the others."""
    n, given = types.int64, switches(kinds, kv_type)
    flags = tuple(types.none if s is None else types.int64 for s in given)
    each: list[Callable[[], Any]] = [
        partial(product.compile, (n,) * 13) for kind, product in zip(KINDS, _PRODUCTS, strict=True) if kind in kinds
    ]
    attend = (*(n,) * 9, types.UniTuple(n, 4), *(n,) * 3, *flags[-2:])
    each.append(partial(attention.attend.compile, attend))
    table = types.Array(types.int64, 1, "C")
    whole = (n, table, types.Array(types.int64, 2, "C"), table, types.float64, *flags)
    each.append(partial(forward.compile, whole))
    return each


__all__ = ["KV_TYPES", "fill_rope_table", "forward", "parts", "switches"]
