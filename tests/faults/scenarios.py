"""What a person does to a library, from beginning to end, for tests that kill it half way; each can be done again."""

import contextlib
import os
import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from faults.kit import KEY, assert_true, open_library, save, state_files, talk
from snapshots import Message, ReplyStart, UnknownNode, backups
from snapshots.files import Files
from snapshots.fsck import fsck
from snapshots.places import LAYOUT

LONG = "what is said goes on for a while " * 3
"""With its reply 140 tokens: a state of three files and the logits behind it."""


SECRET = "the treasure lies under Xanthippe's oak; "


class Scenario(NamedTuple):
    """`prepare` makes the library that `act` begins with; `act` calls `promise` with what the store acknowledged."""

    prepare: object
    act: object


def _talked(folder):
    """One conversation of two messages with a state and a name."""
    with open_library(folder) as library:
        chat = library.new_conversation("before")
        _, reply = talk(library, chat.id, None, LONG, 70)
        library.set_name("here", reply.id)
        save(library, library.tokens(reply.id), reply.id)


def _empty(folder):
    open_library(folder).close()


def _save(folder, promise):
    with open_library(folder) as library:
        chat = next((each for each in library.conversations() if each.title == "new"), None)
        chat = chat or library.new_conversation("new")
        promise("conversation", chat.id)
        user, reply = talk(library, chat.id, None, LONG, 70)
        promise("node", user.id)
        promise("node", reply.id)
        save(library, library.tokens(reply.id), reply.id)
        promise("state", reply.id)
        library.set_name("saved", reply.id)
        promise("name", "saved", reply.id)


def _fork(folder, promise):
    with open_library(folder) as library:
        here = library.resolve("here").node
        library.move_head(here.conversation_id, here.parent_id, action="fork")
        fork = library.add_node(here.conversation_id, here.parent_id, Message("assistant", "another way", (4, 5)))
        promise("node", fork.id)
        library.set_name("fork", fork.id)
        promise("name", "fork", fork.id)
        save(library, library.tokens(fork.id), fork.id)
        promise("state", fork.id)


def _four_states(folder):
    """Four savepoints with states, one of them pinned; a state that nobody needs and drafts of a dead writer."""
    with open_library(folder) as library:
        for name in ("one", "two", "three", "four"):
            chat = library.new_conversation(name)
            _, reply = talk(library, chat.id, None, f"{name} {LONG}", 70)
            library.set_name(name, reply.id)
            save(library, library.tokens(reply.id), reply.id)
        library.pin(library.resolve("one").node.id)
        save(library, [7] * 70)
    for number in range(3):
        (folder / "cache" / LAYOUT / "tmp" / f"{'0' * 24}.{number}.tmp").write_bytes(b"half")
    for path in state_files(folder):
        os.utime(path, (1.7e9, 1.7e9))
    (folder / "cap").write_text(str(sum(path.stat().st_size for path in state_files(folder)) // 2))


def _evict(folder, promise):
    with open_library(folder) as library:
        for name in ("one", "two", "three", "four"):
            promise("node", library.resolve(name).node.id)
        library.set_cap(int((folder / "cap").read_text()))
        library.make_room()
        library.collect_garbage()
        promise("state", library.resolve("one").node.id)
        library.note_use(library.resolve("two").node.id)


def _stranger(folder):
    """An empty library, and an export file of a conversation with a branch beside it."""
    elsewhere = folder / "elsewhere"
    with open_library(elsewhere) as library:
        chat = library.new_conversation("travels")
        user, reply = talk(library, chat.id, None, LONG, 70)
        library.set_name("far", reply.id)
        library.add_node(chat.id, user.id, Message("assistant", "another way", (4, 5)))
        save(library, library.tokens(reply.id), reply.id)
        (folder / "export").write_bytes(b"".join(library.export(reply.id, "conversation")))
    _talked(folder)


def _import(folder, promise):
    with open_library(folder) as library:
        with (folder / "export").open("rb") as stream:
            came = library.import_stream(stream, source="a friend", inspect=lambda arrival: {arrival.node_id: "text"})
        for twig in library.tree(came.conversation_id):
            promise("node", twig.id)
        far = library.resolve("far").node.id
        promise("name", "far", far)
        save(library, library.tokens(far), far)  # what the app recomputes
        promise("state", far)


def _older(folder):
    from unit.test_store_formats import unpack

    unpack("format-1", folder)


def _migrate(folder, promise):
    with open_library(folder) as library:
        promise("open")
        library.remember_setting("opened", "yes")
        promise("setting", "opened", "yes")


def _damaged_states(folder):
    """A state whose first file is cut short, whose second is gone, and whose logits are another's."""
    _talked(folder)
    first, second, _ = sorted((p for p in state_files(folder) if p.suffix == ".seg"), key=lambda p: p.stat().st_size)
    second.write_bytes(second.read_bytes()[:-9])
    first.unlink()
    (final,) = (path for path in state_files(folder) if path.suffix == ".fin")
    final.write_bytes(final.read_bytes()[::-1])


def _heal(folder, promise):
    with open_library(folder) as library:
        here = library.resolve("here").node.id
        tokens = library.tokens(here)
        assert_true(library.load_state(KEY, tokens), tokens)
        save(library, tokens, here)
        promise("state", here)


def _back_up(folder, promise):
    with open_library(folder) as library:
        if not backups.listed(folder / "data", Files()):
            library.back_up(now=True)
        promise("backup")


def _damaged_tree(folder):
    """A row of the tree is broken, and there is a backup from before."""
    _talked(folder)
    with open_library(folder) as library:
        library.back_up(now=True)
    with sqlite3.connect(folder / "data" / "tree.db") as raw:
        raw.execute("UPDATE nodes SET text = 'jello' WHERE role = 'user'")


def _repair(folder, promise):
    fsck(folder / "data", folder / "cache", repair=True)
    promise("open")


def _with_a_secret(folder):
    """A branch with a secret: in the tree, in a name, in a reply in flight, in states, in two copies."""
    _talked(folder)
    with open_library(folder) as library:
        here = library.resolve("here").node
        user, reply = talk(library, here.conversation_id, here.parent_id, SECRET * 9, 90)
        save(library, library.tokens(reply.id), reply.id)
        library.set_name("Xanthippe", reply.id)
        journal = library.begin_journal(ReplyStart(here.conversation_id, user.id))
        journal.append([1, 2], SECRET)
        journal.close()
        library.back_up(now=True)
        library.remember_setting("secret", user.id)
        library.back_up(now=True)


def _forget(folder, promise):
    with open_library(folder) as library:
        with contextlib.suppress(UnknownNode):  # a person cannot ask for it again where the message is gone already
            library.delete_forever(library.remembered_settings()["secret"])
        promise("forgotten", SECRET, SECRET.upper())


def _lie(folder, promise):
    promise("setting", "promised", "too early")
    with open_library(folder) as library:
        library.remember_setting("promised", "too early")


SCENARIOS = {
    "save": Scenario(_empty, _save),
    "fork": Scenario(_talked, _fork),
    "evict": Scenario(_four_states, _evict),
    "import": Scenario(_stranger, _import),
    "migrate": Scenario(_older, _migrate),
    "heal": Scenario(_damaged_states, _heal),
    "back up": Scenario(_talked, _back_up),
    "repair": Scenario(_damaged_tree, _repair),
    "forget": Scenario(_with_a_secret, _forget),
    "lie": Scenario(_empty, _lie),  # for the test that a broken promise is seen
}


# ------------------------------------------------------------------------------------------------------------- looking


def said(folder):
    """Every message that the library has, by its id: what nobody may lose. A damaged one counts by its id alone."""
    with open_library(folder) as library:
        return {
            twig.id: (twig.role, twig.preview, library.tokens(twig.id))
            for each in library.conversations()
            for twig in library.tree(each.id, deleted=True)
        }


def look(folder, promised):
    """What a person finds: all that was promised, and nothing that is not true. Raises AssertionError."""
    with open_library(folder) as library:
        assert not library.read_only
        for kind, *what in promised:
            if kind == "conversation":
                assert library.conversation(what[0]).id == what[0]
            elif kind == "node":
                assert library.path(what[0])[-1].id == what[0]
            elif kind == "name":
                assert library.resolve(what[0]).node.id == what[1]
            elif kind == "setting":
                assert library.remembered_settings()[what[0]] == what[1]
            elif kind == "state":
                tokens = library.tokens(what[0])
                state = library.load_state(KEY, tokens)
                assert state.rung == "bundle"
                assert_true(state, tokens)
            elif kind == "forgotten":
                told = [path for path in folder.rglob("*") if path.is_file() for each in what if _tells(path, each)]
                assert told == [], "what is forgotten is still there"
            elif kind == "backup":
                assert backups.check_copy(backups.listed(folder / "data", Files())[0], Files()) == []
        for each in library.conversations():
            for twig in library.tree(each.id):
                tokens = library.tokens(twig.id)
                assert_true(library.load_state(KEY, tokens), tokens)
        library.dead_replies()
        library.stats()


def _tells(path, secret):
    """Whether a file holds a secret: as a text, or as the tokens that are in the head of a state."""
    ids = ",".join(str(byte % 250) for byte in secret.encode()[:12]).encode()
    data = path.read_bytes()
    return any(each in data for each in (secret.strip().encode(), bytes(secret.encode()[:12]), ids))


def outcome(folder):
    """All that a library holds, without times and random ids: equal for two runs of one scenario that both ended."""
    with open_library(folder) as library:
        kept = {
            "talks": sorted(_talk(library, each) for each in library.conversations()),
            "names": sorted((each.name, _way(library, each.node_id)) for each in library.savepoints()),
            "prompts": library.prompts(),
            "settings": sorted(library.remembered_settings().items()),
            "model": library.model_info(KEY),
            "pins": sorted(_way(library, node_id) for node_id in library.pins()),
            "dead": [(each.tokens, each.text) for each in library.dead_replies()],
        }
    kept["files"] = {path.name: _digest(path) for path in state_files(folder)}
    kept["copies"] = [_digest(path) for path in sorted((folder / "data").glob("backups/format-*.db"))]
    drafts = [path for path in folder.rglob("*") if path.suffix in (".tmp", ".new")]
    # A draft of a copy may be another process's who is at it: `rotate` lets it go when it is a day old.
    kept["drafts"] = [path.name for path in drafts if path.parent.name != "backups"]
    return kept


def _digest(path: Path):
    return blake2b(path.read_bytes()).hexdigest()


def _way(library, node_id):
    return tuple(f"{node.role}: {node.text}" for node in library.path(node_id))


def _talk(library, each):
    twigs = []
    for twig in library.tree(each.id, deleted=True):
        states = tuple((s.state_key, s.n_tokens, s.logits_digest, s.has_bundle) for s in library.node_states(twig.id))
        origin = library.origins([twig.id]).get(twig.id)
        twigs.append(
            (
                _way(library, twig.id),
                tuple(library.tokens(twig.id)),
                (twig.names, twig.is_head, twig.deleted, states, origin and (origin.source, origin.checked)),
            )
        )
    return each.title, tuple(twigs)
