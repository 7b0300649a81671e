"""Row 6 of the battery for all that the store does: an error at every system call that writes, in each scenario.

Saving turns is in test_failing_calls.py, with a disk that really fills up and the twin that needs no strace.
"""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from faults.report import report

SCRIPT = Path(__file__).with_name("fail_every_call.py")
SCENARIOS = ("save", "fork", "evict", "import", "migrate", "heal", "back up", "repair", "forget", "export")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EINTR")


@pytest.fixture(scope="module", autouse=True)
def strace():
    if shutil.which("strace") is None:
        warnings.warn("row 6 (errors at every system call) cannot run here: there is no strace", stacklevel=1)
        pytest.skip("no strace; the twin at the store's own seam is in test_failing_calls.py")


def run(scenario, folder, error, sticky, *most):
    command = [sys.executable, str(SCRIPT), scenario, str(folder), error, sticky, "0", "1", *map(str, most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("sticky", ["once", "sticky"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_at_a_system_call_is_told_and_the_next_try_completes(scenario, sticky, folder):
    error = ERRORS[(SCENARIOS.index(scenario) + 2 * (sticky == "sticky")) % 4]
    figures, errors = run(scenario, folder, error, sticky, 6)
    report(6, **figures)
    assert figures["runs"] >= 4
    assert figures["failures"] == 0, errors


@pytest.mark.soak
@pytest.mark.parametrize("sticky", ["once", "sticky"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_at_every_system_call_is_told_and_the_next_try_completes(scenario, error, sticky, folder):
    figures, errors = run(scenario, folder, error, sticky)
    report(6, full=True, **figures)
    assert figures["runs"] == figures["calls"] >= 4
    assert figures["failures"] == 0, errors
