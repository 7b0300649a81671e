"""The compiled kernels as the engine calls them: C functions of integers and addresses. Imports no Numba.

They come in parts, of which a model needs some: the forward pass, and the kernels that differ by tensor type or KV
type, which the forward pass calls by address. A part is compiled as one (kernels/compiler.py) when it is first needed,
and kept as machine code for all later processes (engine/machine_code.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from engine import jit
from engine.kernels.kernel import Kernel
from engine.machine_code import MachineCode, read, write
from engine.quants import PLAIN, SUPPORTED

Table = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
KV_TYPES = ("f16", "q8_0")


PRODUCTS = {kind: (Kernel("matmul", "product_of", 10 * "i", of=kind),) for kind in sorted(SUPPORTED)}
QUANTIZED = SUPPORTED - frozenset(PLAIN)

PARTS: dict[str, tuple[Kernel, ...]] = {
    "forward": (Kernel("forward", "forward", 5 * "i"),),
    "rope": (Kernel("rope", "fill_rope_table", 6 * "i"),),
    "sampling": (Kernel("sampling", "choose", "ii", "i"), Kernel("sampling", "scratch_bytes", "iiii", "i")),
    "kv f16": (Kernel("attention", "attend_f16", 20 * "i"), Kernel("rope", "write_kv_f16", 10 * "i")),
    "kv q8_0": (Kernel("attention", "attend_q8_0", 20 * "i"), Kernel("rope", "write_kv_q8_0", 10 * "i")),
    **{f"matmul {kind}": kernels for kind, kernels in PRODUCTS.items()},
}
SAMPLING_TABLE_SIZE, SAMPLING_NUMBERS_SIZE = 14, 11  # of the tables that a token is chosen from (kernels/sampling.py)

_loaded: dict[str, MachineCode] = {}
_lock = threading.Lock()


def parts(kinds: frozenset[str], kv_type: str) -> list[str]:
    """The parts that a model with these tensor types and this KV type needs."""
    products = [f"matmul {kind}" for kind in PRODUCTS if kind in kinds]
    return ["forward", "rope", "sampling", *products, f"kv {kv_type}"]


def load(part: str) -> bool:
    """Make a part runnable if it is, or was once, compiled; tell whether it is runnable now."""
    with _lock:
        place = jit.place()
        if part not in _loaded and place is not None:
            code = read(place / _file_name(part), _key(part))
            if code is not None:
                _loaded[part] = MachineCode(code)
        return part in _loaded


def compile_part(part: str) -> None:
    """Compile a part, keep it, and make it runnable."""
    from engine.kernels import compiler

    with _lock:
        code = compiler.compile_part(part, PARTS[part])
        place = jit.place()
        if place is not None:
            write(place / _file_name(part), _key(part), code)
        _loaded[part] = MachineCode(code)


def _file_name(part: str) -> str:
    return part.replace(" ", "-").lower() + ".code"


def _key(part: str) -> str:
    return f"{jit.fingerprint()} {part}"


def _code(part: str) -> MachineCode:
    if part not in _loaded and not load(part):
        compile_part(part)
    return _loaded[part]


def _address(part: str, number: int) -> int:
    return _code(part).address(PARTS[part][number].symbol)


@cache
def _function(part: str, number: int = 0) -> Callable[..., int]:
    kernel = PARTS[part][number]
    return _code(part).function(kernel.symbol, kernel.arguments, kernel.result)


def product(kind: str) -> int:
    """The address of the matrix product for a tensor type."""
    return _address(f"matmul {kind}", 0)


def attend(kv_type: str) -> int:
    """The address of attention over a KV type."""
    return _address(f"kv {kv_type}", 0)


def write_kv(kv_type: str) -> int:
    """The address of the writer of keys and values of a KV type."""
    return _address(f"kv {kv_type}", 1)


def forward(me: int, shape: int, matrices: int, batch: int, constants: int) -> None:
    """One thread's part in a forward pass; addresses of the tables of kernels/plan.py, which it must not outlive."""
    _function("forward")(me, shape, matrices, batch, constants)


def fill_rope_table(frequencies: Floats64, cosines: Floats32, sines: Floats32, first: int, last: int) -> None:
    """Write cosines and sines, float32 (positions, pairs), of the positions [first, last)."""
    at, pairs = frequencies.ctypes.data, frequencies.size
    _function("rope")(at, pairs, cosines.ctypes.data, sines.ctypes.data, first, last)


def choose(table: int, numbers: int) -> int:
    """The chosen token, or a negative number; both are addresses (kernels/sampling.py)."""
    return _function("sampling", 0)(table, numbers)


def scratch_bytes(n: int, k: int, recent: int, dry: int) -> int:
    """Bytes of scratch that `choose` needs for n logits, top-k k and that many tokens under penalties and DRY."""
    return _function("sampling", 1)(n, k, recent, dry)
