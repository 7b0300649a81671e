"""What people do with a library, step by step and by seed; what the store promised meanwhile; and is it kept?

Whoever cuts power or kills runs `History.go` in one place, keeps the promises that it made until then, and hands them
to `Promises.check` with what is left of the library.
"""

import contextlib
import io
import os
import random
import sqlite3
from hashlib import blake2b
from unittest import mock

from faults.kit import KEY, assert_true, open_library, save, talk
from snapshots import Library, Message, ReplyStart, StoreError, backups, journal
from snapshots.files import Files
from snapshots.fsck import fsck

SCENARIOS = {
    "save": ["talk", "talk"],
    "fork": ["talk", "fork", "fork"],
    "evict": ["talk", "fork", "evict", "talk"],
    "import": ["talk", "import", "fork"],
    "migrate": ["talk"],
    "delete forever": ["talk", "backup", "fork", "index", "forget", "talk"],
    "back up": ["talk", "backup", "talk", "backup"],
    "export": ["talk", "export"],
    "repair": ["repair"],
    "adopt": ["leave", "adopt", "talk"],
    "stream": ["stream", "stream"],
    "forget": ["talk", "backup", "forget"],
    "only back up": ["backup"],
    "tell": ["tell"],
    "together": ["together"],
    "go on": ["adopt", "resume", "talk", "backup"],
}
STEPS = (
    "talk",
    "talk",
    "fork",
    "fork",
    "evict",
    "import",
    "forget",
    "backup",
    "index",
    "leave",
    "adopt",
    "stream",
    "together",
)


def again(call):
    """Do it once more where the disk failed once, as people do."""
    try:
        return call()
    except StoreError:
        return call()


class History:
    """A library in use. `promise(*what)` is called behind each call of the store that says that something is safe."""

    def __init__(self, library, promise, dice, out=None):
        self.library, self.promise, self.dice, self.out = library, promise, dice, out
        self.sizes = (1, 5, 20, 40, 100)
        self.nodes = [t.id for c in library.conversations() for t in library.tree(c.id) if t.role == "assistant"]

    def go(self, steps):
        for step in steps:
            getattr(self, step)()

    def words(self):
        """A text that nothing else holds, so that it can be looked for in raw bytes, and its tokens."""
        ids = tuple(self.dice.randrange(60000) for _ in range(self.dice.choice(self.sizes)))
        return f"text-{self.dice.getrandbits(96):024x}", ids

    def place(self):
        """A conversation and a reply in it; None for the start of a new one."""
        if not self.nodes or self.dice.random() < 0.15:
            return self.library.new_conversation().id, None
        node = self.library.node(self.dice.choice(self.nodes))
        return node.conversation_id, node.id

    def talk(self, where=None):
        conversation_id, parent = where or self.place()
        user = self.library.add_node(conversation_id, parent, Message("user", *self.words()), state_key=KEY)
        self.promise("node", user.id)
        self.reply(self.begin(user), user)

    def begin(self, user):
        opened = again(lambda: self.library.begin_journal(ReplyStart(user.conversation_id, user.id)))
        self.promise("journal", opened.id, 0, user.id)
        return opened

    def reply(self, opened, user, before=0):
        text, ids = self.words()
        for token in ids[:4]:
            opened.append([token], text)
        again(opened.sync)
        self.promise("journal", opened.id, before + len(ids[:4]), user.id)
        node = self.library.add_node(
            user.conversation_id, user.id, Message("assistant", text, ids, stop="stop"), journal=opened, state_key=KEY
        )
        self.promise("node", node.id)
        self.promise("ended", opened.id)
        self.nodes.append(node.id)
        self.keep(node.id)

    def keep(self, node_id):
        if again(lambda: save(self.library, self.library.tokens(node_id), node_id)).complete:
            self.promise("state", node_id)

    def fork(self):
        if not self.nodes:
            return self.talk()
        where = self.library.node(self.dice.choice(self.nodes))
        name = f"name-{self.dice.getrandbits(40):x}"
        self.library.set_name(name, where.id)
        self.promise("name", name, where.id)
        return self.talk((where.conversation_id, where.id))

    def stream(self):
        """A reply that is never synced by name, but whenever a quarter of a second is over; here it always is."""
        conversation_id, parent = self.place()
        user = self.library.add_node(conversation_id, parent, Message("user", *self.words()), state_key=KEY)
        opened = self.begin(user)
        with mock.patch.object(journal, "SYNC_EVERY_S", -1.0):
            for count in range(1, 4):
                opened.append([count], "t")
                self.promise("journal", opened.id, count, user.id)
        opened.close()

    def resume(self):
        """What a process left without a state gets one."""
        for node_id in self.nodes:
            self.keep(node_id)

    def tell(self):
        """Talk at length: more than a block."""
        self.sizes = (100,)
        self.talk()

    def together(self):
        """Two replies at once: the first journal is removed when no other one begins any more."""
        conversation_id, parent = self.place()
        user = self.library.add_node(conversation_id, parent, Message("user", *self.words()), state_key=KEY)
        self.promise("node", user.id)
        first, second = self.begin(user), self.begin(user)
        self.reply(first, user)
        self.reply(second, user)

    def leave(self):
        """A reply that its process does not end."""
        conversation_id, parent = self.place()
        user = self.library.add_node(conversation_id, parent, Message("user", *self.words()), state_key=KEY)
        self.promise("node", user.id)
        opened = self.begin(user)
        opened.append([1, 2, 3], "three")
        again(opened.sync)
        self.promise("journal", opened.id, 3, user.id)
        opened.close()

    def adopt(self):
        for dead in self.library.dead_replies():
            reply, opened = self.library.adopt_reply(dead.journal_id)
            self.reply(opened, self.library.node(reply.start.parent_id), len(reply.tokens))

    def evict(self):
        self.promise("evicting")
        self.library.set_cap(self.library.stats().bundle_bytes // 2)
        self.library.make_room()
        self.library.set_cap(1 << 40)

    def forget(self):
        """Delete a message and all behind it for good."""
        if not self.nodes:
            return
        first = self.library.node(self.dice.choice(self.nodes))
        doomed, twigs = {first.id}, self.library.tree(first.conversation_id)
        for twig in twigs:
            if twig.parent_id in doomed:
                doomed.add(twig.id)
        told = [[node.id, node.text, self.library.tokens(node.id)] for node in map(self.library.node, sorted(doomed))]
        keep = len(self.library.tokens(first.parent_id))
        self.promise("doomed", keep, told)
        self.library.delete_forever(first.id)
        self.promise("gone", keep, told)
        self.nodes = [each for each in self.nodes if each not in doomed]

    def backup(self):
        again(lambda: self.library.back_up(now=True))
        self.promise("backup")

    def index(self):
        self.library.index_text()

    def export(self):
        from app.travelling import write_file

        path = self.out / f"{self.dice.getrandbits(32):x}.forkpoint"
        write_file(path, self.library.export(self.dice.choice(self.nodes), "conversation"), force=False)
        self.promise("exported", path.name)

    def import_(self):
        with Library.in_memory() as other:
            chat = other.new_conversation("from afar")
            _, reply = talk(other, chat.id, None, self.words()[0], 30)
            _, last = talk(other, chat.id, reply.id, self.words()[0], 20)
            stream = io.BytesIO(b"".join(other.export(last.id, "conversation")))
            ids = [node.id for node in other.path(last.id)]
        self.library.import_stream(stream, source="afar")
        for node_id in ids:
            self.promise("node", node_id)
        self.nodes.append(ids[-1])
        self.keep(ids[-1])


setattr(History, "import", History.import_)


def prepare(scenario, folder):
    """Make what a scenario begins with; gives what is promised from the start."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    if scenario == "migrate":
        from unit.test_store_formats import unpack

        talks = [talk for talk in unpack("format-1", folder).values() if isinstance(talk, dict) and "twigs" in talk]
        live = [twig[0] for talk in talks for twig in talk["twigs"] if not twig[14]]
        return [["format", 1], *(["node", node_id] for node_id in live)]
    if scenario != "repair":
        return []
    promises = []
    with open_library(folder) as library:
        history = History(library, lambda *what: promises.append(list(what)), random.Random(5))
        history.go(["talk", "backup", "fork"])
    with contextlib.closing(sqlite3.connect(folder / "data" / "tree.db")) as raw:
        raw.execute("UPDATE nodes SET created = created + 1 WHERE seq = 1")
        raw.commit()
    return [*promises, ["damaged", _digest(folder / "data" / "tree.db")]]


def _digest(path):
    return blake2b(path.read_bytes()).hexdigest()


def run(scenario, folder, promise, seed=0, files=None):
    """Act out a scenario, or any steps by seed where its name is "any"."""
    dice = random.Random(f"{scenario} {seed}")
    steps = SCENARIOS.get(scenario) or [dice.choice(STEPS) for _ in range(dice.randrange(4, 8))]
    if steps == ["repair"]:
        fsck(folder / "data", folder / "cache", repair=True, files=files)
        promise("repaired")
        return
    with open_library(folder, files) as library:
        promise("open")
        History(library, promise, dice, folder / "out").go(steps)


def _holds(folder, texts):
    """Files of the library that hold any of the texts in their raw bytes."""
    wanted = [text.encode() for text in texts if text.startswith("text-")]  # those that are in no other message
    files = [p for part in ("data", "cache") for p in (folder / part).rglob("*") if p.is_file()] if wanted else []
    return [path for path in files for raw in [path.read_bytes()] if any(text in raw for text in wanted)]


class Promises:
    """What the store promised so far, made of what `History` was told, in its order."""

    def __init__(self, heard=()):
        self.nodes, self.states, self.names, self.journals, self.exported = set(), set(), {}, {}, []
        self.doomed, self.going, self.gone, self.facts, self.ended = set(), [], [], set(), set()
        for what in heard:
            self.hear(*what)

    def hear(self, kind, *what):
        if kind == "node":
            self.nodes.add(what[0])
        elif kind == "state":
            self.states.add(what[0])
        elif kind == "name":
            self.names[what[0]] = what[1]
        elif kind == "journal":
            self.journals[what[0]] = what[1:]
        elif kind == "ended":
            self.journals.pop(what[0], None)
            self.ended.add(what[0])
        elif kind == "exported":
            self.exported.append(what[0])
        elif kind == "doomed":
            self.doomed |= {node_id for node_id, _, _ in what[1]}
            self.going += what[1]
            self.facts -= {"backup", "format", "damaged"}
        elif kind == "gone":
            self.gone += [(text, what[0], tokens) for _, text, tokens in what[1]]
            self.facts.add("backup")
        else:
            self.facts.add(kind)
        if kind == "damaged":
            self.damaged = what[0]
        if kind == "evicting":
            self.states = set()

    def check(self, folder, going_on=True):
        """Assert that all of it is kept, that nothing there is untrue, and (`going_on`) that everything goes on.

        Gives what is known from here on: journals that were ended in the moment of the cut.
        """
        self._check_raw(folder)
        if "damaged" in self.facts and "repaired" not in self.facts:
            fsck(folder / "data", folder / "cache", repair=True)
        with open_library(folder) as library:
            twigs = {twig.id: twig for talk in library.conversations() for twig in library.tree(talk.id)}
            assert not self.nodes - self.doomed - set(twigs), "an acknowledged turn is lost"
            self._check_states(library, twigs)
            ended = self._check_journals(library)
            names = {savepoint.name: savepoint.node_id for savepoint in library.savepoints()}
            for name, node_id in self.names.items():
                assert node_id in self.doomed or names.get(name) == node_id, "an acknowledged name is lost"
            self._check_copies(folder, library)
            going = [text for node_id, text, _ in self.going if node_id not in twigs]
            still = _holds(folder, going)
            assert not still, f"forgetting was begun and is not ended in {still}"
            for _, keep, tokens in self.gone:
                assert library.load_state(KEY, tokens).n_valid <= keep, "a state of what was forgotten is still there"
            if going_on:
                self._go_on(library, twigs)
        assert fsck(folder / "data", folder / "cache").problems == []
        assert not list((folder / "cache").glob("states-1/tmp/*.tmp")), "a dead writer's draft stays"
        return [["ended", journal_id] for journal_id in ended]

    def _check_states(self, library, twigs):
        parents = {twig.parent_id for twig in twigs.values()}
        for twig in twigs.values():
            rows = library.node_states(twig.id)
            if twig.id in parents and not rows:
                continue
            tokens = library.tokens(twig.id)
            state = library.load_state(KEY, tokens)
            assert_true(state, tokens)
            assert state.damaged == 0, "a file has its name but not its bytes"
            if "evicting" not in self.facts:
                assert state.rung == "bundle" or not any(row.has_bundle for row in rows), "a row says what is not there"
            if twig.id in self.states - self.doomed:
                assert state.rung == "bundle", f"a saved state is {state.rung}"

    def _check_journals(self, library):
        offered = {reply.journal_id: len(reply.tokens) for reply in library.dead_replies()}
        assert not self.ended & set(offered), "a reply that ended is offered as one that did not"
        for journal_id, (count, user) in self.journals.items():
            if user not in self.doomed and offered.get(journal_id, -1) < count:
                assert library.children(library.node(user).conversation_id, user), (
                    f"a promised token is lost: {journal_id} {count} {user} {offered}"
                )
        return [journal_id for journal_id in self.journals if journal_id not in offered]

    def _check_copies(self, folder, library):
        copies = backups.listed(folder / "data", Files())
        assert copies or "backup" not in self.facts, "a backup is lost"
        kept = folder / "data" / "backups" / "format-1.db"
        assert kept.exists() or "format" not in self.facts, "no copy of what was there before the migration"
        for copy in copies[:1]:
            assert backups.check_copy(copy, Files()) == [], "a backup is not whole"
        if kept.exists():
            with contextlib.closing(backups.read(kept, Files())) as raw:
                found = [raw.execute(f"PRAGMA {each}").fetchone()[0] for each in ("user_version", "integrity_check")]
            assert found == [1, "ok"], "the copy of what was there before the migration is not whole"
        for path in (folder / "out").glob("*.forkpoint"):
            with path.open("rb") as stream:
                list(library.read_export(stream))
        assert all((folder / "out" / name).exists() for name in self.exported), "an export is lost"

    def _check_raw(self, folder):
        """What the bytes say before anybody opens the library."""
        if "damaged" in self.facts:
            kept = [folder / "data" / "tree.db", *(folder / "data" / "damaged").glob("*-tree.db")]
            assert any(_digest(path) == self.damaged for path in kept), "what a repair replaced is lost"
        still = _holds(folder, [text for text, _, _ in self.gone])
        assert not still, f"what was forgotten is still in {still}"

    @staticmethod
    def _go_on(library, twigs):
        text = f"goes on {os.urandom(12).hex()}"
        if not twigs:
            assert library.add_node(library.new_conversation().id, None, Message("user", text, (1,))).id
            return
        last = list(twigs)[-1]
        node = library.add_node(twigs[last].conversation_id, last, Message("user", text, (4, 2)))
        tokens = library.tokens(node.id)
        assert save(library, tokens, node.id).complete
        assert library.load_state(KEY, tokens).rung == "bundle"
