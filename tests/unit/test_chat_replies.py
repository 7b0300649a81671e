"""Replies: which are kept, what is said of their speed, what comes instead of the likeliest."""

import pytest

from app.chat import ChatOptions
from app.commands import parse
from app.events import Notice, ReplyDone, RunnerUpOffer

GREEDY = ChatOptions(limit=12, seed=3, forced={"temperature": 0.0})


def test_going_on_past_a_stop_string_adds_no_empty_messages(chats):
    chat = chats(ChatOptions(limit=50, forced={"stop": ["END"], "temperature": 0.0}), script={"go": "abc ENDxyz"})
    chat.send("go")
    nodes = len(chat.tree())
    for _ in range(2):
        chat.continue_reply()
        assert chat.heard.of(ReplyDone)[-1].stop == "stop"
    assert len(chat.tree()) == nodes
    assert any("nothing was added" in n.sentence for n in chat.heard.of(Notice))
    assert not chat._core.library.dead_replies()


def test_a_reply_that_ends_at_once_is_a_message(chats):
    chat = chats(GREEDY, script={"go": ""})
    chat.send("go")
    assert [(m.role, m.text) for m in chat.transcript()] == [("user", "go"), ("assistant", "")]


def test_the_runner_up_is_the_next_best_after_the_penalties(chats):
    options = ChatOptions(limit=4, seed=3, forced={"temperature": 0.0, "repeat_penalty": 100.0, "repeat_last_n": -1})
    chat, told_apart = chats(options), 0
    for word in ("one", "two", "three", "four", "five", "six"):
        chat.new_conversation()
        chat.send(word)  # what was said is all but forbidden
        reply = chat.last_reply
        chat.regenerate()
        offered = chat.heard.of(RunnerUpOffer)[-1].text
        session = chat.model.new_session()
        chat.model.prefill(session, chat._core.library.tokens(chat.transcript()[0].node_id))
        first, second = chat._core.engine.likeliest(session.logits, session.tokens, chat.settings, 2)
        raw = sorted(range(len(session.logits)), key=lambda token: -session.logits[token])
        told_apart += next(token for token in raw if token != first) != second
        assert (reply.tokens[0], offered) == (first, chr(second))
        chat.regenerate(runner_up=True)
        assert chat.last_reply.tokens[0] == second
    assert told_apart


def test_the_speed_of_a_finished_reply_counts_what_was_made_now(chats, monkeypatch):
    dying = chats(ChatOptions(limit=30, seed=5))
    real, left = type(dying.model).step, [20]

    def step(self, sessions, tokens, drafts=None):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, sessions, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(type(dying.model), "step", step)
        patch.setattr("app.replying.ReplyWriter._commit", lambda self, reply, stop: self.journal.close())
        with pytest.raises(KeyboardInterrupt):
            dying.send("hello")
    dying.close()
    again = chats(ChatOptions(limit=30))
    assert again.pending_reply().tokens == 20
    again.go_on()
    assert len(again.last_reply.tokens) == 30
    assert again.heard.of(ReplyDone)[-1].stats.generated_tokens == 10


def test_a_prompt_that_was_stopped_has_no_digest(chats):
    chat = chats()
    model = chat.model
    real = model.prefill

    def stopped(session, tokens, **named):
        return real(session, tokens[:3], **{**named, "cancel": None})

    model.prefill = stopped
    chat.send("hello")
    assert chat._core.bench.session.logits is not None
    assert chat.logits_digest() is None
    model.prefill = real
    chat.go_on()
    assert chat.logits_digest() == chat._core.bench.session.logits_digest()


@pytest.mark.parametrize("line", ["\n/model x", "  /model x", "\t/model x"])
def test_white_space_in_front_of_a_command_is_no_message(line):
    parsed = parse(line)
    assert parsed is not None
    assert (parsed.name, parsed.argument) == ("model", "x")
    assert parse("\n/usr/bin is a path") is None
