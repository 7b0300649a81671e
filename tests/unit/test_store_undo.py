"""Undo reverses the last thing a person did, whatever it was, also after a restart."""

import pytest
from faults.kit import open_library, talk

from snapshots import Message, NothingToUndo, UnknownConversation, UnknownNode


@pytest.fixture
def chat(library):
    return library.new_conversation("first")


def head(library, chat):
    return library.conversation(chat.id).head_id


def shown(library, chat):
    return [t.id for t in library.tree(chat.id)]


def test_a_turn_goes_as_a_whole_and_comes_back(library, chat):
    _, first = talk(library, chat.id, None, "one")
    user, second = talk(library, chat.id, first.id, "two")
    action = library.undo(chat.id)
    assert (action.kind, action.head_id, head(library, chat)) == ("turn", first.id, first.id)
    assert user.id not in shown(library, chat)
    assert second.id not in shown(library, chat)
    assert library.redo(chat.id).head_id == second.id
    assert shown(library, chat)[-2:] == [user.id, second.id]


def test_the_first_turn_takes_the_system_message_along(library, chat):
    system = library.add_node(chat.id, None, Message("system", "s"))
    talk(library, chat.id, system.id, "one")
    assert library.undo(chat.id).head_id is None
    assert shown(library, chat) == []
    with pytest.raises(NothingToUndo):
        library.undo(chat.id)


def test_a_reply_that_f5_cut_in_two_is_one_turn_but_a_continued_one_is_two(library, chat):
    user = library.add_node(chat.id, None, Message("user", "u"))
    part = library.add_node(chat.id, user.id, Message("assistant", "a", stop="saved"))
    rest = library.add_node(chat.id, part.id, Message("assistant", "b", stop="stop"))
    more = library.add_node(chat.id, rest.id, Message("assistant", "c", stop="stop"))
    assert library.undo(chat.id).head_id == rest.id
    assert library.undo(chat.id).head_id is None
    assert head(library, chat) is None
    library.redo(chat.id)
    assert library.redo(chat.id).head_id == more.id


def test_regenerate_is_undone_back_to_the_old_reply(library, chat):
    user, old = talk(library, chat.id, None, "one")
    new = library.add_node(chat.id, user.id, Message("assistant", "other", (8,)))
    assert library.undo(chat.id).head_id == old.id
    assert new.id not in shown(library, chat)
    assert old.id in shown(library, chat)


def test_an_undone_turn_stays_where_a_name_or_a_branch_hangs_on_it(library, chat):
    user, reply = talk(library, chat.id, None, "one")
    library.set_name("keep", reply.id)
    library.undo(chat.id)  # the name
    library.redo(chat.id)
    library.remove_name("keep")
    library.set_name("keep", user.id)
    for _ in range(3):
        library.undo(chat.id)
    assert library.undo(chat.id).kind == "turn"
    assert shown(library, chat) == []
    library.redo(chat.id)
    assert shown(library, chat) == [user.id, reply.id]
    library.quicksave(user.id)
    library.undo(chat.id)
    assert shown(library, chat) == [user.id]


def test_restore_fork_and_back_are_undone_to_where_one_stood(library, chat):
    _, first = talk(library, chat.id, None, "one")
    _, second = talk(library, chat.id, first.id, "two")
    library.move_head(chat.id, first.id, action="restore")
    library.move_head(chat.id, None, action="back")
    library.move_head(chat.id, first.id, action="fork")
    assert [library.undo(chat.id).head_id for _ in range(3)] == [None, first.id, second.id]
    assert [library.redo(chat.id).head_id for _ in range(3)] == [first.id, None, first.id]
    with pytest.raises(NothingToUndo):
        library.redo(chat.id)


def test_standing_still_is_nothing_to_undo(library, chat):
    _, first = talk(library, chat.id, None, "one")
    library.move_head(chat.id, first.id)
    assert library.undo(chat.id).kind == "turn"


def test_delete_hides_a_subtree_and_gives_it_back(library, chat):
    _, first = talk(library, chat.id, None, "one")
    user, second = talk(library, chat.id, first.id, "two")
    library.set_name("end", second.id)
    action = library.delete(user.id)
    assert (action.detail["nodes"], action.head_id) == (2, first.id)
    assert library.savepoints() == []
    assert shown(library, chat)[-1] == first.id
    assert [t.deleted for t in library.tree(chat.id, deleted=True)] == [False, False, True, True]
    with pytest.raises(UnknownNode):
        library.delete(user.id)
    with pytest.raises(UnknownNode):
        library.move_head(chat.id, second.id)
    assert library.undo(chat.id).head_id == second.id
    assert library.resolve("end").node == second
    assert library.redo(chat.id).head_id == first.id


def test_only_what_a_delete_hid_comes_back(library, chat):
    _, first = talk(library, chat.id, None, "one")
    user, second = talk(library, chat.id, first.id, "two")
    library.delete(second.id)
    library.delete(user.id)
    library.undo(chat.id)
    assert shown(library, chat)[-1] == user.id
    library.undo(chat.id)
    assert shown(library, chat)[-1] == second.id


def test_a_name_of_something_deleted_can_be_taken_and_returns_by_undo(library, chat):
    _, first = talk(library, chat.id, None, "one")
    _, second = talk(library, chat.id, first.id, "two")
    library.set_name("x", second.id)
    library.delete(second.id)
    library.set_name("x", first.id)
    library.undo(chat.id)
    library.undo(chat.id)
    assert library.resolve("x").node == second


def test_a_deleted_conversation_comes_back_from_the_librarys_own_undo(library, chat):
    _, first = talk(library, chat.id, None, "one")
    library.delete_conversation(chat.id)
    assert library.conversations() == []
    for look in (library.conversation, library.tree, library.delete_conversation):
        with pytest.raises(UnknownConversation):
            look(chat.id)
    with pytest.raises(UnknownConversation):
        library.add_node(chat.id, first.id, Message("user", "x"))
    action = library.undo()
    assert (action.kind, action.conversation_id, action.detail["conversation"]) == ("delete", chat.id, "first")
    assert head(library, chat) == first.id
    assert len(shown(library, chat)) == 2
    library.redo()
    assert library.conversations() == []


def test_names_and_titles_are_undone(library, chat):
    _, first = talk(library, chat.id, None, "one")
    _, second = talk(library, chat.id, first.id, "two")
    library.set_name("a", first.id)
    library.set_name("a", second.id, force=True)
    library.rename("a", "b")
    library.remove_name("b")
    library.set_title(chat.id, "second")
    library.set_title(chat.id, "by itself", undoable=False)

    def names():
        return {s.name: s.node_id for s in library.savepoints()}

    assert library.undo(chat.id).kind == "title"
    assert library.conversation(chat.id).title == "first"
    states = [names()]
    for _ in range(4):
        library.undo(chat.id)
        states.append(names())
    assert states == [{}, {"b": second.id}, {"a": second.id}, {"a": first.id}, {}]
    again = [names()]
    for _ in range(4):
        library.redo(chat.id)
        again.append(names())
    assert again == states[::-1]


def test_a_rename_over_another_name_gives_both_back(library, chat):
    _, first = talk(library, chat.id, None, "one")
    _, second = talk(library, chat.id, first.id, "two")
    library.set_name("a", first.id)
    library.set_name("b", second.id)
    library.rename("a", "b", force=True)
    library.undo(chat.id)
    assert {s.name: s.node_id for s in library.savepoints()} == {"a": first.id, "b": second.id}


def test_undo_goes_on_after_a_restart(library, chat, tmp_path):
    _, first = talk(library, chat.id, None, "one")
    talk(library, chat.id, first.id, "two")
    library.undo(chat.id)
    library.close()
    with open_library(tmp_path) as again:
        assert again.redo(chat.id).head_id != first.id
        assert again.undo(chat.id).head_id == first.id
        assert again.undo(chat.id).head_id is None


def test_a_new_action_forgets_what_was_undone_but_loses_no_text(library, chat):
    user, reply = talk(library, chat.id, None, "one")
    library.undo(chat.id)
    again, _ = talk(library, chat.id, None, "other")
    with pytest.raises(NothingToUndo):
        library.redo(chat.id)
    assert library.node(reply.id).text == "ONE"
    same = library.add_node(chat.id, None, Message("user", "one", user.tokens))
    assert same.id == user.id  # said again: the same message is shown again
    assert user.id in shown(library, chat)
    assert again.id in shown(library, chat)


def test_what_was_deleted_said_again_and_undone_twice_is_there_again(library, chat):
    user, reply = talk(library, chat.id, None, "one")
    library.delete(reply.id)
    library.delete(user.id)
    talk(library, chat.id, None, "one")
    assert shown(library, chat) == [user.id, reply.id]
    library.undo(chat.id)
    assert shown(library, chat) == []
    library.undo(chat.id)
    assert shown(library, chat) == [user.id]
    library.undo(chat.id)
    assert shown(library, chat) == [user.id, reply.id]
    for _ in range(3):
        library.redo(chat.id)
    assert shown(library, chat) == [user.id, reply.id]


def test_a_reply_to_something_deleted_meanwhile_is_kept_with_its_path(library, chat):
    user = library.add_node(chat.id, None, Message("user", "q"))
    library.delete(user.id)
    reply = library.add_node(chat.id, user.id, Message("assistant", "the answer"))
    assert shown(library, chat) == [user.id, reply.id]


def test_conversations_have_logs_of_their_own(library, chat):
    other = library.new_conversation()
    talk(library, chat.id, None, "one")
    talk(library, other.id, None, "two")
    library.undo(chat.id)
    assert head(library, chat) is None
    assert library.conversation(other.id).head_id is not None
    assert library.undo().conversation_id == other.id


def test_a_title_is_changed_undone_and_changed_again(library, chat):
    library.set_title(chat.id, "another")
    library.undo(chat.id)
    assert library.conversation(chat.id).title == "first"
    library.redo(chat.id)
    assert library.conversation(chat.id).title == "another"
