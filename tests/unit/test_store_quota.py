"""The cap on states: what goes first, what stays, and that no word is ever among it."""

import os
import random
import shutil
import time

import pytest
from faults.kit import KEY, assert_true, save, state_files

from app.config import ConfigError, load_config
from app.events import Notice, Restored
from snapshots import Message, UnknownNode, find, quota, tree
from snapshots.files import Files
from snapshots.fsck import fsck
from snapshots.places import Chain


def chain(library, *lengths, start=0):
    """A conversation whose messages have so many tokens each, with their states saved; gives the node ids."""
    chat, parent, ids = library.new_conversation(), None, []
    for at, length in enumerate(lengths):
        tokens = tuple(range(start + 1000 * at, start + 1000 * at + length))
        parent = library.add_node(chat.id, parent, Message("raw", f"{start} {at}", tokens), state_key=KEY).id
        save(library, library.tokens(parent), parent)
        ids.append(parent)
    library.new_conversation()  # nobody stands in the other one any more
    with library._db.write() as tx:
        tx.execute("DELETE FROM positions")
    return ids


def valid(library, node_id):
    tokens = library.tokens(node_id)
    state = library.load_state(KEY, tokens)
    assert_true(state, tokens)
    return state.n_valid


def size_of(library):
    return library.stats().bundle_bytes


def test_nothing_goes_while_the_cap_holds(library, tmp_path):
    chain(library, 100, 100)
    before = state_files(tmp_path)
    library.set_cap(size_of(library))
    assert library.make_room() is None
    assert state_files(tmp_path) == before


def test_the_least_recently_used_goes_first_and_only_as_far_as_needed(library):
    old, middle, new = (chain(library, 200, start=20_000 * n)[0] for n in range(3))
    library.note_use(old)
    library.set_cap(int(0.95 * size_of(library)))
    eviction = library.make_room()
    assert (eviction.demoted, eviction.files > 0) == (1, True)
    assert size_of(library) <= library.cap * quota.TARGET
    assert (valid(library, old), valid(library, new)) == (200, 200)
    assert 0 < valid(library, middle) < 200  # its beginning stays as far as it fits
    assert [library.node(each).text for each in (old, middle, new)]


def test_pinned_ones_quicksaves_and_places_go_last(library):
    pinned, quick, place, other, newest = (chain(library, 150, start=20_000 * n)[0] for n in range(5))
    library.pin(pinned)
    library.quicksave(quick)
    library.move_head(library.node(place).conversation_id, place)
    library.note_use(newest)
    each = size_of(library) // 5
    library.set_cap(int(3.1 * each / quota.TARGET))
    library.make_room()
    assert [valid(library, each) for each in (pinned, quick, place)] == [150] * 3
    assert valid(library, other) == 0
    library.set_cap(0)  # a cap is a cap: what is spared goes last, but goes
    library.make_room()
    assert valid(library, pinned) == 0
    assert library.pins() == [pinned]
    library.pin(pinned, False)
    assert library.pins() == []


def test_what_branches_share_stays_with_the_last_of_them(library):
    first, *_ = chain(library, 300)
    chat = library.node(first).conversation_id
    leaves = []
    for branch in range(4):
        leaf = library.add_node(
            chat, first, Message("raw", f"b{branch}", tuple(range(9000 + 99 * branch, 9099 + 99 * branch)))
        )
        save(library, library.tokens(leaf.id), leaf.id)
        leaves.append(leaf.id)
    with library._db.write() as tx:
        tx.execute("DELETE FROM positions")
    library.set_cap(int(0.8 * size_of(library)))
    library.make_room()
    assert valid(library, leaves[-1]) == 399
    assert valid(library, leaves[0]) >= 256  # what it shares with the last used one is still there


def test_a_demoted_state_is_saved_again_whole(library):
    (node,) = chain(library, 150)
    library.set_cap(0)
    library.make_room()
    assert valid(library, node) == 0
    tokens = library.tokens(node)
    assert save(library, tokens, node).complete
    assert valid(library, node) == 150


def test_garbage_is_what_no_message_needs(library, tmp_path):
    (kept,), (deleted,) = chain(library, 100), chain(library, 100, start=50_000)
    save(library, list(range(70_000, 70_100)))  # no message's
    library.delete(deleted)
    old = time.time() - 2 * quota.FRESH_S
    for path in state_files(tmp_path):
        os.utime(path, (old, old))
    save(library, list(range(80_000, 80_050)))  # just written: its row may be on the way
    found = library.collect_garbage()
    assert found.files == 6
    assert valid(library, kept) == 100
    assert library.longest_prefix(KEY, library.tokens(deleted)) == 0
    assert library.longest_prefix(KEY, list(range(80_000, 80_050))) == 50
    library.undo()
    assert library.node(deleted).text == "50000 0"
    assert library.collect_garbage().files == 0


def test_room_is_counted_once_and_then_kept_up_to_date(library, tmp_path, monkeypatch):
    chain(library, 100)
    counts = []
    real = quota.listed
    monkeypatch.setattr(quota, "listed", lambda *where: counts.append(1) or real(*where))
    library.set_cap(10**9)
    for _ in range(5):
        assert library.make_room(1000) is None
    assert len(counts) == 1
    assert library.make_room(10**9) is None  # it seems too much, so what is there is counted: it is not
    assert len(counts) == 2


def test_the_default_cap_is_a_tenth_of_the_disk_and_ten_gibibytes_at_most(library, tmp_path, monkeypatch):
    total = shutil.disk_usage(tmp_path).total
    assert library.cap == min(10 << 30, total // 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**15, 0, 0))
    assert quota.default_cap(Files(), tmp_path / "not" / "there") == 10 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 0))
    assert quota.default_cap(Files(), tmp_path) == 10**8


def test_a_footprint_tells_what_is_its_own_and_what_losing_it_costs(library):
    first, second = chain(library, 200, 100)
    chain(library, 50, start=90_000)
    found = library.footprint(second)
    assert (found.n_tokens, found.now_tokens) == (300, 300)
    assert found.size_bytes == found.unique_bytes + found.shared_bytes
    assert found.recompute_tokens == 108  # the first message's state ends in the middle of a block, at 200: 192 stay
    assert library.footprint(first).unique_bytes < found.size_bytes
    with pytest.raises(UnknownNode):
        library.footprint("0" * 64)


def test_a_footprint_sees_what_other_conversations_share(library):
    (one,) = chain(library, 150)
    (two,) = chain(library, 150)
    assert library.footprint(one).unique_bytes == 0
    assert library.footprint(two).recompute_tokens == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('"20 GB"', 20 * 10**9),
        ('"1.5GiB"', 3 << 29),
        ("5000", 5000),
        ('"0"', 0),
        ('"7 k"', 7000),
        ('"300 mib"', 300 << 20),
    ],
)
def test_the_config_file_sets_the_quota(tmp_path, text, size):
    (tmp_path / "config.toml").write_text(f"quota = {text}\n")
    assert load_config(tmp_path).quota == size


@pytest.mark.parametrize("text", ["-1", '"a lot"', "true", "1.5", '"5 parsecs"', "[]"])
def test_a_quota_that_is_no_size_is_refused(tmp_path, text):
    (tmp_path / "config.toml").write_text(f"quota = {text}\n")
    with pytest.raises(ConfigError):
        load_config(tmp_path)


def test_the_commands_pin_count_and_collect(call, chats):
    chat = chats()
    chat.send("hello")
    chat.save("here")
    chat.flush()
    chat.close()
    assert "is pinned" in call("pin", "here")[1]
    assert "pinned" in call("stats", "here")[1]
    out = call("stats", "here")[1]
    assert "if this were evicted: resume by recomputing" in out
    assert "quota bytes" in call("stats")[1]
    code, out, _ = call("gc")
    assert (code, out.startswith("Removed 0 files")) == (0, True)
    assert call("pin", "here", "--off")[0] == 0


def test_a_chat_over_its_quota_goes_on_and_resumes_by_recomputing(chats):
    chat = chats(script={"hello": "Good day.", "more": "And good night."})
    chat._own.set_cap(1)
    chat.send("hello")
    chat.save("first")
    chat.send("more")
    chat.flush()
    assert chat._own.stats().bundle_files == 0
    assert [n for n in chat.heard.of(Notice) if "made room" in n.sentence][1:] == []  # said once
    chat.close()
    again = chats(at="first", script={"hello": "Good day.", "more": "And good night."})
    restored = again.heard.of(Restored)[-1]
    assert (restored.rung, restored.bit_exact) == ("recomputed", True)
    assert [m.text for m in again.transcript()] == ["hello", "Good day."]


def test_opening_a_chat_counts_in_the_background_and_indexes_text(chats):
    chat = chats(script={"hello": "Good day."})
    chat.send("hello")
    chat.flush()
    chat.close()
    again = chats()
    again.flush()
    assert again._own._room._counted == again._own.stats().bundle_bytes > 0
    with again._own._db.read() as tx:
        assert not find.is_behind(tx)


def test_a_conversation_that_begins_with_a_message_of_no_tokens_has_a_footprint(library):
    chat = library.new_conversation()
    empty = library.add_node(chat.id, None, Message("user", "nothing"))
    assert library.footprint(empty.id).size_bytes == 0


def test_conversations_that_begin_otherwise_share_no_files(library):
    first, same, other = chain(library, 70)[0], chain(library, 70)[0], chain(library, 80, start=500)[0]
    with library._db.read() as tx:
        found = [quota.relatives(tx, node_id) for node_id in (first, other)]
    theirs = [library.node(node_id).conversation_id for node_id in (first, same, other)]
    assert found == [set(theirs[:2]), {theirs[2]}]


def test_more_conversations_than_are_remembered_are_swept_all_the_same(library, monkeypatch):
    monkeypatch.setattr(quota, "_LINEAGES", 1)
    for number in range(3):
        chat = library.new_conversation()
        tokens = list(range(100 * number, 100 * number + 70))
        node = library.add_node(chat.id, None, Message("user", str(number), tuple(tokens)))
        save(library, tokens, node.id)
    assert library.collect_garbage().files == 0
    for number in range(3):
        assert library.longest_prefix(KEY, list(range(100 * number, 100 * number + 70))) == 70


def test_a_disk_that_does_not_tell_its_size_counts_as_large(tmp_path):
    class Silent(Files):
        def disk_size(self, path):
            raise OSError(5, "no answer")

    assert quota.default_cap(Silent(), tmp_path) == quota.MOST


def test_strange_files_among_the_states_are_not_counted(library, tmp_path):
    save(library, list(range(70)))
    before = library.stats()
    for path in list((tmp_path / "cache").glob("states-1/*/??"))[:1]:
        (path / "notes.txt").write_text("mine")
    assert library.stats()[4:] == before[4:]
    assert fsck(tmp_path / "data", tmp_path / "cache").left == 0


def test_every_messages_token_list_is_that_of_its_path_however_often_a_conversation_forks(library):
    dice = random.Random(5)
    chat, nodes = library.new_conversation(), [None]
    with library._db.write() as tx:
        for number in range(400):
            parent = dice.choice(nodes[-3:] if dice.random() < 0.8 else nodes)
            before = tree.node(tx, parent).n_tokens if parent else 0
            keep = before if dice.random() < 0.8 else dice.randrange(before + 1)
            own = tuple(dice.randrange(100_000) for _ in range(dice.randrange(9)))
            nodes.append(tree.put_node(tx, chat.id, parent, Message("user", f"{number}", own, keep=keep), "")[0].id)
        lineage = quota.Lineage(tx, chat.id)
        for each in dice.choices(nodes[1:], k=600):
            assert lineage.tokens(each).tolist() == tree.tokens_of(tree.path(tx, each))
        assert lineage.tokens("0" * 64).tolist() == []


def test_the_files_of_many_states_are_those_of_each(library, tmp_path):
    base, found = list(range(300)), []
    chat = library.new_conversation()
    root = library.add_node(chat.id, None, Message("user", "long", tuple(base)), state_key=KEY)
    save(library, base, root.id)
    for number, keep in enumerate((300, 300, 250, 128, 64, 10, 300)):
        own = (9000 + number,) * 70
        node = library.add_node(chat.id, root.id, Message("assistant", f"{number}", own, keep=keep), state_key=KEY)
        save(library, [*base[:keep], *own], node.id)
        found.append(node.id)
    next(iter(state_files(tmp_path))).unlink()
    order = [(each, chat.id, KEY) for each in (root.id, *found, root.id)]
    for state in quota.all_files(library._db, library.cache_dir, order, os.path.exists):
        chain = Chain(library.cache_dir, KEY, library.tokens(state.node_id))
        pieces = [piece for piece in state.pieces if piece.path.suffix == ".seg"]
        assert pieces == chain.plan(os.path.exists)
