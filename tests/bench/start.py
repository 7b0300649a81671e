"""Time and memory to the first token of a second `run`, beside what importing Numba takes.

    python tests/bench/start.py [MODEL.gguf ...] [--runs 7]

Without a model the bundled one. Every start is a process of its own; the first ones compile, repack and hash, and are
not counted. Figures are medians of the processes' wall clocks, from start to exit, with one token asked for.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from app.__main__ import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), 0)
print("\\npeak", peak, file=sys.stderr)
sys.exit(code)
"""


def timed(command):
    """(seconds, what it wrote to stderr) of one process."""
    begin = time.perf_counter()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    return time.perf_counter() - begin, done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    python = sys.executable
    timed([python, "-c", "import numba"])
    numba = statistics.median(timed([python, "-c", "import numba"])[0] for _ in range(options.runs))
    print(f"import numba                  {numba:6.3f} s")
    for model in options.models or [None]:
        command = [python, "-c", RUN, "run", "-n", "1", "--temp", "0", *(["-m", str(model)] if model else []), "hello"]
        first = timed(command)[0]
        timed(command)
        found = [timed(command) for _ in range(options.runs)]
        median = statistics.median(seconds for seconds, _ in found)
        peak = max(int(text.split("peak ")[1].split()[0]) for _, text in found) / 1024
        name = model.name if model else "bundled model"
        print(f"{name:28}  {median:6.3f} s ({median - numba:+.3f}), peak {peak:.0f} MiB; the very first {first:.1f} s")


if __name__ == "__main__":
    main()
