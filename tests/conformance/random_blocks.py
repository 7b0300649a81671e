"""Random but sane blocks of any tensor type: every code and every scale of a block may turn up, halves stay moderate.

Knows the file's layouts from the description of the format alone, not from the engine.
"""

import gguf
import numpy as np

KINDS = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip
# Where a block has halves: (byte, largest magnitude) each. The scales behind them are up to 127 times as large.
_HALVES = {
    "Q4_0": [(0, 0.1)],
    "Q4_1": [(0, 0.1), (2, 1.0)],
    "Q5_0": [(0, 0.05)],
    "Q5_1": [(0, 0.05), (2, 1.0)],
    "Q8_0": [(0, 0.01)],
    "Q2_K": [(80, 0.02), (82, 0.02)],
    "Q3_K": [(108, 0.01)],
    "Q4_K": [(0, 0.002), (2, 0.02)],
    "Q5_K": [(0, 0.001), (2, 0.02)],
    "Q6_K": [(208, 0.0005)],
    "IQ4_NL": [(0, 0.01)],
    "IQ4_XS": [(0, 0.0003)],
    "MXFP4": [],
}


def block(kind):
    """(weights, bytes) of one block."""
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]


def random_rows(kind, rows, columns, integers):
    """uint8 (rows, bytes a row). `integers(low, high, shape)` gives whole numbers in [low, high)."""
    weights, size = block(kind)
    assert columns % weights == 0
    if kind in ("F32", "F16", "BF16"):
        values = ((integers(0, 1 << 16, (rows, columns)) - 32768) / 32768).astype(np.float32)
        raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        return np.ascontiguousarray(raw).view(np.uint8).reshape(rows, -1)
    raw = integers(0, 256, (rows, columns // weights, size)).astype(np.uint8)
    for at, largest in _HALVES[kind]:
        values = (integers(0, 4097, raw.shape[:2]) - 2048) / 2048 * largest
        raw[..., at : at + 2] = values.astype("<f2")[..., None].view(np.uint8)
    if kind == "MXFP4":
        raw[..., 0] = integers(118, 127, raw.shape[:2])
    return raw.reshape(rows, -1)


def values_of(kind, raw):
    """What gguf's own package takes the rows for, float32."""
    if kind == "F32":
        return raw.view("<f4")
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
