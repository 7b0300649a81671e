"""Rows 10 and 12 of the battery: fuzzed files and bombs meet typed errors only, soon, and in little memory.

GGUF headers are fuzzed where their reader is tested.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faults.report import report

CHILD = Path(__file__).with_name("fuzz_child.py")


def child(kind, count, seed, megabytes):
    call = [sys.executable, str(CHILD), kind, str(count), str(seed), str(megabytes)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(kind, done.stdout)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["export", "segment"])
def test_fuzzed_files_are_read_or_refused(kind):
    told = child(kind, 3000, 1, 256)
    assert told["tried"] == 3000
    assert told["worst_s"] <= 1
    assert 0 < told["good"] < 2000  # the mutator does not only make rubbish, and does make rubbish


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["export", "segment"])
def test_fuzzed_files_in_full(kind, seed):
    told = child(kind, 100_000, 100 + seed, 256)
    report(10, kind=kind, seed=100 + seed, **told)
    assert (told["tried"], told["worst_s"] <= 1) == (100_000, True)


@pytest.mark.parametrize("way", ["bombs", "pipe"])
def test_every_bomb_is_refused_at_once_in_little_memory(way):
    """As files, and as what comes through a pipe to an import."""
    told = child(way, 0, 0, 64)
    report(12, way=way, **told)
    assert told["good"] == 0
    assert told["tried"] >= {"bombs": 60, "pipe": 34}[way]
    assert told["worst_s"] <= 0.1, told["slowest"]
