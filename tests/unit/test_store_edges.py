"""Corners of the store that nothing else comes to: what is refused, what is typed, and what is cleaned up."""

import os
import sqlite3
import time

import numpy as np
import pytest
from faults.kit import KEY, assert_true, open_library, save

from snapshots import (
    LibraryDamaged,
    LibraryIsNewer,
    Message,
    Position,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    UnknownNode,
    codec,
    copies,
    database,
    find,
    pieces,
    quota,
    segment,
    tree,
)
from snapshots.errors import DamagedFile
from snapshots.files import Files
from snapshots.fsck import fsck


@pytest.fixture
def chat(library):
    return library.new_conversation("a title")


def test_a_message_that_moves_no_head_makes_its_conversation_the_last_used_one(library, chat):
    other = library.new_conversation()
    library.add_node(chat.id, None, Message("user", "a", (1,)), move_head=False)
    assert [c.id for c in library.conversations()] == [chat.id, other.id]
    assert library.conversation(chat.id).head_id is None


def test_a_title_is_changed_undone_and_changed_again(library, chat):
    library.set_title(chat.id, "another")
    library.undo(chat.id)
    assert library.conversation(chat.id).title == "a title"
    library.redo(chat.id)
    assert library.conversation(chat.id).title == "another"


def test_a_window_cannot_stand_in_another_conversation(library, chat):
    node = library.add_node(library.new_conversation().id, None, Message("user", "a", (1,)))
    with pytest.raises(UnknownNode):
        library.set_position(Position(chat.id, node.id))


def test_drafts_of_copies_that_a_crash_left_go_after_a_day(library, chat):
    library.back_up(now=True)
    folder = copies.folder(library.data_dir)
    for name, age in (("old.new", 3 * 86400), ("young.new", 0)):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - age,) * 2)
    library.back_up(now=True)
    assert sorted(path.name for path in folder.glob("*.new")) == ["young.new"]


def test_a_copy_that_is_no_database_is_said(tmp_path):
    from snapshots import backups

    (tmp_path / "tree-000001.db").write_bytes(b"")
    assert "not a database" in backups.check_copy(tmp_path / "tree-000001.db", Files())[0]


def test_more_messages_than_one_change_takes_are_indexed_all_the_same(library, chat, monkeypatch):
    monkeypatch.setattr(find, "_CATCH_UP", 2)
    parent = None
    for number in range(5):
        parent = library.add_node(chat.id, parent, Message("user", f"lighthouse {number}", (number,))).id
    library.index_text()
    assert len(library.find("lighthouse")) == 5


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


# ----------------------------------------------------------------------------------------------------------- database


def test_while_a_repair_holds_the_library_it_is_busy(tmp_path):
    open_library(tmp_path).close()
    with Files().alone(tmp_path / "data" / "library.lock") as alone:
        assert alone
        with pytest.raises(StoreBusy):
            open_library(tmp_path)


def test_another_programs_database_is_refused(tmp_path):
    open_library(tmp_path).close()
    with sqlite3.connect(tmp_path / "data" / "tree.db") as connection:
        connection.execute("PRAGMA application_id=7")
    connection.close()
    with pytest.raises(LibraryDamaged, match="not a library"):
        open_library(tmp_path)


def test_a_database_with_a_second_name_is_refused(tmp_path):
    open_library(tmp_path).close()
    os.link(tmp_path / "data" / "tree.db", tmp_path / "other.db")
    with pytest.raises(StoreError, match="second name"):
        open_library(tmp_path)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_READONLY, StoreReadOnly),
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_LOCKED, StoreBusy),
        (sqlite3.SQLITE_CORRUPT, LibraryDamaged),
        (sqlite3.SQLITE_IOERR, StoreError),
    ],
)
def test_every_error_of_sqlite_has_a_type_of_the_store(tmp_path, code, error):
    raised = sqlite3.OperationalError("words")
    raised.sqlite_errorcode = code
    with pytest.raises(error), database._typed_errors(tmp_path):
        raise raised


def test_fsck_tells_a_missing_database_and_a_newer_one(tmp_path):
    library = open_library(tmp_path)
    library.close()
    with sqlite3.connect(tmp_path / "data" / "tree.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LibraryIsNewer):
        fsck(tmp_path / "data", tmp_path / "cache")
    (tmp_path / "data" / "tree.db").unlink()
    assert [problem.what for problem in fsck(tmp_path / "data", tmp_path / "cache").problems] == ["there is no tree.db"]


# -------------------------------------------------------------------------------------------------------------- files


def test_a_pipe_and_a_file_that_is_too_large_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Files().read(tmp_path / "pipe", 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger"):
        Files().read(tmp_path / "large", 10)


def test_a_directory_whose_sync_fails_for_good_says_so(tmp_path, monkeypatch):
    def fails(fd):
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="input/output"):
        Files().sync_dir(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:40], "cut short"),
        (lambda data: b"X" + data[1:], "no state file"),
        (lambda data: data[:8] + b"\x09" + data[9:], "version 9"),
        (lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "too large"),
        (lambda data: data + b"x", "wrong length"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "fails its digest"),
    ],
)
def test_a_state_file_that_is_not_one_says_why(tmp_path, change, why):
    data = segment.encode({"kind": "blocks", "tokens": [1]}, {"k": np.arange(4, dtype="<i4")})
    with pytest.raises(DamagedFile, match=why):
        segment.decode(tmp_path, change(data))


def test_more_than_the_format_has_room_for_is_refused(tmp_path):
    with pytest.raises(StoreError, match="too large"):
        codec.encode({str(number): np.zeros(1, "u1") for number in range(65)})
    with pytest.raises(StoreError, match="too large"):
        segment.encode({"kind": "blocks", "words": "x" * (1 << 20)}, {"k": np.zeros(1, "u1")})


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "k", "dtype": "<f2", "shape": [4], "axis": -2, "packed": [1]},
        {"name": "k", "dtype": "<f2", "shape": [4], "axis": 1},
        {"name": "k", "dtype": "<f2", "shape": [4], "packed": [1, 0]},
        {"name": "k", "dtype": "<f2", "shape": [4], "packed": [2]},
        {"name": "k", "dtype": "<f2", "shape": [-4]},
        {"name": "k", "dtype": "object", "shape": [4]},
        {"name": 1, "dtype": "<f2", "shape": [4]},
    ],
)
def test_a_layout_that_cannot_be_is_refused_before_memory_is_taken(entry):
    with pytest.raises(codec.CannotDecode, match="unreadable list"):
        codec.layout({"arrays": [entry]}, 8)


def test_a_body_of_another_length_and_a_bomb_are_refused():
    described = codec.layout({"arrays": [{"name": "k", "dtype": "|u1", "shape": [4]}]}, 4)
    with pytest.raises(codec.CannotDecode, match="wrong length"):
        codec.decode(codec.RAW, described, memoryview(b"abc"), 4)
    with pytest.raises(codec.CannotDecode, match="unknown codec"):
        codec.decode(9, described, memoryview(b"abcd"), 4)
    with pytest.raises(codec.CannotDecode, match="far more"):
        codec.decompress(memoryview(codec.compress(bytes(1 << 24))), 1 << 24)
    with pytest.raises(codec.CannotDecode, match="another size"):
        codec.decompress(memoryview(codec.compress(b"abc")), 4)


def test_a_commit_takes_as_many_steps_behind_two_thousand_messages_as_behind_twenty(library, chat):
    def steps(parent, text):
        counted = [0]
        library._db._connection.set_progress_handler(lambda: counted.__setitem__(0, counted[0] + 1), 10)
        library.add_node(chat.id, parent, Message("user", text, (1,)))
        library._db._connection.set_progress_handler(None, 0)
        return counted[0]

    def grow(parent, count):
        with library._db.write() as tx:
            for number in range(count):
                message = Message("assistant" if number % 2 else "user", str(number), (number,))
                parent = tree.put_node(tx, chat.id, parent, message, "")[0].id
        return parent

    near = grow(None, 20)
    few = steps(near, "near")
    assert steps(grow(near, 2000), "far") < 2 * few


def test_large_segments_are_coded_in_threads_and_are_the_same(library, monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "GROUP", 1)
    tokens = list(range(600))
    save(library, tokens)
    assert_true(library.load_state(KEY, tokens), tokens)
    assert library.load_state(KEY, tokens).n_valid == 600


def test_a_file_that_another_process_locks_before_it_has_its_name_is_not_left(tmp_path):
    class Held(Files):
        def lock(self, fd):
            return False

    with pytest.raises(OSError, match="locked by another"):
        Held().create_locked(tmp_path / "a.lock")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_another_process_makes_first_is_as_good(tmp_path, monkeypatch):
    real = os.mkdir

    def other_is_faster(path, mode):
        real(path, mode)
        raise FileExistsError(17, "file exists", str(path))

    monkeypatch.setattr(os, "mkdir", other_is_faster)
    Files().make_dirs(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
