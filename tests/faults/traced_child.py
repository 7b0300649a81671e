"""Acts a scenario out under strace; what the store promises goes, a line each, into a file that strace sees too.

usage: traced_child.py SCENARIO FOLDER SEED HEARD MUTANT
"""

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults import histories, mutants  # noqa: E402


def main():
    scenario, folder, seed, heard, mutant = sys.argv[1:]
    fd = os.open(heard, os.O_WRONLY | os.O_APPEND)

    def promise(*what):
        os.write(fd, json.dumps(what).encode() + b"\n")

    with mutants.TRACED[mutant][1]() if mutant else contextlib.nullcontext():
        histories.run(scenario, Path(folder), promise, int(seed))


if __name__ == "__main__":
    main()
