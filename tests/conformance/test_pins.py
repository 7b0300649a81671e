"""A change of bits without a new numerics version is red; so is a CPU that gives other bits (NUMERICS rules 6, 13)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PINS = json.loads((HERE / "pins.json").read_text())
CPUS = {"native": None, "haswell": "haswell", "generic": "generic"}


def run_pins(cpu, names, cache):
    """pins.py in a fresh process that compiles for `cpu`."""
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")}
    env["FORKPOINT_CACHE_DIR"] = str(cache)
    if cpu:
        env["NUMBA_CPU_NAME"] = cpu
    done = subprocess.run(
        [sys.executable, str(HERE / "pins.py"), *names],
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("cpu", CPUS)
def test_the_bits_are_the_pinned_ones(cpu, tmp_path):
    if cpu != "native" and sys.platform.startswith("linux") and "x86" not in os.uname().machine:
        pytest.skip("haswell and generic name x86-64 processors")
    names = sorted({key.split("/")[0] for key in PINS["pins"]})
    found = run_pins(CPUS[cpu], names, tmp_path)
    expected_dot = {"haswell": "avx2", "generic": "plain"}.get(cpu)
    assert expected_dot is None or found["target"] == f"{cpu} {expected_dot}"
    assert found["numerics"] == PINS["numerics"], "a new numerics version needs new pins: pins.py --write"
    assert found["pins"] == PINS["pins"], "other bits under the same numerics version"
