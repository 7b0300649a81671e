"""Rows 4 and 5 of the battery: every reordered or torn state that a power cut can leave, and the mutants it catches.

Operations are recorded through the store's seam, which runs everywhere, and by strace, which sees SQLite's files too.
"""

import random
import shutil
import sqlite3
import warnings

import pytest

from faults import mutants, traced
from faults.histories import SCENARIOS, Promises, prepare, run
from faults.kit import KEY, chunks, logits, open_library, save
from faults.power import Killed, Recorder, Replay, cuts
from faults.report import report
from snapshots import StoreError
from snapshots.bundles import Bundles
from snapshots.database import _WAL_IS_SAFE


@pytest.fixture
def place(folder):
    return folder


@pytest.fixture
def strace():
    if shutil.which("strace") is None:
        warnings.warn("row 5 cannot see SQLite's own files here: there is no strace", stacklevel=1)
        pytest.skip("no strace; the recordings through the seam are its twin")


def recorded(scenario, folder, seed=0, recorder=Recorder, killed=None, failing=None, then="go on"):
    """Act a scenario out and record it through the seam; where it is killed, a second process goes on."""
    shutil.rmtree(folder, ignore_errors=True)
    before = prepare(scenario, folder)
    files = recorder(folder, killed, failing)
    try:
        run(scenario, folder, files.ack, seed, files)
    except Killed:
        files.bury()
        run(scenario if scenario == "repair" else then, folder, files.ack, seed, files)
    return Replay(files.ops, files.start, before)


class Looker:
    """Looks at what cuts leave, once at the same files after the same promises; with every fourth somebody goes on."""

    def __init__(self, place):
        self.place, self.seen, self.enumerated = place / "cut", set(), 0
        self.place.mkdir(exist_ok=True)

    def look(self, replay, found, limit=10**9):
        begun = len(self.seen)
        for cut in found:
            self.enumerated += 1
            promised = replay.promised(cut[0])
            key = (replay.lay_out(cut, self.place), len(promised))
            if key in self.seen:
                continue
            self.seen.add(key)
            try:
                Promises(promised).check(self.place, going_on=len(self.seen) % 4 == 1)
            except Exception as error:
                error.add_note(f"after {cut}: {replay.told(cut)}")
                raise
            if len(self.seen) - begun >= limit:
                break


def some(replay, share, dice):
    found = list(cuts(replay.ops))
    return dice.sample(found, min(share, len(found)))


SEAM = [name for name in SCENARIOS if name != "export"]
"""An export to a file of the user's own does not go through the seam."""


@pytest.mark.parametrize("scenario", SEAM)
def test_no_power_cut_loses_what_was_promised_or_leaves_a_wrong_bit(scenario, place):
    dice, looker = random.Random(scenario), Looker(place)
    replay = recorded(scenario, place / "recorded")
    looker.look(replay, some(replay, 25, dice))
    report(5, scenario=scenario, states=len(looker.seen), lost=0, wrong=0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nor_does_one_amid_sqlites_own_writes(scenario, place, strace):
    dice, looker = random.Random(scenario), Looker(place)
    folder = place / "recorded"
    folder.mkdir()
    replay = traced.record(scenario, folder, promised=prepare(scenario, folder))
    looker.look(replay, some(replay, 25, dice))
    report(5, traced=scenario, states=len(looker.seen), lost=0, wrong=0)


@pytest.mark.parametrize("scenario", ["save", "back up", "adopt", "repair", "forget"])
def test_nor_does_one_after_a_process_was_killed_and_another_went_on(scenario, place):
    """What a killed process named but did not sync is there for the next one, and must not be lost by it."""
    dice, looker = random.Random(scenario), Looker(place)
    whole = len(recorded(scenario, place / "recorded").ops)
    for at in dice.sample(range(1, whole), min(whole - 1, 8)):
        replay = recorded(scenario, place / "recorded", killed=lambda ops, at=at: len(ops) >= at)
        looker.look(replay, some(replay, 6, dice))
    report(5, killed=scenario, states=len(looker.seen), lost=0, wrong=0)


@pytest.mark.parametrize("failing", range(10))
def test_nor_does_one_after_a_sync_that_failed(failing, place):
    looker, replay = Looker(place), recorded("back up", place / "recorded", failing=failing)
    found = [cut for cut in cuts(replay.ops) if replay.ops[cut[0] - 1].kind == "ack"]
    looker.look(replay, random.Random(failing).sample(found, 12))


def test_every_sync_of_the_store_has_its_mutant():
    assert {mutant.site for mutant in mutants.MUTANTS.values()} - {""} == set(mutants.sites())


def caught(replay, place):
    """Whether some cut shows it; those behind a promise are tried first."""
    looker, found = Looker(place), sorted(cuts(replay.ops), key=lambda cut: replay.ops[cut[0] - 1].kind != "ack")
    try:
        looker.look(replay, found, limit=3000)
    except (AssertionError, StoreError, sqlite3.DatabaseError):
        return True
    return False


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_each_mutant_of_the_write_protocol_is_caught(name, place):
    mutant = mutants.MUTANTS[name]

    class Mutated(mutant.recorder):
        left_out = mutant.site

    with mutant.patch():
        replay = recorded(mutant.scenario, place / "recorded", 0, Mutated, mutant.killed, mutant.failing, mutant.then)
    assert caught(replay, place)


@pytest.mark.parametrize("name", mutants.TRACED)
def test_each_mutant_of_the_trees_commits_and_of_exports_is_caught(name, place, strace):
    if "FULL" in name and _WAL_IS_SAFE:
        pytest.skip("with a write-ahead log this is what the store does")
    folder = place / "recorded"
    folder.mkdir()
    scenario = mutants.TRACED[name][0]
    assert caught(traced.record(scenario, folder, mutant=name, promised=prepare(scenario, folder)), place)


def test_the_mutant_that_believes_a_file_because_of_its_name_is_caught(tmp_path, monkeypatch):
    """Row 9's mutant: a dedupe hit that is not verified."""
    monkeypatch.setattr(Bundles, "_verify", lambda self, chain, piece: piece.path.exists())
    tokens = [5, 300, 7]
    with open_library(tmp_path) as library:
        save(library, tokens)
        seg = next(p for p in (tmp_path / "cache").rglob("*.seg"))
        seg.write_bytes(seg.read_bytes()[:-1])
        out = logits(tokens)
        library.save_state(None, KEY, tokens, chunks(tokens), logits=out, hidden=out[:8], dice_key=b"dice" * 4)
        assert library.load_state(KEY, tokens).rung != "bundle"  # poisoned still: without the mutant it is healed


@pytest.mark.soak
@pytest.mark.parametrize("part", range(25))
def test_fifty_thousand_states(part, place, strace):
    """2,000 different states a part: scenarios and long histories by seed, half of them with SQLite's own files."""
    dice, looker, seed = random.Random(part), Looker(place), 100 * part
    histories = {"traced": 0, "seam": 0, "killed": 0}
    while len(looker.seen) < 2000:
        seed += 1
        scenario = dice.choice([*SCENARIOS, "any", "any", "any", "any"])
        kind = "traced" if scenario == "export" else dice.choice(("traced", "traced", "seam", "killed"))
        folder = place / "recorded"
        if kind == "traced":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            replay = traced.record(scenario, folder, seed, promised=prepare(scenario, folder))
        else:
            at = dice.randrange(1, 150) if kind == "killed" else 10**9
            replay = recorded(scenario, folder, seed, killed=lambda ops, at=at: len(ops) >= at)
        histories[kind] += 1
        looker.look(replay, some(replay, min(100, 2000 - len(looker.seen)), dice))
    report(5, part=part, states=len(looker.seen), enumerated=looker.enumerated, **histories, lost=0, wrong=0)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", ["save", "import"])
def test_every_single_state_of_a_short_history(scenario, place):
    """All prefixes × {drop one, drop all, tear at 0, half, 512}, none left out."""
    looker = Looker(place)
    replay = recorded(scenario, place / "recorded")
    looker.look(replay, cuts(replay.ops))
    report(5, exhaustive=scenario, states=len(looker.seen), enumerated=looker.enumerated, lost=0, wrong=0)
