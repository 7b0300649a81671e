"""forkpoint and llama.cpp on the same files, in turn, in the same minutes; prints both and the ratios.

    pip install -e '.[peer]'
    python tests/bench/side_by_side.py MODEL.gguf... [--rounds 2] [--threads 2] [--quick] [--peer-python PYTHON]
                                       [--json | --markdown]

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
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="leave out what lies behind 2048 tokens")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--json", action="store_true", help="print every run as one JSON object instead of the table")
    parser.add_argument("--markdown", action="store_true", help="print the README's table, a column for each file")
    options = parser.parse_args()
    if not PEER_SCRIPT.is_file():
        raise SystemExit(f"the peer's script is not here: {PEER_SCRIPT}")
    found = {model: measured(model, options) for model in options.models}
    if options.json:
        print(json.dumps(found, indent=1))
    elif options.markdown:
        print_markdown(found)
    else:
        for model, runs in found.items():
            print_table(model, runs)


def measured(model, options):
    """Every run of both sides on one file."""
    threads = ["--threads", str(options.threads)]
    peer = [options.peer_python, str(PEER_SCRIPT), model, *threads]
    ours = [sys.executable, "-m", "app", "bench", "-m", model, *threads, "--json"]
    if options.quick:
        peer.append("--quick")
        ours.append("--quick")
    peer_runs, our_runs = [], []
    for _ in range(options.rounds):
        peer_runs += [run(peer), run([*peer, "--flash-attn"])]
        our_runs.append(run(ours))
    return {"peer": peer_runs, "forkpoint": our_runs}


def ratio(field, mine, theirs):
    """How much better we are, None where one side has no such figure."""
    a, b = mine.get(field), theirs.get(field)
    return None if not a or not b else a / b if FIELDS[field] else b / a


def print_table(model, runs):
    """Both sides and the ratio, a line for each figure; then what only we have."""
    theirs, mine = best(runs["peer"]), best(runs["forkpoint"])
    print(f"{Path(model).name}\n{'':18}{'forkpoint':>14}{'llama.cpp':>14}{'ratio':>8}")
    for field in FIELDS:
        a, b, r = mine.get(field), theirs.get(field), ratio(field, mine, theirs)
        if a is None and b is None:
            continue
        cells = [f"{x:14.4g}" if x is not None else f"{'-':>14}" for x in (a, b)]
        print(f"{field:18}{cells[0]}{cells[1]}{f'{r:8.2f}' if r else '       -'}")
    last = runs["forkpoint"][-1]
    for field in sorted(set(last) - set(FIELDS)):
        print(f"{field:18} {last[field]}")


def print_markdown(found):
    """The README's table: tok/s of both sides and the ratio in each cell."""
    rows = {
        "pp512": "prefill of 512 tokens",
        "pp2048": "prefill of 2048 tokens",
        "tg": "decode",
        "tg_at_2048": "decode behind 2048 tokens",
    }
    print("| tok/s: forkpoint / llama.cpp = ratio | " + " | ".join(Path(model).stem for model in found) + " |")
    print("|---" * (1 + len(found)) + "|")
    for field, meaning in rows.items():
        cells = []
        for runs in found.values():
            theirs, mine = best(runs["peer"]), best(runs["forkpoint"])
            r = ratio(field, mine, theirs)
            cells.append(f"{mine[field]:.3g} / {theirs[field]:.3g} = **{r:.2f}**" if r else "-")
        print(f"| {meaning} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
