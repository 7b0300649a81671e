"""Repacked weights are kept, mapped by later starts, and never trusted further than they were checked."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from engine import packed
from engine.errors import DamagedWeights
from engine.model import Model
from engine.packed import PackedWeights, places
from engine.repack import repack


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch):
    monkeypatch.setattr(packed, "SMALLEST", 1)
    monkeypatch.setattr(packed, "SPARE", 0)


@pytest.fixture
def jobs():
    rng = np.random.default_rng(3)
    raw = rng.integers(0, 256, (40 + 7, 3 * 18), dtype=np.uint8)
    return [("Q4_0", raw[:40], 40, 96), ("Q4_0", raw[40:], 7, 96)]


def keep(jobs, tensors="t", quota=None):
    """Repack and keep; gives the matrices."""
    kept = PackedWeights(lambda: tensors, quota)
    assert kept.find(jobs) is None
    matrices = [repack(*job) for job in jobs]
    kept.keep(matrices)
    kept.finish(60.0)
    return matrices


def why_not(jobs, tensors="t", quota=None):
    """What is told where they cannot be kept."""
    kept = PackedWeights(lambda: tensors, quota)
    kept.find(jobs)
    kept.keep([])
    return kept.unkept


def files(folder):
    return sorted((folder / "cache" / "weights").glob("*"))


def test_what_was_kept_is_mapped_and_equal(jobs, own_directories):
    matrices = keep(jobs)
    assert len(files(own_directories)) == 1
    kept = PackedWeights(lambda: "t")
    found = kept.find(jobs)
    assert kept.mapped
    for wanted, matrix in zip(matrices, found, strict=True):
        assert matrix.data.tobytes() == wanted.data.tobytes()
        assert (matrix.kind, matrix.rows, matrix.columns) == (wanted.kind, wanted.rows, wanted.columns)
        assert (matrix.groups, matrix.steps, matrix.group_bytes) == (wanted.groups, wanted.steps, wanted.group_bytes)
        assert matrix.data.ctypes.data % packed.LINE == 0
        assert not matrix.data.flags.writeable
    kept.check()


def test_other_weights_and_other_matrices_have_files_of_their_own(jobs):
    keep(jobs)
    assert PackedWeights(lambda: "other").find(jobs) is None
    assert PackedWeights(lambda: "t").find(jobs[::-1]) is None
    assert PackedWeights(lambda: "t").find(jobs[:1]) is None
    kind, raw, rows, columns = jobs[0]
    assert PackedWeights(lambda: "t").find([(kind, raw[1:], rows - 1, columns), jobs[1]]) is None


def test_a_damaged_header_or_a_cut_file_is_repacked_over(jobs, own_directories):
    keep(jobs)
    (path,) = files(own_directories)
    whole = path.read_bytes()
    for at in (0, 5, 21, 30, 60, 100, 180):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert PackedWeights(lambda: "t").find(jobs) is None, at
    for size in (0, 10, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert PackedWeights(lambda: "t").find(jobs) is None, size
    keep(jobs)
    assert path.read_bytes() == whole


def test_a_damaged_matrix_is_found_by_the_check_and_removed(jobs, own_directories):
    keep(jobs)
    (path,) = files(own_directories)
    data = bytearray(path.read_bytes())
    data[places(jobs)[0][1][0] + packed._BEGIN] ^= 4
    path.write_bytes(data)
    kept = PackedWeights(lambda: "t")
    assert kept.find(jobs) is not None
    with pytest.raises(DamagedWeights) as told:
        kept.check()
    assert told.value.path == str(path)
    assert files(own_directories) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_file_that_others_could_have_written_is_not_mapped(jobs, own_directories):
    keep(jobs)
    (path,) = files(own_directories)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    assert PackedWeights(lambda: "t").find(jobs) is None


def test_the_quota_lets_go_of_what_was_used_longest_ago(jobs, own_directories):
    size = packed._BEGIN + places(jobs)[1]
    for i, tensors in enumerate("abc"):
        keep(jobs, tensors, quota=3 * size)
        for path in files(own_directories):
            if path.stat().st_mtime > time.time() - 900:
                os.utime(path, (time.time() - 1000 + i, time.time() - 1000 + i))
    assert PackedWeights(lambda: "a").find(jobs) is not None  # used: now it is the newest
    keep(jobs, "d", quota=3 * size)
    have = {tensors for tensors in "abcd" if PackedWeights(lambda tensors=tensors: tensors).find(jobs) is not None}
    assert have == {"a", "c", "d"}
    assert "weights-cache allows" in why_not(jobs, "e", quota=size - 1)
    assert PackedWeights(lambda: "e").find(jobs) is None
    assert len(files(own_directories)) == 3, "what does not fit throws nobody out"


def test_a_quota_of_nothing_keeps_nothing(jobs, own_directories):
    keep(jobs, quota=0)
    assert files(own_directories) == []


def test_a_full_disk_keeps_nothing(jobs, own_directories, monkeypatch):
    monkeypatch.setattr(packed, "SPARE", 1 << 60)
    assert "the disk has no room" in why_not(jobs)
    assert files(own_directories) == []


def test_where_nothing_can_be_written_nothing_is_kept(jobs, own_directories):
    own_directories.mkdir(parents=True)
    (own_directories / "cache").write_text("a file where the folder should be")
    assert "not a directory" in why_not(jobs)
    assert PackedWeights(lambda: "t").find(jobs) is None


def test_a_write_that_is_given_up_leaves_nothing(jobs, own_directories):
    kept = PackedWeights(lambda: "t")
    kept.find(jobs)
    kept._give_up.set()
    kept.keep([repack(*job) for job in jobs])
    kept.finish()
    assert files(own_directories) == []


@pytest.mark.skipif(os.name != "posix", reason="asks after processes")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(jobs, own_directories):
    keep(jobs)
    folder = own_directories / "cache" / "weights"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / f"{gone.pid}-abc.tmp").write_bytes(b"half")
    (folder / f"{os.getpid()}-abc.tmp").write_bytes(b"half")
    keep(jobs, "other")
    assert [path.name for path in files(own_directories) if path.suffix == ".tmp"] == [f"{os.getpid()}-abc.tmp"]


def test_a_model_gives_the_same_bits_from_the_map(model_file, own_directories):
    def logits():
        model = Model.open(model_file("mixed"), threads=2)
        try:
            session = model.new_session()
            model.prefill(session, [1, 2, 3, 4, 5, 6, 7])
            model.weights_digest()
            return session.logits_digest(), model._kept.mapped
        finally:
            model.close()

    first, second = logits(), logits()
    assert (first[1], second[1]) == (False, True)
    assert first[0] == second[0]
    for path in files(own_directories):
        path.unlink()
    assert logits() == first
