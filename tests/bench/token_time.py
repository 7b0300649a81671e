"""Where a token's microseconds go: phases of the forward pass, waiting, Python, sampling, detokenizing.

    python tests/bench/token_time.py MODEL.gguf [--behind 2048] [--tokens 40] [--threads 2] [--kv-type f16]
    python tests/bench/token_time.py MODEL.gguf --branches 4 [--behind 2048]
    python tests/bench/token_time.py MODEL.gguf --prefill 512 [--behind 2048]

The forward pass is compiled once more, with a barrier that notes when each thread comes and goes; the engine's own
kernels have no clock in them. A thread's phase lasts from the barrier before to its arrival at the next, what it waits
there for the others is counted apart. Medians over the tokens, the first few left out. Keys and values behind
`--behind` tokens are random.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from engine import jit
from engine.kernels import compiler, plan, sync
from engine.kernels.options import OPTIONS
from engine.kernels.simd import I32, I64, store_i64

PLAIN_SYNC_BYTES = plan.SYNC_BYTES
EVENTS = 1 << 15
# A layer's phases, by the barrier that ends them, and those behind the last layer.
LAYER = (
    "norm",
    "query, key, value",
    "rope + kv",
    "attention",
    "codes",
    "output",
    "norm",
    "gate, up",
    "activation",
    "down",
)
END = ("norm", "head")
MATRICES = ("query, key, value", "output", "gate, up", "down", "head")


@intrinsic
def clock(typingctx):
    """CLOCK_MONOTONIC in nanoseconds, as time.perf_counter_ns reads it."""
    which = 1 if sys.platform == "linux" else 6

    def codegen(_c, b, _s, _a):
        room = cgutils.alloca_once(b, ir.ArrayType(I64, 2))
        at = b.bitcast(room, I64.as_pointer())
        kind = ir.FunctionType(I32, [I32, I64.as_pointer()])
        b.call(cgutils.get_or_insert_function(b.module, kind, "clock_gettime"), [ir.Constant(I32, which), at])
        nanoseconds = b.load(b.gep(at, [ir.Constant(I64, 1)]))
        return b.add(b.mul(b.load(at), ir.Constant(I64, 10**9)), nanoseconds)

    return types.int64(), codegen


@intrinsic
def stack_address(typingctx):
    """Some address on this thread's stack: it tells threads apart."""

    def codegen(_c, b, _s, _a):
        return b.ptrtoint(cgutils.alloca_once(b, I64), I64)

    return types.int64(), codegen


untimed_barrier = sync.barrier


@njit(**OPTIONS)
def timed_barrier(area, threads):
    """The engine's barrier, which notes (thread, arrival, departure) behind the sync area."""
    arrival = clock()
    untimed_barrier(area, threads)
    at = area + PLAIN_SYNC_BYTES + 64
    at += 24 * (sync._atomic_add(area + PLAIN_SYNC_BYTES, 1) % EVENTS)
    store_i64(at, stack_address())
    store_i64(at + 8, arrival)
    store_i64(at + 16, clock())


# All before the forward pass is imported: it is compiled with this barrier, and kept under a name of its own.
plain = jit.fingerprint()
own = hashlib.blake2b(plain.encode() + Path(__file__).read_bytes(), digest_size=16).hexdigest()
jit.fingerprint = lambda: own
sync.barrier = timed_barrier
plan.SYNC_BYTES = PLAIN_SYNC_BYTES + 64 + 24 * EVENTS
compiler.EXTERNAL |= {"clock_gettime"}

from engine import sampler as sampler_module  # noqa: E402
from engine.detokenizer import StreamDecoder  # noqa: E402
from engine.kernels import entry  # noqa: E402
from engine.model import Model  # noqa: E402
from engine.pool import ThreadPool  # noqa: E402


class Spans:
    """Wraps functions of the engine so that they note when they begin and end."""

    def __init__(self):
        self.spans = defaultdict(list)

    def wrap(self, owner, name, label):
        inner = getattr(owner, name)

        def timed(*args, **options):
            begin = time.perf_counter_ns()
            try:
                return inner(*args, **options)
            finally:
                self.spans[label].append((begin, time.perf_counter_ns()))

        setattr(owner, name, timed)

    def take(self, label):
        return self.spans.pop(label, [])


def fill(model, session, count):
    """Random keys and values for `count` tokens, as if they had been fed."""
    rng = np.random.default_rng(0)
    session.make_room(count)
    for block in session._blocks:
        for part, view in model._layout._views(block):
            if part.dtype == "i1":
                view[...] = rng.integers(-127, 128, view.shape, dtype=np.int8)
            else:
                scale = 0.01 if part.name.endswith("scale") else 1.0
                view[...] = (rng.standard_normal(view.shape, np.float32) * scale).astype(np.float16).view("<u2")
    session.accept([1] * count, None, None)


def kernel_times(runner, begin, threads):
    """Microseconds of one pass by phase: {name: the busiest thread's}, and what was waited in all."""
    log = runner._buffers["sync"]
    head = PLAIN_SYNC_BYTES // 8
    count = int(log[head])
    if count > EVENTS:
        raise SystemExit(f"{count} barriers in one pass: more than this tool has room for")
    events = log[head + 8 : head + 8 + 3 * count].reshape(-1, 3).copy()
    log[head] = 0
    rows = {}
    for address in np.unique(events[:, 0] >> 16):
        mine = events[events[:, 0] >> 16 == address]
        rows[int(address)] = mine[np.argsort(mine[:, 1])]
    if len(rows) != threads:
        raise SystemExit(f"{len(rows)} threads noted barriers, {threads} were expected")
    layers = runner._shape.layers
    names = [name for _ in range(layers) for name in LAYER] + list(END)
    busy, waited = defaultdict(float), 0.0
    lone = list(rows.values())
    if any(len(mine) != len(names) for mine in lone):
        raise SystemExit(f"{[len(m) for m in lone]} barriers a thread, this tool knows {len(names)}: see LAYER and END")
    before = [begin] * threads
    for i, name in enumerate(names):
        work = [mine[i, 1] - before[t] for t, mine in enumerate(lone)]
        before = [mine[i, 2] for mine in lone]
        busy[name] += max(work) / 1e3
        waited += sum(max(work) - w for w in work) / 1e3
    return busy, waited


def measure(model, sessions, feeds, spans):
    """{phase: microseconds} of each pass: what the busiest thread did, what was waited, what Python did."""
    rows = []
    for ids in feeds:
        for label in list(spans.spans):
            spans.take(label)
        begin = time.perf_counter_ns()
        if len(ids) == len(sessions):
            model.step(sessions, ids)
        else:
            model.prefill(sessions[0], ids, batch_size=len(ids))
        total = (time.perf_counter_ns() - begin) / 1e3
        time.sleep(0.002)  # the other threads note their last barrier after this one has gone
        passes = spans.take("forward")
        first = min(a for a, _ in passes)
        # A small pass is the caller's alone: nobody is woken.
        prepared = min((a for a, _ in spans.take("step")), default=first)
        busy, waited = kernel_times(model._runner, first, len(passes))
        row = {"total": total, "python: in front of the pass": (prepared - begin) / 1e3}
        row["python: wake the threads"] = (max(a for a, _ in passes) - prepared) / 1e3
        in_kernel = (max(b for _, b in passes) - first) / 1e3
        row["python: behind it"] = total - (max(b for _, b in passes) - begin) / 1e3
        row |= {f"kernel: {name}": value for name, value in busy.items()}
        row["barriers"] = in_kernel - sum(busy.values())
        row["(idle at barriers, a thread)"] = waited / len(passes)
        rows.append(row)
    return rows


def text_times(model, tokens):
    """Microseconds of choosing and of detokenizing a token, over random logits."""
    rng = np.random.default_rng(1)
    settings, decoder = sampler_module.SamplerSettings(), StreamDecoder(model.tokenizer)
    logits = [rng.standard_normal(model.vocabulary_size).astype(np.float32) * 3 for _ in range(tokens)]
    choosing, saying = [], []
    history = [1] * 64
    for row in logits:
        begin = time.perf_counter_ns()
        token = sampler_module.sample(row, history, settings, b"k" * 16, len(history))
        middle = time.perf_counter_ns()
        decoder.push(int(getattr(token, "token", token)))
        choosing.append((middle - begin) / 1e3)
        saying.append((time.perf_counter_ns() - middle) / 1e3)
    return {"sampling": float(np.median(choosing)), "detokenizing": float(np.median(saying))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--behind", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--branches", type=int, default=1, help="sessions that take a token each in one pass")
    parser.add_argument("--prefill", type=int, default=0, help="measure passes of this many tokens")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kv-type", default="f16", choices=("f16", "q8_0"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    passes = 4 if options.prefill else options.tokens + 4
    size = options.behind + passes * max(1, options.prefill)
    model = Model.open(options.model, context=size, threads=options.threads, kv_type=options.kv_type)
    spans = Spans()
    spans.wrap(entry, "forward", "forward")
    spans.wrap(ThreadPool, "run", "step")
    rng = np.random.default_rng(2)
    width = options.prefill or options.branches
    feeds = [rng.integers(3, model.vocabulary_size, width).tolist() for _ in range(passes)]
    session = model.new_session()
    fill(model, session, options.behind)
    if options.prefill:
        rows = []
        for ids in feeds:
            rows += measure(model, [session.fork()], [ids], spans)[-1:]
        rows = rows[1:]
    else:
        rows = measure(model, [session.fork() for _ in range(width)], feeds, spans)[4:]
    table = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    if not options.prefill:
        table |= text_times(model, options.tokens)
    if options.json:
        print(json.dumps({name: round(value, 1) for name, value in table.items()}))
        return
    what = f"a pass of {width} tokens" if width > 1 else "a token"
    print(
        f"{what} behind {options.behind}, {model.threads} threads, {model.kv_type}: microseconds, median of {len(rows)}"
    )
    for name, value in table.items():
        print(f"  {name:32} {value:10.1f}  {100 * value / table['total']:5.1f} %")


if __name__ == "__main__":
    main()
