"""The daily copy of tree.db: when it is due, that it is one whole moment, and that a bad one replaces nothing."""

import errno
import os
import sqlite3
import time

import pytest
from faults.kit import FailingFiles, open_library, talk

from snapshots import LibraryDamaged, StoreError, StoreFull, backups
from snapshots.copies import sweep
from snapshots.files import Files

DAY = 86400


@pytest.fixture
def library(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("kept")
        talk(library, chat.id, None, "hello")
        yield library


def copies(library):
    return backups.listed(library.data_dir, Files())


def age(library, seconds):
    for path in copies(library):
        facts = path.stat()
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns - seconds * 10**9))


def test_a_copy_is_made_once_a_day_and_only_of_something_new(library):
    assert library.back_up()
    assert not library.back_up()
    library.new_conversation("more")
    assert not library.back_up()  # not a day yet
    age(library, DAY)
    assert library.back_up()
    age(library, DAY)
    assert not library.back_up()  # nothing was committed since
    assert len(copies(library)) == 2


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_is_wrong_by_years_stops_no_backup(library, years):
    assert library.back_up()
    age(library, years * 365 * DAY)
    library.new_conversation("more")
    assert library.back_up()


def test_five_copies_are_kept_and_each_can_be_read(library):
    for number in range(8):
        library.new_conversation(str(number))
        assert library.back_up(now=True)
    found = copies(library)
    assert len(found) == backups.KEPT == 5
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    newest = backups.read(found[0], Files())
    assert newest.execute("SELECT count(*) FROM conversations").fetchone() == (9,)
    newest.close()
    assert backups.check_copy(found[0], Files()) == []


def test_a_copy_of_a_damaged_library_replaces_no_good_one(library):
    assert library.back_up()
    good = copies(library)
    with sqlite3.connect(library.data_dir / "tree.db") as raw:
        raw.execute("UPDATE nodes SET text = 'jello' WHERE role = 'user'")
    with pytest.raises(LibraryDamaged):
        library.back_up(now=True)
    assert copies(library) == good


def test_a_copy_of_a_library_that_has_lost_a_page_is_no_backup(library):
    """SQLite's own check raises over such a page instead of naming it."""
    assert library.back_up()
    good = copies(library)
    path = library.data_dir / "tree.db"
    with sqlite3.connect(path) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'quicksaves'").fetchone()[0]
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(data)
    with open_library(path.parent.parent) as again, pytest.raises(LibraryDamaged):
        again.back_up(now=True)
    assert copies(library) == good


@pytest.mark.parametrize("call", ["create", "write", "sync", "rename", "sync_dir"])
def test_a_full_disk_leaves_no_half_copy(tmp_path, call):
    files = FailingFiles({call}, 10**9)
    with open_library(tmp_path, files) as library:
        assert library.back_up()
        files.at, files.sticky = files.count, True
        library.new_conversation("more")
        with pytest.raises(StoreFull):
            library.back_up(now=True)
        files.sticky, files.at = False, 10**9
        for path in copies(library):
            assert backups.check_copy(path, Files()) == []
        assert [p for p in (tmp_path / "data" / "backups").iterdir() if p.suffix == ".new"] == []


def test_the_draft_of_a_killed_backup_goes_with_the_next_look_but_not_that_of_a_living_one(library):
    folder = library.data_dir / "backups"
    files = Files()
    files.make_dirs(folder)
    dead = folder / "0123456789abcdef.new"
    dead.write_bytes(b"half a copy")
    living = folder / "fedcba9876543210.new"
    held = files.create(living)
    assert files.lock(held)
    assert library.back_up()
    assert living.exists()
    assert not dead.exists()
    files.close(held)
    assert not library.back_up(), "none is due"
    assert not living.exists()


def test_a_draft_that_a_sweep_took_in_its_first_moment_is_made_again(tmp_path):
    class Swept(Files):
        """A sweep comes between the making of the first draft and its lock."""

        first = None

        def lock(self, fd):
            drafts = [p for p in self.listdir(tmp_path / "data" / "backups") if p.suffix == ".new"]
            if drafts and self.first is None:
                self.first = drafts[0]
                self.unlink(drafts[0])
            return super().lock(fd)

    with open_library(tmp_path, files := Swept()) as library:
        assert library.back_up()
        assert files.first is not None
        (path,) = copies(library)
        assert backups.check_copy(path, Files()) == []


def test_without_locks_the_drafts_of_yesterday_go(library, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "no locks")

    folder = library.data_dir / "backups"
    Files().make_dirs(folder)
    for name, age_s in (("old.new", 30 * 3600), ("young.new", 3600)):
        (folder / name).write_bytes(b"half a copy")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    monkeypatch.setattr(Files, "lock", unsupported)
    assert library.back_up()
    assert [p.name for p in folder.iterdir() if p.suffix == ".new"] == ["young.new"]


def test_a_copy_that_is_no_database_is_said(tmp_path):
    (tmp_path / "tree-000001.db").write_bytes(b"")
    assert "not a database" in backups.check_copy(tmp_path / "tree-000001.db", Files())[0]


def test_what_only_looks_like_a_draft_stays(library):
    folder = library.data_dir / "backups"
    Files().make_dirs(folder)
    (folder / "a-folder.new").mkdir()
    (folder / "a-link.new").symlink_to(folder / "nowhere")
    assert library.back_up()
    assert (folder / "a-folder.new").is_dir()
    assert (folder / "a-link.new").is_symlink()


def test_a_draft_that_somebody_always_holds_is_given_up(tmp_path):
    class Held(Files):
        def lock(self, fd):
            return False

    with open_library(tmp_path, Held()) as library, pytest.raises(StoreError, match="busy"):
        library.back_up(now=True)


def test_a_draft_that_goes_while_this_looks_is_no_error(library, monkeypatch):
    folder = library.data_dir / "backups"
    Files().make_dirs(folder)
    (folder / "0123456789abcdef.new").write_bytes(b"half a copy")
    monkeypatch.setattr(Files, "signature", lambda self, path: None)
    sweep(library.data_dir, Files())
    assert (folder / "0123456789abcdef.new").exists()
