"""The tree of messages: what a node is, how it is named by its content, how token lists hang together."""

import sqlite3
import threading

import pytest
from faults.kit import open_library, talk

from snapshots import BadNode, DamagedNode, Message, ModelInfo, Position, UnknownConversation, UnknownNode, tree


@pytest.fixture
def chat(library):
    return library.new_conversation("tides", template_date="2026-11-23")


def test_a_conversation_keeps_its_title_and_its_frozen_date(library, chat, tmp_path):
    library.close()
    again = open_library(tmp_path)
    found = again.conversation(chat.id)
    assert (found.title, found.template_date, found.head_id) == ("tides", "2026-11-23", None)
    assert again.conversations() == [found]


def test_the_last_used_conversation_comes_first_whatever_the_clock_says(library, chat, monkeypatch):
    monkeypatch.setattr("snapshots.tree.time.time", lambda: 1.0)
    second = library.new_conversation("second")
    assert [c.id for c in library.conversations()] == [second.id, chat.id]
    talk(library, chat.id, None, "hello")
    assert [c.id for c in library.conversations()] == [chat.id, second.id]


def test_a_node_gives_back_everything_that_was_put_in(library, chat):
    message = Message(
        "assistant", "Arr, the tide…\x1b[31m\0", (1, 70000, 3), stop="stop",
        sampler={"temperature": 0.8, "stop": ["a"]}, dice_key=bytes(range(16)), prompt_key="pp",
    )  # fmt: skip
    node = library.add_node(chat.id, None, message, state_key="ss")
    again = library.node(node.id)
    assert again == node
    assert (again.text, again.tokens, again.stop) == (message.text, message.tokens, "stop")
    assert (again.sampler, again.dice_key, again.prompt_key, again.state_key) == (
        {"temperature": 0.8, "stop": ["a"]}, message.dice_key, "pp", "ss",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"role": "raw"}, {"text": "b"}, {"tokens": (1, 3)}, {"keep": 1}, {"stop": "length"}, {"sampler": {"top_k": 1}},
        {"dice_key": b"2"}, {"prompt_key": "q"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_each_part_of_the_content_is_in_the_id(library, chat, change):
    root = library.add_node(chat.id, None, Message("user", "r", (1, 2)))
    first = {"role": "assistant", "text": "a", "tokens": (1, 2), "stop": "stop", "dice_key": b"1", "prompt_key": "p"}
    one = library.add_node(chat.id, root.id, Message(**first))
    two = library.add_node(chat.id, root.id, Message(**{**first, **change}))
    assert one.id != two.id


def test_the_same_content_behind_the_same_parent_is_the_same_node(library, chat):
    one = library.add_node(chat.id, None, Message("user", "hi", (1,)), state_key="a")
    two = library.add_node(chat.id, None, Message("user", "hi", (1,)), state_key="b")
    assert one == two
    other = library.new_conversation()
    assert library.add_node(other.id, None, Message("user", "hi", (1,))).id != one.id


def test_a_node_keeps_a_part_of_its_parents_tokens_where_the_template_drops_some(library, chat):
    user, reply = talk(library, chat.id, None, "abc", 3)
    assert library.tokens(reply.id) == [*user.tokens, *reply.tokens]
    next_user = library.add_node(chat.id, reply.id, Message("user", "more", (9, 9), keep=4))
    assert library.tokens(next_user.id) == [*user.tokens, reply.tokens[0], 9, 9]
    assert next_user.n_tokens == 6
    assert library.tokens(None) == []


def test_turns_count_messages_of_people(library, chat):
    system = library.add_node(chat.id, None, Message("system", "be brief", (1,)))
    _, reply = talk(library, chat.id, system.id, "one")
    tail = library.add_node(chat.id, reply.id, Message("assistant", "go on", (5,)))
    raw = library.add_node(chat.id, tail.id, Message("raw", "x", (6,)))
    assert [n.turn for n in library.path(raw.id)] == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Message("user", "x", keep=4), "keep"),
        (Message("user", "x", keep=-1), "keep"),
        (Message("user", "x", (-1,)), "tokens"),
        (Message("user", "x", (1 << 32,)), "tokens"),
        (Message("robot", "x"), "role"),
        (Message("user", "x", sampler={"t": float("nan")}), "sampler"),
        (Message("user", "x", sampler={"t": object()}), "sampler"),
    ],
)
def test_a_node_that_cannot_be_is_refused_by_field(library, chat, message, field):
    root = library.add_node(chat.id, None, Message("user", "r", (1, 2, 3)))
    with pytest.raises(BadNode) as caught:
        library.add_node(chat.id, root.id, message)
    assert caught.value.field == field
    assert library.conversation(chat.id).head_id == root.id


def test_unknown_places_are_named(library, chat):
    with pytest.raises(UnknownConversation):
        library.add_node("f" * 64, None, Message("user", "x"))
    with pytest.raises(UnknownNode):
        library.add_node(chat.id, "f" * 64, Message("user", "x"))
    other = library.new_conversation()
    mine, _ = talk(library, chat.id, None, "x")
    with pytest.raises(UnknownNode):
        library.add_node(other.id, mine.id, Message("user", "x"))
    with pytest.raises(UnknownNode):
        library.path("f" * 64)


def test_stray_bytes_of_a_shell_become_replacement_characters(library, chat):
    node = library.add_node(chat.id, None, Message("user", "caf\udce9 \ud800 é"))
    assert library.node(node.id).text == "caf\ufffd \ufffd é"


def test_siblings_children_and_the_newest_leaf(library, chat):
    user, first = talk(library, chat.id, None, "hello")
    second = library.add_node(chat.id, user.id, Message("assistant", "again", (7,)))
    _, far = talk(library, chat.id, first.id, "on")
    assert [n.id for n in library.siblings(second.id)] == [first.id, second.id]
    assert [n.id for n in library.children(chat.id, user.id)] == [first.id, second.id]
    assert [n.id for n in library.children(chat.id, None)] == [user.id]
    assert library.newest_leaf(first.id).id == far.id
    assert library.newest_leaf(user.id).id == second.id


def test_the_tree_lists_parents_first_and_marks_forks(library, chat):
    user, first = talk(library, chat.id, None, "hello")
    user2, reply2 = talk(library, chat.id, first.id, "on")
    second = library.add_node(chat.id, user.id, Message("assistant", "again " * 100, (7,)))
    library.set_name("joke", reply2.id)
    library.quicksave(first.id)
    twigs = library.tree(chat.id)
    assert [t.id for t in twigs] == [user.id, first.id, user2.id, reply2.id, second.id]
    assert [t.depth for t in twigs] == [0, 1, 1, 1, 1]
    assert [t.names for t in twigs] == [(), (), (), ("joke",), ()]
    assert [t.is_head for t in twigs] == [False] * 4 + [True]
    assert [t.is_quick for t in twigs] == [False, True, False, False, False]
    assert twigs[0].n_children == 2
    assert len(twigs[4].preview) == 160


def test_a_window_starts_where_it_was_else_where_the_library_was_used_last(library, chat):
    assert library.start_position(window="a").conversation_id == chat.id
    user, reply = talk(library, chat.id, None, "hello")
    other = library.new_conversation()
    library.set_position(Position(chat.id, user.id, 2), window="a")
    library.move_head(other.id, None)
    assert library.start_position(window="a") == Position(chat.id, user.id, 2)
    assert library.start_position(window="new") == Position(other.id, None)
    library.delete_conversation(other.id)
    assert library.start_position(window="new") == Position(chat.id, reply.id)
    library.delete(user.id)
    assert library.start_position(window="a") == Position(chat.id, None)


def test_the_head_log_tells_where_one_was(library, chat):
    user, reply = talk(library, chat.id, None, "hello")
    library.move_head(chat.id, user.id, action="back")
    assert [(m.node_id, m.reason) for m in library.head_log(chat.id)] == [
        (user.id, "back"), (reply.id, "turn"), (user.id, "turn"),
    ]  # fmt: skip
    assert library.conversation(chat.id).head_id == user.id


def test_a_row_that_was_changed_behind_our_back_is_never_taken_for_the_message(library, chat, tmp_path):
    user, reply = talk(library, chat.id, None, "hello")
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE nodes SET text = 'jello' WHERE id = ?", (user.id,))
    for look in (library.node, library.path):
        with pytest.raises(DamagedNode) as caught:
            look(user.id)
        assert caught.value.node_id == user.id
    with pytest.raises(DamagedNode):
        library.tokens(reply.id)


def test_models_prompts_and_settings_are_remembered(library):
    tiny = ModelInfo("s1", "p1", "tiny", "/m/tiny.gguf", {"tensors": "aa", "kv_type": "f16"}, {"template": "t"})
    library.remember_model(tiny)
    assert library.model_info("s1") == tiny
    assert library.model_info("s2") is None
    assert tiny.differing_fields(tiny._replace(state_fields={"tensors": "ab", "kv_type": "f16", "new": "1"})) == (
        "new", "tensors",
    )  # fmt: skip
    for text in ("Explain tides", "two", "explain TIDES again", "two", "   "):
        library.add_prompt(text)
    assert library.prompts() == ["two", "explain TIDES again", "Explain tides"]
    assert library.prompts("tides", limit=1) == ["explain TIDES again"]
    library.remember_setting("model", "a")
    library.remember_setting("model", "b")
    assert library.remembered_settings() == {"model": "b"}


def test_threads_write_and_read_at_once(library, chat):
    errors, made = [], []

    def work(name):
        try:
            parent = None
            for step in range(12):
                _, reply = talk(library, chat.id, parent, f"{name}{step}")
                made.append(reply.id)
                parent = reply.id
                assert library.path(parent)[-1].id == parent
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(made) == 36
    assert len(library.tree(chat.id)) == 72


def test_a_deleted_mark_that_nobody_made_hides_no_way_through_the_tree(library, chat, tmp_path):
    user, reply = talk(library, chat.id, None, "hello")
    other = library.add_node(chat.id, user.id, Message("assistant", "another", (9,), stop="stop"))
    gone = library.add_node(chat.id, user.id, Message("assistant", "deleted by a person", (8,), stop="stop"))
    library.delete(gone.id)
    library.close()
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE nodes SET deleted = 1 WHERE id IN (?, ?)", (user.id, other.id))
    with open_library(tmp_path) as again:
        assert [n.id for n in again.children(chat.id, None)] == [user.id]
        assert [n.id for n in again.children(chat.id, user.id)] == [reply.id, other.id]
        assert [n.id for n in again.siblings(reply.id)] == [reply.id, other.id]
        assert again.newest_leaf(user.id).id == other.id


def test_each_conversation_opens_where_a_person_left_it_and_scripts_leave_it_there(library, chat):
    user, reply = talk(library, chat.id, None, "hello")
    assert library.place_in(chat.id) == Position(chat.id, reply.id)
    library.set_position(Position(chat.id, reply.id, 2))
    other = library.new_conversation()
    library.move_head(other.id, None)
    assert library.start_position() == Position(other.id, None)
    library.set_position(Position(chat.id, user.id), window="run")
    assert library.place_in(chat.id) == Position(chat.id, reply.id, 2)
    assert library.place_in(chat.id, Position(chat.id, user.id)) == Position(chat.id, user.id)
    library.delete(reply.id)
    assert library.place_in(chat.id) == Position(chat.id, user.id)
    library.delete_forever(user.id)
    assert library.start_position() == Position(other.id, None)


def test_a_message_that_moves_no_head_makes_its_conversation_the_last_used_one(library, chat):
    other = library.new_conversation()
    library.add_node(chat.id, None, Message("user", "a", (1,)), move_head=False)
    assert [c.id for c in library.conversations()] == [chat.id, other.id]
    assert library.conversation(chat.id).head_id is None


def test_a_window_cannot_stand_in_another_conversation(library, chat):
    node = library.add_node(library.new_conversation().id, None, Message("user", "a", (1,)))
    with pytest.raises(UnknownNode):
        library.set_position(Position(chat.id, node.id))


def test_a_commit_takes_as_many_steps_behind_two_thousand_messages_as_behind_twenty(library, chat):
    def steps(parent, text):
        counted = [0]
        library._db._connection.set_progress_handler(lambda: counted.__setitem__(0, counted[0] + 1), 10)
        library.add_node(chat.id, parent, Message("user", text, (1,)))
        library._db._connection.set_progress_handler(None, 0)
        return counted[0]

    def grow(parent, count):
        with library._db.write() as tx:
            for number in range(count):
                message = Message("assistant" if number % 2 else "user", str(number), (number,))
                parent = tree.put_node(tx, chat.id, parent, message, "")[0].id
        return parent

    near = grow(None, 20)
    few = steps(near, "near")
    assert steps(grow(near, 2000), "far") < 2 * few
