"""Addresses as arrays, where a kernel reads better with them. They own nothing and nothing is copied."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


def _array(item: Any, sizes: int) -> Any:
    """The signature and the code of a function of an address and `sizes` lengths that gives a C-ordered array."""
    kind = types.Array(item, sizes, "C")

    def codegen(context: Any, b: Any, _s: Any, a: Any) -> Any:
        array = make_array(kind)(context, b)
        size = context.get_constant(types.intp, item.bitwidth // 8)
        strides = [size]
        for length in reversed(a[2:]):
            strides.insert(0, b.mul(strides[0], length))
        data = b.inttoptr(a[0], context.get_data_type(item).as_pointer())
        populate_array(
            array,
            data=data,
            shape=cgutils.pack_array(b, a[1:]),
            strides=cgutils.pack_array(b, strides),
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return kind(*[types.int64] * (1 + sizes)), codegen


@intrinsic
def integers(typingctx, address, count):
    """The int64 (count,) at an address."""
    return _array(types.int64, 1)


@intrinsic
def integer_rows(typingctx, address, rows, columns):
    """The int64 (rows, columns) at an address."""
    return _array(types.int64, 2)


@intrinsic
def floats64(typingctx, address, count):
    """The float64 (count,) at an address."""
    return _array(types.float64, 1)


@intrinsic
def floats32(typingctx, address, count):
    """The float32 (count,) at an address."""
    return _array(types.float32, 1)
