"""A library in use by several processes while its cache is purged all the time. Run as a process of its own.

    python purge_loop.py FOLDER TURNS SEED

One process chats and saves, one reads (and some of its reads are purged between finding a file and reading it), one
evicts and collects garbage, one purges: the whole cache, parts of it, single files. At the end everything that was said
must be there, and every state, saved again, must have the digest that it had. Prints one line of figures.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults.kit import KEY, assert_true, logits, open_library, save, talk  # noqa: E402
from snapshots import StoreError  # noqa: E402
from snapshots.files import Files  # noqa: E402
from snapshots.states import digest_of  # noqa: E402


def purge(root, dice):
    """Remove the cache, some of its directories, or some of its files, as a cleaner of disks does."""
    how = dice.random()
    if how < 0.2:
        shutil.rmtree(root, ignore_errors=True)
        return
    for folder, folders, names in os.walk(root):
        for name in names if how < 0.6 else ():
            if dice.random() < 0.3:
                _remove(Path(folder, name))
        for name in folders if how >= 0.6 else ():
            if dice.random() < 0.2:
                shutil.rmtree(Path(folder, name), ignore_errors=True)


def _remove(path):
    try:
        path.unlink()
    except OSError:
        return


class PurgedReads(Files):
    """Purges between finding a file and reading it, and while it is read."""

    def __init__(self, root, dice):
        self.root, self.dice, self.purged = root, dice, 0

    def read(self, path, limit):
        if self.dice.random() < 0.02:
            self.purged += 1
            purge(self.root, self.dice)
        return super().read(path, limit)

    def read_fd(self, fd, limit):
        if self.dice.random() < 0.02:
            self.purged += 1
            purge(self.root, self.dice)
        return super().read_fd(fd, limit)


def purging(folder, dice, figures):
    purge(folder / "cache", dice)
    figures["purges"] = figures.get("purges", 0) + 1
    time.sleep(dice.uniform(0, dice.choice((0.005, 0.1, 0.3))))


def evicting(folder, dice, figures, library):
    library.set_cap(dice.choice((2000, 20000, 1 << 30)))
    library.make_room(1 << 20)
    library.collect_garbage()
    library.stats()
    figures["evictions"] = figures.get("evictions", 0) + 1
    time.sleep(dice.uniform(0, 0.2))


def reading(folder, dice, figures, library):
    twigs = [twig for chat in library.conversations() for twig in library.tree(chat.id)]
    if twigs:
        tokens = library.tokens(dice.choice(twigs).id)
        state = library.load_state(KEY, tokens)
        assert_true(state, tokens)
        assert state.damaged == 0
        figures[state.rung] = figures.get(state.rung, 0) + 1
        figures["mid_read"] = library._disk.purged


def beside(role, folder, seed):
    """Start a process that does `role` until it is told to end; gives its id and where its figures come from."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, os.fdopen(reader)
    done = []
    signal.signal(signal.SIGTERM, lambda *_: done.append(1))
    dice, figures = random.Random(f"{role.__name__} {seed}"), {}
    try:
        if role is purging:
            while not done:
                role(folder, dice, figures)
        else:
            with open_library(folder, PurgedReads(folder / "cache", dice) if role is reading else None) as library:
                while not done:
                    role(folder, dice, figures, library)
        os.write(writer, json.dumps(figures).encode())
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def main():
    folder, turns, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    open_library(folder).close()
    others = [beside(role, folder, seed) for role in (purging, evicting, reading)]
    said, figures = {}, {"turns": turns, "gave_up": 0, "lost": 0, "wrong": 0}
    try:
        with open_library(folder) as library:
            chat = library.new_conversation()
            for turn in range(turns):
                parent = dice.choice(list(said)) if said and dice.random() < 0.3 else (list(said) or [None])[-1]
                if turn % 12 == 0:
                    parent = None
                _, reply = talk(library, chat.id, parent, f"turn {turn} of {seed} ", dice.choice((3, 15, 40)))
                said[reply.id] = reply.text
                tokens = library.tokens(reply.id)
                try:
                    save(library, tokens, reply.id)
                except StoreError:  # a purge within each of its three tries
                    figures["gave_up"] += 1
                assert_true(library.load_state(KEY, tokens), tokens)
    finally:
        for process, _ in others:
            os.kill(process, signal.SIGTERM)
        ended = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process, _ in others]
    assert ended == [0, 0, 0], ended
    for _, pipe in others:
        figures.update(json.load(pipe))
    with open_library(folder) as library:
        for node_id, text in said.items():
            assert library.path(node_id)[-1].text == text
            tokens = library.tokens(node_id)
            (before,) = library.node_states(node_id)
            assert save(library, tokens, node_id).complete
            state = library.load_state(KEY, tokens)
            assert_true(state, tokens)
            assert state.rung == "bundle"
            assert digest_of(state.logits) == before.logits_digest == digest_of(logits(tokens))
            assert library.node_states(node_id)[0].has_bundle
    figures["healed"] = len(said)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
