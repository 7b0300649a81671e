"""Matrix products as the forward pass has them made, for tests of the kernels alone."""

import numpy as np

from engine.kernels.activations import quantize_row
from engine.kernels.formats import FORMATS
from engine.kernels.plan import CODES_BYTES, TILE


def quantized(x):
    """NUMERICS rule 2 in NumPy: what the codes and scales of rows stand for, float64."""
    blocks = x.reshape(len(x), -1, 32)
    with np.errstate(all="ignore"):
        d = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
        codes = np.where(d >= 2.0**-100, np.rint(blocks * (np.float32(1) / d)), 0)
    d = np.where(d >= 2.0**-100, d, 0)
    return (codes.astype(np.float64) * d).reshape(x.shape)


def multiply(call, kind, matrix, x):
    """The product of a repacked matrix with float32 rows, as the forward pass has it made: (tokens, padded rows).

    call: the kernel, as a C function of ten int64.
    """
    at = lambda a: a.ctypes.data
    tokens, columns = x.shape
    y = np.full((tokens + 1, 16 * matrix.groups), 7.0, np.float32)
    stride, source = x.strides[0], x
    if kind in FORMATS:
        stride = columns // 32 * CODES_BYTES * TILE
        source = np.full(-(-tokens // TILE) * stride, 255, np.uint8)
        for t in range(tokens):
            quantize_row(at(x[t]), 0, columns, at(source), stride, t, tokens)
    numbers = (at(matrix.data), matrix.group_bytes, at(source), stride, matrix.steps, at(y), y.strides[0], tokens)
    call(*numbers, 0, matrix.groups // 2)
    call(*numbers, matrix.groups // 2, matrix.groups)
    assert (y[tokens] == 7.0).all(), f"{kind}: a row behind the last token was written"
    return y[:tokens]
