"""forkpoint and llama.cpp on one file, both loaded at once and asked in turn, measurement by measurement: medians.

    python tests/bench/in_turn.py MODEL.gguf… --peer-python PYTHON [--rounds 5] [--threads 2] [--prefill 512 2048]
                                              [--behind 16 2048] [--cold] [--json]

A machine that others use changes from minute to minute; here what is compared lies seconds apart. Each round prefills
and decodes with forkpoint, with llama.cpp, and with llama.cpp and flash attention; the first round of each is left out,
for it pays for fresh memory, but with --cold its prefill is given too. PYTHON has llama-cpp-python.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DECODED = 32
SIDES = ("forkpoint", "llama.cpp", "llama.cpp -fa")


def tokens(vocabulary):
    import numpy as np

    return np.random.default_rng(0).integers(3, vocabulary, 4096).tolist()


class Ours:
    """The engine, as the app opens it."""

    def __init__(self, path, threads, _flash):
        sys.path.insert(0, str(ROOT))
        from engine.model import Model

        self.model = Model.open(path, threads=threads)
        self.tokens = tokens(self.model.vocabulary_size)

    def prefill(self, n):
        self.session = self.model.new_session()
        self.model.prefill(self.session, self.tokens[:n])

    def decode(self, n):
        for token in self.tokens[-n:]:
            self.model.step([self.session], [token])


class Theirs:
    """llama.cpp through llama-cpp-python."""

    def __init__(self, path, threads, flash):
        import llama_cpp

        self.clear = lambda: llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.model._ctx.ctx), True)
        self.model = llama_cpp.Llama(
            path, n_ctx=4096, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, flash_attn=flash,
            verbose=False,
        )  # fmt: skip
        self.tokens = tokens(self.model.n_vocab())

    def prefill(self, n):
        self.model.reset()
        self.clear()
        self.model.eval(self.tokens[:n])

    def decode(self, n):
        for token in self.tokens[-n:]:
            self.model.eval([token])


def serve(side, path, threads):
    """Answer "prefill N" and "decode N" with seconds, a line each."""
    runner = (Ours if side == SIDES[0] else Theirs)(path, threads, side == SIDES[2])
    print("ready", flush=True)
    for line in sys.stdin:
        what, n = line.split()
        begin = time.perf_counter()
        getattr(runner, what)(int(n))
        print(time.perf_counter() - begin, flush=True)


class Side:
    """One of them in a process of its own."""

    def __init__(self, side, path, options):
        python = sys.executable if side == SIDES[0] else options.peer_python
        command = [python, __file__, path, "--serve", side, "--threads", str(options.threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit(f"{side} did not open {path}")

    def ask(self, what, n):
        print(what, n, file=self.process.stdin, flush=True)
        return n / float(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(path, options):
    """{figure: {side: [tok/s a round]}}; the first round counts as cold."""
    sides = {side: Side(side, path, options) for side in SIDES}
    found = {}

    def note(name, side, rate):
        found.setdefault(name, {s: [] for s in SIDES})[side].append(rate)

    for _ in range(options.rounds + 1):
        for n in sorted({*options.prefill, *options.behind}):
            for side, it in sides.items():
                rate = it.ask("prefill", n)
                if n in options.prefill:
                    note(f"prefill {n}", side, rate)
            for side, it in sides.items() if n in options.behind else ():
                note(f"decode behind {n}", side, it.ask("decode", DECODED))
    for it in sides.values():
        it.end()
    return found


def summary(found, cold):
    """{figure: (ours, the better of theirs, ratio)} of the medians; of the first round under "cold"."""
    out = {}
    for name, rates in found.items():
        parts = {name: lambda r: statistics.median(r[1:])}
        if cold and name.startswith("prefill"):
            parts[f"cold {name}"] = lambda r: r[0]
        for title, middle in parts.items():
            ours, *theirs = (middle(rates[side]) for side in SIDES)
            out[title] = (ours, max(theirs), ours / max(theirs))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, nargs="+", default=[512])
    parser.add_argument("--behind", type=int, nargs="*", default=[16])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--json", action="store_true", help="every round's figures")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.models[0], options.threads)
        return
    for path in options.models:
        found = measure(path, options)
        if options.json:
            print(json.dumps({path: found}))
            continue
        print(f"{Path(path).name}, tok/s, medians of {options.rounds}: forkpoint / llama.cpp")
        for title, (ours, theirs, ratio) in summary(found, options.cold).items():
            print(f"  {title:22} {ours:7.1f} / {theirs:7.1f} = {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
