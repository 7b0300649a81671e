"""What a save need not look at again: of a long list it looks at directories, and misses nothing that is gone."""

import os
import time

import numpy as np
import pytest
from faults.kit import KEY, assert_true, chunks, logits, open_library, state_files

from snapshots import Chunk, Message, quota
from snapshots.files import Files
from snapshots.looks import MARK, note_removal
from snapshots.places import LAYOUT, Chain

LONG = [(7 * i) % 300 for i in range(64 * 600 + 5)]


def keep(library, tokens, node_id=None):
    """Save what the store asks for, made faster than `save` makes it."""
    found, start = [], library.save_from(KEY, tokens)
    while start < len(tokens):
        stop = min(len(tokens), start - start % 64 + 64)
        found.append(Chunk(start, stop, {"k": np.array(tokens[start:stop], "u2")}))
        start = stop
    return library.save_state(node_id, KEY, tokens, found, logits=np.zeros(3, "f4"))


def assert_kept(library, tokens):
    state = library.load_state(KEY, tokens)
    assert state.rung == "bundle"
    assert np.concatenate([chunk.arrays["k"] for chunk in state.chunks]).tolist() == tokens


def test_a_long_list_is_not_looked_at_file_by_file_and_another_process_is_noticed(tmp_path):
    class Counting(Files):
        looks = 0

        def facts(self, path):
            self.looks += 1
            return super().facts(path)

    files = Counting()
    with open_library(tmp_path, files) as library:
        keep(library, LONG)
        time.sleep(0.06)  # the clock's tick in which the files came: what happens within it can't be told
        assert library.save_from(KEY, LONG) == len(LONG)
        files.looks = 0
        for turn in range(3):
            assert keep(library, [*LONG, *range(500 * turn, 500 * turn + 70)]).complete
        assert files.looks < 3 * 2 * 150 < 3 * 600
        with open_library(tmp_path) as other:
            for at in (7, 150, 599):
                path = segment(tmp_path, at)
                for harm in (path.unlink, lambda path=path: replace(path)):
                    harm()
                    assert 64 * at in [library.save_from(KEY, LONG) for _ in range(8)], "one eighth of them a look"
                    assert keep(library, LONG).covered == len(LONG)
                    keep(other, [*LONG, at])
                    assert library.save_from(KEY, [*LONG, at, 1]) == len(LONG) + 1
            assert_kept(library, LONG)


@pytest.mark.parametrize("lists", [2, 4])
def test_lists_that_are_saved_in_turn_are_each_looked_at_whole(tmp_path, lists):
    """Whichever lists there are and however they take turns: no directory of one is left to the others' looks."""
    forks = [[fork, *LONG, *LONG[: 64 * 40]] for fork in range(lists)]
    with open_library(tmp_path) as library:
        for fork in forks:
            keep(library, fork)
        for at in range(40, 48):
            path = Chain(tmp_path / "cache", KEY, forks[0]).segment(64 * at, 64 * at + 64)
            for harm in (path.unlink, lambda path=path: path.write_bytes(b"x" * path.stat().st_size)):
                harm()
                looks = [library.save_from(KEY, fork) for _ in range(20) for fork in forks]
                assert 64 * at in looks[::lists]
                assert set(looks[1::lists]) == {len(forks[1])}
                assert keep(library, forks[0]).complete


def test_a_file_that_was_removed_from_a_directory_that_we_write_to_is_missed(tmp_path):
    with open_library(tmp_path) as library:
        keep(library, LONG)
        time.sleep(0.06)
        keep(library, LONG)
        for at in range(300, 308):
            victim = segment(tmp_path, at)
            victim.unlink()
            more = ([*LONG[:-5], *([x] * 64)] for x in range(9999))
            there = (
                t for t in more if Chain(tmp_path / "cache", KEY, t).segment(64 * 600, 64 * 601).parent == victim.parent
            )
            tokens = next(there)
            for _ in range(8):
                keep(library, tokens)
                time.sleep(0.06)
            assert victim.exists()
            keep(library, LONG)


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_save_does_not_take_the_look_of_another_list_for_its_own(tmp_path, meanwhile):
    one, other = LONG[: 64 * 600], [1, *LONG[: 64 * 600 - 1]]
    with open_library(tmp_path) as library:
        keep(library, one)
        keep(library, other)
        time.sleep(0.06)
        keep(library, one)
        keep(library, other)
        if meanwhile:
            library.save_from(KEY, one)
        chain = Chain(tmp_path / "cache", KEY, one)
        gone = [chain.segment(64 * at, 64 * at + 64) for at in range(580, 600)]
        quota.remove(Files(), tmp_path / "cache", {str(path): path.stat() for path in gone})
        library.save_from(KEY, other)
        report = library.save_state(None, KEY, one, [], logits=np.zeros(3, "f4"))
        assert not report.complete or meanwhile
        keep(library, one)
        assert all(path.exists() for path in gone)


def test_a_block_that_was_replaced_behind_the_look_is_not_taken_for_the_one_that_was_verified(tmp_path):
    with open_library(tmp_path) as library:
        keep(library, LONG)
        start = library.save_from(KEY, LONG)
        path = segment(tmp_path, 500)
        replace(path)
        note_removal(Files(), tmp_path / "cache" / LAYOUT)
        time.sleep(0.3)
        report = library.save_state(None, KEY, LONG, [], logits=np.zeros(3, "f4"))
        assert (start, report.complete) == (len(LONG), False)
        assert keep(library, LONG).complete
        assert_kept(library, LONG)


def test_what_an_eviction_removes_is_missed_by_the_next_save_also_in_another_process(tmp_path):
    with open_library(tmp_path) as library, open_library(tmp_path) as other:
        node = library.add_node(library.new_conversation().id, None, Message("raw", "long", tuple(LONG)))
        keep(library, LONG, node.id)
        for cap in (20_000, 150_000, 70_000):
            other.set_cap(cap)
            assert other.make_room(1 << 30).files
            there = other.longest_prefix(KEY, LONG)
            assert 0 < there < len(LONG)
            assert library.save_from(KEY, LONG) == there
            assert keep(library, LONG, node.id).complete
        assert_kept(library, LONG)


def test_a_purge_by_hand_that_leaves_the_directories_is_seen_by_the_next_save(tmp_path):
    with open_library(tmp_path) as library:
        keep(library, LONG)
        for _ in range(5):  # whichever files a look takes
            for path in state_files(tmp_path):
                path.unlink()
            assert library.save_from(KEY, LONG) == 0
            assert keep(library, LONG).complete
            keep(library, [*LONG, 1])
        assert_kept(library, LONG)


@pytest.mark.parametrize("strange", ["directory", "link", "pipe"])
def test_something_strange_in_the_place_of_the_mark_is_left_alone_and_hinders_no_eviction(tmp_path, strange):
    with open_library(tmp_path) as library, open_library(tmp_path) as other:
        keep(library, LONG)
        mark, victim = tmp_path / "cache" / LAYOUT / MARK, tmp_path / "victim"
        victim.write_bytes(b"mine")
        if strange == "directory":
            mark.mkdir()
        elif strange == "link":
            mark.symlink_to(victim)
        else:
            os.mkfifo(mark)
        assert other.collect_garbage().files == 0, "all is too new"
        other.set_cap(10_000)
        assert other.make_room(1 << 30).files
        assert 0 in [library.save_from(KEY, LONG) for _ in range(8)]
        assert keep(library, LONG).complete
        assert victim.read_bytes() == b"mine"


def segment(folder, at):
    """The file of a whole block of LONG."""
    path = Chain(folder / "cache", KEY, LONG).segment(64 * at, 64 * at + 64)
    assert path in state_files(folder)
    return path


def replace(path):
    """Put another file in the place of one."""
    path.with_name("x").write_bytes(b"x" * path.stat().st_size)
    path.with_name("x").replace(path)


def test_a_file_of_a_long_list_that_was_changed_in_its_place_is_found_by_one_of_the_next_saves(tmp_path):
    with open_library(tmp_path) as library:
        keep(library, LONG)
        path = segment(tmp_path, 200)
        path.write_bytes(b"x" * path.stat().st_size)
        assert 64 * 200 in [library.save_from(KEY, LONG) for _ in range(20)]
        report = keep(library, LONG)
        assert (report.segments_healed, report.complete) == (1, True)
        assert_kept(library, LONG)


def test_a_list_that_gives_itself_to_numpy_means_the_same_as_its_ids(tmp_path):
    ids = [(7 * i) % 300 for i in range(130)]
    given = np.array(ids)
    out = logits(ids)
    with open_library(tmp_path) as library:
        library.save_state(None, KEY, given, chunks(ids), logits=out, hidden=out[:8], dice_key=b"dice" * 4)
        assert library.longest_prefix(KEY, ids) == library.longest_prefix(KEY, given) == 130
        assert_true(library.load_state(KEY, ids), ids)
        for bad in (-1, 1 << 32):
            for tokens in ([1, bad], np.array([1, bad])):
                with pytest.raises(OverflowError):
                    library.longest_prefix(KEY, tokens)
