"""Settings and dice are part of every savepoint: what is restored goes on with the tokens that would have come."""

import pytest

from app.chat import ChatOptions
from app.events import Notice, ReplyDone, Restored
from app.tui.shown import shown

FREE = ChatOptions(limit=12)


def agrees(chats, chat, name, act):
    """Act here, at the savepoint `name` restored here, and at it in another process; the tokens must be the same."""
    act(chat)
    live = chat.last_reply.tokens
    assert live
    chat.restore(name)
    act(chat)
    assert chat.last_reply.tokens == live
    chat.close()
    other = chats(FREE, at=name)
    act(other)
    assert other.last_reply.tokens == live


def go_on(chat):
    chat.continue_reply()


def ask(chat):
    chat.send("and then?")


@pytest.mark.parametrize("act", [go_on, ask])
def test_changed_settings_are_in_a_savepoint(chats, act):
    chat = chats(FREE)
    chat.send("hello")
    chat.save("before")
    chat.change_settings(temperature=5.0, top_k=0, min_p=0.0, top_p=1.0)
    chat.save("after")
    settings = chat.settings
    said = [(m.role, m.text) for m in chat.transcript() if m.text]
    assert said[0] == ("user", "hello")
    assert len(said) == 2
    chat.restore("before")
    assert chat.settings.temperature != 5.0
    chat.restore("after")
    assert chat.settings == settings
    chat.flush()
    assert chat.heard.of(Restored)[-1].rung == "bundle"
    agrees(chats, chat, "after", act)


def test_a_quicksave_keeps_settings_and_undo_takes_them_back(chats):
    chat = chats(FREE)
    chat.send("hello")
    chat.change_settings(temperature=3.0)
    chat.quicksave()
    chat.change_settings(temperature=2.0)
    chat.quickload()
    assert chat.settings.temperature == 3.0
    nodes = len(chat.tree())
    chat.quicksave()
    chat.save("same")
    chat.fork("too")
    assert len(chat.tree()) == nodes, "nothing changed, so nothing is added"


def test_a_restart_goes_on_with_changed_settings(chats):
    chat = chats(FREE)
    chat.send("hello")
    chat.change_settings(temperature=4.0)
    dice = chat.dice_key
    chat.close()
    again = chats(FREE)
    assert (again.settings.temperature, again.dice_key) == (4.0, dice)
    nodes = len(again.tree())
    again.close()
    assert len(chats(FREE).tree()) == nodes


def test_a_message_behind_changed_settings_reads_as_without_them(chats):
    chat = chats(FREE)
    chat.send("hello")
    chat.change_settings(temperature=2.0)
    chat.save("s")
    fed = chat.model.fed
    before = chat._core.place.tokens()
    chat.send("more")
    after = chat._core.place.tokens()
    assert after[: len(before)] == before
    assert chat.model.fed - fed == len(after) - len(before)
    assert chat.transcript()[2].sibling_ids
    reply = next(m for m in chat.transcript() if m.role == "assistant")
    assert len(reply.sibling_ids) == 1, "settings are no other version of a reply"


def test_an_unanswered_question_is_still_offered_behind_changed_settings(chats):
    chat = chats(ChatOptions(limit=0))
    chat.send("hello")
    assert len(chat.transcript()) == 1
    chat.change_settings(temperature=2.0)
    chat.save("s")
    assert chat.pending_reply() is not None
    chat.regenerate()


def test_a_system_message_holds_the_dice(chats):
    chat = chats(FREE)
    chat.set_system("be brief")
    chat.save("s")
    agrees(chats, chat, "s", ask)


def test_an_edited_reply_goes_on_with_the_dice_in_force(chats):
    chat = chats(FREE)
    chat.send("hello")
    first = chat.transcript()[-1].node_id
    chat.regenerate()
    chat.change_settings(temperature=1.5)
    chat.edit(first, "Well")
    chat.save("s")
    agrees(chats, chat, "s", go_on)


def test_a_branch_without_old_turns_keeps_the_settings(chats):
    chat = chats(FREE)
    chat.send("one")
    chat.send("two")
    chat.change_settings(temperature=0.3)
    chat.drop_oldest_turns(1)
    node = chat.status().node_id
    chat.restore(node)
    assert chat.settings.temperature == 0.3
    chat.save("s")
    agrees(chats, chat, "s", go_on)


def test_an_edited_reply_of_as_many_tokens_does_not_get_the_digest_of_the_old_one(chats):
    chat = chats(FREE, script={"hello": "abc"})
    chat.send("hello")
    chat.edit(chat.transcript()[-1].node_id, "xyz")
    chat.save("edited")
    chat.flush()
    assert chat._core.library.node_states(chat.status().node_id) == []
    chat.restore("edited")
    chat.flush()
    (row,) = chat._core.library.node_states(chat.status().node_id)
    fresh = chat.model.new_session()
    chat.model.prefill(fresh, chat._core.place.tokens())
    assert row.logits_digest == fresh.logits_digest()
    assert chat.heard.of(Restored)[-1].bit_exact is not False


def test_settings_alone_change_no_stop_reason(chats):
    chat = chats(FREE, script={"hello": "abc"})
    chat.send("hello")
    assert chat.heard.of(ReplyDone)[-1].stop == "stop"
    chat.change_settings(temperature=2.0)
    chat.save("s")
    assert [m.stop for m in chat.transcript()] == [None, "stop", "stop"]


def test_settings_that_were_changed_show_as_no_message_and_can_be_undone(chats):
    chat = chats(FREE, script={"hello": "abc"})
    chat.change_settings(temperature=0.5)
    assert shown(chat.transcript()) == []
    chat.send("hello")
    chat.change_settings(temperature=2.0)
    chat.change_settings(top_k=7)
    assert [(m.role, m.text) for m in shown(chat.transcript())] == [("user", "hello"), ("assistant", "abc")]
    assert shown(chat.transcript())[-1].last_id == chat.status().node_id
    assert next(row.preview for row in chat.tree() if row.is_here) == "abc"
    chat.undo()
    assert (chat.settings.temperature, chat.settings.top_k != 7) == (2.0, True)
    assert chat.heard.of(Notice)[-1].sentence.startswith("The settings are as they were")
    chat.undo()
    assert chat.settings.temperature == 0.5
    assert len(shown(chat.transcript())) == 2


def test_a_setting_that_is_what_it_was_adds_nothing(chats):
    chat = chats(FREE)
    chat.set_system("be brief")
    chat.change_settings(temperature=2.0)
    nodes = len(chat.tree())
    chat.change_settings(temperature=2.0)
    assert len(chat.tree()) == nodes, "nothing changed, so nothing is added"
