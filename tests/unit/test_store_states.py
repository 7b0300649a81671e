"""States on disk: what is written once, what is found again, what a fork shares, what a restore may believe."""

import os
import sqlite3
import threading
import time

import numpy as np
import pytest
from faults.kit import KEY, assert_true, chunk, chunks, logits, open_library, save, state_files

from snapshots import BadNode, Chunk, Message, StoreError, UnknownNode, pieces, segment, tree
from snapshots.files import Files
from snapshots.places import Chain

LENGTHS = [0, 1, 2, 63, 64, 65, 127, 128, 129, 200]


@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_saved_comes_back_bit_for_bit_after_a_restart(tmp_path, length):
    tokens = [(7 * i) % 300 for i in range(length)]
    with open_library(tmp_path) as library:
        assert library.save_from(KEY, tokens) == 0
        report = save(library, tokens)
        assert (report.covered, report.complete) == (length, True)
    with open_library(tmp_path) as library:
        state = library.load_state(KEY, tokens)
        assert state.rung == "bundle"
        assert_true(state, tokens)
        assert library.longest_prefix(KEY, tokens) == length
        assert library.save_from(KEY, tokens) == length


def test_a_turn_writes_only_its_own_tokens_and_a_full_block_becomes_one_file(library):
    tokens = list(range(150))
    save(library, tokens[:100])
    second = save(library, tokens[:110])
    assert (second.segments_written, library.save_from(KEY, tokens[:110])) == (1, 110)
    assert library.save_from(KEY, tokens) == 64  # the block [64, 128) is complete now
    third = save(library, tokens)
    assert third.segments_written == 2
    assert [(c.start, c.stop) for c in library.load_state(KEY, tokens).chunks] == [(0, 64), (64, 128), (128, 150)]
    assert [(c.start, c.stop) for c in library.load_state(KEY, tokens[:110]).chunks] == [(0, 64), (64, 100), (100, 110)]
    assert_true(library.load_state(KEY, tokens[:110]), tokens[:110])


def test_saving_again_writes_nothing(library, tmp_path):
    tokens = list(range(100))
    save(library, tokens)
    before = {path: path.stat().st_mtime_ns for path in state_files(tmp_path)}
    report = save(library, tokens)
    assert (report.segments_written, report.bytes_written, report.complete) == (0, 0, True)
    whole = library.save_state(None, KEY, tokens, chunks(tokens), logits=logits(tokens), hidden=logits(tokens)[:8])
    assert (whole.segments_written, whole.segments_reused) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in state_files(tmp_path)} == before


def test_forks_share_their_prefix_on_disk(library):
    prefix = list(range(640))
    save(library, prefix)
    base = library.stats().bundle_bytes
    for branch in range(5):
        report = save(library, [*prefix, 1000 + branch, 5, 6])
        assert report.segments_written == 1
    assert library.stats().bundle_bytes < 1.3 * base
    for branch in range(5):
        tokens = [*prefix, 1000 + branch, 5, 6]
        assert_true(library.load_state(KEY, tokens), tokens)


def test_21_forks_behind_one_long_prefix_take_little_more_disk_than_one_and_their_own_tokens(library, tmp_path):
    dice = np.random.default_rng(7)

    def disk():  # as `du` counts: blocks of files and directories
        return sum(path.lstat().st_blocks * 512 for path in (tmp_path / "cache").rglob("*"))

    def keep(tokens, start):
        found = []
        for begin in range(start, len(tokens), 64):
            shape = (4, 32, min(64, len(tokens) - begin))
            found.append(Chunk(begin, begin + shape[2], {n: dice.standard_normal(shape).astype("f2") for n in "kv"}))
        library.save_state(None, KEY, tokens, found, logits=dice.standard_normal(256).astype("f4"))

    prefix = list(range(2048))
    keep(prefix, 0)
    one = disk()
    for branch in range(21):
        keep([*prefix, *range(9000 + 40 * branch, 9040 + 40 * branch)], len(prefix))
    own = 21 * 40 * 2 * 4 * 32 * 2
    assert 0.8 * own < disk() - one  # nothing was left out: random numbers do not shrink to nothing
    assert disk() <= 1.3 * (one + own)
    assert library.stats().bundle_files == 32 + 1 + 21 * 2


def test_the_longest_prefix_is_found_across_conversations(library):
    tokens = list(range(300))
    save(library, tokens)
    for shared, expected in [(300, 300), (256, 256), (260, 256), (200, 192), (64, 64), (63, 0), (0, 0)]:
        other = [*tokens[:shared], 9999, 9998]
        assert library.longest_prefix(KEY, other) == expected
        state = library.load_state(KEY, other)
        assert state.n_valid == expected
        assert state.rung == ("partial" if expected else "recomputed")
        assert state.logits is None
        assert_true(state, other)


def test_another_state_key_shares_nothing(library):
    tokens = list(range(100))
    save(library, tokens)
    assert library.longest_prefix("another", tokens) == 0
    assert library.load_state("another", tokens).rung == "recomputed"
    save(library, tokens, key="../../etc")
    assert library.load_state("../../etc", tokens).rung == "bundle"


def test_small_pieces_chain_in_any_way_they_were_cut(library):
    tokens = list(range(64))
    for start, stop in [(0, 5), (0, 9), (5, 20), (9, 13), (20, 40), (13, 30)]:
        library.save_state(None, KEY, tokens[:stop], [chunk(tokens, start, stop)])
    state = library.load_state(KEY, tokens)
    assert [(c.start, c.stop) for c in state.chunks] == [(0, 5), (5, 20), (20, 40)]
    assert_true(state, tokens)
    assert library.load_state(KEY, tokens[:30]).n_valid == 30


def test_a_damaged_piece_is_gone_round_where_others_serve(library, tmp_path):
    tokens = list(range(64))
    save(library, tokens[:10])
    save(library, tokens[:30])
    save(library, tokens)
    whole = max(state_files(tmp_path), key=lambda p: (p.suffix == ".seg", p.stat().st_size))
    whole.write_bytes(whole.read_bytes()[:-1])
    state = library.load_state(KEY, tokens)
    assert (state.n_valid, state.damaged, state.rung) == (30, 1, "partial")
    assert_true(state, tokens)
    report = save(library, tokens)
    assert (report.segments_healed, report.complete) == (1, True)
    assert_true(library.load_state(KEY, tokens), tokens)


def test_a_state_without_logits_is_partial(library):
    tokens = list(range(70))
    report = library.save_state(None, KEY, tokens, chunks(tokens))
    assert (report.covered, report.complete) == (70, False)
    state = library.load_state(KEY, tokens)
    assert (state.n_valid, state.rung, state.logits) == (70, "partial", None)


def test_chunks_with_a_gap_are_reported_as_what_they_cover(library):
    tokens = list(range(200))
    report = library.save_state(None, KEY, tokens, chunks(tokens, 128), logits=logits(tokens))
    assert (report.covered, report.complete) == (0, False)
    assert library.save_from(KEY, tokens) == 0


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (6, 5), (-1, 3), (60, 70), (0, 65), (190, 201)])
def test_a_chunk_that_crosses_a_block_or_the_list_is_refused(library, start, stop):
    with pytest.raises(StoreError):
        library.save_state(None, KEY, list(range(200)), [Chunk(start, stop, {"k": np.zeros(3)})])


def test_the_row_beside_the_node_tells_what_was_saved(library, tmp_path):
    chat = library.new_conversation()
    tokens = list(range(100))
    node = library.add_node(chat.id, None, Message("user", "x", tuple(tokens)))
    save(library, tokens, node.id)
    (row,) = library.node_states(node.id)
    from hashlib import blake2b

    assert row.logits_digest == blake2b(logits(tokens).tobytes(), digest_size=32).hexdigest()
    assert (row.state_key, row.n_tokens, row.has_bundle) == (KEY, 100, True)
    assert row.bytes_stored == sum(p.stat().st_size for p in state_files(tmp_path))
    save(library, tokens, node.id)
    assert library.node_states(node.id)[0].bytes_stored == row.bytes_stored
    save(library, tokens, node.id, key="other")
    assert [r.state_key for r in library.node_states(node.id)] == [KEY, "other"]


def test_a_changed_row_is_not_believed(library, tmp_path):

    chat = library.new_conversation()
    node = library.add_node(chat.id, None, Message("user", "x", (1,)))
    save(library, [1], node.id)
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE node_states SET logits_digest = replace(logits_digest, 'a', 'b')")
    assert library.node_states(node.id) == []
    save(library, [1], node.id)
    assert len(library.node_states(node.id)) == 1


def test_verify_files_names_what_is_missing_or_damaged(library, tmp_path):
    chat = library.new_conversation()
    tokens = list(range(150))
    user = library.add_node(chat.id, None, Message("user", "x", tuple(tokens[:128])), state_key=KEY)
    reply = library.add_node(chat.id, user.id, Message("assistant", "y", tuple(tokens[128:])), state_key=KEY)
    save(library, tokens[:128], user.id)
    save(library, tokens, reply.id)
    check = library.verify_files(reply.id)
    assert (check.n_valid, check.segments, check.final, check.damaged) == (150, 3, "whole", ())
    assert 0 < check.unique_bytes < check.size_bytes
    files = state_files(tmp_path)
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    check = library.verify_files(reply.id)
    assert (check.n_valid, check.final, len(check.damaged)) == (0, "damaged", 4)
    for path in files:
        path.unlink()
    check = library.verify_files(reply.id)
    assert (check.n_valid, check.final, check.damaged, check.size_bytes) == (0, "missing", (), 0)
    with pytest.raises(UnknownNode):
        library.verify_files("f" * 64)


def test_arrays_of_every_kind_survive(library):
    rng = np.random.default_rng(5)
    arrays = {
        "f16": rng.standard_normal((3, 5)).astype("f2"),
        "bits": rng.integers(0, 65536, (2, 3, 4)).astype("u2"),
        "q8": rng.integers(-128, 128, (7,)).astype("i1"),
        "scale": rng.standard_normal((2, 2)).astype("f4"),
        "big": rng.standard_normal(3).astype(">f8"),
        "count": np.array(5, "i8"),
        "none": np.zeros((0, 4), "f4"),
        "turned": rng.standard_normal((4, 6)).astype("f4").T,
    }
    library.save_state(None, KEY, [1], [Chunk(0, 1, arrays)])
    (back,) = library.load_state(KEY, [1]).chunks
    assert list(back.arrays) == list(arrays)
    for name, array in arrays.items():
        assert back.arrays[name].shape == array.shape
        assert back.arrays[name].dtype == array.dtype.newbyteorder("<")
        assert np.array_equal(back.arrays[name], array)
        assert not back.arrays[name].flags.writeable


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(2, "c8"), np.zeros(2, "?")])
def test_arrays_that_the_format_has_no_room_for_are_refused(library, tmp_path, array):
    with pytest.raises(StoreError):
        library.save_state(None, KEY, [1], [Chunk(0, 1, {"k": array})])
    assert state_files(tmp_path) == []


def test_saves_and_loads_of_several_threads_agree(library):
    shared = list(range(130))
    errors = []

    def work(branch):
        try:
            for turn in range(1, 5):
                tokens = [*shared, *([branch] * 30 * turn)]
                assert save(library, tokens).complete
                state = library.load_state(KEY, tokens)
                assert state.rung == "bundle"
                assert_true(state, tokens)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(branch,)) for branch in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_clock_that_is_years_off_changes_nothing(library, tmp_path):
    tokens = list(range(100))
    save(library, tokens)
    for path, when in zip(state_files(tmp_path), [0, 4e9, 1e9], strict=True):
        os.utime(path, (when, when))
    assert library.load_state(KEY, tokens).rung == "bundle"
    assert save(library, tokens).segments_written == 0


def test_saving_a_turn_reads_only_what_is_new_of_its_path(library, monkeypatch):
    chat = library.new_conversation()
    parent, tokens = None, ()
    for at in range(20):
        parent = library.add_node(chat.id, parent, Message("user", f"{at}", (at, at + 1))).id
        tokens += (at, at + 1)
    library.save_state(parent, KEY, tokens, ())
    read, node = [], tree.node
    branch = library.add_node(chat.id, parent, Message("user", "what stands of the rest: 3", (7,), keep=3)).id
    further = library.add_node(chat.id, branch, Message("assistant", "more", (8, 9))).id
    monkeypatch.setattr(tree, "node", lambda tx, node_id: read.append(node_id) or node(tx, node_id))
    library.save_state(branch, KEY, (*tokens[:3], 7), ())
    library.save_state(further, KEY, (*tokens[:3], 7, 8, 9), ())
    library.save_state(parent, KEY, tokens, ())
    assert len(read) == 1 + 1 + 8, "of the last, whose parent was not saved, as many as are near, then all at once"
    with pytest.raises(BadNode):
        library.save_state(further, KEY, (*tokens[:3], 7, 8, 8), ())
    with pytest.raises(UnknownNode):
        library.save_state("0" * 64, KEY, tokens, ())


def test_many_branches_from_one_message_read_what_is_above_it_once(library, monkeypatch):
    chat = library.new_conversation()
    trunk = library.add_node(chat.id, None, Message("raw", "all that was said", tuple(range(1000)))).id
    library.save_state(trunk, KEY, range(1000), ())
    read, node = [], tree.node
    monkeypatch.setattr(tree, "node", lambda tx, node_id: read.append(node_id) or node(tx, node_id))
    for branch in range(12):
        leaf = library.add_node(chat.id, trunk, Message("assistant", f"{branch}", (branch,))).id
        read.clear()
        library.save_state(leaf, KEY, (*range(1000), branch), ())
        assert read == [leaf]


def test_logits_without_dice_are_damaged_and_written_again(library):
    tokens = list(range(70))
    save(library, tokens)
    chain = Chain(library.cache_dir, KEY, tokens)
    final = chain.final()
    for dice in (7, None, "ab" * 1000):
        header = {**pieces.final_header(chain), "dice_key": dice}
        final.write_bytes(segment.encode(header, {"logits": logits(tokens)}))
        state = library.load_state(KEY, tokens)
        assert (state.n_valid, state.logits, state.damaged) == (70, None, 1)
        assert save(library, tokens).complete
        assert_true(library.load_state(KEY, tokens), tokens)


def test_a_cache_that_is_never_there_when_it_is_looked_at_loses_nothing(tmp_path):
    class Blind(Files):
        def signature(self, path):
            return None  # every look comes too early or too late

    tokens = list(range(150))
    with open_library(tmp_path, Blind()) as library:
        for _ in range(2):
            assert save(library, tokens).complete
            assert_true(library.load_state(KEY, tokens), tokens)


def test_a_long_conversation_saves_its_next_turn_without_looking_at_every_file(library, monkeypatch):
    chat = library.new_conversation()
    node = library.add_node(chat.id, None, Message("raw", "long", tuple(n % 5000 for n in range(64 * 300))))
    tokens = library.tokens(node.id)
    save(library, tokens, node.id)
    time.sleep(0.06)  # of names that came a tick of the clock ago a directory tells nothing: one more look at each
    library.save_from(KEY, tokens)
    looks = []
    real = type(library._disk).signature
    monkeypatch.setattr(type(library._disk), "signature", lambda self, path: looks.append(path) or real(self, path))
    for turn in range(3):
        more = [*tokens, *range(turn, turn + 70)]
        looks.clear()
        assert save(library, more).complete
        assert len(looks) < 300
    for path in library.cache_dir.rglob("*.seg"):  # and still a purge in between is seen
        path.unlink()
    assert save(library, tokens, node.id).covered == len(tokens)
    assert library.load_state(KEY, tokens).rung == "bundle"


def test_large_segments_are_coded_in_threads_and_are_the_same(library, monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "GROUP", 1)
    tokens = list(range(600))
    save(library, tokens)
    assert_true(library.load_state(KEY, tokens), tokens)
    assert library.load_state(KEY, tokens).n_valid == 600
