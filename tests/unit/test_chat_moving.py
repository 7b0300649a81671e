"""Going elsewhere: names, restore, fork, quicksave and quickload, undo; and what fails moves nobody."""

import threading

import pytest

from app.chat import ChatOptions
from app.errors import NothingToDo
from app.events import Delta, Restored
from app.views import conversation_rows
from snapshots import BadName, Library, NameTaken, NothingToUndo, UnknownRef


def broken(*_, **__):
    raise OSError("broken")


def test_names_restore_and_undo(chats):
    chat = chats()
    chat.send("one")
    chat.save("intro")
    chat.send("two")
    chat.flush()
    assert len(chat.transcript()) == 4
    chat.restore("intro")
    assert len(chat.transcript()) == 2
    assert chat.heard.of(Restored)[-1].rung == "bundle"
    chat.undo()
    assert len(chat.transcript()) == 4
    with pytest.raises(NameTaken):
        chat.save("intro")
    chat.save("intro", force=True)
    assert chat.labels()["intro"] == chat.transcript()[-1].node_id
    with pytest.raises(UnknownRef) as wrong:
        chat.restore("intor")
    assert "intro" in wrong.value.nearest


def test_a_failed_restore_leaves_the_live_chat_untouched(chats, monkeypatch):
    chat = chats()
    chat.send("one")
    chat.save("intro")
    chat.send("two")
    before, session = chat.transcript(), chat._core.bench.session
    chat._core.bench.session = None
    monkeypatch.setattr(type(chat._core.library), "load_state", broken)
    monkeypatch.setattr(chat.model, "prefill", broken)
    chat._core.bench.session = session
    session_tokens = list(session.tokens)
    monkeypatch.setattr(type(session), "fork", broken)
    with pytest.raises(OSError, match="broken"):
        chat.restore("intro")
    assert chat.transcript() == before
    assert chat._core.bench.session is session
    assert list(session.tokens) == session_tokens


def test_fork_goes_to_the_past_and_a_message_there_makes_a_branch(chats):
    chat = chats()
    chat.send("one")
    base = chat.transcript()[-1].node_id
    chat.send("two")
    chat.fork("other", base)
    assert chat.labels()["other"] == base
    chat.send("three")
    rows = chat.tree()
    children = [r for r in rows if r.parent_id == base]
    assert sorted(r.preview for r in children) == ["three", "two"]
    assert [r.is_here for r in rows].count(True) == 1


@pytest.mark.parametrize(("name", "error"), [("dead", BadName), ("", BadName), ("taken", NameTaken)])
def test_a_fork_with_a_bad_name_moves_nobody(chats, name, error):
    chat = chats()
    chat.send("one")
    chat.save("start")
    chat.send("two")
    chat.save("taken")
    chat.send("three")
    here = chat.status().node_id
    with pytest.raises(error):
        chat.fork(name, "start")
    assert chat.status().node_id == here
    chat.fork("fine", "start")
    assert len(chat.transcript()) == 2
    chat.fork("start", "start")
    with pytest.raises(NameTaken):
        chat.fork("taken")


def test_a_token_inside_a_reply_can_be_restored(chats):
    chat = chats()
    chat.send("one")
    whole = chat.transcript()[-1]
    chat.save("end")
    chat.restore("end@4")
    assert chat.transcript()[-1].own_tokens == 4
    assert whole.text.startswith(chat.transcript()[-1].text)
    chat.continue_reply()
    said = "".join(m.text for m in chat.transcript() if m.role == "assistant")
    assert said.startswith(whole.text)


def test_quicksave_in_mid_reply_splits_the_reply_and_changes_no_token(chats):
    plain = chats(ChatOptions(limit=40, seed=3))
    plain.send("hello")
    chat = chats(ChatOptions(limit=40, seed=3), step_s=0.002)
    chat.new_conversation()
    reached, results = threading.Event(), []
    chat.heard.on(Delta, 10, reached.set)

    def press():
        reached.wait(5)
        results.append(chat.quicksave())

    presser = threading.Thread(target=press)
    presser.start()
    chat.send("hello")
    presser.join(5)
    parts = [m for m in chat.transcript() if m.role == "assistant"]
    assert [p.stop for p in parts] == ["saved", "length"]
    assert "quick" in parts[0].labels
    assert "".join(p.text for p in parts) == plain.heard.text() == chat.heard.text()
    chat.quickload()
    assert chat.transcript()[-1].node_id == parts[0].node_id
    chat.continue_reply()
    assert "".join(m.text for m in chat.transcript()[1:]).startswith(plain.heard.text())


def test_quickload_again_goes_one_further_back(chats):
    chat = chats()
    chat.send("one")
    chat.quicksave()
    chat.send("two")
    chat.quicksave()
    chat.send("three")
    lengths = []
    for _ in range(3):
        chat.quickload()
        lengths.append(len(chat.transcript()))
    assert lengths == [4, 2, 4]
    assert "/undo" in chat.heard.of(Restored)[-1].sentence


def test_quickload_in_mid_reply_stops_it_and_keeps_the_part(chats):
    chat = chats(ChatOptions(limit=500, seed=3), step_s=0.002)
    with pytest.raises(NothingToDo):
        chat.quickload()
    chat.set_system("be brief")
    chat.quicksave()
    loader = threading.Thread(target=chat.quickload)
    chat.heard.on(Delta, 8, loader.start)
    chat.send("hello")
    loader.join(10)
    assert [m.role for m in chat.transcript()] == ["system"]
    texts = {r.role for r in chat.tree()}
    assert "assistant" in texts


def test_delete_and_undo(chats):
    chat = chats()
    chat.send("one")
    chat.send("two")
    chat.delete(chat.transcript()[2].node_id)
    assert len(chat.transcript()) == 2
    chat.undo()
    assert len(chat.transcript()) == 4
    chat.redo()
    assert len(chat.transcript()) == 2


def test_undo_takes_the_whole_turn_back(chats):
    chat = chats()
    chat.send("one")
    chat.send("two")
    chat.undo()
    assert [m.text for m in chat.transcript()][:1] == ["one"]
    assert len(chat.transcript()) == 2
    chat.undo()
    assert chat.transcript() == []
    with pytest.raises(NothingToUndo):
        chat.undo()


def test_back_steps_in_front_of_the_last_question(chats):
    chat = chats()
    chat.send("one")
    chat.send("two")
    chat.back()
    assert len(chat.transcript()) == 2


def test_a_conversation_that_another_process_forgets_meanwhile_does_not_spoil_the_list(chats, monkeypatch):
    chat = chats()
    chat.send("hello")
    chat.flush()
    gone = chat.transcript()[0].node_id
    library, real = chat._core.library, Library.conversations

    def conversations(self):
        found = real(self)
        self.delete_forever(gone)
        return found

    monkeypatch.setattr(Library, "conversations", conversations)
    assert [row.turns for row in conversation_rows(library, None)] == [0]
