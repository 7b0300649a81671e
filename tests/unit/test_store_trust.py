"""What a save need not look at again: of a long list it looks at directories, and misses nothing that is gone."""

import time

import numpy as np
import pytest
from faults.kit import KEY, assert_true, chunks, logits, open_library, state_files

from snapshots import Chunk
from snapshots.files import Files
from snapshots.places import Chain

LONG = [(7 * i) % 300 for i in range(64 * 600 + 5)]


def keep(library, tokens):
    """Save what the store asks for, made faster than `save` makes it."""
    found, start = [], library.save_from(KEY, tokens)
    while start < len(tokens):
        stop = min(len(tokens), start - start % 64 + 64)
        found.append(Chunk(start, stop, {"k": np.array(tokens[start:stop], "u2")}))
        start = stop
    return library.save_state(None, KEY, tokens, found, logits=np.zeros(3, "f4"))


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
            whole = state_files(tmp_path)
            for at in (7, 150, 599):
                path = Chain(tmp_path / "cache", KEY, LONG).segment(64 * at, 64 * at + 64)
                assert path in whole
                for harm in (path.unlink, lambda path=path: replace(path)):
                    harm()
                    assert library.save_from(KEY, LONG) == 64 * at
                    assert keep(library, LONG).covered == len(LONG)
                    keep(other, [*LONG, at])
                    assert library.save_from(KEY, [*LONG, at, 1]) == len(LONG) + 1
            assert_kept(library, LONG)


def replace(path):
    """Put another file in the place of one."""
    path.with_name("x").write_bytes(b"x" * path.stat().st_size)
    path.with_name("x").replace(path)


def test_a_file_of_a_long_list_that_was_changed_in_its_place_is_found_by_one_of_the_next_saves(tmp_path):
    with open_library(tmp_path) as library:
        keep(library, LONG)
        path = Chain(tmp_path / "cache", KEY, LONG).segment(64 * 200, 64 * 201)
        path.write_bytes(b"x" * path.stat().st_size)
        assert 64 * 200 in [library.save_from(KEY, LONG) for _ in range(11)]
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
