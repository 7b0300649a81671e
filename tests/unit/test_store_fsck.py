"""fsck: finds every damage that can be made, mends it from what is whole and from backups, and throws no text away."""

import errno
import json
import os
import sqlite3
import subprocess
import sys

import pytest
from faults.kit import open_library, save, state_files, talk
from golden.make_library import build, told

from snapshots import LibraryDamaged, LibraryIsNewer, StoreBusy, StoreError, StoreReadOnly
from snapshots import fsck as fsck_module
from snapshots.database import typed_errors
from snapshots.files import Files
from snapshots.fsck import fsck


@pytest.fixture
def folder(tmp_path):
    with open_library(tmp_path) as library:
        build(library)
    return tmp_path


def check(folder, **options):
    return fsck(folder / "data", folder / "cache", **options)


def spoil(folder, *statements):
    with sqlite3.connect(folder / "data" / "tree.db") as raw:
        for statement in statements:
            raw.execute(statement)


def everything(folder):
    with open_library(folder) as library:
        return told(library)


def test_a_whole_library_has_no_problems_and_a_repair_changes_nothing(folder):
    before = (folder / "data" / "tree.db").read_bytes()
    for repair in (False, True):
        report = check(folder, repair=repair)
        assert (report.problems, report.done, report.left) == ([], [], 0)
        assert (report.messages, report.journals, report.state_files) == (10, 1, 6)
    assert (folder / "data" / "tree.db").read_bytes() == before


def test_with_a_backup_a_damaged_message_comes_back_and_nothing_else_changes(folder):
    with open_library(folder) as library:
        assert library.back_up(now=True)
        talk(library, library.conversations()[0].id, None, "said after the backup")
    before = everything(folder)
    spoil(folder, "UPDATE nodes SET text = 'jello' WHERE text = 'why are there tides'")
    assert {(p.where, p.what) for p in check(folder).problems} >= {("nodes", "does not give its own id")}
    report = check(folder, repair=True)
    assert report.left == 0
    assert "1 messages came from a backup" in report.done
    assert everything(folder) == before
    assert check(folder).problems == []


def test_without_a_backup_the_longest_valid_beginning_is_left_and_the_rest_is_kept_aside(folder):
    spoil(folder, "UPDATE nodes SET text = 'jello' WHERE text = 'again as a pirate'")
    report = check(folder, repair=True)
    assert report.left == 0
    assert "1 messages could not be placed: what is before them is damaged" in report.done
    with open_library(folder) as library:
        tides = next(c for c in library.conversations() if c.title == "Tides")
        texts = [library.node(twig.id).text for twig in library.tree(tides.id)]
        assert texts == ["Be brief.", "why are there tides", "WHY ARE THERE TIDES", "¡Otra vez! 🌊"]
        assert library.start_position(window="first").node_id is not None
        assert [s.name for s in library.savepoints()] == ["the moon"]
    (kept,) = (folder / "data" / "damaged").iterdir()
    raw = sqlite3.connect(kept)
    assert raw.execute("SELECT count(*) FROM nodes WHERE text = 'AGAIN AS A PIRATE'").fetchone() == (1,)
    raw.close()


@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "no database", "zero page", "head"])
def test_a_database_that_cannot_be_read_is_restored_from_the_newest_backup(folder, damage):
    with open_library(folder) as library:
        library.back_up(now=True)
    before = everything(folder)
    path = folder / "data" / "tree.db"
    data = path.read_bytes()
    made = {
        "empty": b"",
        "torn": data[: len(data) // 2],
        "no database": b"x" * len(data),
        "zero page": data[:4096] + bytes(4096) + data[8192:],
        "head": bytes(100) + data[100:],
    }
    path.unlink() if damage == "gone" else path.write_bytes(made[damage])
    if damage != "zero page":
        with pytest.raises(LibraryDamaged):
            open_library(folder)
    report = check(folder, repair=True)
    assert report.problems
    assert report.left == 0
    after = everything(folder)
    assert after == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE labels SET node_id = 'ff' WHERE name = 'pirate'",
        "UPDATE conversations SET title = 'x' WHERE title = 'Tides'",
        "UPDATE settings SET value = 'x'",
        "UPDATE actions SET detail = '{}'",
        "UPDATE node_states SET logits_digest = 'x'",
        "UPDATE nodes SET deleted = 1 WHERE role = 'system'",
        "DELETE FROM conversations WHERE title = 'Tides'",
        "DELETE FROM nodes WHERE role = 'system'",
        "UPDATE nodes SET turn = 9 WHERE role = 'system'",
        "DELETE FROM node_states",
        "UPDATE sqlite_sequence SET seq = 0",
    ],
)
def test_each_damaged_row_is_named_and_mended(folder, damage):
    nodes = sum(len(t["paths"]) for t in everything(folder).values() if "paths" in t)
    spoil(folder, damage)
    report = check(folder)
    assert report.problems
    assert report.left == len(report.problems)
    assert check(folder, repair=True).left == 0
    assert check(folder).problems == []
    after = sum(len(t["paths"]) for t in everything(folder).values() if "paths" in t)
    assert after == nodes or "role = 'system'" in damage


def test_damaged_state_files_and_journals_are_named_and_cleared(folder):
    good = state_files(folder)
    good[0].write_bytes(good[0].read_bytes()[:-1])
    good[1].write_bytes(good[-1].read_bytes())
    (folder / "data" / "journals" / ("0" * 32 + ".journal")).write_bytes(b"nothing")
    assert {p.where for p in check(folder).problems} == {"states", "journals"}
    assert check(folder, repair=True).left == 0
    assert check(folder).problems == []
    assert len(state_files(folder)) == len(good) - 2
    with open_library(folder) as library:
        for twig in library.tree(library.conversations()[0].id):
            tokens = library.tokens(twig.id)
            assert save(library, tokens, twig.id).complete


def test_a_library_that_is_open_elsewhere_is_not_replaced(folder):
    with open_library(folder):
        spoil(folder, "UPDATE settings SET value = 'x'")
        with pytest.raises(StoreBusy):
            check(folder, repair=True)
    assert check(folder, repair=True).left == 0


def test_the_command_says_what_it_found_and_did(folder):
    def run(*options):
        command = [sys.executable, "-m", "app", "fsck", *options]
        environment = {"FORKPOINT_DATA_DIR": str(folder / "data"), "FORKPOINT_CACHE_DIR": str(folder / "cache")}

        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    assert run()[0] == 0
    spoil(folder, "UPDATE labels SET node_id = 'ff' WHERE name = 'pirate'")
    code, out = run("--json")
    assert code == 14
    assert {p["key"] for p in json.loads(out)["problems"]} == {"pirate"}
    code, out = run("--repair")
    assert (code, out.splitlines()[-1]) == (0, "10 messages, 1 journal, 6 state files: mended.")
    assert run()[0] == 0


def test_state_files_that_lie_elsewhere_than_they_say_are_named_and_cleared(folder):
    segment = next(path for path in state_files(folder) if path.name.endswith("-00.seg"))
    key = segment.parent.parent
    elsewhere = segment.with_name(segment.name.replace("-00.seg", "-01.seg"))
    another = key.with_name("ab" * 16) / segment.parent.name / segment.name
    another.parent.mkdir(parents=True)
    for path in (elsewhere, another):
        path.write_bytes(segment.read_bytes())
    assert {p.what for p in check(folder).problems} == {"belongs elsewhere", "belongs to another model"}
    assert check(folder, repair=True).left == 0
    assert segment.exists()
    assert not elsewhere.exists()
    assert not another.exists()


def test_a_rollback_journal_beside_a_damaged_database_is_kept_with_it(folder):
    with open_library(folder) as library:
        library.back_up(now=True)
    before = everything(folder)
    spoil(folder, "UPDATE settings SET value = 'x'")
    journal = folder / "data" / "tree.db-journal"
    journal.write_bytes(bytes(512))  # one that SQLite does not play back, so that it is there at the end
    assert check(folder, repair=True).left == 0
    assert not journal.exists()
    assert [path.read_bytes() for path in (folder / "data" / "damaged").glob("*-journal")] == [bytes(512)]
    assert everything(folder) == before


def test_rows_that_a_damaged_table_still_has_are_not_doubled_by_the_backup(folder):
    with open_library(folder) as library:
        library.back_up(now=True)
    before = everything(folder)
    spoil(folder, "UPDATE labels SET node_id = 'ff' WHERE name = 'pirate'")
    report = check(folder, repair=True)
    assert "rows of labels were damaged; 1 came from a backup" in report.done
    assert everything(folder) == before


def test_messages_in_an_order_that_cannot_be_are_put_behind_their_parents(folder):
    before = everything(folder)
    chats = [chat for chat, told in before.items() if "paths" in told]
    spoil(
        folder,
        "UPDATE nodes SET seq = -seq",
        "UPDATE nodes SET seq = seq + (SELECT 1 - min(seq) FROM nodes)",
        "UPDATE labels SET node_id = 'ff' WHERE name = 'pirate'",
    )
    assert check(folder, repair=True).left == 0
    with sqlite3.connect(folder / "data" / "tree.db") as raw:
        rows = raw.execute("SELECT n.seq, p.seq FROM nodes n JOIN nodes p ON p.id = n.parent_id").fetchall()
    assert rows
    assert all(child > parent for child, parent in rows)
    after = everything(folder)
    assert [after[chat]["paths"] for chat in chats] == [before[chat]["paths"] for chat in chats]


def test_a_message_that_keeps_more_than_is_before_it_is_named(folder):
    spoil(folder, "UPDATE nodes SET n_tokens = 0 WHERE role = 'system'")
    assert {(p.where, p.what) for p in check(folder).problems} >= {
        ("nodes", "does not give its own id"),
        ("nodes", "does not fit the message before it"),
    }


def test_state_files_that_vanish_while_fsck_looks_are_no_damage(folder):
    class Vanishing(Files):
        def read(self, path, limit):
            if path.suffix == ".seg":
                path.unlink()
            return super().read(path, limit)

    report = check(folder, files=Vanishing())
    assert report.problems == []
    assert report.state_files == 3


def test_a_library_that_another_process_locks_for_long_is_busy(folder, monkeypatch):
    real = fsck_module._open

    def impatient(*given):
        connection = real(*given)
        connection.execute("PRAGMA busy_timeout=1")  # ms, for 30 s
        return connection

    monkeypatch.setattr(fsck_module, "_open", impatient)
    other = sqlite3.connect(folder / "data" / "tree.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreBusy):
        check(folder)
    other.close()
    assert check(folder).problems == []


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


class Unreachable(sqlite3.Connection):
    """Every look at a table fails as SQLite fails that is kept from its file."""

    code = sqlite3.SQLITE_IOERR

    def execute(self, sql, *values):
        if sql.startswith(("SELECT", "BEGIN", "PRAGMA integrity_check")):
            error = sqlite3.OperationalError("something is in the way")
            error.sqlite_errorcode = self.code
            raise error
        return super().execute(sql, *values)


@pytest.mark.parametrize("code", ["IOERR", "CANTOPEN", "NOMEM", "READONLY", "PROTOCOL", "PERM", "FULL", "INTERRUPT"])
def test_a_library_that_cannot_be_reached_is_no_damaged_one_and_nothing_takes_its_place(folder, monkeypatch, code):
    """A file system without locks, a journal of another user: what was said since the last backup is still there."""
    with open_library(folder) as library:
        library.back_up(now=True)
        since = talk(library, library.conversations()[0].id, None, "said after the backup")[-1]
    before = (folder / "data" / "tree.db").read_bytes()
    real = sqlite3.connect
    made = type("Made", (Unreachable,), {"code": getattr(sqlite3, f"SQLITE_{code}")})
    with monkeypatch.context() as patch:
        patch.setattr(fsck_module.sqlite3, "connect", lambda *a, **o: real(*a, factory=made, **o))
        for repair in (False, True):
            with pytest.raises(StoreError):
                fsck(folder / "data", folder / "cache", repair=repair)
    assert (folder / "data" / "tree.db").read_bytes() == before
    with open_library(folder) as library:
        assert library.node(since.id) == since


def test_what_the_disk_itself_does_not_give_is_lost_and_comes_from_the_backup(folder, monkeypatch):
    with open_library(folder) as library:
        library.back_up(now=True)
    before, real, path = everything(folder), sqlite3.connect, folder / "data" / "tree.db"
    inode = path.stat().st_ino

    def is_bad():
        return path.exists() and path.stat().st_ino == inode

    class BadSector(Files):
        def read(self, wanted, limit):
            if wanted == path and is_bad():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(wanted, limit)

    def connect(*arguments, **options):
        kind = Unreachable if options.get("uri") and is_bad() else sqlite3.Connection
        return real(*arguments, **options, factory=kind)

    with monkeypatch.context() as patch:
        patch.setattr(fsck_module.sqlite3, "connect", connect)
        report = fsck(folder / "data", folder / "cache", repair=True, files=BadSector())
    assert report.problems
    assert report.left == 0
    assert everything(folder) == before


def test_a_change_that_a_crash_cut_off_and_that_cannot_be_undone_here_is_said_and_not_taken_for_damage(
    folder, tmp_path
):
    program = """if True:
        import os, sqlite3, sys
        tree = sqlite3.connect(sys.argv[1], isolation_level=None)
        tree.executescript("PRAGMA cache_size=2; PRAGMA cache_spill=1; BEGIN IMMEDIATE; CREATE TABLE t(a)")
        for _ in range(200):
            tree.execute("INSERT INTO t VALUES (?)", ("x" * 3000,))
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", program, str(folder / "data" / "tree.db")], check=True)
    assert (folder / "data" / "tree.db-journal").stat().st_size
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    kept = Files.is_writable
    Files.is_writable = lambda self, path: False
    try:
        with pytest.raises(StoreReadOnly, match="a crash cut off a change"), typed_errors(folder / "data" / "tree.db"):
            raise error
    finally:
        Files.is_writable = kept
    assert fsck(folder / "data", folder / "cache").problems == [], "where it can be undone, it is"
