"""Reading along while a message is typed: sooner, never different, never in the way."""

import os
import random
import time
from pathlib import Path

import pytest

from app import prefill_ahead
from app.chat import Chat, ChatOptions
from app.events import ReplyStarted
from app.local_engine import LocalEngine
from tests.fake_engine import FakeEngine

MESSAGE = "Please tell me everything about the tides of the sea, slowly and in order."


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(prefill_ahead, "IDLE_S", 0.0)


def wait_for(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def read(chat):
    session = chat._core.ahead._session
    return session.position if session is not None else 0


def plain_reply(chats, *messages, **options):
    chat = chats(ChatOptions(limit=12, seed=7, read_along=False, **options))
    chat.new_conversation()
    for message in messages:
        chat.send(message)
    return chat.last_reply.tokens, chat.logits_digest()


def test_what_was_read_while_typing_is_reused_and_changes_nothing(chats):
    chat = chats()
    for end in range(5, len(MESSAGE) + 1, 7):
        chat.read_along(MESSAGE[:end])
    chat.read_along(MESSAGE)
    wait_for(lambda: read(chat) > len(MESSAGE) - 10)
    chat.send(MESSAGE)
    started = chat.heard.of(ReplyStarted)[-1]
    assert started.reused > len(MESSAGE) - 10
    assert started.prefilled < 25
    assert read(chat) == 0
    assert (chat.last_reply.tokens, chat.logits_digest()) == plain_reply(chats, MESSAGE)


def test_what_was_typed_otherwise_is_dropped(chats):
    chat = chats()
    chat.send("hello")
    chat.read_along(MESSAGE)
    wait_for(lambda: read(chat) > chat.status().tokens + len(MESSAGE) - 10)
    chat.send("Please do not.")
    reused = chat.heard.of(ReplyStarted)[-1].reused
    assert reused > chat.heard.of(ReplyStarted)[0].prefilled
    assert (chat.last_reply.tokens, chat.logits_digest()) == plain_reply(chats, "hello", "Please do not.")


def test_who_sends_waits_for_one_piece_at_most(chats):
    chat = chats(ChatOptions(limit=1, seed=7), prefill_s=0.002)
    chat.read_along("x" * 1000)
    wait_for(lambda: read(chat) >= prefill_ahead.PIECE)
    fed = chat.model.fed
    begin = time.monotonic()
    chat._core.ahead.forget()
    assert time.monotonic() - begin < 1.0
    assert chat.model.fed - fed <= 2 * prefill_ahead.PIECE
    before = chat.model.fed
    time.sleep(0.1)
    assert chat.model.fed == before


def test_nothing_is_read_while_a_reply_is_written(chats):
    chat = chats(ChatOptions(limit=30, seed=3), step_s=0.003)
    seen = []

    def type_on():
        chat.read_along(MESSAGE)
        time.sleep(0.02)

    chat.heard.on(ReplyStarted, 1, type_on)
    real = chat.model.prefill
    chat.model.prefill = lambda *a, **k: (seen.append(chat._core.busy), real(*a, **k))[1]
    chat.send("hello")
    busy, seen[:] = list(seen), []
    assert busy == [True]  # the question's own
    wait_for(lambda: read(chat) > chat.status().tokens + len(MESSAGE) - 10)
    assert not any(seen)


def test_nothing_reaches_the_library_and_a_savepoint_made_meanwhile_is_whole(chats):
    chat = chats()
    chat.send("hello")
    chat.read_along(MESSAGE)
    wait_for(lambda: read(chat) > chat.status().tokens + 20)
    nodes = len(chat.tree())
    chat.save("here")
    assert chat.flush(5)
    assert len(chat.tree()) == nodes
    assert chat.logits_digest() is not None
    chat.send("another")
    chat.restore("here")
    restored = chat.heard.events[-3:]
    assert any(getattr(event, "rung", "") == "bundle" for event in restored)


def test_an_empty_draft_a_close_and_another_model_end_it(chats):
    chat = chats(prefill_s=0.001)
    chat.read_along(MESSAGE)
    wait_for(lambda: read(chat) > 0)
    chat.read_along("")
    chat.load_model(Path("other.gguf"))
    assert read(chat) == 0
    chat.read_along(MESSAGE)
    wait_for(lambda: read(chat) > 0)
    chat.close()
    assert not chat._core.ahead._thread.is_alive()


def test_it_can_be_turned_off(chats):
    chat = chats(ChatOptions(limit=2, read_along=False))
    fed = chat.model.fed
    chat.read_along(MESSAGE)
    time.sleep(0.05)
    assert (chat.model.fed, chat._core.ahead._thread) == (fed, None)


def test_a_draft_longer_than_the_context_is_read_no_further(chats):
    chat = chats(ChatOptions(limit=2), engine=FakeEngine(context=64))
    chat.read_along("y" * 500)
    wait_for(lambda: read(chat) == 64)
    chat.send("short")
    assert chat.last_reply.stop


@pytest.mark.parametrize("seed", range(3))
def test_any_way_of_typing_gives_the_bits_of_no_typing(stories_path, seed):
    """A real model; texts are typed, taken back and changed at random, and sent at any moment."""
    rng = random.Random(seed)
    made = []

    def chat_of(**options):
        chat = Chat(lambda event: None, ChatOptions(limit=8, seed=1, incognito=True, **options), engine=LocalEngine())
        chat._wanted_model = stories_path
        chat.start(fresh=True)
        chat.load_model()
        made.append(chat)
        return chat

    typing, plain = chat_of(), chat_of(read_along=False)
    for _ in range(4):
        draft = ""
        for _ in range(rng.randrange(1, 12)):
            if rng.random() < 0.25:
                draft = draft[: rng.randrange(len(draft) + 1)]
            draft += rng.choice([" tree", "Lily", " won", "der", "\n", " 12", "é", ".", "  "])
            typing.read_along(draft)
            time.sleep(rng.choice([0, 0.001, 0.01]))
        sent = draft if draft.strip() and rng.random() < 0.8 else "Hello."
        for chat in (typing, plain):
            chat.send(sent)
        assert typing.last_reply.tokens == plain.last_reply.tokens
        assert typing.logits_digest() == plain.logits_digest()
    for chat in made:
        chat.close()
    assert not Path(os.environ["FORKPOINT_DATA_DIR"]).exists()
