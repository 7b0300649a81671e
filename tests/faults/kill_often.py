"""Row 2 of the battery: a person at work, killed at a random moment, again and again. Run as a process of its own.

    python kill_often.py FOLDER KILLS SEED

This process imports the store once and forks a child for each kill. The child talks, forks, names, saves, evicts,
imports and takes cut-off replies over; behind each step that the store acknowledged it writes a line to a pipe. The
parent kills it and holds the library against the lines. Prints one line of figures.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults.kit import KEY, assert_true, open_library, save  # noqa: E402
from snapshots import Message, ReplyStart  # noqa: E402
from snapshots.fsck import fsck  # noqa: E402

LINES = 40
"""A child is killed at a moment between its beginning and when it would have acknowledged about so much."""
TOKENS, TOKEN_S = 12, 0.0002
LONG = 150
"""A conversation of so many tokens is left for a new one: three blocks."""
DEEP = 50
"""After so many kills every message and every state that ever was is read."""


# ----------------------------------------------------------------------------------------------------------- the child


class Person:
    """Does what a person does, at random, and acknowledges what the store has."""

    def __init__(self, folder, dice, acknowledge):
        self.folder, self.dice, self.acknowledge = folder, dice, acknowledge
        self.library = open_library(folder)
        here = self.library.start_position()
        self.talk, self.at = (here.conversation_id, here.node_id) if here else (None, None)

    def live(self):
        for dead in self.library.dead_replies():
            if self.dice.random() < 0.5:
                self.go_on(dead.journal_id)
            else:
                self.acknowledge("discarding", dead.journal_id)
                self.library.discard_reply(dead.journal_id)
        steps = (self.turn, self.fork, self.name, self.evict, self.tidy, self.travel)
        while True:
            self.dice.choices(steps, (12, 2, 2, 1, 1, 1))[0]()

    def ids(self, count):
        return tuple(self.dice.randrange(250) for _ in range(count))

    def put(self, parent, message, **more):
        node = self.library.add_node(self.talk, parent, message, **more)
        self.acknowledge("node", node.id, list(message.tokens))
        self.at = node.id
        return node

    def turn(self):
        if self.at is None or self.library.node(self.at).n_tokens > LONG:
            self.talk, self.at = self.library.new_conversation().id, None
        user = self.put(self.at, Message("user", f"says {self.dice.random()}", self.ids(TOKENS)))
        journal = self.library.begin_journal(ReplyStart(self.talk, user.id))
        self.acknowledge("journal", journal.id, self.talk, user.id, [])
        self.reply(journal, user.id, [])

    def go_on(self, journal_id):
        dead, journal = self.library.adopt_reply(journal_id)
        self.talk = dead.start.conversation_id
        self.acknowledge("journal", journal_id, self.talk, dead.start.parent_id, list(dead.tokens))
        self.reply(journal, dead.start.parent_id, list(dead.tokens))

    def reply(self, journal, parent, ids):
        while len(ids) < TOKENS:
            token = self.dice.randrange(250)
            journal.append([token], f"t{token} ")
            ids.append(token)
            time.sleep(TOKEN_S)
            self.acknowledge("token", journal.id, token)
        text = "".join(f"t{token} " for token in ids)
        node = self.put(parent, Message("assistant", text, tuple(ids), stop="stop"), journal=journal)
        self.state(node.id)

    def state(self, node_id):
        if save(self.library, self.library.tokens(node_id), node_id).complete:
            self.acknowledge("state", node_id)

    def fork(self):
        if self.at is None:
            return
        path = self.library.path(self.at)
        parent = self.dice.choice(path).parent_id
        self.library.move_head(self.talk, parent, action="fork")
        self.put(parent, Message("user", f"another way {self.dice.random()}", self.ids(TOKENS)))

    def name(self):
        if self.at is not None:
            name = f"name {self.dice.randrange(5)}"
            self.acknowledge("naming", name)
            self.library.set_name(name, self.at, force=True)
            self.acknowledge("name", name, self.at)
            self.library.quicksave(self.at)

    def evict(self):
        self.acknowledge("evicting")
        self.library.set_cap(40_000)
        self.library.make_room()

    def tidy(self):
        self.acknowledge("evicting")
        self.library.collect_garbage()

    def travel(self):
        if self.at is None:
            return
        (self.folder / "export").write_bytes(b"".join(self.library.export(self.at)))
        with (self.folder / "export").open("rb") as stream:
            self.library.import_stream(stream, source="a friend")
        self.acknowledge("import", self.at)


# ---------------------------------------------------------------------------------------------------------- the parent


class Ledger:
    """What the store acknowledged so far, and whether it still stands to it."""

    def __init__(self, folder):
        self.folder = folder
        self.nodes = {}  # id -> its own tokens
        self.names = {}  # name -> id; None while it is being given
        self.journals = {}  # id -> [conversation, parent, tokens]
        self.states = set()  # ids whose state was saved whole and not evicted since

    def enter(self, lines):
        for kind, *what in lines:
            if kind == "node":
                self.nodes[what[0]] = what[1]
            elif kind == "naming":
                self.names[what[0]] = None
            elif kind == "name":
                self.names[what[0]] = what[1]
            elif kind == "journal":
                self.journals[what[0]] = what[1:]
            elif kind == "token":
                self.journals[what[0]][2].append(what[1])
            elif kind == "discarding":
                self.journals.pop(what[0], None)
            elif kind == "evicting":
                self.states.clear()
            elif kind == "state":
                self.states.add(what[0])

    def check(self, lines):
        """What was acknowledged of late, and every reply in flight."""
        with open_library(self.folder) as library:
            for kind, *what in lines:
                if kind == "node":
                    self.see(library, what[0])
                elif kind == "state":
                    self.load(library, what[0])
            for name, node_id in self.names.items():
                assert node_id is None or library.resolve(name).node.id == node_id, "a name is lost"
            offered = {each.journal_id: list(each.tokens) for each in library.dead_replies()}
            for journal_id, (talk, parent, tokens) in self.journals.items():
                found = [offered[journal_id]] if journal_id in offered else []
                found = found or [list(node.tokens) for node in library.children(talk, parent)]
                assert any(each[: len(tokens)] == tokens for each in found), "an acknowledged token is lost"
            self.journals = {key: value for key, value in self.journals.items() if key in offered}
            here = library.start_position()
            assert here is None or here.node_id is None or library.node(here.node_id)
            library.stats()
        return len(offered)

    def see(self, library, node_id):
        path = library.path(node_id)
        assert path[-1].id == node_id
        assert list(path[-1].tokens) == self.nodes[node_id], "an acknowledged message is another"

    def load(self, library, node_id):
        tokens = library.tokens(node_id)
        state = library.load_state(KEY, tokens)
        assert_true(state, tokens)
        if node_id in self.states:
            assert state.rung == "bundle", (state.n_valid, len(tokens))
            assert library.node_states(node_id)[0].has_bundle

    def check_all(self):
        """Everything that ever was acknowledged; then fsck reads every row and file."""
        with open_library(self.folder) as library:
            for node_id in self.nodes:
                self.see(library, node_id)
                self.load(library, node_id)
        assert fsck(self.folder / "data", self.folder / "cache").problems == []


def longest_s(folder):
    """How long a child takes for LINES, on this machine as busy as it is: the median of three that work undisturbed."""
    took = []
    for number in range(3):

        def undisturbed(pipe):
            begun = time.monotonic()
            for _ in range(LINES):
                pipe.readline()
            took.append(time.monotonic() - begun)

        kill_one(folder.with_name(f"{folder.name}.measured{number}"), number, undisturbed)
    return sorted(took)[1]


def kill_one(folder, seed, wait):
    """One child, from its beginning to its end; gives what it acknowledged. Raises where it ended by itself."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, b'["begun"]\n')
            say = lambda *what: os.write(writer, json.dumps(what).encode() + b"\n")
            Person(folder, random.Random(seed), say).live()
        except BaseException:
            traceback.print_exc()
        os._exit(9)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        pipe.readline()
        wait(pipe)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines = [json.loads(line) for line in pipe.read().splitlines() if line.endswith(b"]")]
    assert os.WIFSIGNALED(status), "the child failed by itself"
    return lines


def main():
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice, begun = random.Random(seed), time.monotonic()
    longest = longest_s(folder)
    ledger, cut, failures, last, count = Ledger(folder), 0, 0, Counter(), Counter()
    for number in range(kills):
        try:
            delay = dice.uniform(0.0, longest)
            lines = kill_one(folder, dice.random(), lambda _, delay=delay: time.sleep(delay))
            last[lines[-1][0] if lines else "nothing"] += 1
            count.update(kind for kind, *_ in lines)
            ledger.enter(lines)
            cut += ledger.check(lines)
            if number % DEEP == DEEP - 1 or number == kills - 1:
                ledger.check_all()
        except Exception:
            failures += 1
            print(f"kill {number} of seed {seed}: {traceback.format_exc()}", file=sys.stderr)
            shutil.move(folder, folder.with_name(f"{folder.name}.failed{number}"))
            ledger = Ledger(folder)
    took = time.monotonic() - begun
    figures = {"kills": kills, "failures": failures, "in_flight": cut, "ms_each": round(1e3 * took / kills, 1)}
    figures["longest_ms"] = round(1e3 * longest, 1)
    print(json.dumps({**figures, "acknowledged": dict(count), "last_before_the_kill": dict(last)}))


if __name__ == "__main__":
    main()
