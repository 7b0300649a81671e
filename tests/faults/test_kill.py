"""kill -9 at random moments of a running chat."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder, kills, seed):
    script = Path(__file__).with_name("kill_loop.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(kills), str(seed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_no_acknowledged_turn_token_or_state_is_lost(tmp_path):
    figures = run(tmp_path, 30, seed=1)
    assert figures["acknowledged"] > 20
    assert figures["in_flight"] > 1  # or it would not have tried anything
    assert figures["states"] > 3


@pytest.mark.soak
def test_ten_thousand_kills(tmp_path):
    totals = [run(tmp_path / str(seed), 250, seed) for seed in range(40)]
    print({key: sum(figures[key] for figures in totals) for key in totals[0]})
