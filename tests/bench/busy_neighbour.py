"""How much of its rate the engine keeps while somebody else keeps one core busy: prefill and decoding, in turn.

    python tests/bench/busy_neighbour.py MODEL.gguf [--rounds 7] [--threads 2] [--tokens 24] [--prefill 256] [--json]

Each round measures with a core free and with one taken by an endless loop in a process of its own, which is not told
to be nice; the order changes from round to round. Medians over the rounds, and their quartiles. Where a machine has as
many cores as the engine has threads, the loop takes half of one thread's time at least: what is asked for is 0.45.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.model import Model

BEHIND = 16


@contextmanager
def neighbour(core):
    """A process that loops on one core while the body runs."""
    loop = f"import os\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", loop])
    try:
        time.sleep(0.3)  # until it loops
        yield
    finally:
        process.kill()
        process.wait()


def rates(model, ids, prefill, tokens):
    """Tokens a second: (prefill, decoding)."""
    session = model.new_session()
    begin = time.perf_counter()
    model.prefill(session, ids[:prefill])
    middle = time.perf_counter()
    session.truncate(BEHIND)
    model.step([session], ids[:1])
    steps = time.perf_counter()
    for token in ids[:tokens]:
        model.step([session], [token])
    return prefill / (middle - begin), tokens / (time.perf_counter() - steps)


def quartiles(values):
    """Median, lower and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    size = max(options.prefill, BEHIND + options.tokens + 1)
    model = Model.open(options.model, context=size, threads=options.threads)
    rng = random.Random(0)
    ids = [rng.randrange(3, model.vocabulary_size) for _ in range(size)]
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    rates(model, ids, options.prefill, options.tokens)
    free, busy = [], []
    for turn in range(options.rounds):
        for taken in (False, True) if turn % 2 else (True, False):
            if taken:
                with neighbour(core):
                    busy.append(rates(model, ids, options.prefill, options.tokens))
            else:
                free.append(rates(model, ids, options.prefill, options.tokens))
    found = {"threads": model.threads, "cores": os.cpu_count(), "rounds": options.rounds}
    for at, name in enumerate(("prefill", "decode")):
        found[name] = {
            "free_tok_s": quartiles([rate[at] for rate in free]),
            "busy_tok_s": quartiles([rate[at] for rate in busy]),
            "ratio": quartiles([b[at] / f[at] for b, f in zip(busy, free, strict=True)]),
        }
    model.close()
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.model}: {model.threads} threads on {found['cores']} cores, one taken; {options.rounds} rounds")
    for name in ("prefill", "decode"):
        free_rate, busy_rate, ratio = (found[name][key] for key in ("free_tok_s", "busy_tok_s", "ratio"))
        print(
            f"  {name:8} {free_rate['median']:9.1f} tok/s free, {busy_rate['median']:9.1f} beside a busy loop:"
            f" {ratio['median']:.2f} of the rate ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )


if __name__ == "__main__":
    main()
