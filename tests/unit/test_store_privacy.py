"""What must not stay on the disk does not: looked for in the raw bytes of every file of both directories."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from faults.kit import KEY, FailingFiles, chunks, logits, open_library, save

from app.chat import ChatOptions
from snapshots import Message, ReplyStart, StoreError, UnknownNode
from snapshots.bundles import Bundles
from snapshots.files import Files
from snapshots.fsck import fsck

SECRET = "the treasure lies under Xanthippe's oak"
ANSWER = "Quixotically buried it is"
IDS = tuple(range(31_000, 31_090))  # tokens that nothing else has


def holds(folder, *needles):
    """Which needles are in any file, any name, of a folder."""
    found = set()
    for path in Path(folder).rglob("*"):
        data = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        found |= {needle for needle in needles if needle in data or needle.lower() in data.lower()}
    return found


def needles():
    """Parts of the secret as text, and its tokens in each way that files hold tokens."""
    words = [word.encode() for word in ("Xanthippe", "treasure lies", "Quixotically", "buried it")]
    ids = np.array(IDS[10:20])
    lists = [b",".join(b"%d" % i for i in IDS[10:14])]
    return (*words, ids.astype("<u2").tobytes(), ids.astype("<u4").tobytes(), *lists)


@pytest.fixture
def told(tmp_path):
    """A library with a secret branch in a conversation that goes on elsewhere."""
    with open_library(tmp_path) as library:
        chat = library.new_conversation(SECRET[:30] + "…")
        root = library.add_node(chat.id, None, Message("user", "good morning", tuple(range(70))), state_key=KEY)
        save(library, library.tokens(root.id), root.id)
        secret = library.add_node(chat.id, root.id, Message("user", SECRET, IDS), state_key=KEY)
        save(library, library.tokens(secret.id), secret.id)
        reply = library.add_node(
            chat.id, secret.id, Message("assistant", ANSWER, IDS[::-1], stop="stop"), state_key=KEY
        )
        save(library, library.tokens(reply.id), reply.id)
        library.add_prompt(SECRET)
        library.add_prompt("good morning")
        library.set_name("Xanthippe", reply.id)
        library.quicksave(reply.id)
        library.pin(reply.id)
        journal = library.begin_journal(ReplyStart(chat.id, reply.id))
        journal.append(IDS, SECRET)
        journal.close()
        other = library.add_node(
            chat.id, root.id, Message("user", "nice weather", tuple(range(500, 580))), state_key=KEY
        )
        save(library, library.tokens(other.id), other.id)
        library.find("Xanthippe")
        library.rename("Xanthippe", "buried it")
        library.rename("buried it", "Quixotically")
        library.delete(reply.id)
        library.undo()
        library.move_head(chat.id, reply.id)
        yield library, root.id, secret.id, other.id


def test_what_is_deleted_forever_is_in_no_file_any_more(told, tmp_path):
    library, root, secret, other = told
    library.set_title(library.node(root).conversation_id, SECRET[:30] + "…")
    assert holds(tmp_path, *needles()) == set(needles())  # the search finds what is there
    gone = library.delete_forever(secret)
    assert gone.messages == 2
    assert holds(tmp_path, *needles()) == set()
    for each in (root, other):
        tokens = library.tokens(each)
        assert library.load_state(KEY, tokens).rung == "bundle"
    assert [t.preview for t in library.tree(library.node(root).conversation_id)] == ["good morning", "nice weather"]
    assert library.prompts() == ["good morning"]
    assert library.find("Xanthippe") == []
    assert library.find("weather")[0].node_id == other
    assert library.start_position().node_id == root
    with pytest.raises(UnknownNode):
        library.node(secret)
    with pytest.raises(UnknownNode):
        library.delete_forever(secret)
    library.close()
    assert holds(tmp_path, *needles()) == set()


def test_what_is_forgotten_while_its_state_is_being_written_leaves_nothing_either(told, tmp_path, monkeypatch):
    library, root, secret, other = told
    tokens, real = library.tokens(secret), Bundles.save
    with open_library(tmp_path) as another:

        def late(self, *args):
            another.delete_forever(secret)
            return real(self, *args)

        monkeypatch.setattr(Bundles, "save", late)
        with pytest.raises(UnknownNode):
            library.save_state(secret, KEY, tokens, chunks(tokens), logits=logits(tokens))
    monkeypatch.undo()
    assert holds(tmp_path, *needles()) == set()
    for each in (root, other):
        assert library.load_state(KEY, library.tokens(each)).rung == "bundle"
    library.close()
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []


def test_a_whole_conversation_can_be_forgotten_also_when_it_is_hidden(told, tmp_path):
    library, root, _, _ = told
    library.delete(root)
    assert library.delete_forever(root).messages == 4
    assert holds(tmp_path, *needles(), b"good morning there", b"nice weather") == set()
    assert library.conversations() == []
    library.close()
    with open_library(tmp_path) as again:
        assert again.conversations() == []


@pytest.mark.parametrize("last", ["unlink", "compact"])
def test_who_dies_in_the_middle_of_forgetting_has_it_ended_by_the_next_start(told, tmp_path, monkeypatch, last):
    """The message is gone from the tree by then, so nobody could ask again."""
    library, root, secret, _ = told
    library.back_up(now=True)

    class Died(BaseException):
        pass

    def die(*_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(library._disk if last == "unlink" else library._db, last, die)
        with pytest.raises(Died):
            library.delete_forever(secret)
    library.close()
    assert holds(tmp_path, *needles())
    with open_library(tmp_path) as again:
        assert holds(tmp_path, *needles()) == set()
        assert "forgetting" not in again.remembered_settings()
        with pytest.raises(UnknownNode):
            again.node(secret)
        assert again.load_state(KEY, again.tokens(root)).n_valid == again.node(root).n_tokens
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []


def test_a_question_s_tokens_go_where_only_its_reply_had_a_state(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        secret = library.add_node(chat.id, None, Message("user", SECRET, IDS))
        reply = library.add_node(chat.id, secret.id, Message("assistant", "x", (1, 2), stop="stop"))
        save(library, library.tokens(reply.id), reply.id)
        library.delete_forever(secret.id)
    assert holds(tmp_path, *needles()) == set()


def test_states_that_others_share_stay_with_them(told):
    library, _, secret, _ = told
    twin = library.new_conversation()
    one = library.add_node(twin.id, None, Message("user", "good morning", tuple(range(70))), state_key=KEY)
    two = library.add_node(twin.id, one.id, Message("raw", "other words, same tokens", IDS), state_key=KEY)
    save(library, library.tokens(two.id), two.id)
    library.delete_forever(secret)
    assert library.load_state(KEY, library.tokens(two.id)).rung == "bundle"


def test_incognito_writes_nothing_at_all(chats, own_directories):
    chat = chats(ChatOptions(limit=12, seed=7, incognito=True), script={"oak": "Quixotically buried it is."})
    chat.send(SECRET)
    chat.save("Xanthippe")
    chat.quicksave()
    chat.find("treasure")
    chat.regenerate()
    chat.flush()
    chat.close()
    assert holds(own_directories, *needles()) == set()
    assert not (own_directories / "data" / "tree.db").exists()


def test_incognito_beside_a_library_leaves_its_bytes_as_they_were(chats, own_directories):
    first = chats()
    first.send("good morning")
    first.flush()
    first.close()
    before = {p: p.read_bytes() for p in own_directories.rglob("*") if p.is_file()}
    chat = chats(ChatOptions(limit=12, seed=7, incognito=True), at="HEAD")
    chat.send(SECRET)
    chat.save("Xanthippe")
    chat.close()
    assert holds(own_directories, *needles()) == set()
    assert {p: p.read_bytes() for p in own_directories.rglob("*") if p.is_file()} == before


def test_the_command_line_forgets_too(call, chats, own_directories):
    chat = chats(script={"oak": "Quixotically buried it is."})
    chat.send("good morning")
    chat.save("morning")
    chat.send(SECRET)
    chat.save("secret")
    chat.flush()
    chat.close()
    assert holds(own_directories, b"Xanthippe")
    code, out, _ = call("delete", "secret~0", "--forever")
    assert (code, out.startswith("Forgot 1 message")) == (0, True)
    node = call("find", "Xanthippe", "--json")[1]
    import json

    call("delete", json.loads(node)[0]["node_id"], "--forever")
    assert holds(own_directories, b"Xanthippe", b"Quixotically") == set()
    assert call("show", "morning")[0] == 0


def test_everything_is_private_and_nobody_s_text_is_a_path(told, tmp_path):
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        assert "Xanthippe" not in str(path)


def test_a_name_that_moved_to_another_conversation_does_not_come_back_to_what_is_forgotten(tmp_path):
    with open_library(tmp_path) as library:
        here, there = library.new_conversation(), library.new_conversation()
        gone = library.add_node(here.id, None, Message("user", "one", (1,)))
        stays = library.add_node(there.id, None, Message("user", "two", (2,)))
        library.set_name("x", gone.id)
        library.set_name("x", stays.id, force=True)
        library.delete_forever(gone.id)
        assert library.undo(there.id).kind == "turn"
        assert library.savepoints()[0].node_id == stays.id
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []
    assert not holds(tmp_path, gone.id.encode())


def test_what_a_repair_keeps_aside_and_a_damaged_journal_are_forgotten_too(told, tmp_path):
    library, _, secret, _ = told
    library.close()
    (journal,) = (tmp_path / "data" / "journals").iterdir()
    data = bytearray(journal.read_bytes())
    data[60] ^= 1
    journal.write_bytes(data)
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE conversations SET created = 0")
    raw.close()
    strange = tmp_path / "data" / "journals" / f"{'0' * 32}.journal"
    strange.mkdir()
    (strange / "in it").write_text("x")
    fsck(tmp_path / "data", tmp_path / "cache", repair=True)
    assert holds(tmp_path / "data" / "damaged", *needles())
    assert any(path.is_dir() for path in (tmp_path / "data" / "damaged").iterdir())
    with open_library(tmp_path) as again:
        again.delete_forever(secret)
    assert holds(tmp_path, *needles()) == set()
    assert not list((tmp_path / "data" / "damaged").iterdir())


@pytest.mark.parametrize("call", ["unlink", "create", "write", "rename", "sync", "sync_dir"])
def test_a_forgetting_that_fails_is_ended_by_the_next_start(call, told, tmp_path):
    library, _, secret, _ = told
    library.back_up(now=True)
    library.close()
    failed = 0
    for at in range(100):
        with contextlib.suppress(StoreError), open_library(tmp_path, FailingFiles({call}, at)) as again:
            try:
                again.delete_forever(secret)
                break
            except UnknownNode:
                break
            except StoreError:
                failed += 1
    open_library(tmp_path).close()
    assert failed
    assert holds(tmp_path, *needles()) == set()


def test_copies_of_rows_that_sqlite_moved_between_pages_are_forgotten_too(tmp_path):
    """SQLite leaves the bytes of a cell where they were when it moves the cell to another page."""
    text = "a text that was on two pages"
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        kept = library.add_node(chat.id, None, Message("user", "kept", (1,)))
        doomed = library.add_node(chat.id, kept.id, Message("user", text, (2,)))
    path = tmp_path / "data" / "tree.db"
    raw = bytearray(path.read_bytes())
    gaps = []
    for page in range(4096, len(raw), 4096):
        begin = page + 8 + 2 * int.from_bytes(raw[page + 3 : page + 5], "big")
        end = page + (int.from_bytes(raw[page + 5 : page + 7], "big") or 65536)
        if raw[page] == 0x0D and end - begin > 100:  # a leaf of a table, and the bytes of it that no cell has
            gaps.append(begin)
    assert gaps
    for begin in gaps:
        raw[begin + 20 : begin + 20 + len(text)] = text.encode()
    path.write_bytes(raw)
    with open_library(tmp_path) as library:
        library.delete_forever(doomed.id)
        assert library.node(kept.id).text == "kept"
    assert text.encode() not in path.read_bytes()


def test_states_whose_row_a_crash_prevented_are_forgotten_too(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        kept = library.add_node(chat.id, None, Message("user", "kept", (1, 2)))
        doomed = library.add_node(chat.id, kept.id, Message("assistant", "doomed", (3, 4, 5)))
        save(library, library.tokens(kept.id), kept.id)
        save(library, library.tokens(doomed.id))  # files, and no row
        library.delete_forever(doomed.id)
        assert library.load_state(KEY, [1, 2, 3, 4, 5]).n_valid == 2


def test_names_of_states_that_an_eviction_removed_a_moment_ago_are_gone_for_good(tmp_path):
    """An eviction syncs no directory: a power cut behind the forgetting would bring the names back."""
    synced = set()

    class Noting(Files):
        def sync_dir(self, path):
            synced.add(path)
            super().sync_dir(path)

    with open_library(tmp_path, Noting()) as library:
        chat = library.new_conversation()
        doomed = library.add_node(chat.id, None, Message("user", "doomed", tuple(range(70))), state_key=KEY)
        save(library, library.tokens(doomed.id), doomed.id)
        states = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".seg", ".fin")]
        for path in states:
            path.unlink()
        synced.clear()
        library.delete_forever(doomed.id)
    assert len(states) == 3
    assert {path.parent for path in states} <= synced


def test_forgetting_leaves_journals_of_others_and_those_that_are_being_written(told):
    library, root, secret, other = told
    chat = library.node(root).conversation_id
    dead = library.begin_journal(ReplyStart(chat, other))
    dead.close()
    rootless = library.begin_journal(ReplyStart(chat, None))
    rootless.close()
    alive = library.begin_journal(ReplyStart(chat, other))
    library.delete_forever(secret)
    assert {each.journal_id for each in library.dead_replies()} == {dead.id, rootless.id}
    assert alive.path.exists()
    alive.discard()


def test_what_was_said_since_the_last_search_is_forgotten_too(told, tmp_path):
    library, root, *_ = told
    chat = library.node(root).conversation_id
    late = library.add_node(chat, root, Message("user", "ephemeral zanzibar", (9, 8)))
    library.delete_forever(late.id)
    assert library.find("zanzibar") == []
    assert library.find("weather")
    assert holds(tmp_path, b"zanzibar") == set()


def test_states_that_cannot_be_removed_are_said(told, tmp_path):
    library, _, secret, _ = told
    library.close()
    with open_library(tmp_path, Keeping()) as stuck, pytest.raises(StoreError, match="could not be removed"):
        stuck.delete_forever(secret)
    open_library(tmp_path).close()  # the next start ends what was begun
    assert holds(tmp_path, *needles()) == set()


class Keeping(Files):
    """Cannot remove state files, as in a directory of another user."""

    def unlink(self, path):
        if path.suffix in (".seg", ".fin"):
            raise PermissionError(13, "permission denied", str(path))
        super().unlink(path)


def test_a_damaged_journal_that_no_repair_moved_is_forgotten_too(told):
    library, _, secret, other = told
    broken = library.begin_journal(ReplyStart(library.node(other).conversation_id, other))
    broken.close()
    data = bytearray(broken.path.read_bytes())
    data[60] ^= 1
    broken.path.write_bytes(data)
    library.delete_forever(secret)
    assert not broken.path.exists()
