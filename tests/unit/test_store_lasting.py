"""A name that a row relies on was synced by somebody, whoever gave it and whoever died before he synced it."""

import shutil
import time

import numpy as np
import pytest
from faults.kit import KEY, open_library, state_files
from faults.power import Killed

from snapshots import Chunk
from snapshots.files import Files
from snapshots.places import Chain

TOKENS = [(7 * i) % 300 for i in range(64 * 3)]


class Names(Files):
    """Notes in `loose` which names no sync of their directory covers yet; dies at a `sync_dir` that `kill` says."""

    def __init__(self, loose, kill=lambda path: False):
        self.loose, self.kill = loose, kill

    def rename(self, source, target):
        super().rename(source, target)
        self.loose.setdefault(target.parent, set()).add(target.name)

    def make_dirs(self, path):
        if not path.is_dir():
            self.make_dirs(path.parent)
            self.loose.setdefault(path.parent, set()).add(path.name)
        super().make_dirs(path)

    def sync_dir(self, path):
        if self.kill(path):
            raise Killed
        super().sync_dir(path)
        self.loose.pop(path, None)


def chunks(tokens, start=0):
    return [
        Chunk(at, min(at + 64, len(tokens)), {"k": np.array(tokens[at : at + 64], "u2")})
        for at in range(start, len(tokens), 64)
    ]


def save(library, tokens, found):
    return library.save_state(None, KEY, tokens, found, logits=np.zeros(3, "f4"))


def keep(library, tokens):
    return save(library, tokens, chunks(tokens, library.save_from(KEY, tokens)))


def unsynced(loose, folder, tokens):
    """What a list's state hangs on by a name that is not synced."""
    chain = Chain(folder / "cache", KEY, tokens)
    names = [chain.segment(at, min(at + 64, len(tokens))) for at in range(0, len(tokens), 64)]
    found = set()
    for path in [*names, chain.final()]:
        assert path.exists()
        found |= {each for each in (path, *path.parents) if each.name in loose.get(each.parent, ())}
    return found


@pytest.fixture
def loose():
    return {}


@pytest.mark.parametrize("blocks", [3, 100])
@pytest.mark.parametrize("late", [False, True])
def test_what_another_process_named_behind_the_look_and_did_not_sync_is_not_relied_upon(tmp_path, loose, blocks, late):
    tokens = [(7 * i) % 300 for i in range(64 * blocks)]
    with open_library(tmp_path, Names(loose)) as library:
        keep(library, tokens)
        if late:
            library.save_from(KEY, tokens)
        for path in state_files(tmp_path):
            path.unlink()
        dead = open_library(tmp_path, Names(loose, lambda path: True))
        with pytest.raises(Killed):
            save(dead, tokens, chunks(tokens))
        if late:
            time.sleep(0.3)
        report = save(library, tokens, [])
        assert not (report.complete and unsynced(loose, tmp_path, tokens))
        assert keep(library, tokens).complete
        assert not unsynced(loose, tmp_path, tokens)


def test_a_directory_that_a_killed_process_made_and_we_write_to_keeps_its_name(tmp_path, loose):
    with open_library(tmp_path, Names(loose)) as library:
        keep(library, TOKENS)
        dead = open_library(tmp_path, Names(loose, lambda path: len(path.name) == 32))
        with pytest.raises(Killed):
            save(dead, [*TOKENS, 9], chunks([*TOKENS, 9], len(TOKENS)))
        (made,) = {name for folder, names in loose.items() if len(folder.name) == 32 for name in names}
        more = ([*TOKENS, *([x] * 64)] for x in range(9999))
        there = next(t for t in more if Chain(tmp_path, KEY, t).segment(len(TOKENS), len(t)).parent.name == made)
        assert keep(library, there).complete
        assert not unsynced(loose, tmp_path, there)


@pytest.mark.parametrize("purged", ["one", "key", "all"])
def test_directories_that_a_killed_process_made_again_keep_their_names(tmp_path, loose, purged):
    killed_at = {"one": lambda p: len(p.name) == 32, "key": lambda p: p.name == "states-1"}
    with open_library(tmp_path, Names(loose)) as library:
        keep(library, TOKENS)
        key = Chain(tmp_path / "cache", KEY, TOKENS).directory
        one = Chain(tmp_path / "cache", KEY, TOKENS).segment(0, 64).parent
        shutil.rmtree({"one": one, "key": key, "all": key.parent}[purged])
        dead = open_library(tmp_path, Names(loose, killed_at.get(purged, lambda p: p.name == "cache")))
        with pytest.raises(Killed):
            save(dead, TOKENS, chunks(TOKENS))
        assert keep(library, TOKENS).complete
        assert not unsynced(loose, tmp_path, TOKENS)


def test_a_save_in_the_middle_of_another_threads_look_relies_on_no_name_that_is_not_synced(tmp_path, loose):
    with open_library(tmp_path, Names(loose)) as library:
        dead = open_library(tmp_path, Names(loose, lambda path: len(path.name) == 2))
        with pytest.raises(Killed):
            save(dead, TOKENS, chunks(TOKENS))
        lasting, reports = library._files()._lasting, []
        real = lasting.found

        def found(paths):
            paths = list(paths)
            if not reports:
                reports.append(None)
                report = save(library, TOKENS, [])  # as another thread would
                reports.append(report.complete and unsynced(loose, tmp_path, TOKENS))
            real(paths)

        lasting.found = found
        library.save_from(KEY, TOKENS)
        assert not reports[1]
