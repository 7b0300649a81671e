"""Bits that flip, files that are cut, swapped or replaced: all of it is rejected or harmless, none is returned."""

import os
import shutil
import sqlite3
import struct
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import zstandard

from faults.kit import KEY, assert_true, chunks, logits, open_library, save, state_files, talk
from snapshots import DamagedFile, StoreError, segment
from snapshots.ids import canonical

TOKENS = [5, 300, 7]


@pytest.fixture
def stored(tmp_path):
    with open_library(tmp_path) as library:
        save(library, TOKENS)
        final, seg = sorted(state_files(tmp_path), key=lambda p: p.suffix)
        yield library, seg, final


def damaged(path, data):
    with pytest.raises(DamagedFile):
        segment.decode(path, bytes(data))


def test_every_flipped_bit_is_rejected(stored):
    for path in stored[1:]:
        data = bytearray(path.read_bytes())
        for bit in range(8 * len(data)):
            data[bit // 8] ^= 1 << bit % 8
            damaged(path, data)
            data[bit // 8] ^= 1 << bit % 8
        segment.decode(path, bytes(data))


def test_every_shorter_or_longer_file_is_rejected(stored):
    for path in stored[1:]:
        data = path.read_bytes()
        for length in range(len(data)):
            damaged(path, data[:length])
        for tail in (b"\0", data, b"\xff" * 4096):
            damaged(path, data + tail)
        for start in range(0, len(data), 16):
            damaged(path, data[:start] + b"\0" * (len(data) - start))  # what a torn write leaves


def test_a_damaged_file_is_loaded_as_missing_and_healed_by_the_next_save(stored):
    library, seg, final = stored
    for path, valid, rung in [(seg, 0, "recomputed"), (final, 3, "partial")]:
        good = path.read_bytes()
        for place in range(0, len(good), 9):
            path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
            state = library.load_state(KEY, TOKENS)
            assert (state.n_valid, state.rung, state.damaged) == (valid, rung, 1)
            assert_true(state, TOKENS)
            report = save(library, TOKENS)
            assert report.complete
            assert report.segments_healed == (path is seg)
            assert path.read_bytes() == good
            assert library.load_state(KEY, TOKENS).rung == "bundle"


def test_a_poisoned_target_is_repaired_also_when_all_chunks_are_offered(stored):
    library, seg, final = stored
    good = [p.read_bytes() for p in (seg, final)]
    for poison in (b"", b"x", b"\0" * len(good[0]), good[0][:-1], good[1]):
        seg.write_bytes(poison)
        final.write_bytes(poison if poison != good[1] else good[0])
        out = logits(TOKENS)
        library.save_state(None, KEY, TOKENS, chunks(TOKENS), logits=out, hidden=out[:8], dice_key=b"dice" * 4)
        assert [p.read_bytes() for p in (seg, final)] == good


def test_a_file_under_another_ones_name_is_rejected(tmp_path):
    with open_library(tmp_path) as library:
        lists = [[1, 2, 3], [1, 2, 4], [9] * 64 + [1, 2, 3]]
        for tokens in lists:
            save(library, tokens)
        save(library, lists[0], key="other")
        files = state_files(tmp_path)
        contents = {path: path.read_bytes() for path in files}
        for here in files:
            for there in files:
                if here != there and here.suffix == there.suffix:
                    here.write_bytes(contents[there])
            for tokens in lists:
                for key in (KEY, "other"):
                    assert_true(library.load_state(key, tokens), tokens)
            here.write_bytes(contents[here])


def test_nothing_but_a_plain_file_is_read_or_written_through(stored, tmp_path):
    library, seg, _ = stored
    good = seg.read_bytes()
    victim = tmp_path / "victim"
    victim.write_bytes(good)

    def make(kind):
        if kind == "link":
            seg.symlink_to(victim)
        elif kind == "fifo":
            os.mkfifo(seg)
        elif kind == "device":
            seg.symlink_to("/dev/zero")
        elif kind == "dangling":
            seg.symlink_to(tmp_path / "nowhere")

    for kind in ("link", "fifo", "device", "dangling"):
        seg.unlink()
        make(kind)
        begun = time.monotonic()
        state = library.load_state(KEY, TOKENS)
        assert state.n_valid == 0
        assert save(library, TOKENS).complete
        assert time.monotonic() - begun < 2
        assert seg.read_bytes() == good
        assert not seg.is_symlink()
        assert victim.read_bytes() == good
        assert not (tmp_path / "nowhere").exists()
    seg.unlink()
    seg.mkdir()
    assert library.load_state(KEY, TOKENS).n_valid == 0
    with pytest.raises(StoreError):
        save(library, TOKENS)


def forged(header, body, codec=1, raw=None, version=1, magic=segment.MAGIC, sizes=None):
    """A file whose digest holds, whatever it says."""
    header = header if isinstance(header, bytes) else canonical(header)
    header_size, body_size = sizes or (len(header), len(body))
    head = struct.pack("<8sHHIQQ", magic, version, codec, header_size, body_size, len(body) if raw is None else raw)
    digest = blake2b(head + header + body, digest_size=32).digest()
    return head + digest + header + body


def frame(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


def arrays(*entries):
    return {"arrays": [dict(zip(("name", "dtype", "shape"), entry, strict=True)) for entry in entries]}


BYTES = ("a", "|u1", [4])
BOMB = frame(b"\0" * (64 << 20), level=19)
FORGED = {
    "a frame that opens to more than it should": forged(arrays(BYTES), BOMB, raw=4),
    "a frame without its size": forged(arrays(BYTES), frame(b"1234", write_content_size=False), raw=4),
    "two frames": forged(arrays(BYTES), frame(b"1234") + frame(b"1234"), raw=4),
    "bytes behind the frame": forged(arrays(BYTES), frame(b"1234") + b"x", raw=4),
    "a cut frame": forged(arrays(BYTES), frame(os.urandom(4))[:-1], raw=4),
    "no frame": forged(arrays(BYTES), b"1234", raw=4),
    "an empty frame": forged(arrays(BYTES), b"", raw=4),
    "2^40 bytes": forged(arrays(("a", "|u1", [1 << 40])), frame(b""), raw=1 << 40),
    "2^63 bytes": forged(arrays(("a", "|u1", [1 << 63])), frame(b""), raw=1 << 63),
    "a shape that overflows": forged(arrays(("a", "|u1", [1 << 32, 1 << 32, 4])), frame(b"1234"), raw=4),
    "a negative shape": forged(arrays(("a", "|u1", [-2, -2])), frame(b"1234"), raw=4),
    "a shape of booleans": forged(arrays(("a", "|u1", [True, 4])), frame(b"1234"), raw=4),
    "a shape of numbers that are not whole": forged(arrays(("a", "|u1", [4.0])), frame(b"1234"), raw=4),
    "objects": forged(arrays(("a", "|O", [4])), frame(b"1234"), raw=4),
    "a type that is code": forged(arrays(("a", "__import__('os')", [4])), frame(b"1234"), raw=4),
    "an array twice": forged(arrays(("a", "|u1", [2]), ("a", "|u1", [2])), frame(b"1234"), raw=4),
    "too few bytes": forged(arrays(("a", "|u1", [3])), frame(b"1234"), raw=4),
    "raw bytes of another size": forged(arrays(BYTES), b"12345", codec=0, raw=4),
    "no arrays": forged({}, frame(b"1234"), raw=4),
    "arrays of another kind": forged({"arrays": "aaaa"}, frame(b"1234"), raw=4),
    "a header of another kind": forged([1, 2], frame(b"1234"), raw=4),
    "a deep header": forged(b"[" * 100_000, frame(b"1234"), raw=4),
    "a header that is no JSON": forged(b"{", frame(b"1234"), raw=4),
    "an unknown codec": forged(arrays(BYTES), b"1234", codec=9),
    "a later version": forged(arrays(BYTES), b"1234", codec=0, version=2),
    "another magic": forged(arrays(BYTES), b"1234", codec=0, magic=b"FKPTSTAU"),
    "sizes that do not add up": forged(arrays(BYTES), b"1234", codec=0, sizes=(10, 4)),
    "a header of 4 GiB": forged(arrays(BYTES), b"1234", codec=0, sizes=(0xFFFFFFFF, 4)),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_are_refused_at_once_without_memory(name):
    import tracemalloc

    tracemalloc.start()
    begun = time.monotonic()
    damaged(Path("x"), FORGED[name])
    took = time.monotonic() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 0.5
    assert peak < 16 << 20


def test_random_changes_with_a_true_digest_give_only_the_typed_error():
    rng = np.random.default_rng(3)
    base = forged(arrays(("a", "<u2", [2, 3])), frame(b"abcdefghijkl"), raw=12)
    for _ in range(3000):
        data = bytearray(base)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        head, rest = bytes(data[:32]), bytes(data[64:])
        data[32:64] = blake2b(head + rest, digest_size=32).digest()
        try:
            contents = segment.decode(Path("x"), bytes(data))
        except DamagedFile:
            continue
        assert sum(a.nbytes for a in contents.arrays.values()) <= len(data) * 10


def test_flipped_bits_in_the_tree_never_change_a_message_silently(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        parent, wanted = None, {}
        for word in ("tides", "moon", "pirate"):
            for node in talk(library, chat.id, parent, word):
                wanted[node.id] = node
                parent = node.id
        save(library, library.tokens(parent), parent)
        (row,) = library.node_states(parent)
    path = tmp_path / "data" / "tree.db"
    good = path.read_bytes()
    rng = np.random.default_rng(11)
    used = [place for place in range(len(good)) if good[place]]  # most of the file is empty pages
    outcomes = {"same": 0, "typed": 0}
    for place in rng.choice(used, 250, replace=False):
        shutil.rmtree(tmp_path / "data")
        path.parent.mkdir()
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.integers(8))]) + good[place + 1 :])
        try:
            with open_library(tmp_path) as library:
                for node_id, node in wanted.items():
                    assert library.node(node_id) == node
                assert library.node_states(parent) in ([row], [])
                assert [n.id for n in library.path(parent)] == list(wanted)
            outcomes["same"] += 1
        except StoreError:
            outcomes["typed"] += 1
    assert outcomes["same"] > 50
    assert outcomes["typed"] > 10


def test_a_good_library_passes_sqlites_own_check(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        _, reply = talk(library, chat.id, None, "x")
        library.set_name("n", reply.id)
        library.undo(chat.id)
    connection = sqlite3.connect(tmp_path / "data" / "tree.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
