"""Every tensor type's product on one instruction set: checked here against float64, and its bits printed as JSON.

    python tests/unit/product_digests.py native|vnni|avx2|plain

A machine without VNNI cannot run vpdpbusd, nor look up 64 bytes at once; there these instructions alone are replaced by
what their manual says they do, and everything around them is the code that a VNNI machine runs.
"""

import ctypes
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Nothing compiled for a pretended instruction set may be found by anyone else.
CACHE = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = CACHE.name

from engine.kernels import target as chosen  # noqa: E402

WAY = sys.argv[1] if len(sys.argv) > 1 else "native"
REAL = chosen.target()
if WAY != "native":
    PRETENDED = dataclasses.replace(REAL, dot=WAY)
    chosen.target = lambda: PRETENDED

from conformance.multiply import multiply, quantized  # noqa: E402
from conformance.random_blocks import KINDS, block, random_rows, values_of  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import cfunc, types  # noqa: E402

from engine.kernels import dots, formats  # noqa: E402
from engine.kernels.formats import FORMATS  # noqa: E402
from engine.kernels.matmul import product_of  # noqa: E402
from engine.repack import repack  # noqa: E402

TOKENS = 17  # at least two tiles and one more, of every size that there is
SHAPES = ((1, 1), (15, 2), (17, 3), (33, 2))  # rows, and columns in blocks of 256 or 96


def emulated(b, acc, unsigned, signed):
    """vpdpbusd as Intel's manual describes it."""
    wide, lanes = ir.VectorType(ir.IntType(32), 64), ir.VectorType(ir.IntType(32), 16)
    product = b.mul(b.zext(unsigned, wide), b.sext(signed, wide))
    for j in range(4):
        picked = ir.Constant(lanes, list(range(j, 64, 4)))
        acc = b.add(acc, b.shuffle_vector(product, ir.Constant(wide, ir.Undefined), picked))
    return acc


def looked_up_by_halves(call):
    """`call` that makes two look-ups of 32 bytes of one of 64: both go by lanes of 16."""

    def instead(b, name, result, table, index):
        if name != "llvm.x86.avx512.pshuf.b.512":
            return call(b, name, result, table, index)
        half, places = ir.VectorType(ir.IntType(8), 32), ir.VectorType(ir.IntType(32), 32)
        parts = []
        for at in (0, 32):
            own = ir.Constant(places, list(range(at, at + 32)))
            nothing = ir.Constant(result, ir.Undefined)
            arguments = [b.shuffle_vector(each, nothing, own) for each in (table, index)]
            parts.append(call(b, "llvm.x86.avx2.pshuf.b", half, *arguments))
        return b.shuffle_vector(*parts, ir.Constant(ir.VectorType(ir.IntType(32), 64), list(range(64))))

    return instead


def extreme(kind, raw):
    """Rows of the largest and smallest codes, and a row whose scales are all zero."""
    raw = raw.copy()
    _, size = block(kind)
    if len(raw) > 8 and kind not in ("F32", "F16", "BF16"):
        blocks = raw.reshape(len(raw), -1, size)
        halves = {"Q6_K": [208], "Q3_K": [108], "Q2_K": [80, 82]}.get(kind, [0])
        keep = [i for at in halves for i in (at, at + 1)] if kind != "MXFP4" else [0]
        if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):
            keep += [2, 3]
        rest = [i for i in range(size) if i not in keep]
        blocks[3][:, rest], blocks[5][:, rest], blocks[7][:, rest] = 0xFF, 0x80, 0x00
        blocks[8] = 0
    return raw


def check(kind, call, rng):
    """Assert one type's products, and give a digest of their bits."""
    digest = hashlib.blake2b(digest_size=16)
    integers = lambda low, high, shape: rng.integers(low, high, shape)
    for rows, size in SHAPES:
        columns = size * (256 if block(kind)[0] == 256 else 96)
        raw = extreme(kind, random_rows(kind, rows, columns, integers))
        matrix = repack(kind, raw, rows, columns)
        x = ((rng.integers(0, 1 << 20, (TOKENS, columns)) - (1 << 19)) / (1 << 18)).astype(np.float32)
        x[1] = np.where(x[1] > 0, 2.0, -2.0)  # codes of ±127 alone
        x[2, :32] = 0.0
        x[3, :32] *= np.float32(2.0**-120)
        y = multiply(call, kind, matrix, x)
        w = values_of(kind, raw).astype(np.float64)
        seen = quantized(x) if kind in FORMATS else x.astype(np.float64)
        scale = np.abs(seen).sum(1)[:, None] * np.abs(w).max(1, initial=1e-30)[None, :]
        wrong = np.abs(y[:, :rows] - seen @ w.T) / np.maximum(scale, 1e-30)
        assert wrong.max() < 2e-6, (kind, rows, columns, wrong.max())
        assert not y[:, rows:].any(), f"{kind}: a row of padding is not zero"
        for count in range(1, TOKENS):
            assert multiply(call, kind, matrix, x[:count]).tobytes() == y[:count].tobytes(), (kind, count)
        one = [multiply(call, kind, matrix, x[t : t + 1]) for t in range(TOKENS)]
        assert np.concatenate(one).tobytes() == y.tobytes(), f"{kind}: a token alone has other bits"
        bad = x.copy()
        bad[4, 40], bad[9, 3] = np.nan, np.inf
        z = multiply(call, kind, matrix, bad)
        others = [t for t in range(TOKENS) if t not in (4, 9)]
        assert z[others].tobytes() == y[others].tobytes(), f"{kind}: one token's NaN reached another"
        assert not np.isfinite(z[[4, 9], :1]).any(), f"{kind}: NaN and Inf must show"
        digest.update(y.tobytes())
    return digest.hexdigest()


def main():
    if WAY == "vnni" and REAL.dot != "vnni":
        dots._dpbusd = emulated
        formats.call = looked_up_by_halves(formats.call)
    out = {}
    for kind in KINDS:
        compiled = cfunc(types.void(*(types.int64,) * 10), nogil=True, error_model="numpy")(product_of(kind))
        call = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 10)(compiled.address)
        out[kind] = check(kind, call, np.random.default_rng(20 + KINDS.index(kind)))
    print(json.dumps({"dot": chosen.target().dot, "bits": out}))


if __name__ == "__main__":
    main()
