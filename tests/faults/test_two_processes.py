"""Row 13 of the battery: two processes on one library, one of them killed every second; nobody hears of a lock."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults.kit import open_library
from faults.report import report
from snapshots.fsck import fsck

CHILD = """
import json, os, sys, time
from pathlib import Path
from snapshots import Library, Message
folder, name, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Library.open(folder / "data", folder / "cache") as library:
    chat, parent = library.new_conversation(name), None
    for number in range(limit):
        begun = time.monotonic()
        parent = library.add_node(chat.id, parent, Message("user", f"{name} {number}", (number % 200,))).id
        took = time.monotonic() - begun
        if number % 10 == 3:
            library.set_name(f"{name} {number}", parent)
            library.conversations()
            library.outside_changes()
        if number % 50 == 49:
            chat, parent = library.new_conversation(name), None
        os.write(1, json.dumps([parent or "", took]).encode() + b"\\n")
"""
ROOT = Path(__file__).resolve().parents[2]


def start(folder, name, limit):
    command = [sys.executable, "-c", CHILD, str(folder), name, str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out, err = (folder / f"{name}.{kind}" for kind in ("out", "err"))
    with out.open("ab") as stdout, err.open("ab") as stderr:
        return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)


def run(folder, operations):
    """`operations` of the one that lives; the other is killed each second and started again."""
    folder.mkdir(exist_ok=True)
    open_library(folder).close()
    steady, kills = start(folder, "steady", operations), 0
    while steady.poll() is None:
        doomed = start(folder, f"doomed{kills}", 10**9)
        time.sleep(1.0)
        doomed.send_signal(signal.SIGKILL)
        assert doomed.wait() == -signal.SIGKILL, (folder / f"doomed{kills}.err").read_text()
        kills += 1
    assert steady.returncode == 0, (folder / "steady.err").read_text()
    lines = [
        json.loads(line)
        for path in folder.glob("*.out")
        for line in path.read_bytes().splitlines()
        if line[-1:] == b"]"
    ]
    times = sorted(json.loads(line)[1] for line in (folder / "steady.out").read_bytes().splitlines())
    with open_library(folder) as library:
        for node_id, _ in lines:
            assert not node_id or library.node(node_id).id == node_id, "an acknowledged message is lost"
    assert all(path.read_bytes() == b"" for path in folder.glob("*.err"))
    assert fsck(folder / "data", folder / "cache").problems == []
    p99 = times[int(0.99 * len(times))]
    return {"operations": len(lines), "kills": kills, "p99_commit_ms": round(1e3 * p99, 1), "lost": 0, "locked": 0}


def test_two_processes_one_killed_each_second(tmp_path):
    figures = run(tmp_path / "library", 250)
    assert figures["kills"] >= 1
    assert figures["p99_commit_ms"] < 1000  # the full figure, on a quiet machine, is 250
    report(13, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_a_hundred_thousand_operations(part, tmp_path):
    figures = run(tmp_path / "library", 5000)
    report(13, part=part, **figures)
    assert figures["p99_commit_ms"] < 250
