"""Attention alone, on one thread: microseconds a layer, and how fast it reads keys and values.

    python tests/bench/attention.py [--heads 32] [--kv-heads 4] [--dims 64] [--kv-type f16] [--layers 22]

Decode: one token behind 16, 2048 and 16384 others. Prefill: 512 tokens behind none and behind 2048. The layers are
gone through in turn, as in a pass, so that keys and values come from memory and not from the nearest cache. The best of
a few rounds; `units` counts fused multiply-adds of 16 lanes a nanosecond.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from engine.kernels import entry, plan
from engine.kernels.plan import BLOCK, scratch_bytes

TILE_ROWS = 128


@dataclass(frozen=True)
class Shape:
    """Heads and dims of a model, as the layout of keys and values wants them."""

    heads: int
    kv_heads: int
    head_dim: int
    layers: int


def layout_of(shape, kv_type):
    from engine.kv import KVLayout

    return KVLayout(shape, kv_type)


def random_blocks(layout, count):
    """Blocks of random keys and values, and the table of their addresses."""
    rng = np.random.default_rng(0)
    first = layout.new_block()
    for part, view in layout._views(first):
        if part.dtype == "i1":
            view[...] = rng.integers(-127, 128, view.shape, dtype=np.int8)
        else:
            scale = 0.01 if part.name.endswith("scale") else 1.0
            view[...] = (rng.standard_normal(view.shape, np.float32) * scale).astype(np.float16).view("<u2")
    blocks = [first, *(first.copy() for _ in range(count - 1))]
    return blocks, np.array([b.ctypes.data for b in blocks], np.int64)


def layer_time(shape, layout, table, behind, tokens, rounds):
    """Seconds a layer, of one thread: the best of some rounds over all layers."""
    kernel = entry._function(f"kv {layout.kv_type}", 0)
    group, dims = shape.heads // shape.kv_heads, shape.head_dim
    each = max(1, TILE_ROWS // group)
    positions = np.arange(behind, behind + tokens)
    q = np.random.default_rng(1).standard_normal((each * group, dims), np.float32) / dims**0.5
    scratch = np.zeros(scratch_bytes(each * group, dims, layout.channels), np.uint8)
    out = np.zeros((tokens, shape.heads * dims), np.float32)
    heads = shape.kv_heads
    calls = []
    for layer in range(layout.layers):
        for first in range(0, tokens, each):
            for h in range(heads):
                rows = min(each, tokens - first) * group
                k, ks = layout.key_bytes * h, layout.key_bytes * heads + layout.scale_bytes * h
                v = (layout.key_bytes + layout.scale_bytes) * heads + layout.value_bytes * h
                vs = (layout.key_bytes + layout.scale_bytes + layout.value_bytes) * heads + layout.scale_bytes * h
                to = out.ctypes.data + out.strides[0] * first + 4 * dims * group * h
                calls.append(
                    (
                        *(rows, group, dims, layout.channels, layout.scale_blocks, q.ctypes.data),
                        *(positions.ctypes.data + 8 * first, plan.ALL_KEYS, table.ctypes.data),
                        *(layer * layout.layer_bytes, k, ks, v, vs, 0, 1, 0, scratch.ctypes.data, to, out.strides[0]),
                    )
                )
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for arguments in calls:
            kernel(*arguments)
        best = min(best, time.perf_counter() - begin)
    return best / layout.layers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--kv-type", default="f16", choices=entry.KV_TYPES)
    options = parser.parse_args()
    shape = Shape(options.heads, options.kv_heads, options.dims, options.layers)
    layout = layout_of(shape, options.kv_type)
    print(f"{options.heads} heads on {options.kv_heads} of {options.dims} dims, {options.kv_type}, one thread")
    for behind, tokens, rounds in ((16, 1, 50), (2048, 1, 30), (16384, 1, 5), (0, 512, 2), (2048, 512, 1)):
        blocks, table = random_blocks(layout, (behind + tokens) // BLOCK + 1)
        seconds = layer_time(shape, layout, table, behind, tokens, rounds)
        products = 2 * shape.heads * shape.head_dim * (tokens * behind + tokens * (tokens + 1) // 2)
        rate = products / 16 / seconds / 1e9
        line = f"{tokens:4} tokens behind {behind:6}: {1e6 * seconds:10.1f} µs a layer, {rate:5.2f} units"
        if tokens == 1:
            line += f", {(behind + 1) * layout.layer_bytes / BLOCK / seconds / 1e9:5.1f} GB/s"
        print(line, flush=True)
        del blocks


if __name__ == "__main__":
    main()
