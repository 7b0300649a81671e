"""forkpoint and llama.cpp on the same file, in turn, in the same minutes; prints both and the ratios.

    pip install -e '.[peer]'
    python tests/bench/side_by_side.py MODEL.gguf [--rounds 2] [--threads 2] [--quick] [--peer-python PYTHON] [--json]

Each round runs llama.cpp without and with flash attention, then `forkpoint bench`. Absolute figures drift on a shared
machine, so the best of each side over all rounds is compared: a ratio above 1 means forkpoint is better. The peer's
script lies in ../shared/peers.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEER_SCRIPT = ROOT.parent / "shared" / "peers" / "llama_cpp_bench.py"
# field: whether more is better
FIELDS = {
    "pp512": True,
    "pp2048": True,
    "tg": True,
    "tg_at_2048": True,
    "load_s": False,
    "save_s": False,
    "load_state_s": False,
    "state_bytes": False,
    "reprefill_s": False,
}


def run(command):
    """The last line of a command's output as JSON; its errors go to our stderr."""
    print("$", " ".join(map(str, command)), file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[1]} ended with {done.returncode}")
    text = done.stdout.strip()
    return json.loads(text if text.startswith("{\n") else text.splitlines()[-1])


def best(runs):
    """The best figure of each field over several runs."""
    out = {}
    for field, more in FIELDS.items():
        values = [r[field] for r in runs if isinstance(r.get(field), int | float)]
        if values:
            out[field] = max(values) if more else min(values)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="leave out what lies behind 2048 tokens")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--json", action="store_true", help="print every run as one JSON object instead of the table")
    options = parser.parse_args()
    if not PEER_SCRIPT.is_file():
        raise SystemExit(f"the peer's script is not here: {PEER_SCRIPT}")
    threads = ["--threads", str(options.threads)]
    peer = [options.peer_python, str(PEER_SCRIPT), options.model, *threads]
    ours = [sys.executable, "-m", "app", "bench", "-m", options.model, *threads, "--json"]
    if options.quick:
        peer.append("--quick")
        ours.append("--quick")
    peer_runs, our_runs = [], []
    for _ in range(options.rounds):
        peer_runs += [run(peer), run([*peer, "--flash-attn"])]
        our_runs.append(run(ours))
    if options.json:
        print(json.dumps({"peer": peer_runs, "forkpoint": our_runs}, indent=1))
        return
    theirs, mine = best(peer_runs), best(our_runs)
    print(f"{'':14}{'forkpoint':>14}{'llama.cpp':>14}{'ratio':>8}")
    for field, more in FIELDS.items():
        a, b = mine.get(field), theirs.get(field)
        if a is None and b is None:
            continue
        ratio = None if not a or not b else a / b if more else b / a
        cells = [f"{x:14.4g}" if x is not None else f"{'-':>14}" for x in (a, b)]
        print(f"{field:14}{cells[0]}{cells[1]}{f'{ratio:8.2f}' if ratio else '       -'}")
    for field in sorted(set(our_runs[-1]) - set(FIELDS)):
        print(f"{field:14} {our_runs[-1][field]}")


if __name__ == "__main__":
    main()
