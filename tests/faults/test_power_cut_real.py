"""Row 3 of the battery: power cuts of a real ext4, shut down in mid-write by ioctl, then mounted again.

Needs root, loop devices and mkfs.ext4; where they are missing a warning says so, and its pure-Python twin
(test_power_cut_model.py) runs all the same.
"""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from faults.report import report

LOOP = Path(__file__).with_name("power_loop.py")


def run(cuts, seed):
    done = subprocess.run(
        [sys.executable, str(LOOP), str(cuts), str(seed)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        warnings.warn(f"row 3 (power cut of a real ext4) cannot run here: {done.stdout.strip()}", stacklevel=1)
        pytest.skip(f"{done.stdout.strip()}; test_power_cut_model.py is its twin")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_power_cut_loses_nothing_that_was_promised():
    figures = run(60, seed=3)
    assert figures["promises"] > 100
    assert min(figures[how] for how in ("killed", "typed")) > 5
    report(3, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_five_thousand_power_cuts(part):
    report(3, part=part, **run(250, seed=100 + part))
