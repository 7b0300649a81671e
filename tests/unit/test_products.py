"""Every tensor type's product is right, and has the same bits on all instruction sets (NUMERICS rules 1 and 6)."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conformance.multiply import multiply, quantized
from conformance.random_blocks import KINDS, block, random_rows, values_of
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import entry
from engine.quants import PLAIN, SUPPORTED, Embedding, dequantize
from engine.repack import packed_size, repack

PROGRAM = Path(__file__).with_name("product_digests.py")
X86 = platform.machine().lower() in ("x86_64", "amd64")
# instruction set -> the CPU to compile for, and which way of making dot products to take
WAYS = {
    "native": (None, "native"),
    "plain": (None, "plain"),
    "vnni": (None, "vnni"),
    "avx2": (None, "avx2"),
    "haswell": ("haswell", "native"),
    "generic": ("generic", "native"),
}
# Bits a weight, of which a repacked matrix may have no more; the file's own, or with 8-bit scales for 6-bit ones.
MOST_BITS = {
    "F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5, "Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6,
    "Q4_K": 4.7, "Q5_K": 5.7, "Q6_K": 6.5625, "Q2_K": 2.625, "Q3_K": 3.5625,
    "IQ4_NL": 4.5, "IQ4_XS": 4.3125, "MXFP4": 4.25,
}  # fmt: skip


@cache
def digests(cpu: str | None, way: str) -> dict:
    """product_digests.py in a fresh process, which checks every product against float64."""
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")}
    if cpu:
        env["NUMBA_CPU_NAME"] = cpu
    command = [sys.executable, str(PROGRAM), way]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", WAYS)
def test_products_are_right_and_have_one_set_of_bits(name: str) -> None:
    cpu, way = WAYS[name]
    if not X86 and name not in ("native", "plain"):
        pytest.skip("these are instruction sets of x86-64")
    if name == "avx2" and digests(None, "native")["dot"] == "plain":
        pytest.skip("this CPU has no AVX2 to run")
    found = digests(cpu, way)
    assert found["dot"] == {"haswell": "avx2", "generic": "plain"}.get(name, found["dot"])
    assert found["bits"] == digests(None, "native")["bits"]


def test_the_real_instruction_is_emitted_where_the_cpu_has_it() -> None:
    program = (
        "from numba import cfunc, types; from engine.kernels.matmul import product_of\n"
        "f = cfunc(types.void(*(types.int64,) * 10), nogil=True)(product_of('Q4_0'))\n"
        "print(f._library.get_asm_str().count('vpdpbusd'))"
    )
    if not X86:
        pytest.skip("vpdpbusd is an instruction of x86-64")
    env = os.environ | {"NUMBA_CPU_NAME": "cascadelake"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) >= 16


def test_every_type_is_dense_in_memory() -> None:
    assert set(KINDS) == SUPPORTED
    for kind in KINDS:
        groups, _, size = packed_size(kind, 32, 2048)
        assert 8 * groups * size / (32 * 2048) <= MOST_BITS[kind], kind


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(rows=st.integers(1, 70), blocks=st.integers(1, 9), tokens=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_any_shape_gives_the_product_and_each_token_its_own(kind, rows, blocks, tokens, seed) -> None:
    rng = np.random.default_rng(seed)
    columns = blocks * max(block(kind)[0], 32)
    raw = random_rows(kind, rows, columns, lambda low, high, shape: rng.integers(low, high, shape))
    x = rng.standard_normal((tokens, columns)).astype(np.float32)
    call = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 10)(entry.product(kind))
    matrix = repack(kind, raw, rows, columns)
    y = multiply(call, kind, matrix, x)
    w = values_of(kind, raw).astype(np.float64)
    seen = x.astype(np.float64) if kind in PLAIN else quantized(x)
    scale = np.abs(seen).sum(1)[:, None] * np.abs(w).max(1, initial=1e-30)[None, :]
    assert (np.abs(y[:, :rows] - seen @ w.T) <= 2e-6 * scale).all()
    t = tokens // 2
    assert multiply(call, kind, matrix, x[t : t + 1]).tobytes() == y[t : t + 1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_embedding_rows_are_what_the_format_says(kind: str, data: st.DataObject) -> None:
    rows, blocks = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    columns = blocks * block(kind)[0]
    raw = random_rows(kind, rows, columns, lambda low, high, shape: rng.integers(low, high, shape))
    tokens = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=5))
    found = Embedding(kind, raw, columns).rows(tokens)
    assert found.dtype == np.float32
    assert found.tobytes() == values_of(kind, raw[tokens]).tobytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLAIN])
def test_blocks_of_any_bytes_are_read_as_gguf_reads_them(kind: str) -> None:
    """Codes and scales that no quantizer writes, NaN and Inf among them: nothing warns on a person's screen."""
    raw = np.random.default_rng(5).integers(0, 256, (64, 2 * block(kind)[1]), dtype=np.uint8)
    with np.errstate(all="raise"):
        found = dequantize(kind, raw, 2 * block(kind)[0])
    with np.errstate(all="ignore"):
        wanted = values_of(kind, raw)
    assert np.array_equal(found, wanted, equal_nan=True)
