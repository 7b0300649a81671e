"""The integer dot products of all instruction sets agree with plain integers, also on the CPU that lacks them.

A machine without VNNI cannot run vpdpbusd; there the instruction alone is replaced by what its manual says it does, and
everything around it is the code that a VNNI machine runs. That LLVM accepts and emits the real one is tested apart.
"""

import os
import subprocess
import sys

import pytest

PROGRAM = r"""
import dataclasses, sys
import llvmlite.ir as ir, numpy as np
import engine.kernels
from engine.kernels import target as T
chosen = dataclasses.replace(T.target(), dot=sys.argv[1])
T.target = lambda: chosen
import engine.kernels.matmul as M
M.target = lambda: chosen

def emulated(b, acc, unsigned, signed):
    wide = ir.VectorType(M.I32, 64)
    product = b.mul(b.zext(unsigned, wide), b.sext(signed, wide))
    for j in range(4):
        picked = ir.Constant(ir.VectorType(M.I32, 16), list(range(j, 64, 4)))
        acc = b.add(acc, b.shuffle_vector(product, ir.Constant(wide, ir.Undefined), picked))
    return acc

if sys.argv[1] == "vnni":
    M._dpbusd = emulated
from numba import njit
rng = np.random.default_rng(7)
at = lambda a: a.ctypes.data
for kind, units in ((M.Q8_0_KIND, 8), (M.Q4_0_KIND, 4)):
    product = njit(nogil=True, error_model="numpy")(M.matmul_q8_0 if units == 8 else M.matmul_q4_0)
    tokens, blocks = 2 * M.TILE + 3, 5
    tiles = -(-tokens // M.TILE)
    w = rng.integers(0, 256, (2, blocks, 32 + 64 * units), dtype=np.uint8)
    w[0, :, 32:] = rng.choice(np.array([0x80, 0x7F, 0xFF, 0x00, 0x0F, 0xF0], np.uint8), (blocks, 64 * units))
    w[:, :, :32] = np.full(16, 1.0, np.float16).view(np.uint8)
    x = rng.integers(-127, 128, (tiles, blocks, M.TILE, 32)).astype(np.int8)
    x[0] = rng.choice(np.array([-127, 127], np.int8), x[0].shape)
    scale, sums = np.ones((tiles, blocks, M.TILE), np.float32), x.astype(np.int32).sum(-1).astype(np.int32)
    y = np.zeros((tokens, 32), np.float32)
    size = blocks * (32 + 64 * units)
    strides = (blocks * M.TILE * 32, blocks * M.TILE * 4)
    product(at(w), size, at(x), strides[0], at(scale), at(sums), strides[1], blocks, at(y), 128, tokens, 0, 2)
    codes = w[:, :, 32:].reshape(2, blocks, units, 16, 4)
    if units == 8:
        rows = codes.view(np.int8).astype(int)
    else:
        rows = np.concatenate([(codes & 15).astype(int), (codes >> 4).astype(int)], 2) - 8
    rows = rows.transpose(0, 3, 1, 2, 4).reshape(32, blocks, 32)
    tokens_x = x.transpose(0, 2, 1, 3).reshape(-1, blocks, 32).astype(int)[:tokens]
    # Sums of integers below 2^24: float32 holds each of them, so equality is exact.
    wanted = np.einsum("rbk,tbk->tr", rows, tokens_x)
    assert np.array_equal(y.astype(int), wanted), (sys.argv[1], kind)
print("exact")
"""

COMPILE_ONLY = r"""
import engine.kernels.matmul as M
from numba import njit, types
product = njit(nogil=True, error_model="numpy")(M.matmul_q4_0)
product.compile((types.int64,) * 13)
print(product.inspect_asm()[product.signatures[0]].count("vpdpbusd"))
"""


def run(program: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("dot", ["plain", "vnni", "avx2"])
def test_dot_products_are_exact(dot: str) -> None:
    from engine.kernels.target import target

    if dot == "avx2" and not target().dot.startswith(("avx", "vnni")):
        pytest.skip("this CPU has no AVX2 to run")
    assert run(PROGRAM, dot) == "exact"


@pytest.mark.parametrize(("cpu", "used"), [("cascadelake", True), ("znver4", True), ("skylake-avx512", False)])
def test_avx512_code_compiles_anywhere(cpu: str, used: bool) -> None:
    from engine.kernels.target import target

    if not target().x86:
        pytest.skip("x86 code")
    assert (int(run(COMPILE_ONLY, NUMBA_CPU_NAME=cpu)) > 0) == used
