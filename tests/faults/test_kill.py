"""Row 2 of the battery: kill -9 at random moments of a person's work, as kill_often.py does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faults import kill_often
from faults.kit import open_library, talk
from faults.report import report
from snapshots import StoreError

SCRIPT = Path(__file__).with_name("kill_often.py")


@pytest.fixture
def folder(folder):
    """Made by the process that is killed."""
    return folder / "library"


def run(folder, kills, seed):
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout), done.stderr


def test_no_acknowledged_message_token_name_or_state_is_lost(folder):
    figures, errors = run(folder, 120, seed=1)
    report(2, **figures)
    assert figures["failures"] == 0, errors
    assert figures["in_flight"] > 3  # or it would not have tried anything
    for kind in ("node", "state", "name", "evicting", "import"):
        assert figures["acknowledged"][kind] > 2


def test_a_loss_would_be_seen(folder):
    ledger = kill_often.Ledger(folder)
    with open_library(folder) as library:
        chat = library.new_conversation()
        user, reply = talk(library, chat.id, None, "hello")
    there = ["node", reply.id, list(reply.tokens)]
    for lines in (
        [["node", "f" * 64, [1]]],
        [["node", reply.id, [1, 2]]],
        [there, ["state", reply.id]],
        [["name", "gone", reply.id]],
        [["journal", "a" * 32, chat.id, user.id, [1, 2]]],
    ):
        ledger = kill_often.Ledger(folder)
        ledger.enter(lines)
        with pytest.raises((AssertionError, StoreError)):
            ledger.check(lines)
    ledger = kill_often.Ledger(folder)
    ledger.enter([there])
    ledger.check([there])
    ledger.check_all()


@pytest.mark.soak
@pytest.mark.parametrize("part", range(8))
def test_ten_thousand_kills(part, folder):
    figures, errors = run(folder, 1250, seed=100 + part)
    report(2, part=part, **figures)
    assert figures["failures"] == 0, errors
