"""The file system as the store sees it: what is read, made, locked and synced, and what is refused."""

import os

import pytest

from snapshots.files import Files


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
