"""What tests of the store share: states that are a function of their tokens, and file systems that fail on command."""

import errno
import os
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from snapshots import BLOCK, Chunk, Library, Message
from snapshots.files import Files

KEY = "5ca1ab1e" * 8


def open_library(folder, files=None):
    return Library.open(folder / "data", folder / "cache", files=files)


def _dice(*parts):
    return np.random.default_rng(list(blake2b(repr(parts).encode(), digest_size=16).digest()))


@lru_cache(1 << 14)
def _column(seed, width):
    return np.random.default_rng(list(seed)).standard_normal(2 * width).astype("f2")


def _seeds(tokens, start, stop):
    """For each token of [start, stop) the seed that `_dice` makes of it and all before it.

    Token by token: made of each list anew, the seeds of 20,000 tokens would take a minute.
    """
    said = blake2b(("((" + ", ".join(map(repr, tokens[:start]))).encode(), digest_size=16)
    for at in range(start, stop):
        said.update(((", " if at else "") + repr(tokens[at])).encode())
        whole = said.copy()
        whole.update(b"),)" if at else b",),)")
        yield whole.digest()


def chunk(tokens, start, stop, width=4):
    """The state of tokens [start, stop): each token's numbers depend on all tokens up to it, and on nothing else."""
    columns = [_column(seed, width) for seed in _seeds(tokens, start, stop)]
    both = np.stack(columns, axis=1)
    return Chunk(start, stop, {"k": both[:width], "v": np.ascontiguousarray(both[width:].T).view("u2")})


def chunks(tokens, start=0, width=4):
    """The chunks of a whole list from `start` on, cut at absolute blocks as the engine cuts them."""
    found = []
    while start < len(tokens):
        stop = min(len(tokens), start - start % BLOCK + BLOCK)
        found.append(chunk(tokens, start, stop, width))
        start = stop
    return found


def logits(tokens, size=32):
    return _dice("logits", tuple(tokens)).standard_normal(size).astype("f4")


def save(library, tokens, node_id=None, key=KEY):
    """Save a state as the app does: only what the store asks for."""
    start = library.save_from(key, tokens)
    out = logits(tokens)
    return library.save_state(
        node_id, key, tokens, chunks(tokens, start), logits=out, hidden=out[:8], dice_key=b"dice" * 4
    )


def assert_true(state, tokens):
    """What was loaded is a prefix of the state of these tokens, bit for bit, without gaps."""
    place = 0
    for each in state.chunks:
        assert each.start == place
        wanted = chunk(tokens, each.start, each.stop)
        assert set(each.arrays) == set(wanted.arrays)
        for name, array in wanted.arrays.items():
            assert each.arrays[name].dtype == array.dtype
            assert each.arrays[name].shape == array.shape
            assert each.arrays[name].tobytes() == array.tobytes(), (each.start, each.stop, name)
        place = each.stop
    assert place == state.n_valid <= len(tokens)
    if state.logits is not None:
        assert state.n_valid == len(tokens)
        assert state.logits.tobytes() == logits(tokens).tobytes()
        assert state.hidden.tobytes() == logits(tokens)[:8].tobytes()
        assert state.dice_key == b"dice" * 4


def state_files(folder):
    return sorted(p for p in (folder / "cache").rglob("*") if p.suffix in (".seg", ".fin"))


def talk(library, conversation_id, parent_id, text, n_tokens=3, **fields):
    """Add a user message and a reply; returns both nodes."""
    ids = tuple(b % 250 for b in text.encode())[:n_tokens] or (1,)
    user = library.add_node(conversation_id, parent_id, Message("user", text, ids))
    reply = library.add_node(
        conversation_id,
        user.id,
        Message("assistant", text.upper(), ids[::-1], stop="stop", dice_key=b"k" * 16, **fields),
    )
    return user, reply


class FailingFiles(Files):
    """Fails the call number `at` of those in `calls` (counted from 0), and all later ones if `sticky`."""

    def __init__(self, calls, at, error=errno.ENOSPC, sticky=False, torn=False):
        self.calls, self.at, self.error, self.sticky, self.torn = calls, at, error, sticky, torn
        self.count = self.failed = 0

    def _maybe(self, name):
        if name not in self.calls:
            return
        self.count += 1
        if self.count == self.at + 1 or (self.sticky and self.count > self.at):
            self.failed += 1
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path):
        self._maybe("create")
        return super().create(path)

    def write(self, fd, data):
        try:
            self._maybe("write")
        except OSError:
            if self.torn:  # a disk that fills up takes what it can
                super().write(fd, memoryview(data)[: len(data) // 2])
            raise
        super().write(fd, data)

    def sync(self, fd):
        self._maybe("sync")
        super().sync(fd)

    def rename(self, source, target):
        self._maybe("rename")
        super().rename(source, target)

    def unlink(self, path):
        self._maybe("unlink")
        super().unlink(path)

    def sync_dir(self, path):
        self._maybe("sync_dir")
        super().sync_dir(path)

    def make_dirs(self, path):
        self._maybe("make_dirs")
        super().make_dirs(path)
