"""The journal of the reply in flight: what a dead process had said is there, once, for whoever takes it over."""

import os
import struct

import pytest
from faults.kit import open_library, talk

from snapshots import JournalGone, Message, ReplyStart, StoreError
from snapshots.files import Files


@pytest.fixture
def start(library):
    chat = library.new_conversation()
    user = library.add_node(chat.id, None, Message("user", "q", (1, 2)))
    return ReplyStart(
        chat.id, user.id, keep=2, tokens=(9,), sampler={"temperature": 0.8, "stop": ["x"]}, dice_key=b"\x00\xff" * 8,
        prompt_key="p", state_key="s", model_path="/m/a.gguf", extra={"resume": True},
    )  # fmt: skip


def test_a_dead_reply_gives_back_its_start_its_tokens_and_its_text(library, start):
    journal = library.begin_journal(start)
    journal.append([70000], "Arr, ")
    journal.append([5, 6], "the tïde\n")
    journal.append([7])
    assert library.dead_replies() == []  # it lives
    journal.close()
    (dead,) = library.dead_replies()
    assert dead.start == start
    assert dead.tokens == (70000, 5, 6, 7)
    assert dead.text == "Arr, the tïde\n"
    assert dead.journal_id == journal.id
    assert not dead.torn


def test_every_append_reaches_the_kernel_and_the_disk_follows_four_times_a_second(tmp_path, start, monkeypatch):
    synced, clock = [], [0.0]

    class Counting(Files):
        def sync(self, fd):
            synced.append(clock[0])
            super().sync(fd)

    monkeypatch.setattr("snapshots.journal.time.monotonic", lambda: clock[0])
    with open_library(tmp_path, Counting()) as library:
        journal = library.begin_journal(start)
        synced.clear()
        for _ in range(20):
            clock[0] += 0.1
            journal.append([1], "a")
        assert synced == pytest.approx([0.3, 0.6, 0.9, 1.2, 1.5, 1.8], abs=1e-6)
        journal.sync()
        assert len(synced) == 7
        journal.close()
        assert len(library.dead_replies()[0].tokens) == 20


def test_a_finished_reply_leaves_no_journal(library, start):
    journal = library.begin_journal(start)
    journal.append([3], "a")
    library.add_node(start.conversation_id, start.parent_id, Message("assistant", "a", (9, 3)), journal=journal)
    journal.append([4], "late")  # a thread that has not heard of it yet
    assert library.dead_replies() == []
    assert list((library.data_dir / "journals").iterdir()) == []
    for i in range(3):
        again = library.begin_journal(start)
        library.add_node(start.conversation_id, start.parent_id, Message("assistant", str(i)), journal=again)
    with library._db.read() as tx:
        assert tx.execute("SELECT count(*) FROM finished_journals").fetchone() == (1,)


def test_a_process_that_dies_between_the_commit_and_the_removal_offers_nothing(tmp_path, start):
    class NoUnlink(Files):
        def unlink(self, path):
            raise OSError(5, "the process ended here")

    with open_library(tmp_path, NoUnlink()) as library:
        journal = library.begin_journal(start)
        with pytest.raises(StoreError):
            library.add_node(start.conversation_id, start.parent_id, Message("assistant", "a", (3,)), journal=journal)
    with open_library(tmp_path) as library:
        assert len(list((library.data_dir / "journals").iterdir())) == 1
        assert library.dead_replies() == []
        assert list((library.data_dir / "journals").iterdir()) == []
        assert [n.text for n in library.children(start.conversation_id, start.parent_id)] == ["a"]


def test_an_adopted_reply_goes_on_where_it_was_and_belongs_to_one_window(library, start, tmp_path):
    journal = library.begin_journal(start)
    journal.append([3, 4], "ab")
    journal.close()
    with open_library(tmp_path) as other:
        dead, mine = library.adopt_reply(journal.id)
        assert dead.tokens == (3, 4)
        assert other.dead_replies() == []
        for take in (other.adopt_reply, other.discard_reply):
            with pytest.raises(JournalGone):
                take(journal.id)
        mine.append([5], "c")
        mine.close()
        (again,) = other.dead_replies()
        assert (again.tokens, again.text) == ((3, 4, 5), "abc")


def test_a_discarded_reply_is_gone(library, start):
    journal = library.begin_journal(start)
    journal.close()
    library.discard_reply(journal.id)
    library.discard_reply(journal.id)
    assert library.dead_replies() == []
    with pytest.raises(JournalGone):
        library.adopt_reply(journal.id)
    for name in ("../tree", "a/b", "", "."):
        with pytest.raises(JournalGone):
            library.adopt_reply(name)


def test_several_dead_replies_come_newest_first(library, start):
    ids = []
    for age in (30, 10, 20):
        journal = library.begin_journal(start)
        journal.append([age])
        journal.close()
        os.utime(journal.path, (1e9 - age, 1e9 - age))
        ids.append(journal.id)
    assert [r.journal_id for r in library.dead_replies()] == [ids[1], ids[2], ids[0]]


def test_a_journal_torn_at_any_length_gives_all_whole_records_and_adopts_cleanly(library, start):
    journal = library.begin_journal(start)
    sizes = [journal.path.stat().st_size]
    for i in range(4):
        journal.append([i], "é" * i)
        sizes.append(journal.path.stat().st_size)
    journal.close()
    data = journal.path.read_bytes()
    for length in range(len(data) + 1):
        path = journal.path
        path.write_bytes(data[:length])
        whole = sum(size <= length for size in sizes) - 1
        found = library.dead_replies()
        if whole < 0:
            assert found == []
            assert path.exists()  # it had a whole start when it got its name: fsck keeps it aside
            continue
        (dead,) = found
        assert dead.tokens == tuple(range(whole))
        assert dead.text == "".join("é" * i for i in range(whole))
        assert dead.torn == (length not in sizes)
        if length % 7 == 0:
            _, mine = library.adopt_reply(journal.id)
            mine.append([99], "!")
            mine.close()
            assert library.dead_replies()[0].tokens == (*range(whole), 99)


def test_no_flipped_bit_of_a_journal_is_believed(library, start):
    journal = library.begin_journal(start)
    for i in range(3):
        journal.append([i], "abc")
    journal.close()
    data = journal.path.read_bytes()
    for bit in range(0, 8 * len(data), 5):  # every byte, each time another bit
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(bad)
        for dead in library.dead_replies():
            assert dead.start == start
            assert dead.tokens == (0, 1, 2)[: len(dead.tokens)]
            assert len(dead.tokens) < 3 or not dead.torn


def test_a_journal_of_a_newer_program_waits_for_it(library, start):
    journal = library.begin_journal(start)
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[8] = 2
    journal.path.write_bytes(data)
    assert library.dead_replies() == []
    assert journal.path.read_bytes() == data


def test_a_draft_that_another_process_takes_away_is_begun_again(tmp_path, start):
    class Thief(Files):
        def __init__(self):
            self.left = 2

        def lock(self, fd):
            self.left -= 1
            if self.left == 1:
                return False
            if self.left == 0:
                for path in (tmp_path / "data" / "journals").glob("*.new"):
                    path.unlink()
            return super().lock(fd)

    with open_library(tmp_path, Thief()) as library:
        journal = library.begin_journal(start)
        journal.append([1])
        journal.close()
        assert [r.tokens for r in library.dead_replies()] == [(1,)]


def test_strange_files_among_the_journals_are_left_alone(library, start, tmp_path):
    journal = library.begin_journal(start)
    folder = journal.path.parent
    os.mkfifo(folder / "fifo.journal")
    (folder / "dir.journal").mkdir()
    (folder / "notes.txt").write_bytes(b"mine")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (folder / "link.journal").symlink_to(victim)
    huge = struct.pack("<IB", 0xFFFFFFFF, 2)
    journal.close()
    with journal.path.open("ab") as file:
        file.write(huge)
    assert [r.torn for r in library.dead_replies()] == [True]
    assert victim.read_bytes() == b"mine"
    assert {p.name for p in folder.iterdir()} >= {"fifo.journal", "dir.journal", "link.journal", "notes.txt"}


def test_a_full_disk_stops_the_journal_with_its_records_whole(tmp_path, start):
    from faults.kit import FailingFiles

    files = FailingFiles({"write"}, at=4, torn=True)
    with open_library(tmp_path, files) as library:
        journal = library.begin_journal(start)  # two writes
        journal.append([1], "a")
        journal.append([2], "b")
        with pytest.raises(StoreError):
            journal.append([3], "c")
        journal.append([4], "d")
        journal.close()
        (dead,) = library.dead_replies()
        assert (dead.tokens, dead.text, dead.torn) == ((1, 2, 4), "abd", False)


def test_the_tree_can_be_used_while_a_reply_is_in_flight(library, start):
    journal = library.begin_journal(start)
    other = library.new_conversation()
    talk(library, other.id, None, "meanwhile")
    journal.append([1])
    journal.discard()
    assert library.dead_replies() == []


def test_a_record_of_a_kind_that_is_not_known_is_passed_over(library, start):
    journal = library.begin_journal(start)
    journal.append([1], "a")
    journal.add(9, b"of a later version")
    journal.append([2], "b")
    journal.close()
    (dead,) = library.dead_replies()
    assert (dead.tokens, dead.text, dead.torn) == ((1, 2), "ab", False)


def test_a_record_that_claims_more_tokens_than_it_has_ends_the_reply(library, start):
    journal = library.begin_journal(start)
    journal.append([1], "a")
    journal.add(2, struct.pack("<II", 5, 7))
    journal.append([2], "b")
    journal.close()
    (dead,) = library.dead_replies()
    assert (dead.tokens, dead.text, dead.torn) == ((1,), "a", True)


def test_a_journal_that_was_closed_takes_nothing_and_can_be_closed_again(library, start):
    journal = library.begin_journal(start)
    journal.append([1], "a")
    journal.close()
    size = journal.path.stat().st_size
    journal.append([2], "b")
    journal.sync()
    journal.close()
    journal.discard()
    assert journal.path.stat().st_size == size


def test_a_draft_that_a_killed_process_left_is_removed(library, start):
    journal = library.begin_journal(start)
    journal.close()
    draft = journal.path.with_name("a" * 32 + ".new")
    draft.write_bytes(b"")
    assert [each.journal_id for each in library.dead_replies()] == [journal.id]
    assert not draft.exists()


def test_a_journal_without_a_whole_start_cannot_be_adopted(library, start):
    journal = library.begin_journal(start)
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes()[:40])
    with pytest.raises(JournalGone, match="empty"):
        library.adopt_reply(journal.id)


def test_three_drafts_that_others_hold_are_a_typed_error(tmp_path, start):
    class Held(Files):
        def lock(self, fd):
            return False

    with open_library(tmp_path) as library:
        library._journals._files = Held()
        with pytest.raises(StoreError, match="taken away"):
            library.begin_journal(start)


def test_a_journal_that_cannot_be_written_anew_goes_on_when_it_can(tmp_path, start):
    class Unlucky(Files):
        syncs_fail = locked_by_others = False

        def sync(self, fd):
            if self.syncs_fail:
                raise OSError(5, "input/output error")
            super().sync(fd)

        def lock(self, fd):
            return not self.locked_by_others and super().lock(fd)

    files = Unlucky()
    with open_library(tmp_path, files) as library:
        journal = library.begin_journal(start)
        journal.append([1], "a")
        files.syncs_fail = True
        with pytest.raises(StoreError):
            journal.sync()
        files.syncs_fail, files.locked_by_others = False, True
        with pytest.raises(StoreError, match="busy"):
            journal.sync()
        files.locked_by_others = False
        journal.append([2], "b")
        journal.sync()
        journal.close()
        (dead,) = library.dead_replies()
        assert (dead.tokens, dead.torn) == ((1, 2), False)


def test_what_another_process_writes_is_told_apart_from_what_died_and_what_is_ours(library, tmp_path, start):
    with open_library(tmp_path) as other:
        theirs = other.begin_journal(start)
        assert library.replies_elsewhere() == [start]
        assert other.replies_elsewhere() == []
        assert library.dead_replies() == []
        theirs.close()
        assert library.replies_elsewhere() == []
        dead, ours = library.adopt_reply(theirs.id)
        assert dead.start == start
        assert library.replies_elsewhere() == []
        assert other.replies_elsewhere() == []  # it was begun there, and does not interest there
        ours.append([5], "x")
        library.add_node(
            start.conversation_id, start.parent_id, Message("assistant", "x", (9, 5), keep=2), journal=ours
        )
        assert other.dead_replies() == library.dead_replies() == []


def test_a_journal_that_cannot_be_opened_or_locked_is_no_reply_elsewhere(tmp_path, start):
    class Closed(Files):
        def lock(self, fd):
            raise OSError(5, "no locks here")

    with open_library(tmp_path) as writing, open_library(tmp_path, Closed()) as library:
        journal = writing.begin_journal(start)
        assert library.replies_elsewhere() == []
        journal.path.rename(journal.path.with_suffix(".aside"))
        journal.path.symlink_to(journal.path.with_suffix(".aside"))
        assert writing.replies_elsewhere() == library.replies_elsewhere() == []
