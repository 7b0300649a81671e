"""Where a chat begins: with the savepoint's KV type and context, and in front of what is damaged."""

import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from app.chat import Chat, ChatOptions
from app.config import Config, directories
from app.events import Notice, Restored
from app.saved_model import saved_model
from app.workbench import ModelOptions
from tests.fake_engine import FakeEngine, FakeModel
from tests.unit.conftest import MODEL, Heard

FREE = ChatOptions(limit=12)
SMALL = ChatOptions(ModelOptions(cache_type="q8_0", context=2048), limit=12)


def test_the_kv_type_is_the_savepoints(chats):
    chat = chats(SMALL)
    chat.send("hello")
    chat.save("small")
    assert chat.model.state_fields["kv_type"] == "q8_0"
    chat.continue_reply()
    live = chat.last_reply.tokens
    chat.close()
    again = chats(ChatOptions(limit=12), at="small")
    assert again.model.state_fields["kv_type"] == "q8_0"
    assert again.heard.of(Restored)[0].differs == ()
    again.continue_reply()
    assert again.last_reply.tokens == live
    again.close()
    asked = chats(ChatOptions(ModelOptions(cache_type="f16"), limit=12), at="small")
    assert asked.model.state_fields["kv_type"] == "f16"
    assert asked.heard.of(Restored)[0].differs == ("kv_type",)


@pytest.mark.parametrize(("config", "length"), [(Config(context=900), 900), (Config(context=5), 4096)])
def test_a_configured_context_counts_where_it_holds_the_savepoint(chats, config, length):
    chat = chats(SMALL)
    chat.send("hello")
    chat.close()
    again = Chat(Heard(), ChatOptions(limit=12), engine=FakeEngine(), model=MODEL, config=config)
    again.start()
    again.load_model()
    assert again.model.context_length == length
    again.close()


def damage(node_id):
    with sqlite3.connect(directories().data / "tree.db") as db:
        db.execute("UPDATE nodes SET text = text || 'x' WHERE id = ?", (node_id,))
    db.close()


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_damaged_message_is_opened_in_front_of(chats, at):
    chat = chats()
    chat.send("one")
    chat.send("two")
    path = [m.node_id for m in chat.transcript()]
    chat.close()
    damage(path[at])
    again = chats()
    assert [m.node_id for m in again.transcript()] == path[:at]
    assert any("damaged" in n.sentence for n in again.heard.of(Notice))
    again.conversations()
    again.tree()
    again.send("three")
    assert [m.text for m in again.transcript()][at] == "three"


def test_two_windows_keep_a_place_in_each_conversation_and_the_one_closed_last_opens_again(chats):
    one, two = chats(FREE), chats(FREE)
    one.send("first")
    first = one.status()
    one.send("second")
    two.new_conversation()
    two.send("elsewhere")
    elsewhere = two.status()
    two.open_conversation(first.conversation_id)  # where the other window left it
    assert two.status().node_id == one.status().node_id
    two.restore(first.node_id)
    one.send("third")
    third = one.status()
    two.open_conversation(elsewhere.conversation_id)
    two.open_conversation(first.conversation_id)  # a window comes back to where it was itself
    assert two.status().node_id == first.node_id
    two.open_conversation(elsewhere.conversation_id)
    two.close()
    one.close()
    again = chats(FREE)
    assert again.status().node_id == third.node_id
    again.open_conversation(elsewhere.conversation_id)
    assert again.status().node_id == elsewhere.node_id
    again.close()
    assert chats(FREE).status().node_id == elsewhere.node_id


def test_a_place_inside_a_reply_is_a_place_to_come_back_to(chats):
    chat = chats(FREE)
    chat.send("first")
    reply = chat.status()
    chat.restore(f"{reply.node_id}@3")
    tokens = chat.status().tokens
    assert tokens < reply.tokens
    chat.new_conversation()
    chat.send("elsewhere")
    chat.close()
    again = chats(FREE)
    again.open_conversation(reply.conversation_id)
    assert again.status().tokens == tokens


def test_weights_that_are_not_kept_on_disk_are_said(chats, monkeypatch):
    monkeypatch.setattr(FakeModel, "unkept_weights", "they take 9.0 GB, and weights-cache allows 2.0 GB")
    said = [notice.sentence for notice in chats(FREE).heard.of(Notice)]
    assert "The next start arranges the weights anew: they take 9.0 GB, and weights-cache allows 2.0 GB." in said


def test_who_leaves_the_screen_waits_for_what_was_said_and_not_for_copies_of_weights(monkeypatch, capsys):
    from app.tui import app

    class Closing:
        """Takes 0.6 s to write what was said, and then a minute for the model."""

        model, kept = object(), threading.Event()

        def close(self):
            time.sleep(0.6)
            self.kept.set()
            time.sleep(60)

    ended = []
    monkeypatch.setattr(app.os, "_exit", ended.append)
    begun = time.monotonic()
    app._close(Closing())
    assert Closing.kept.is_set()
    assert 0.6 <= time.monotonic() - begun < 5
    assert ended == [0]
    assert "the next start makes it" in capsys.readouterr().err


def test_a_long_savepoint_opens_with_the_context_that_its_model_had(chats, model_file):
    chat = chats(SMALL)
    chat.send("hello")
    saved = saved_model(chat._core.library, chat._core.place.path)
    assert (saved.opened_with, saved.n_tokens < 100) == (2048, True)
    file = model_file("llama3")  # trained with 1024
    assert replace(saved, n_tokens=1100, opened_with=1500).context(file) == 1500
    assert replace(saved, n_tokens=1100, opened_with=0).context(file) == 4096
    assert replace(saved, n_tokens=1600, opened_with=1500).context(file) == 4096
    assert replace(saved, n_tokens=1000, opened_with=1500).context(file) is None
