"""The library against plain sets: any order of talking, moving, naming, deleting, undoing, restarting, purging."""

import copy
import shutil
import tempfile
from pathlib import Path

import pytest
from faults.kit import KEY, assert_true, open_library, save, state_files
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snapshots import Message, NameTaken, NothingToUndo

MEMORY = Path("/dev/shm")
WORDS = st.sampled_from(["tides", "moon", "pirate"])
NAMES = st.sampled_from(["joke", "end", "x"])
PLACE = st.integers(0, 1 << 30)


class World:
    """What undo goes back to: where one stands, what is shown, which names there are."""

    def __init__(self):
        self.head = None
        self.shown = set()
        self.names = {}


class LibraryMachine(RuleBasedStateMachine):
    """One conversation. An action remembers the world before it; undo must bring exactly that world back."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.library = open_library(self.folder)
        self.chat = self.library.new_conversation()
        self.world = World()
        self.done, self.undone = [], []
        self.parents, self.tokens = {}, {None: []}
        self.saved = set()

    def teardown(self):
        if hasattr(self, "library"):
            self.library.close()
            shutil.rmtree(self.folder)

    def act(self):
        """An action begins: remember the world before it."""
        self.done.append(copy.deepcopy(self.world))
        self.undone.clear()

    def pick(self, place):
        shown = self.in_order()
        return shown[place % len(shown)]

    def in_order(self):
        """What is shown, oldest first: ids hang on a random one, so their own order would not replay."""
        return [node_id for node_id in self.parents if node_id in self.world.shown]

    def behind(self, node_id):
        found = {node_id}
        while True:
            more = {n for n in self.world.shown if self.parents[n] in found} - found
            if not more:
                return found
            found |= more

    def nearest(self, node_id):
        while node_id is not None and node_id not in self.world.shown:
            node_id = self.parents[node_id]
        return node_id

    def holder(self, name):
        node_id = self.world.names.get(name)
        return node_id if node_id in self.world.shown else None

    def add(self, parent, message):
        node = self.library.add_node(self.chat.id, parent, message)
        self.parents[node.id] = parent
        kept = self.tokens[parent][: len(self.tokens[parent]) if message.keep is None else message.keep]
        self.tokens[node.id] = [*kept, *message.tokens]
        self.world.shown.add(node.id)
        self.world.head = node.id
        return node

    @rule(word=WORDS, reply=WORDS, size=st.integers(0, 40), dropped=st.integers(0, 3))
    def talk(self, word, reply, size, dropped):
        self.act()
        parent = self.world.head
        keep = max(0, len(self.tokens[parent]) - dropped)
        user = self.add(parent, Message("user", word, tuple(word.encode()), keep=keep))
        self.add(user.id, Message("assistant", reply, tuple(reply.encode()) * size))

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE, word=WORDS)
    def regenerate(self, place, word):
        users = [n for n in self.in_order() if self.library.node(n).role == "user"]
        parent = users[place % len(users)] if users else None
        if parent is None or parent == self.world.head:
            return
        self.act()
        self.add(parent, Message("assistant", f"again {word}", tuple(word.encode())))

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE, action=st.sampled_from(["restore", "fork", "back"]))
    def move(self, place, action):
        target = self.pick(place)
        if target != self.world.head:
            self.act()
        self.library.move_head(self.chat.id, target, action=action)
        self.world.head = target

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE)
    def delete(self, place):
        target = self.pick(place)
        self.act()
        self.library.delete(target)
        self.world.shown -= self.behind(target)
        self.world.head = self.nearest(self.world.head)

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE, name=NAMES, force=st.booleans())
    def name(self, place, name, force):
        target = self.pick(place)
        if self.holder(name) not in (None, target) and not force:
            with pytest.raises(NameTaken):
                self.library.set_name(name, target)
            return
        self.act()
        self.library.set_name(name, target, force=force)
        self.world.names[name] = target

    @rule(old=NAMES, new=NAMES)
    def rename(self, old, new):
        if self.holder(old) is None:
            return
        self.act()
        self.library.rename(old, new, force=True)
        self.world.names[new] = self.world.names.pop(old)

    @rule(name=NAMES)
    def unname(self, name):
        if self.holder(name) is None:
            return
        self.act()
        self.library.remove_name(name)
        del self.world.names[name]

    @rule(times=st.integers(1, 4))
    def undo(self, times):
        for _ in range(times):
            if not self.done:
                with pytest.raises(NothingToUndo):
                    self.library.undo(self.chat.id)
                return
            self.undone.append(self.world)
            self.world = self.done.pop()
            assert self.library.undo(self.chat.id).head_id == self.world.head

    @rule(times=st.integers(1, 4))
    def redo(self, times):
        for _ in range(times):
            if not self.undone:
                with pytest.raises(NothingToUndo):
                    self.library.redo(self.chat.id)
                return
            self.done.append(self.world)
            self.world = self.undone.pop()
            assert self.library.redo(self.chat.id).head_id == self.world.head

    @rule()
    def restart(self):
        self.library.close()
        self.library = open_library(self.folder)

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE)
    def save(self, place):
        target = self.pick(place)
        assert save(self.library, self.tokens[target], target).complete
        self.saved.add(tuple(self.tokens[target]))

    @precondition(lambda self: self.world.shown)
    @rule(place=PLACE)
    def load(self, place):
        tokens = self.tokens[self.pick(place)]
        state = self.library.load_state(KEY, tokens)
        assert_true(state, tokens)
        if tuple(tokens) in self.saved:
            assert state.rung == "bundle"

    @rule(place=PLACE, how=st.sampled_from(["all", "one", "flip", "cut"]))
    def harm_the_cache(self, place, how):
        files = state_files(self.folder)
        if how == "all" or not files:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        else:
            path = files[place % len(files)]
            data = bytearray(path.read_bytes())
            data[place % len(data)] ^= 1 << place % 8
            if how == "one":
                path.unlink()
            else:
                path.write_bytes(data if how == "flip" else data[: place % len(data)])
        self.saved.clear()

    @invariant()
    def the_library_is_the_world(self):
        if not hasattr(self, "library"):
            return
        twigs = self.library.tree(self.chat.id)
        assert {t.id for t in twigs} == self.world.shown
        assert {t.id: t.parent_id for t in twigs} == {n: self.parents[n] for n in self.world.shown}
        assert all(t.n_tokens == len(self.tokens[t.id]) for t in twigs)
        assert self.library.conversation(self.chat.id).head_id == self.world.head
        assert self.library.tokens(self.world.head) == self.tokens[self.world.head]
        visible = {name: node_id for name, node_id in self.world.names.items() if node_id in self.world.shown}
        assert {s.name: s.node_id for s in self.library.savepoints()} == visible


TestLibrary = LibraryMachine.TestCase
TestLibrary.settings = settings(stateful_step_count=30)
