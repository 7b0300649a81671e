"""Rows 4 and 5 of the battery: every reordered or torn state that a power cut can leave, and the mutants it catches."""

import random
from pathlib import Path

import pytest

from faults.kit import KEY, assert_true, chunks, logits, open_library, save, talk
from faults.power import Recorder, cuts, lay_out
from faults.report import report
from snapshots import Message, ReplyStart, backups, states
from snapshots.bundles import Bundles
from snapshots.files import Files

MEMORY = Path("/dev/shm")


def scenario(folder, files, seed=0):
    """Talk, save, fork, journal, back up; each promise of the store is noted behind the call that made it."""
    dice = random.Random(seed)
    with open_library(folder, files) as library:
        chat = library.new_conversation()
        _, first = talk(library, chat.id, None, "hello" * dice.randrange(1, 9), 40)
        files.ack("node", first.id)
        tokens = library.tokens(first.id)
        assert save(library, tokens, first.id).complete
        files.ack("state", first.id)
        fork = library.add_node(chat.id, first.id, Message("user", "fork", (seed % 200, 7)))
        files.ack("node", fork.id)
        journal = library.begin_journal(ReplyStart(chat.id, fork.id))
        files.ack("journal", journal.id, 0)
        for token in range(3):
            journal.append([token], f"t{token}")
        journal.sync()
        files.ack("journal", journal.id, 3)
        reply = library.add_node(
            chat.id, fork.id, Message("assistant", "t0t1t2", (0, 1, 2) * 30, stop="stop"), journal=journal
        )
        files.ack("node", reply.id)
        assert save(library, library.tokens(reply.id), reply.id).complete
        files.ack("state", reply.id)
        library.back_up(now=True)
        files.ack("backup")


def look(folder, ops):
    """What was promised before the cut is there; what was not is there whole or not at all; everything goes on."""
    promised = [op.what for op in ops if op.kind == "ack"]
    with open_library(folder) as library:
        nodes = [what[1] for what in promised if what[0] == "node"]
        for node_id in nodes:
            assert library.path(node_id)[-1].id == node_id
        for talk_ in library.conversations():
            for twig in library.tree(talk_.id):
                tokens = library.tokens(twig.id)
                state = library.load_state(KEY, tokens)
                assert_true(state, tokens)
                assert state.damaged == 0, "a file has its name but not its bytes"
                if ("state", twig.id) in promised:
                    assert state.rung == "bundle", f"a saved state is {state.rung}"
                for row in library.node_states(twig.id):
                    if row.has_bundle:
                        assert state.rung == "bundle", "a row says that files are there which are not"
        last = next((what for what in reversed(promised) if what[0] == "journal"), None)
        if last is not None and (len(nodes) < 3 or promised.index(last) > promised.index(("node", nodes[-1]))):
            offered = {reply.journal_id: len(reply.tokens) for reply in library.dead_replies()}
            ended = any(
                twig.stop == "stop" and twig.n_tokens > 90
                for t in library.conversations()
                for twig in library.tree(t.id)
            )
            assert ended or offered.get(last[1], -1) >= last[2], "a promised token is lost"
        if ("backup",) in promised:
            found = backups.listed(folder / "data", Files())
            assert len(found) == 1
            assert backups.check_copy(found[0], Files()) == []
        for node_id in nodes[-1:]:
            tokens = library.tokens(node_id)
            assert save(library, tokens, node_id).complete
            assert library.load_state(KEY, tokens).rung == "bundle"


def run(tmp_path, share, *, seed=0, recorder=Recorder, limit=10**9, behind=None):
    """Record the scenario and look at a share of its power cuts, or of those right behind such operations.

    Gives how many.
    """
    home = tmp_path / f"recorded-{seed}"
    files = recorder(home)
    scenario(home, files, seed)
    dice, looked = random.Random(seed), 0
    found = [cut for cut in cuts(files.ops) if dice.random() < share]
    if behind is not None:
        found = [cut for cut in found if files.ops[cut[0] - 1].kind in behind]
    for length, dropped, torn, left in found[:limit]:
        lay_out(files.ops[:length], home, tmp_path / "cut", dropped, torn, left)
        look(tmp_path / "cut", files.ops[:length])
        looked += 1
    return looked


def test_no_power_cut_loses_what_was_promised_or_leaves_a_wrong_bit(tmp_path):
    looked = run(tmp_path, 0.25)
    assert looked > 100
    report(5, states=looked, lost=0, wrong=0)


class NoFileSync(Recorder):
    """State files get their names without a sync."""

    def sync(self, fd):
        if self.inodes and any(p.suffix == ".tmp" for p, i in self.inodes.items() if i == self.open[fd]):
            return
        super().sync(fd)


class NoJournalHeadSync(Recorder):
    """A journal gets its name before its head is on the disk."""

    def sync(self, fd):
        if any(
            p.parent.name == "journals" and p.suffix == ".new" for p, i in self.inodes.items() if i == self.open[fd]
        ):
            return
        super().sync(fd)


class NoJournalSync(Recorder):
    """Tokens of a reply are never synced."""

    def sync(self, fd):
        if any(p.suffix == ".journal" for p, i in self.inodes.items() if i == self.open[fd]):
            return
        super().sync(fd)


class NoBackupSync(Recorder):
    """A backup gets its name without a sync."""

    def sync(self, fd):
        if any(p.parent.name == "backups" for p, i in self.inodes.items() if i == self.open[fd]):
            return
        super().sync(fd)


def without_dir_sync(name, wanted):
    def sync_dir(self, path):
        if not wanted(path):
            Recorder.sync_dir(self, path)

    return type(name, (Recorder,), {"sync_dir": sync_dir})


class RenameFirst(Recorder):
    """State files get their names first and are synced afterwards, just before their directories."""

    def __init__(self, root):
        super().__init__(root)
        self.late = []

    def sync(self, fd):
        if any(p.suffix == ".tmp" for p, i in self.inodes.items() if i == self.open[fd]):
            self.late.append(self.open[fd])
        else:
            super().sync(fd)

    def sync_dir(self, path):
        if len(path.name) == 2:
            for inode in self.late:
                self.note("sync", inode=inode)
            self.late = []
        super().sync_dir(path)


MUTANTS = {
    "state files without fsync": NoFileSync,
    "journal's head without fsync": NoJournalHeadSync,
    "journal's tokens without fsync": NoJournalSync,
    "backup without fsync": NoBackupSync,
    "state directories without fsync": without_dir_sync("NoStateDir", lambda p: len(p.name) == 2),
    "new directories without fsync": without_dir_sync("NoNewDir", lambda p: "states-1" in str(p) and len(p.name) != 2),
    "cache directory without fsync": without_dir_sync("NoCacheDir", lambda p: p.name == "cache"),
    "journals' directory without fsync": without_dir_sync("NoJournalDir", lambda p: p.name == "journals"),
    "data directory without fsync": without_dir_sync("NoDataDir", lambda p: p.name == "data"),
    "backups' directory without fsync": without_dir_sync("NoBackupDir", lambda p: p.name == "backups"),
    "names before bytes": RenameFirst,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_of_the_write_protocol_is_caught(name, tmp_path):
    behind = ("rename",) if name == "names before bytes" else ("ack",)
    with pytest.raises(AssertionError):
        run(tmp_path, 1.0, recorder=MUTANTS[name], behind=behind)


def test_the_mutant_that_writes_the_row_before_the_files_is_caught(tmp_path, monkeypatch):
    real = Bundles.save

    def row_first(self, state_key, tokens, *rest):
        node_id, database = row_first.where
        with database.write() as tx:
            states.put_state(tx, states.NodeState(node_id, state_key, len(tokens), "x", True, 1, 0.0))
        return real(self, state_key, tokens, *rest)

    def save_state(database, bundles, node_id, *rest):
        row_first.where = (node_id, database)
        return kept(database, bundles, node_id, *rest)

    kept = states.save_state
    monkeypatch.setattr(states, "save_state", save_state)
    monkeypatch.setattr(Bundles, "save", row_first)
    with pytest.raises(AssertionError):
        run(tmp_path, 1.0, seed=1)


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
@pytest.mark.parametrize("part", range(20))
def test_fifty_thousand_states(part, tmp_path):
    looked = seed = 0
    while looked < 2500:
        looked += run(tmp_path, 1.0, seed=1000 * part + seed, limit=2500 - looked)
        seed += 1
    report(5, part=part, states=looked, lost=0, wrong=0)
