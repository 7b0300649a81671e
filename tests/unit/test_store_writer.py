"""State files and their drafts: private, named when they are whole, and what dead writers left is removed."""

import fcntl
import os

from faults.kit import open_library, save

from snapshots import Message
from snapshots.files import Files


def test_files_and_directories_are_private_and_no_drafts_stay(library, tmp_path):
    chat = library.new_conversation()
    node = library.add_node(chat.id, None, Message("user", "x", (1, 2)))
    save(library, [1, 2], node.id)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert not list(tmp_path.rglob("*.tmp"))


def test_drafts_of_dead_writers_are_removed_and_those_of_living_ones_kept(library, tmp_path):
    save(library, [1, 2])
    drafts = tmp_path / "cache" / "states-1" / "tmp"
    (lock,) = (tmp_path / "data" / "locks").glob("*.lock")
    living, dead = drafts / f"{lock.stem}.9.0.tmp", drafts / "0123456789ab.1.0.tmp"
    living.write_bytes(b"x")
    dead.write_bytes(b"x")
    with open_library(tmp_path) as other:
        other.stats()
        assert living.exists()
        assert not dead.exists()
    library.close()
    with open_library(tmp_path) as other:
        other.stats()
        assert not living.exists()


def test_a_lock_file_whose_maker_died_before_it_had_a_name_is_removed(library, tmp_path):
    save(library, [1, 2])
    locks = tmp_path / "data" / "locks"
    held, dead = locks / f"{'a' * 24}.new", locks / f"{'b' * 24}.new"
    dead.touch()
    fd = os.open(held, os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with open_library(tmp_path) as other:
        other.stats()
    assert held.exists()
    assert not dead.exists()
    os.close(fd)


def test_a_save_whose_lock_file_was_taken_for_a_dead_ones_begins_again(tmp_path):
    class Taken(Files):
        """Between making the lock file and locking it, another process cleans."""

        taken = 0

        def create(self, path):
            fd = super().create(path)
            if path.suffix == ".new" and path.parent.name == "locks" and not self.taken:
                self.taken += 1
                with open_library(tmp_path) as other:
                    other.stats()
            return fd

    files = Taken()
    with open_library(tmp_path, files) as library:
        assert save(library, [1, 2]).complete
    assert files.taken == 1
