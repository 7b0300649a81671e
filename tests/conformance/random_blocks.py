"""Random but sane blocks of any tensor type: every code and every scale of a block may turn up, halves stay moderate.

Knows the file's layouts from the description of the format alone, not from the engine.
"""

import math

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


# --- blocks that look like a trained matrix ---------------------------------------------------------------------------

# The root mean square of scale * code over random codes and the scales below, for d = 1.
_RMS = {
    "Q2_K": 10.0,
    "Q3_K": 43.0,
    "Q4_K": 168.0,
    "Q5_K": 336.0,
    "Q6_K": 1370.0,
    "IQ4_NL": 69.0,
    "IQ4_XS": 1290.0,
    "MXFP4": 5.9,
}
LIKELY = tuple(_RMS)


def _six_bits(scales, mins):
    """Q4_K's twelve bytes from eight scales and eight mins of 6 bits."""
    low = [scales[..., :4] | scales[..., 4:] >> 4 << 6, mins[..., :4] | mins[..., 4:] >> 4 << 6]
    return np.concatenate([*low, scales[..., 4:] & 15 | (mins[..., 4:] & 15) << 4], axis=-1).astype(np.uint8)


def likely_rows(kind, rows, columns, integers, deviation):
    """uint8 (rows, bytes a row) of weights around 0 with about this deviation, for types that gguf cannot quantize to.

    Codes and scales are random; where a type has mins they are half the codes' range.
    """
    weights, size = block(kind)
    raw = integers(0, 256, (rows, columns // weights, size)).astype(np.uint8)
    d = deviation / _RMS[kind] * (1 + integers(-256, 257, raw.shape[:2]) / 512)
    sign = 2 * integers(0, 2, raw.shape[:2]) - 1

    def put(at, values):
        raw[..., at : at + 2] = values.astype(np.float32).astype("<f2")[..., None].view(np.uint8)

    if kind in ("Q4_K", "Q5_K"):
        scales = integers(8, 64, (*raw.shape[:2], 8))
        raw[..., 4:16] = _six_bits(scales, scales)
        put(0, d)
        put(2, d * (7.5 if kind == "Q4_K" else 15.5))
    elif kind == "Q2_K":
        scales = integers(1, 16, (*raw.shape[:2], 16))
        raw[..., :16] = scales | scales << 4
        put(80, d)
        put(82, d * 1.5)
    elif kind == "MXFP4":  # d is a power of two, half of 2^(e - 127)
        raw[..., 0] = 127 + math.frexp(deviation / _RMS[kind])[1] + integers(0, 2, raw.shape[:2])
    else:
        put({"Q3_K": 108, "Q6_K": 208}.get(kind, 0), d * sign)
    return raw.reshape(rows, -1)
