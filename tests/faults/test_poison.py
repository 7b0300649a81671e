"""Row 9 of the battery: a file that a save would find there already is poisoned in its place; the next save mends it.

Every region of every kind of file, by the process that knows the file as whole and by one that does not.
"""

import os

import pytest

from faults.kit import KEY, assert_true, chunks, logits, open_library, save, state_files
from faults.report import report

TOKENS = [(7 * i) % 251 for i in range(64 * 2 + 9)]
"""Two whole blocks, a piece of a third, and logits: every kind of file."""


def flipped(data, at, size):
    return data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + size]) + data[at + size :]


def zeroed(data, at, size):
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def cut(data, at, size):
    return data[:at]


def swapped(data, at, size):
    return data[:at] + data[at : at + size][::-1] + data[at + size :]


KINDS = (flipped, zeroed, cut, swapped)


def poison(path, data):
    """Write into the file itself, as a stray write does, and give it its old time back."""
    facts = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate(len(data))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def offer(library, everything):
    """The next save: of what it asks for, or of all chunks once more."""
    if not everything:
        return save(library, TOKENS)
    out = logits(TOKENS)
    return library.save_state(None, KEY, TOKENS, chunks(TOKENS), logits=out, hidden=out[:8], dice_key=b"dice" * 4)


def run(folder, step, size, shift=0):
    """Poison each place, save, compare; gives counts."""
    tried = repaired = 0
    open_library(folder).close()
    with open_library(folder) as library:
        save(library, TOKENS)
        good = {path: path.read_bytes() for path in state_files(folder)}
        assert len(good) == 4
    same = open_library(folder)
    try:
        for path, data in good.items():
            for at in range(shift % step, len(data), step):
                for kind in KINDS:
                    bad = kind(data, at, size)
                    if bad == data:
                        continue
                    tried += 1
                    poison(path, bad)
                    fresh = tried % 2 == 0
                    library = open_library(folder) if fresh else same
                    try:
                        if tried % 5:  # else the save is the first that looks
                            assert_true(library.load_state(KEY, TOKENS), TOKENS)
                        assert offer(library, everything=tried % 3 == 0).complete
                        repaired += path.read_bytes() == data
                        assert library.load_state(KEY, TOKENS).rung == "bundle"
                    finally:
                        if fresh:
                            library.close()
                    assert {p: p.read_bytes() for p in state_files(folder)} == good, (path.name, at, kind.__name__)
    finally:
        same.close()
    return {"poisoned": tried, "repaired": repaired, "wrong": 0}


def test_a_poisoned_file_is_repaired_by_the_next_save(tmp_path):
    figures = run(tmp_path, 131, 16)
    assert figures["repaired"] == figures["poisoned"] > 50
    report(9, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("shift", range(4))
def test_every_region_of_every_file(shift, tmp_path):
    figures = run(tmp_path, 4, 4, shift)
    assert figures["repaired"] == figures["poisoned"]
    report(9, part=shift, **figures)
