"""Row 17's attacker: while turns are saved, another process swaps each path with a link to a victim."""

import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from faults.exchanger import exchange
from faults.kit import KEY, assert_true, open_library, save, state_files, talk
from faults.report import report
from snapshots import ReplyStart, StoreError

ATTACKER = Path(__file__).resolve().with_name("exchanger.py")
TOKENS = list(range(70))


@pytest.fixture(autouse=True)
def swaps_are_known(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    try:
        exchange(tmp_path / "one", tmp_path / "two")
    except (OSError, AttributeError) as error:
        warnings.warn(f"row 17 (the attacker that swaps paths) cannot run here: {error}", stacklevel=1)
        pytest.skip("no renameat2(RENAME_EXCHANGE); test_surroundings.py puts links there beforehand")
    assert (tmp_path / "one").read_text() == "two"


def roles(home):
    """The paths under attack: those that are made, read or replaced again and again."""
    return {
        "library.lock": [home / "data" / "library.lock"],
        "segments and logits": state_files(home),
        "backups": sorted((home / "data" / "backups").iterdir()),
        "folders": [home / "data" / "journals", home / "data" / "locks", home / "cache" / "states-1" / "tmp"],
        "journal": [home / "data" / "tree.db-journal"],
        "tree.db": [home / "data" / "tree.db"],
        "state folders": sorted({path.parent for path in state_files(home)}),
    }


def under_attack(home, role, seconds):
    with open_library(home) as library:
        save(library, TOKENS)
        library.back_up(now=True)
    victim = home.parent / f"victim of {role}"
    victim.write_bytes(b"precious" * 100)
    content, before = victim.read_bytes(), victim.stat()
    command = [sys.executable, str(ATTACKER), str(victim), *map(str, roles(home)[role])]
    saves = refused = 0
    acknowledged = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout.readline() == "ready\n"
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    with open_library(home) as library:
                        chat = library.new_conversation("under attack")
                        _, reply = talk(library, chat.id, None, f"turn {saves}", 70)
                        acknowledged.append(reply.id)
                        library.begin_journal(ReplyStart(chat.id, reply.id)).discard()
                        save(library, library.tokens(reply.id), reply.id)
                        save(library, TOKENS)
                        assert_true(library.load_state(KEY, TOKENS), TOKENS)
                        library.back_up(now=True)
                    saves += 1
                except StoreError:
                    refused += 1
        finally:
            swaps = int(attacker.communicate("end\n")[0])
    after = victim.stat()
    assert victim.read_bytes() == content
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    with open_library(home) as library:
        for node_id in acknowledged:
            assert library.node(node_id).id == node_id
        save(library, TOKENS)
        assert library.load_state(KEY, TOKENS).rung == "bundle"
    report(17, attacked=role, swaps=swaps, saves=saves, refused=refused, changed=0)
    return swaps


ROLES = ("library.lock", "segments and logits", "backups", "folders", "journal", "tree.db", "state folders")


@pytest.mark.parametrize("role", ROLES)
def test_no_path_that_is_swapped_while_it_is_used_lets_a_victim_be_changed(role, tmp_path):
    swaps = under_attack(tmp_path / "home", role, 0.6)
    assert swaps > 0 or role == "journal"  # it lives for a millisecond a commit


@pytest.mark.soak
@pytest.mark.parametrize("role", ROLES)
def test_a_minute_of_swaps(role, tmp_path):
    assert under_attack(tmp_path / "home", role, 60) > 100
