"""The machine of row 11: does anything that a library can, in any order, to a library and to a plain tree in memory."""

import io
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from faults.kit import KEY, assert_true, open_library, save, state_files
from faults.library_looks import NAMES, PLACE, TITLES, WORDS, LibraryLooks
from faults.plain_tree import PlainTree, Said, Talk
from snapshots import Message, NameTaken, NothingToUndo, ReplyStart, UnknownConversation, UnknownNode
from snapshots.fsck import fsck
from snapshots.quota import TARGET

MEMORY = Path("/dev/shm")
YEARS = 365 * 86400
MOST_TALKS = 3


has_talks, has_nodes = LibraryLooks.has_talks, LibraryLooks.has_nodes
has_names, has_states = LibraryLooks.has_names, LibraryLooks.has_states


class LibraryMachine(LibraryLooks):
    """Each rule does one thing to both, and says what of the states on disk must still be whole."""

    @initialize(turns=st.integers(0, 3))
    def begin(self, turns):
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.library = open_library(self.folder)
        self.plain = PlainTree()
        self.whole = set()  # messages whose state must load without computing
        self.dead = {}  # replies in flight whose process died: (talk, parent, tokens)
        self.saved = False
        self.written = 0  # bytes of states since room was made
        self.files = []  # exports, and what each holds
        self.clock, self.skew = time.time, 0.0
        time.time = lambda: self.clock() + self.skew
        self.figures["runs"] += 1
        talk = self.library.new_conversation("Tidesong").id
        self.plain.talks[talk] = Talk("Tidesong")
        for turn in range(turns):
            user = self.add(talk, self.plain.talks[talk].head, Message("user", f"turn {turn}", tuple(range(turn, 20))))
            self.add(talk, user, Message("assistant", "the moon", tuple(range(60)), stop="stop"))

    def teardown(self):
        if not hasattr(self, "library"):
            return
        try:
            assert self.replies() == self.dead
            self.library.close()
            wrong = [p for p in fsck(self.folder / "data", self.folder / "cache").problems if p.where != "states"]
            assert wrong == []
        finally:
            time.time = self.clock
            self.library.close()
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------------------------ talking

    @precondition(lambda self: len(self.plain.talks) < MOST_TALKS)
    @rule(title=TITLES)
    def new_conversation(self, title):
        self.count("new conversation")
        talk = self.library.new_conversation(title)
        self.plain.talks[talk.id] = Talk(title)

    def add(self, talk, parent, message, **more):
        node = self.library.add_node(talk, parent, message, **more)
        kept = self.plain.said[parent].tokens if parent else ()
        kept = kept if message.keep is None else kept[: message.keep]
        said = Said(talk, parent, message.role, message.text, (*kept, *message.tokens), message.stop)
        self.plain.add(node.id, said)
        return node.id

    @has_talks
    @rule(place=PLACE, word=WORDS, size=st.integers(0, 40), dropped=st.integers(0, 3), role=st.booleans())
    def message(self, place, word, size, dropped, role):
        self.count("message")
        talk = self.talk(place)
        parent = self.plain.talks[talk].head
        keep = max(0, len(self.plain.said[parent].tokens) - dropped) if parent else 0
        kind = "system" if role and parent is None else "user"
        self.library.add_prompt(word)
        self.plain.prompts = [*(p for p in self.plain.prompts if p != word), word]
        self.add(talk, parent, Message(kind, word, tuple(word.encode())[:size], keep=keep))

    @has_talks
    @rule(place=PLACE, word=WORDS, size=st.integers(0, 90), stop=st.sampled_from(["stop", "saved"]))
    def reply(self, place, word, size, stop):
        self.count("reply")
        talk = self.talk(place)
        parent = self.plain.talks[talk].head
        journal = self.library.begin_journal(ReplyStart(talk, parent))
        tokens = tuple(range(size))
        journal.append(tokens, word)
        self.add(talk, parent, Message("assistant", f"the {word}", tokens, stop=stop), journal=journal)

    @has_nodes
    @rule(place=PLACE, word=WORDS)
    def fork(self, place, word):
        self.count("fork")
        parent = self.node(place)
        talk = self.plain.said[parent].talk
        if self.plain.talks[talk].hidden_by is None:
            self.add(talk, parent, Message("user", f"or {word}", tuple(word.encode())))

    @has_talks
    @rule(place=PLACE, size=st.integers(0, 20))
    def a_reply_whose_process_dies(self, place, size):
        self.count("dead reply")
        talk = self.talk(place)
        parent = self.plain.talks[talk].head
        journal = self.library.begin_journal(ReplyStart(talk, parent))
        journal.append(range(size), "so far")
        journal.close()
        self.dead[journal.id] = (talk, parent, tuple(range(size)))

    def replies(self):
        return {
            each.journal_id: (each.start.conversation_id, each.start.parent_id, each.tokens)
            for each in self.library.dead_replies()
        }

    @precondition(lambda self: self.dead)
    @rule(place=PLACE, finish=st.booleans())
    def take_a_dead_reply_over(self, place, finish):
        self.count("dead reply taken over")
        assert self.replies() == self.dead
        journal_id = list(self.dead)[place % len(self.dead)]
        talk, parent, tokens = self.dead.pop(journal_id)
        reply, journal = self.library.adopt_reply(journal_id)
        assert reply.tokens == tokens
        journal.append([7])
        message = Message("assistant", "so far and on", (*tokens, 7), stop="stop")
        if not finish:
            journal.discard()
        elif talk in self.plain.visible_talks():
            self.add(talk, parent, message, journal=journal)
        else:
            with pytest.raises(UnknownConversation):
                self.library.add_node(talk, parent, message, journal=journal)
            journal.discard()

    # ------------------------------------------------------------------------------------- moving, naming, deleting

    @has_nodes
    @rule(place=PLACE, kind=st.sampled_from(["restore", "fork", "back"]), start=st.integers(0, 9))
    def move(self, place, kind, start):
        self.count("move")
        node = self.node(place)
        talk = self.plain.said[node].talk
        target = None if start == 0 else node
        if self.plain.talks[talk].hidden_by is not None:
            with pytest.raises(UnknownConversation):
                self.library.move_head(talk, target, action=kind)
            return
        self.library.move_head(talk, target, action=kind)
        self.plain.move(talk, target, kind)

    @has_nodes
    @rule(place=PLACE, name=NAMES, force=st.booleans())
    def name(self, place, name, force):
        self.count("name")
        node = self.node(place)
        if self.plain.holder(name) not in (None, node) and not force:
            with pytest.raises(NameTaken):
                self.library.set_name(name, node)
            return
        self.library.set_name(name, node, force=force)
        self.plain.name(name, node)

    @has_names
    @rule(place=PLACE, new=st.one_of(NAMES, st.none()))
    def rename_or_unname(self, place, new):
        self.count("rename" if new else "unname")
        names = [name for name in self.plain.names if self.plain.holder(name)]
        old = names[place % len(names)]
        if new is None:
            self.library.remove_name(old)
            self.plain.unname(old)
        else:
            self.library.rename(old, new, force=True)
            self.plain.rename(old, new)

    @has_talks
    @rule(place=PLACE, title=TITLES)
    def entitle(self, place, title):
        self.count("title")
        talk = self.talk(place)
        self.library.set_title(talk, title)
        self.plain.set_title(talk, title)

    @has_nodes
    @rule(place=PLACE)
    def quicksave(self, place):
        self.count("quicksave")
        node = self.node(place)
        self.library.quicksave(node)
        self.plain.quicksave(node)

    @has_nodes
    @rule(place=PLACE, pinned=st.booleans())
    def pin(self, place, pinned):
        self.count("pin")
        node = self.node(place)
        self.library.pin(node, pinned)
        (self.plain.pins.add if pinned else self.plain.pins.discard)(node)

    @precondition(lambda self: self.plain.deeds)
    @rule(place=PLACE, times=st.integers(1, 4), everywhere=st.booleans(), again=st.booleans())
    def undo(self, place, times, everywhere, again):
        self.count("redo" if again else "undo")
        talks = list(self.plain.talks)
        talk = None if everywhere or not talks else talks[place % len(talks)]
        for _ in range(times):
            there = self.plain.redo(talk) if again else self.plain.undo(talk)
            do = self.library.redo if again else self.library.undo
            if not there:
                with pytest.raises(NothingToUndo):
                    do(talk)
                return
            do(talk)

    @has_nodes
    @rule(place=PLACE)
    def delete(self, place):
        self.count("delete")
        node = self.node(place)
        self.library.delete(node)
        self.plain.delete(node)
        with pytest.raises(UnknownNode):
            self.library.delete(node)

    @has_talks
    @rule(place=PLACE)
    def delete_conversation(self, place):
        self.count("delete conversation")
        talk = self.talk(place)
        self.library.delete_conversation(talk)
        self.plain.delete_talk(talk)

    @precondition(lambda self: self.plain.hidden_by)
    @rule(place=PLACE)
    def delete_forever(self, place):
        self.count("delete --forever")
        node = list(self.plain.hidden_by)[place % len(self.plain.hidden_by)]
        gone = self.plain.forget(node)
        assert self.library.delete_forever(node).messages == len(gone)
        self.dead = {each: reply for each, reply in self.dead.items() if reply[1] not in gone}
        self.whole = {n for n in self.whole if self.plain.is_live(n)}
        for each in gone:
            with pytest.raises(UnknownNode):
                self.library.node(each)

    # ---------------------------------------------------------------------------------------------------- travelling

    @has_nodes
    @rule(place=PLACE, scope=st.sampled_from(["savepoint", "tree", "conversation"]))
    def export(self, place, scope):
        self.count("export")
        node = self.node(place)
        if self.plain.talks[self.plain.said[node].talk].hidden_by is None:
            data = b"".join(self.library.export(node, scope))
            self.files = [*self.files[-2:], (data, self.plain.carried(node, scope))]

    @precondition(lambda self: self.files)
    @rule(place=PLACE)
    def import_again(self, place):
        self.count("import")
        data, carried = self.files[place % len(self.files)]
        arrival = self.library.import_stream(io.BytesIO(data))
        assert dict(arrival.renamed) == self.plain.arrive(*carried)
        assert (arrival.conversation_id, arrival.node_id) == (carried[0], carried[2])

    @precondition(lambda self: self.files)
    @rule(place=PLACE)
    def import_elsewhere(self, place):
        self.count("import elsewhere")
        data, (talk, title, node, messages) = self.files[place % len(self.files)]
        with open_library(self.folder / "elsewhere") as other:
            other.import_stream(io.BytesIO(data))
            assert {twig.id: twig.text for n, _ in messages for twig in [other.node(n)]} == {
                n: self.plain.said[n].text for n, _ in messages
            }
            assert other.conversation(talk)[:2] == (talk, title)
            assert tuple(other.tokens(node)) == self.plain.said[node].tokens
        shutil.rmtree(self.folder / "elsewhere")

    # --------------------------------------------------------------------------------------------------------- states

    @has_nodes
    @rule(place=PLACE)
    def save(self, place):
        self.count("save")
        node = self.node(place)
        done = save(self.library, self.plain.said[node].tokens, node)
        assert done.complete
        self.written += done.bytes_written
        self.whole.add(node)
        self.saved = True

    @has_nodes
    @rule(place=PLACE)
    def load(self, place):
        self.count("load")
        node = self.node(place)
        self.load_one(node)

    def load_one(self, node):
        tokens = self.plain.said[node].tokens
        state = self.library.load_state(KEY, tokens)
        assert_true(state, tokens)
        assert node not in self.whole or state.rung == "bundle"

    @has_states
    @rule(place=PLACE, how=st.sampled_from(["purge", "purge one", "flip", "cut", "empty"]))
    def harm_the_cache(self, place, how):
        self.count(f"cache: {how}")
        files = state_files(self.folder)
        self.whole.clear()
        if how == "purge" or not files:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
            return
        path = files[place % len(files)]
        data = bytearray(path.read_bytes()) or bytearray(1)
        data[place % len(data)] ^= 1 << place % 8
        if how == "purge one":
            path.unlink()
        else:
            path.write_bytes({"flip": data, "cut": data[: place % len(data)], "empty": b""}[how])

    @has_states
    @rule(share=st.floats(0, 1))
    def evict(self, share):
        self.count("evict")
        size = sum(path.stat().st_size for path in state_files(self.folder))
        cap = int(size * share)
        spared = self.plain.pins | {n for talk in self.plain.talks for n in self.plain.quick(talk)[:1]}
        spared |= {talk.head for talk in self.plain.talks.values()}
        needed = sum(self.library.footprint(n).size_bytes for n in spared if n in self.plain.hidden_by)
        self.library.set_cap(cap)
        evicted = self.library.make_room(self.written)
        self.written = 0
        assert (evicted is None) == (size <= cap)
        self.library.set_cap(None)
        if evicted is not None:
            assert sum(path.stat().st_size for path in state_files(self.folder)) <= cap * TARGET
            self.whole &= self.plain.pins if needed <= cap * TARGET else set()
            self.whole = {n for n in self.whole if self.plain.is_live(n)}
            for node in self.whole:
                self.load_one(node)

    @has_states
    @rule()
    def collect_garbage(self):
        self.count("gc")
        self.library.collect_garbage()
        self.whole = {n for n in self.whole if self.plain.is_live(n)}
        for node in self.whole:
            self.load_one(node)

    # -------------------------------------------------------------------------------------------------------- trouble

    @rule(crash=st.booleans())
    def restart(self, crash):
        self.count("restart")
        if not crash:
            self.library.close()  # else the old one is left as it is, as by a process that hangs
        self.library = open_library(self.folder)
        assert self.replies() == self.dead

    @has_nodes
    @rule(years=st.sampled_from([-10, -1, 0, 1, 10]))
    def the_clock_jumps(self, years):
        self.count("clock")
        self.skew = years * YEARS

    @has_nodes
    @rule()
    def back_up(self):
        self.count("backup")
        assert self.library.back_up(now=True)
