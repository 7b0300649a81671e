"""tree.db as a file: who may open it, who waits for whom, what a newer or broken one says."""

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from faults.kit import open_library, talk

from snapshots import (
    LibraryDamaged,
    LibraryIsNewer,
    Message,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    UnknownConversation,
    database,
)
from snapshots.files import Files


def raw(tmp_path, *statements):
    connection = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_importing_the_store_loads_no_array_or_compression_library():
    code = "import sys, snapshots; print({'numpy', 'zstandard', 'numba', 'app', 'engine'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_empty_directory_becomes_a_library_that_stays(tmp_path):
    with open_library(tmp_path / "a" / "b") as library:
        chat = library.new_conversation("x")
        assert not library.read_only
    with open_library(tmp_path / "a" / "b") as library:
        assert library.conversations() == [chat]


def test_commits_are_safe_from_power_cuts_with_this_sqlite(tmp_path):
    with open_library(tmp_path) as library, library._db.read() as tx:
        mode = tx.execute("PRAGMA journal_mode").fetchone()[0]
        level = tx.execute("PRAGMA synchronous").fetchone()[0]
    if sqlite3.sqlite_version_info >= (3, 51, 3):
        assert (mode, level) == ("wal", 2)
    else:
        assert (mode, level) == ("delete", 3)  # EXTRA


def test_a_library_that_is_newer_but_readable_is_read_only(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("kept")
        user, _ = talk(library, chat.id, None, "hello")
    raw(tmp_path, "PRAGMA user_version=7")
    with open_library(tmp_path) as library:
        assert library.read_only
        assert (library.newer.found, library.newer.supported) == (7, 2)
        assert library.conversation(chat.id).title == "kept"
        assert library.node(user.id).text == "hello"
        for change in (
            library.new_conversation,
            lambda: library.add_node(chat.id, None, Message("user", "x")),
            lambda: library.undo(chat.id),
            lambda: library.set_name("x", user.id),
            library.collect_garbage,  # it would not know what the newer program's messages need
        ):
            with pytest.raises(LibraryIsNewer) as caught:
                change()
            assert (caught.value.found, caught.value.supported) == (7, 2)


def test_a_library_that_is_too_new_to_read_says_both_versions(tmp_path):
    open_library(tmp_path).close()
    raw(tmp_path, "PRAGMA user_version=7", "UPDATE meta SET value = '6' WHERE key = 'readable_by'")
    with pytest.raises(LibraryIsNewer) as caught:
        open_library(tmp_path)
    assert (caught.value.found, caught.value.supported) == (7, 2)


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 2000]
)
def test_a_file_that_is_no_database_is_damaged_and_left_as_it_is(tmp_path, content):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "tree.db"
    path.write_bytes(content)
    with pytest.raises(LibraryDamaged):
        open_library(tmp_path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_not_taken_over(tmp_path):
    (tmp_path / "data").mkdir()
    raw(tmp_path, "CREATE TABLE bookmarks(url)")
    with pytest.raises(LibraryDamaged):
        open_library(tmp_path)


def test_a_link_in_the_place_of_the_database_is_not_followed(tmp_path):
    (tmp_path / "data").mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (tmp_path / "data" / "tree.db").symlink_to(victim)
    with pytest.raises(StoreError):
        open_library(tmp_path)
    assert victim.read_bytes() == b""


@pytest.mark.parametrize("what", ["file", "fifo", "directory"])
def test_other_things_in_the_way_are_typed_errors(tmp_path, what):
    if what == "file":
        (tmp_path / "data").write_bytes(b"")
    else:
        (tmp_path / "data").mkdir()
        place = tmp_path / "data" / "tree.db"
        os.mkfifo(place) if what == "fifo" else place.mkdir()
    with pytest.raises(StoreError):
        open_library(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to be refused")
def test_a_library_that_may_only_be_read_opens_read_only(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("kept")
    os.chmod(tmp_path / "data", 0o755)
    os.chmod(tmp_path / "data" / "tree.db", 0o644)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        os.chmod(parent, 0o755)
    os.seteuid(65534)
    try:
        with open_library(tmp_path) as library:
            assert library.read_only
            assert library.newer is None
            assert library.conversations() == [chat]
            assert library.dead_replies() == []
            with pytest.raises(StoreReadOnly):
                library.new_conversation()
    finally:
        os.seteuid(0)


def test_a_change_waits_for_another_process(tmp_path):
    with open_library(tmp_path) as library:
        blocker = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.7, lambda: blocker.execute("COMMIT"))
        timer.start()
        begun = time.monotonic()
        chat = library.new_conversation("patient")
        assert time.monotonic() - begun > 0.5
        timer.join()
        assert library.conversations() == [chat]
        blocker.close()


def test_patience_ends_with_a_typed_error_and_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "PATIENCE_S", 0.3)
    with open_library(tmp_path) as library:
        blocker = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy):
            library.new_conversation()
        with pytest.raises(StoreBusy):
            library.conversations()
        blocker.execute("COMMIT")
        blocker.close()
        assert library.conversations() == []
        library.new_conversation()


def test_a_reader_in_another_process_delays_a_commit_only_while_it_reads(tmp_path):
    with open_library(tmp_path) as library:
        reader = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None, check_same_thread=False)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM conversations").fetchall()
        timer = threading.Timer(0.4, lambda: reader.execute("ROLLBACK"))
        timer.start()
        library.new_conversation()
        timer.join()
        assert reader.execute("SELECT count(*) FROM conversations").fetchone() == (1,)
        reader.close()


def test_several_processes_write_and_none_hears_of_a_lock(tmp_path):
    code = (
        "import sys; from pathlib import Path; from snapshots import Library, Message\n"
        "library = Library.open(Path(sys.argv[1]) / 'data', Path(sys.argv[1]) / 'cache')\n"
        "chat = library.new_conversation(sys.argv[2]); parent = None\n"
        "for i in range(25):\n"
        "    parent = library.add_node(chat.id, parent, Message('user', f'{sys.argv[2]} {i}')).id\n"
        "    library.tree(chat.id); library.conversations()\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stderr=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert (child.returncode, errors) == (0, "")
    with open_library(tmp_path) as library:
        assert sorted(c.title for c in library.conversations()) == ["a", "b", "c"]
        assert [len(library.path(c.head_id)) for c in library.conversations()] == [25, 25, 25]


def test_changes_of_another_process_are_noticed(tmp_path):
    with open_library(tmp_path) as one, open_library(tmp_path) as two:
        before = one.changes()
        assert one.changes() == before
        two.new_conversation()
        between = one.changes()
        assert between != before
        one.new_conversation()
        assert one.changes() != between


def test_a_change_that_fails_leaves_nothing_behind(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()

        def fail_half_way():
            with library._db.write() as tx:
                tx.execute("DELETE FROM conversations")
                tx.execute("DELETE FROM nothing")

        with pytest.raises(StoreError):
            fail_half_way()
        assert library.conversations() == [chat]
        with pytest.raises(UnknownConversation):
            library.set_title("nobody", "x")
        library.new_conversation()


def test_changes_of_others_are_seen_without_waiting_for_anybody(tmp_path):
    with open_library(tmp_path) as one, open_library(tmp_path) as two:
        before = one.outside_changes()
        one.new_conversation()
        assert one.outside_changes() == before, "its own changes are none of others"
        two.new_conversation()
        with one._db.write():
            assert one.outside_changes() == before, "in the middle of its own change it says what it said last"
        entered, leave = threading.Event(), threading.Event()

        def read_for_long():
            with one._db.read():
                entered.set()
                leave.wait(10)

        reader = threading.Thread(target=read_for_long)
        reader.start()
        assert entered.wait(10)
        assert one.outside_changes() == before, "another thread has the connection: nobody is waited for"
        leave.set()
        reader.join()
        assert one.outside_changes() != before


def test_a_library_that_another_process_makes_first_is_taken_as_it_is(tmp_path):
    class Slow(Files):
        def keep_name(self, path):
            super().keep_name(path)
            if not others:
                others.append(open_library(tmp_path))
                made.append(others[0].new_conversation("of the faster one"))

    others, made = [], []
    with open_library(tmp_path, Slow()) as library:
        assert library.conversations() == made
        others[0].close()


def test_a_file_that_may_only_be_read_and_is_no_database_is_damaged(tmp_path):
    class ReadOnly(Files):
        def open_or_create(self, path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tree.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LibraryDamaged):
        open_library(tmp_path, ReadOnly())


def test_the_file_is_not_written_anew_where_it_may_only_be_read_nor_within_a_change(tmp_path):
    with open_library(tmp_path) as library:
        with library._db.write(), pytest.raises(StoreError):
            library._db.compact()
        library._db.compact()
    raw(tmp_path, "PRAGMA user_version=7")
    with open_library(tmp_path) as library, pytest.raises(LibraryIsNewer):
        library._db.compact()


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
    with pytest.raises(error), database.typed_errors(tmp_path):
        raise raised


def test_an_error_that_ends_the_transaction_by_itself_keeps_its_own_words(tmp_path):
    """SQLite takes back some changes by itself, where the disk is full: then there is nothing to roll back."""
    with open_library(tmp_path) as library:
        base = library._db

        class Ended(sqlite3.Connection):
            fails: Exception | None = None

            def execute(self, sql, *values):
                if self.fails is not None and sql.startswith("SELECT 1 FROM sqlite_master"):
                    super().execute("ROLLBACK")
                    raise self.fails
                return super().execute(sql, *values)

        whole, base._connection = base._connection, sqlite3.connect(base.path, isolation_level=None, factory=Ended)
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        for fails, kind in ((full, StoreFull), (MemoryError(), StoreError)):
            base._connection.fails = fails
            with pytest.raises(kind), base.read():
                pass
            base._connection.fails = None
            assert not base._connection.in_transaction
            with base.write() as tx:
                assert tx.execute("SELECT count(*) FROM nodes").fetchone() == (0,)
        base._connection.close()
        base._connection = whole


def test_a_limit_of_file_sizes_or_a_quota_that_sqlite_takes_for_a_broken_disk_is_no_room(tmp_path, monkeypatch):
    path = tmp_path / "tree.db"
    path.write_bytes(bytes(9000))
    failed = sqlite3.OperationalError("disk I/O error")
    failed.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    for code, kind in ((errno.EFBIG, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError), (0, StoreError)):

        def write(fd, data, place, code=code):
            if code:
                raise OSError(code, "words")
            return len(data)

        monkeypatch.setattr(os, "pwrite", write)
        with pytest.raises(kind) as found, database.typed_errors(path):
            raise failed
        assert type(found.value) is kind
    assert list(tmp_path.iterdir()) == [path]
