"""Thinking sections: taken apart for the screen, counted, and dropped where a template leaves them out."""

import pytest

from app.chat import ChatOptions
from app.events import Notice, ReplyStarted
from app.thinking import Parts, count_tokens, opened_by, parted
from tests.fake_engine import TEMPLATE, FakeTokenizer

STRIPPING = TEMPLATE.replace("m.content", "(m.content.split('</think>')[-1] if m.role == 'assistant' else m.content)")
assert STRIPPING != TEMPLATE
LONG = ChatOptions(limit=200, seed=7)
THOUGHT = "<think>\nhm, hm\n</think>\n\nYes."


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", Parts(None, "plain")),
        ("", Parts(None, "")),
        (THOUGHT, Parts("hm, hm", "Yes.")),
        ("\n<think>a</think>b", Parts("a", "b")),
        ("<think>a", Parts("a", "", open=True)),
        ("[THINK]a[/THINK]b", Parts("a", "b")),
        ("<think></think>b", Parts("", "b")),
        ("a</think>\nb", Parts("a", "b")),
        ("<thi", Parts(None, "")),
        ("<b>", Parts(None, "<b>")),
        ("so <think> is a tag", Parts(None, "so <think> is a tag")),
        ("<think>a</think>b<think>c</think>", Parts("a", "b<think>c</think>")),
    ],
)
def test_a_reply_is_taken_apart(text, parts):
    assert parted(text) == parts


def test_a_prompt_may_open_the_section():
    assert opened_by("<|assistant|><think>\n")
    assert not opened_by("<think>\n\n</think>\n\n")
    assert parted("hm", inside=True) == Parts("hm", "", open=True)
    assert parted("hm</think>Yes", inside=True) == parted("hm</think>Yes") == Parts("hm", "Yes")


def test_every_beginning_only_grows():
    """While a reply is written, neither its thinking nor its answer loses what was shown."""
    before = Parts(None, "")
    for end in range(len(THOUGHT) + 1):
        parts = parted(THOUGHT[:end])
        assert parts.answer.startswith(before.answer)
        assert before.thinking is None or parts.thinking is not None
        before = parts


def test_tokens_are_counted_with_their_marks():
    tokenizer = FakeTokenizer()  # one token a byte
    assert count_tokens(tokenizer, THOUGHT.encode()) == THOUGHT.index("</think>") + len("</think>")
    assert count_tokens(tokenizer, b"<think>abc") == 10
    assert count_tokens(tokenizer, b"abc") == 0


def test_the_template_drops_the_thinking_of_earlier_replies(chats):
    chat = chats(LONG, source=STRIPPING, script={"why": THOUGHT, "and": "Sure."})
    chat.send("why")
    first = chat.status().tokens
    reply = chat.transcript()[-1]
    assert reply.text == THOUGHT
    assert reply.thinking_tokens == THOUGHT.index("</think>") + len("</think>")
    chat.send("and")
    assert f"The template drops {reply.thinking_tokens} thinking tokens." in [e.sentence for e in _notices(chat)]
    question = chat._core.place.path[-2]
    assert question.keep == first - len(THOUGHT)  # what stands: all up to the reply's first token
    said = chat.model.tokenizer.decode(chat._core.place.tokens())
    assert "hm, hm" not in said
    assert "Yes." in said
    assert [m.text for m in chat.transcript()] == ["why", THOUGHT, "and", "Sure."]  # the person's history is whole


def test_thinking_that_the_template_keeps_is_not_dropped(chats):
    chat = chats(LONG, script={"why": THOUGHT, "and": "Sure."})
    chat.send("why")
    before = chat.status().tokens
    chat.send("and")
    assert not _notices(chat)
    assert chat._core.place.path[-2].keep == before


def test_the_screen_hears_that_the_prompt_opened_a_section(chats):
    opening = TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    chat = chats(LONG, source=opening, script={"<think>\n": "hm</think>Yes."})
    chat.send("why")
    assert chat.heard.of(ReplyStarted)[-1].thinking
    assert chat.transcript()[-1].thinking_tokens == len("hm</think>")
    plain = chats(LONG, script={"why": THOUGHT})
    plain.send("why")
    assert not plain.heard.of(ReplyStarted)[-1].thinking


def _notices(chat):
    return [event for event in chat.heard.of(Notice) if "drops" in event.sentence]
