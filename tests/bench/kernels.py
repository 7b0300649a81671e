"""Speed of the matrix kernels alone, for each tensor type: decoding one token and prefilling many.

    python tests/bench/kernels.py [TYPE …] [--threads 1 2] [--tokens 1 4 512] [--json]

`tokens` 1 to 8 read a matrix larger than the caches and are given in GB/s of repacked weights, beside what a bare read
loop over the same memory gets; more tokens are given in G op/s (two operations a weight and token).
"""

import argparse
import ctypes
import itertools
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from numba import njit

from engine.kernels import entry
from engine.kernels.activations import quantize_row
from engine.kernels.matmul import KINDS
from engine.kernels.plan import CODES_BYTES, TILE
from engine.kernels.simd import add_i32, load_i32x16, splat_i32, sum_i32
from engine.kernels.target import target
from engine.repack import apart, packed_size

MANY, LARGE = 512, 384 << 20  # tokens of a prefill; bytes of a matrix that no cache holds
COLUMNS = 2048
LINE = 64


def work(function, cuts):
    """Seconds that threads take for function(from, to) over neighbouring cuts."""
    threads = [threading.Thread(target=function, args=cut) for cut in itertools.pairwise(cuts)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


@njit(nogil=True)
def read(first, last):
    """A bare read loop over the bytes from one address to another: the sum of everything, in eight chains."""
    zero = splat_i32(np.int32(0))
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(first, last - 511, 512):
        a, b = add_i32(a, load_i32x16(i)), add_i32(b, load_i32x16(i + 64))
        c, d = add_i32(c, load_i32x16(i + 128)), add_i32(d, load_i32x16(i + 192))
        e, f = add_i32(e, load_i32x16(i + 256)), add_i32(f, load_i32x16(i + 320))
        g, h = add_i32(g, load_i32x16(i + 384)), add_i32(h, load_i32x16(i + 448))
    return sum_i32(add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(add_i32(e, f), add_i32(g, h))))


def aligned(size):
    """Zero bytes that begin at a cache line, as the engine's do."""
    memory = np.zeros(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size]


class Case:
    """One tensor type's kernel over random bytes (scales of moderate size), and random activations."""

    def __init__(self, kind, tokens, rows, columns):
        self.kind, self.tokens, self.rows, self.columns = kind, tokens, rows, columns
        self.groups, self.steps, self.size = packed_size(kind, rows, columns)
        rng = np.random.default_rng(1)
        self.weights = aligned(self.groups * self.size)
        self.weights[:] = np.resize(rng.integers(0, 64, 1 << 16, np.uint8), self.weights.size)
        x = rng.standard_normal((tokens, apart(columns))).astype(np.float32)
        self.y = np.zeros((tokens, 16 * self.groups), np.float32)
        if kind in entry.QUANTIZED:
            self.stride = columns // 32 * CODES_BYTES * TILE
            self.x = aligned(-(-tokens // TILE) * self.stride)
            for t in range(tokens):
                quantize_row(x[t].ctypes.data, 0, columns, self.x.ctypes.data, self.stride, t, tokens)
        else:
            self.stride, self.x = x.strides[0], x
        self.call = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 10)(entry.product(kind))

    def __call__(self, first, last):
        at = lambda a: a.ctypes.data
        self.call(
            at(self.weights), self.size, at(self.x), self.stride, self.steps, at(self.y), self.y.strides[0],
            self.tokens, first, last,
        )  # fmt: skip

    def seconds(self, threads, repeats):
        """The best of some runs."""
        cuts = [self.groups * i // threads for i in range(threads + 1)]
        return min(work(self, cuts) for _ in range(repeats))


def decode(kind, tokens, threads):
    """(GB/s of weights, share of what the faster of one and two bare readers gets from the same bytes)."""
    rows = LARGE // packed_size(kind, 16, COLUMNS)[2] * 16
    case = Case(kind, tokens, rows, COLUMNS)
    start = case.weights.ctypes.data
    case.seconds(threads, 1)
    ours, bare = [], []
    for _ in range(5):
        ours.append(case.seconds(threads, 1))
        for n in (1, 2):
            bare.append(work(read, [start + case.weights.size * i // n // 64 * 64 for i in range(n + 1)]))
    rate = case.groups * case.size / min(ours) / 1e9
    return rate, rate / (case.weights.size / min(bare) / 1e9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="TYPE", help=f"of {', '.join(KINDS)}; default all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4, MANY])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    print(f"{target().label}, tiles of {TILE}, matrices of {COLUMNS} columns", file=sys.stderr)
    for kind in options.kinds or KINDS:
        for tokens in options.tokens:
            for threads in options.threads:
                line = {"type": kind, "tokens": tokens, "threads": threads}
                if tokens <= TILE:
                    line["gb_s"], line["of_bare_read"] = decode(kind, tokens, threads)
                else:
                    case = Case(kind, tokens, 2048 if kind in entry.QUANTIZED else 512, COLUMNS)
                    line["g_ops"] = 2 * case.rows * COLUMNS * tokens / case.seconds(threads, 4) / 1e9
                found.append(line)
                if not options.json:
                    figures = (f"{name} {value:.3g}" for name, value in line.items() if isinstance(value, float))
                    print(f"{kind:7} tokens {tokens:4} threads {threads}: {', '.join(figures)}", flush=True)
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
