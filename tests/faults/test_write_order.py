"""The order in which bytes, names and rows reach the disk: what a power cut can leave hangs on nothing else."""

import os
import stat

from faults.kit import KEY, open_library, save, state_files
from snapshots import Message, ReplyStart
from snapshots.files import Files

TOKENS = list(range(64 * 40 + 5))
"""More files than are open at once."""


class Recording(Files):
    """Notes every call that changes the disk, with the file's path."""

    def __init__(self):
        self.calls, self.open = [], {}

    def create(self, path):
        fd = super().create(path)
        self.open[fd] = path
        return fd

    def write(self, fd, data):
        super().write(fd, data)
        self.calls.append(("write", self.open[fd]))

    def sync(self, fd):
        super().sync(fd)
        self.calls.append(("sync", self.open[fd]))

    def rename(self, source, target):
        super().rename(source, target)
        self.calls.append(("rename", source, target))

    def sync_dir(self, path):
        super().sync_dir(path)
        self.calls.append(("sync_dir", path))


def renames(calls, suffix):
    return {call[2]: at for at, call in enumerate(calls) if call[0] == "rename" and call[2].suffix == suffix}


def check_file(calls, at):
    """What is renamed at this call was written, then synced, and never written again."""
    draft = calls[at][1]
    mine = [(place, call[0]) for place, call in enumerate(calls) if call[0] in ("write", "sync") and call[1] == draft]
    before = [name for place, name in mine if place < at]
    assert before[-1] == "sync"
    assert set(before[:-1]) == {"write"}
    assert [name for place, name in mine if place > at and name == "write"] == []


def test_states_have_their_bytes_on_the_disk_before_their_names_and_their_names_before_the_row(tmp_path, monkeypatch):
    files = Recording()
    with open_library(tmp_path, files) as library:
        chat = library.new_conversation()
        node = library.add_node(chat.id, None, Message("user", "x", tuple(TOKENS)))
        from snapshots import states

        real = states.put_state
        monkeypatch.setattr(states, "put_state", lambda *a: (files.calls.append(("row", None)), real(*a)))
        assert save(library, TOKENS, node.id).complete
    found = {**renames(files.calls, ".seg"), **renames(files.calls, ".fin")}
    assert sorted(found) == state_files(tmp_path)
    (row,) = [at for at, call in enumerate(files.calls) if call[0] == "row"]
    for path, at in found.items():
        check_file(files.calls, at)
        assert ("sync_dir", path.parent) in files.calls[at:row]
        directory = path.parent
        while directory != tmp_path / "cache":  # a new directory is a name too
            assert ("sync_dir", directory.parent) in files.calls[:row]
            directory = directory.parent


def test_a_journal_is_whole_and_locked_before_it_has_its_name(tmp_path):
    files = Recording()
    with open_library(tmp_path, files) as library:
        journal = library.begin_journal(ReplyStart("c", None))
        ((path, at),) = renames(files.calls, ".journal").items()
        assert path == journal.path
        check_file(files.calls, at)
        assert files.calls[at + 1] == ("sync_dir", path.parent)
        journal.discard()


def test_a_directory_that_cannot_be_synced_is_no_trouble(tmp_path, monkeypatch):
    """Some file systems answer EINVAL to fsync of a directory; they have nothing to sync."""
    real = os.fsync

    def fsync(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(22, "invalid argument")
        real(fd)

    monkeypatch.setattr("snapshots.files.os.fsync", fsync)
    with open_library(tmp_path) as library:
        assert save(library, TOKENS[:70]).complete
        assert library.load_state(KEY, TOKENS[:70]).rung == "bundle"
