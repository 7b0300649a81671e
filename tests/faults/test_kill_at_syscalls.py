"""Row 1 of the battery: kill -9 at the k-th call of each system call that changes the disk, in each scenario.

strace kills the child on entry of the call, so the call is not made. Without strace a warning says so; the twin is
test_power_cut_model.py, which cuts at every operation of the seam.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from golden.make_library import told

from faults.kit import KEY, assert_true, open_library, save, state_files, talk
from faults.report import report
from snapshots import backups
from snapshots.files import Files
from snapshots.fsck import fsck

HERE = Path(__file__).resolve().parent
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "mkdir", "flock")
SCENARIOS = ("save", "fork", "migrate", "heal", "back up", "repair")


@pytest.fixture(scope="module", autouse=True)
def strace():
    if shutil.which("strace") is None:
        warnings.warn("row 1 (kill at every system call) cannot run here: there is no strace", stacklevel=1)
        pytest.skip("no strace; test_power_cut_model.py is its twin")


def prepare(scenario, folder):
    """The library that a scenario begins with, and what it says."""
    if scenario == "migrate":
        from unit.test_store_formats import unpack

        return unpack("format-1", folder)
    if scenario == "save":
        return {}
    with open_library(folder) as library:
        chat = library.new_conversation("before")
        _, reply = talk(library, chat.id, None, "before", 70)
        save(library, library.tokens(reply.id), reply.id)
        if scenario == "repair":
            library.back_up(now=True)
        said = told(library)
    if scenario == "heal":
        path = state_files(folder)[0]
        path.write_bytes(path.read_bytes()[:-9])
    if scenario == "repair":
        with sqlite3.connect(folder / "data" / "tree.db") as raw:
            raw.execute("UPDATE nodes SET text = 'jello' WHERE role = 'user'")
    return said


def child(scenario, folder, call="", k=0):
    """Run the scenario; gives whether it was killed, and what it had promised."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={k}"] if call else ["-e", "trace=none"]
    command = ["strace", "-f", "-o", os.devnull, *inject, sys.executable, str(HERE / "killed_child.py")]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, scenario, str(folder)], capture_output=True, env=environment, check=False)
    killed = done.returncode != 0
    assert not killed or done.returncode in (-9, 137), done.stderr.decode()
    return killed, [json.loads(line) for line in done.stdout.splitlines() if line.endswith(b"]")]


def look(scenario, folder, before, promised):
    if scenario == "repair" and ["open"] not in promised:
        fsck(folder / "data", folder / "cache", repair=True)
    with open_library(folder) as library:
        now = told(library)
        if scenario in ("migrate", "repair", "back up", "heal"):
            assert now == before
        for kind, *what in promised:
            if kind == "node":
                assert library.path(what[0])[-1].id == what[0]
            elif kind == "name":
                assert what[0] in [s.name for s in library.savepoints()]
            elif kind == "state":
                assert library.load_state(KEY, library.tokens(what[0])).rung == "bundle"
            elif kind == "backup":
                assert backups.check_copy(backups.listed(folder / "data", Files())[0], Files()) == []
        for talk_ in library.conversations():
            for twig in library.tree(talk_.id):
                tokens = library.tokens(twig.id)
                assert_true(library.load_state(KEY, tokens), tokens)
                if tokens:
                    assert save(library, tokens, twig.id).complete
    problems = fsck(folder / "data", folder / "cache").problems
    if scenario == "heal":  # a damaged piece that a better one covers may stay: nobody reads it
        problems = [problem for problem in problems if problem.where != "states"]
    assert problems == []


def one(scenario, folder, call, k):
    before = prepare(scenario, folder)
    killed, promised = child(scenario, folder, call, k)
    look(scenario, folder, before, promised)
    shutil.rmtree(folder)
    return killed


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_a_system_call_nothing_promised_is_lost(scenario, tmp_path):
    kills = 0
    for call, k in (("fsync", 1), ("pwrite64", 3), ("rename", 1)):
        kills += one(scenario, tmp_path / f"{call}{k}", call, k)
    assert kills >= 2
    report(1, scenario=scenario, kills=kills, lost=0)


@pytest.mark.soak
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_system_call(scenario, call, tmp_path):
    kills, k = 0, 1
    while one(scenario, tmp_path / str(k), call, k):
        kills, k = kills + 1, k + 1
    report(1, scenario=scenario, call=call, kills=kills, lost=0)
