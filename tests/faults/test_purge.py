"""The cache dir may vanish at any moment, whole or in part: transcripts stay, states heal, nothing raises."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from faults.kit import KEY, assert_true, chunks, logits, open_library, save, state_files, talk
from faults.report import report
from snapshots import Message, StoreError
from snapshots.files import Files

TOKENS = list(range(70))


def test_without_the_cache_dir_everything_but_the_states_is_there(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("kept")
        node = library.add_node(chat.id, None, Message("user", "x", tuple(TOKENS)), state_key=KEY)
        save(library, TOKENS, node.id)
        before = library.node_states(node.id)
        for _ in range(2):  # under a running program, and before a start
            shutil.rmtree(tmp_path / "cache")
            assert library.load_state(KEY, TOKENS).rung == "recomputed"
            assert library.longest_prefix(KEY, TOKENS) == 0
            assert library.verify_files(node.id).final == "missing"
            assert library.stats().bundle_files == 0
            assert library.save_from(KEY, TOKENS) == 0
            assert save(library, TOKENS, node.id).complete
            assert library.load_state(KEY, TOKENS).rung == "bundle"
            library.close()
            library = open_library(tmp_path)
        assert library.node(node.id).text == "x"
        assert library.node_states(node.id)[0].logits_digest == before[0].logits_digest
        library.close()


def test_any_single_file_may_be_missing(tmp_path):
    with open_library(tmp_path) as library:
        save(library, TOKENS)
        for path in state_files(tmp_path):
            path.unlink()
            state = library.load_state(KEY, TOKENS)
            assert (state.rung, state.damaged) == ("partial" if state.n_valid else "recomputed", 0)
            assert_true(state, TOKENS)
            assert save(library, TOKENS).complete
            assert library.load_state(KEY, TOKENS).rung == "bundle"


def test_a_purge_at_any_call_of_a_save_ends_in_a_complete_save(tmp_path):
    class Purging(Files):
        """Removes the cache dir just before the call number `at`."""

        def __init__(self, folder, at):
            self.folder, self.at, self.count = folder, at, 0

        def _tick(self):
            self.count += 1
            if self.count == self.at:
                shutil.rmtree(self.folder, ignore_errors=True)

        def create(self, path):
            self._tick()
            return super().create(path)

        def sync(self, fd):
            self._tick()
            super().sync(fd)

        def make_dirs(self, path):
            self._tick()
            super().make_dirs(path)

        def rename(self, source, target):
            self._tick()
            super().rename(source, target)

        def sync_dir(self, path):
            self._tick()
            super().sync_dir(path)

    out = logits(TOKENS)
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        files = Purging(folder / "cache", at)
        with open_library(folder, files) as library:
            report = library.save_state(
                None, KEY, TOKENS, chunks(TOKENS), logits=out, hidden=out[:8], dice_key=b"dice" * 4
            )
            assert_true(library.load_state(KEY, TOKENS), TOKENS)
            # A purge behind the last rename takes what was written. The report says what was there at its end.
            assert report.covered == library.longest_prefix(KEY, TOKENS)
            calls, files.at = files.count, 0
            assert save(library, TOKENS).complete
            assert library.load_state(KEY, TOKENS).rung == "bundle"
        if calls < at:
            break
    assert at > 20


def test_a_purger_at_work_all_the_time_never_breaks_a_save_or_a_load(tmp_path):
    stop = threading.Event()
    dice = random.Random(4)

    def purge():
        while not stop.is_set():
            root = tmp_path / "cache"
            if dice.random() < 0.3:
                shutil.rmtree(root, ignore_errors=True)
            else:
                for folder, _, names in os.walk(root):
                    for name in names:
                        if dice.random() < 0.3:
                            with contextlib.suppress(OSError):
                                os.unlink(os.path.join(folder, name))
            time.sleep(0.002)

    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        thread = threading.Thread(target=purge)
        thread.start()
        try:
            parent, kept = None, []
            for turn in range(12):
                _, reply = talk(library, chat.id, parent, f"turn number {turn}", 20)
                parent = reply.id
                kept.append(reply.id)
                tokens = library.tokens(parent)
                with contextlib.suppress(StoreError):  # a purge within each of three tries
                    save(library, tokens, parent)
                assert_true(library.load_state(KEY, tokens), tokens)
        finally:
            stop.set()
            thread.join()
        assert [n.id for n in library.path(parent)][1::2] == kept
        assert save(library, tokens, parent).complete
        assert_true(library.load_state(KEY, tokens), tokens)


def run(folder, turns, seed):
    script = Path(__file__).with_name("purge_loop.py")
    command = [sys.executable, str(script), str(folder), str(turns), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_processes_that_read_write_and_evict_while_all_is_purged(tmp_path):
    figures = run(tmp_path, 80, seed=1)
    assert figures["healed"] == 80
    assert figures["purges"] > 4  # 15 to 26 on an idle machine: how many there are is the scheduler's choice
    assert figures["evictions"] > 1
    report(14, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_purge_at_any_moment(seed, tmp_path):
    report(14, seed=seed, **run(tmp_path, 600, seed))
