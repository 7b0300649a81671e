"""What a damaged row, a wrong state and a library without files do: each is its own trouble and nobody else's."""

import os
import sqlite3
import threading

import pytest
from faults.kit import KEY, chunks, logits, open_library, save, talk

from snapshots import BadNode, DamagedNode, Library, Message, ReplyStart, StoreError, tree
from snapshots.fsck import fsck


def spoil(library, node_id, change):
    other = sqlite3.connect(library.data_dir / "tree.db", isolation_level=None)
    other.execute(f"UPDATE nodes SET {change} WHERE id = ?", (node_id,))
    other.close()


CHANGES = [
    "text = text || 'x'",
    "text = CAST(x'ff00fe' AS TEXT)",
    "text = x'00ff'",
    "tokens = x'01'",
    "dice_key = x'aa'",
]


@pytest.mark.parametrize("change", CHANGES)
def test_lists_show_a_damaged_message_and_reading_it_says_so(library, change):
    chat = library.new_conversation("tides")
    node = library.add_node(chat.id, None, Message("user", "why tides", (1, 2)))
    library.set_name("here", node.id)
    spoil(library, node.id, change)
    assert library.glance(node.id)[:3] == (node.id, chat.id, "user")
    assert (library.glance(node.id).n_tokens, library.glance(node.id).turn) == (2, 1)
    assert [twig.id for twig in library.tree(chat.id)] == [node.id]
    assert [s.name for s in library.savepoints()] == ["here"]
    for read in (library.node, library.path, library.tokens):
        with pytest.raises(DamagedNode) as damaged:
            read(node.id)
        assert damaged.value.node_id == node.id


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_message_can_be_named_and_deleted(library, change):
    chat = library.new_conversation("tides")
    node = library.add_node(chat.id, None, Message("user", "why tides", (1, 2)))
    library.set_name("here", node.id)
    spoil(library, node.id, change)
    library.rename("here", "broken")
    library.set_name("also", node.id)
    library.remove_name("also")
    assert library.delete(node.id).detail["nodes"] == 1
    assert library.tree(chat.id) == []
    library.undo()
    assert [s.name for s in library.savepoints()] == ["broken"]


def test_a_state_of_other_tokens_is_refused_and_leaves_no_digest(library):
    chat = library.new_conversation("x")
    _, reply = talk(library, chat.id, None, "hello")
    tokens = library.tokens(reply.id)
    other = [*tokens[:-1], tokens[-1] + 1]
    for wrong in (other, tokens[:-1], [*tokens, 1], []):
        with pytest.raises(BadNode):
            save(library, wrong, reply.id)
    assert library.node_states(reply.id) == []
    save(library, tokens, reply.id)
    assert [row.n_tokens for row in library.node_states(reply.id)] == [len(tokens)]
    save(library, other)  # a prefix of no node is nobody's: it is kept by its tokens


def test_a_library_in_memory_is_a_whole_tree_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Library.in_memory() as library:
        chat = library.new_conversation("x")
        _, reply = talk(library, chat.id, None, "hello")
        library.set_name("here", reply.id)
        library.quicksave(reply.id)
        assert library.resolve("here").node == reply
        library.delete(reply.id)
        library.undo()
        assert [t.id for t in library.tree(chat.id)][-1] == reply.id
        assert library.changes() == library.changes()
        (_, _, file) = library._db._connection.execute("PRAGMA database_list").fetchone()
        assert file == ""
        tokens = library.tokens(reply.id)
        with pytest.raises(StoreError):
            library.save_state(reply.id, KEY, tokens, chunks(tokens), logits=logits(tokens))
        with pytest.raises(StoreError):
            library.begin_journal(ReplyStart(chat.id, reply.id))
    assert os.listdir(tmp_path) == []
    with Library.in_memory() as another:
        assert another.conversations() == []


def test_looking_at_the_format_waits_for_a_writer(tmp_path):
    with open_library(tmp_path) as library:
        library.new_conversation()
        blocker = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.6, lambda: blocker.execute("COMMIT"))
        timer.start()
        assert library.changes() >= 0
        with open_library(tmp_path) as second:
            assert len(second.conversations()) == 1
        timer.join()
        blocker.close()


def test_rows_that_lead_round_in_a_circle_come_to_an_end(library):
    chat = library.new_conversation("x")
    user, reply = talk(library, chat.id, None, "hello")
    spoil(library, user.id, f"parent_id = '{reply.id}'")
    for ask in (library.path, library.tokens, library.newest_leaf, lambda n: list(library.export(n, "conversation"))):
        with pytest.raises(DamagedNode):
            ask(reply.id)
    assert library.nearest_name(reply.id) is None
    assert library.delete_forever(reply.id).messages == 2


def test_a_search_never_shows_what_was_not_said(library):
    chat = library.new_conversation("x")
    user, reply = talk(library, chat.id, None, "the moon")
    assert [hit.node_id for hit in library.find("moon")] == [reply.id, user.id]
    spoil(library, user.id, "text = 'the moon is cheese'")
    spoil(library, reply.id, "turn = 9")
    assert library.find("cheese") == []
    assert library.find("moon") == []
    library.set_name("full moon", reply.id)
    assert library.find("full") == []


def test_turns_are_not_counted_through_a_damaged_row(library):
    chat = library.new_conversation("x")
    _, first = talk(library, chat.id, None, "one")
    user, second = talk(library, chat.id, first.id, "two")
    library.set_name("here", second.id)
    assert library.resolve("here~1").node.id == first.id
    spoil(library, user.id, "role = 'assistant'")
    with pytest.raises(DamagedNode):
        library.resolve("here~1")


def test_what_was_deleted_does_not_leave_in_an_export_because_its_row_is_broken(library):
    chat = library.new_conversation("x")
    _, first = talk(library, chat.id, None, "one")
    secret, _ = talk(library, chat.id, first.id, "secret")
    library.delete(secret.id)
    spoil(library, secret.id, "deleted = NULL")
    for scope in ("tree", "conversation"):
        with pytest.raises(DamagedNode):
            list(library.export(first.id, scope))
    assert list(library.export(first.id))


DEFINITIONS = [("node_text", "tokenize=", "tokenize-"), ("node_text_docsize", "(id ", "(ie ")]


@pytest.mark.parametrize(("table", "good", "bad"), DEFINITIONS)
def test_an_index_whose_definition_is_damaged_does_not_stop_a_search(library, tmp_path, table, good, bad):
    chat = library.new_conversation("x")
    user, reply = talk(library, chat.id, None, "the moon")
    library.index_text()
    library.close()
    other = sqlite3.connect(tmp_path / "data" / "tree.db", isolation_level=None)
    other.execute("PRAGMA writable_schema=ON")
    other.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (good, bad, table))
    other.close()
    problems = fsck(tmp_path / "data", tmp_path / "cache").problems
    assert [problem.where for problem in problems] == ["node_text"]
    with open_library(tmp_path) as again:
        for _ in range(2):
            assert {hit.node_id for hit in again.find("moon")} == {user.id, reply.id}
    fsck(tmp_path / "data", tmp_path / "cache", repair=True)
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []
    with open_library(tmp_path) as again:
        assert len(again.find("moon")) == 2


@pytest.mark.parametrize("change", ["id = x'07'", "n_tokens = 'x'", "turn = x'00'", "role = x'03'", "created = 'now'"])
def test_a_row_with_values_of_other_kinds_troubles_no_list(library, change):
    chat = library.new_conversation("x")
    user, reply = talk(library, chat.id, None, "the moon")
    spoil(library, reply.id, change)
    assert [twig.id for twig in library.tree(chat.id)] == [user.id]
    assert library.path(user.id)[-1] == user
    for wrong in (7, reply.id):
        with pytest.raises(StoreError):
            library.path(wrong)


def test_where_all_above_a_hidden_message_is_gone_nothing_is_live(library):
    chat = library.new_conversation()
    user, reply = talk(library, chat.id, None, "hello")
    library.delete(reply.id)
    with library._db.write() as tx:
        assert tree.nearest_live(tx, reply.id) == user.id
        tx.execute("DELETE FROM nodes WHERE id = ?", (user.id,))
        assert tree.nearest_live(tx, reply.id) is None
