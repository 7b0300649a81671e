"""Row 1 of the battery: kill -9 at every system call that changes anything, in each scenario of scenarios.py.

strace kills on entry of the call, so the call is not made. Without strace a warning says so; the twin is
test_power_cut_model.py, which cuts at every operation of the seam.
"""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from faults.report import report

SCRIPT = Path(__file__).with_name("kill_every_call.py")
SCENARIOS = ("save", "fork", "evict", "import", "migrate", "heal", "back up", "repair", "forget")


@pytest.fixture(scope="module", autouse=True)
def strace():
    if shutil.which("strace") is None:
        warnings.warn("row 1 (kill at every system call) cannot run here: there is no strace", stacklevel=1)
        pytest.skip("no strace; test_power_cut_model.py is its twin")


def run(scenario, folder, part=0, parts=1, most=None):
    command = [sys.executable, str(SCRIPT), scenario, str(folder), str(part), str(parts)]
    done = subprocess.run([*command, *([str(most)] if most else [])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_a_system_call_nothing_promised_is_lost(scenario, folder):
    figures, errors = run(scenario, folder, most=10)
    report(1, **figures)
    assert figures["kills"] >= 5
    assert figures["failures"] == 0, errors


def test_a_promise_that_is_not_kept_is_seen(folder):
    figures, errors = run("lie", folder, most=10)
    assert figures["failures"] >= 1
    assert "AssertionError" in errors or "KeyError" in errors


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_system_call(scenario, folder):
    figures, errors = run(scenario, folder)
    report(1, full=True, **figures)
    assert figures["kills"] == figures["calls"] > 30
    assert figures["failures"] == 0, errors
