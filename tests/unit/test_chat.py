"""The conversation controller over the scripted engine and the real store."""

import threading
from pathlib import Path

import pytest

from app.chat import ChatOptions
from app.errors import Cancelled, NothingToDo
from app.events import (
    ContextFullOffer,
    Delta,
    Notice,
    PendingFound,
    Progress,
    ReplyDone,
    Restored,
    RunnerUpOffer,
    Saved,
    TurnCommitted,
)
from app.libraries import own_library
from app.prompting import next_turn
from app.workbench import ModelOptions
from snapshots import Message
from tests.fake_engine import END

MODEL = Path("fake.gguf")


def tokens_here(chat):
    return chat._core.place.tokens()


def broken(*_, **__):
    raise OSError("broken")


def test_the_question_is_in_the_library_before_anything_is_computed(chats):
    chat = chats()
    fed = []
    model = chat.model
    chat.heard.on(TurnCommitted, 1, lambda: fed.append(model.fed))
    chat.send("hello")
    assert fed == [0]
    roles = [(m.role, m.text) for m in chat.transcript()]
    assert roles[0] == ("user", "hello")
    assert roles[1] == ("assistant", chat.heard.text())
    assert chat.heard.of(ReplyDone)[0].stop == "length"


def test_every_listed_token_was_fed_and_the_next_turn_only_appends(chats):
    chat = chats(script={"hi<assistant>": "x", "hello": "Good day", "more": "And night"})
    chat.send("hello")
    before = tokens_here(chat)
    assert END not in before[-1:]
    assert chat.heard.of(ReplyDone)[0].stop == "stop"
    fed = chat.model.fed
    chat.send("more")
    after = tokens_here(chat)
    assert after[: len(before)] == before
    assert chat.model.fed - fed == len(after) - len(before), "only the new turn was computed"
    assert [m.text for m in chat.transcript()] == ["hello", "Good day", "more", "And night"]


def test_a_restart_opens_where_it_was_left_and_goes_on_with_the_same_tokens(chats):
    options = ChatOptions(limit=30, seed=7)
    whole = chats(options)
    whole.send("tell me")
    whole.new_conversation()
    split = chats(ChatOptions(limit=11, seed=7))
    split.new_conversation()
    split.send("tell me")
    split.flush()
    first = split.heard.text()
    again = chats(ChatOptions(limit=19))
    assert [m.text for m in again.transcript()] == ["tell me", first]
    restored = again.heard.of(Restored)[0]
    assert (restored.rung, restored.prefilled, restored.bit_exact) == ("bundle", 0, True)
    again.continue_reply()
    assert first + again.heard.text() == whole.heard.text()


def test_a_purged_cache_is_recomputed_and_says_bit_exact(chats):
    chat = chats()
    chat.send("hello")
    chat.flush()
    import shutil

    from app.config import directories

    shutil.rmtree(directories().cache)
    again = chats()
    restored = again.heard.of(Restored)[0]
    assert (restored.rung, restored.reused, restored.bit_exact) == ("recomputed", 0, True)
    again.flush()
    healed = chats()
    assert healed.heard.of(Restored)[0].rung == "bundle"


def test_another_model_with_the_same_tokenizer_is_named(chats):
    chat = chats()
    chat.send("hello")
    chat.flush()
    other = chats(version="2")
    restored = other.heard.of(Restored)[0]
    assert restored.differs == ("numerics",)
    assert restored.bit_exact is False
    assert "numerics version" in restored.sentence


def test_another_tokenizer_reads_the_text_anew_with_the_next_message(chats):
    chat = chats(script={"hello": "x"})
    chat.send("hello")
    chat.flush()
    other = chats(version="2", template="other", script={"more": "y"})
    restored = other.heard.of(Restored)[0]
    assert (restored.rung, restored.reused) == ("recomputed", 0)
    assert "anew" in restored.sentence
    with pytest.raises(NothingToDo):
        other.regenerate()
    other.send("more")
    assert [m.text for m in other.transcript()] == ["hello", "x", "more", "y"]
    assert other.heard.of(ReplyDone)[0].stats.reused_tokens == 0
    other.continue_reply()
    assert other.transcript()[-1].continues


def test_stop_keeps_what_was_written(chats):
    chat = chats(ChatOptions(limit=200, seed=1), step_s=0.001)
    chat.heard.on(Delta, 5, chat.stop)
    chat.send("hello")
    done = chat.heard.of(ReplyDone)[0]
    assert done.stop == "cancelled"
    assert done.node.text == chat.heard.text()
    assert done.node.own_tokens < 10
    chat.continue_reply()
    assert chat.transcript()[-1].continues


def test_stop_while_the_prompt_is_read_keeps_the_question(chats):
    chat = chats(ChatOptions(limit=5, seed=1, models=ModelOptions(batch_size=4)), prefill_s=0.02)
    chat.heard.on(Progress, 4, chat.stop)
    chat.send("a long question that is read in parts")
    assert [m.role for m in chat.transcript()] == ["user"]
    assert chat.pending_reply() is not None
    chat.go_on()
    assert [m.role for m in chat.transcript()] == ["user", "assistant"]


def test_regenerate_adds_a_sibling_with_new_dice(chats):
    chat = chats()
    chat.send("hello")
    first = chat.transcript()[-1]
    chat.regenerate()
    second = chat.transcript()[-1]
    assert second.sibling_ids == (first.node_id, second.node_id)
    assert second.sibling_index == 1
    assert second.text != first.text


def test_regenerate_at_temperature_zero_offers_the_runner_up(chats):
    chat = chats(ChatOptions(limit=6, forced={"temperature": 0.0}))
    chat.send("hello")
    first = chat.transcript()[-1]
    chat.regenerate()
    offer = chat.heard.of(RunnerUpOffer)[0]
    assert chat.transcript()[-1] == first
    chat.regenerate(runner_up=True)
    assert chat.transcript()[-1].text.startswith(offer.text)
    assert chat.transcript()[-1].text[0] != first.text[0]


def test_edit_adds_a_sibling_and_keeps_the_old_question(chats):
    chat = chats()
    chat.send("hello")
    question = chat.transcript()[0]
    chat.edit(question.node_id, "goodbye")
    now = chat.transcript()
    assert now[0].text == "goodbye"
    assert now[0].sibling_ids == (question.node_id, now[0].node_id)
    assert [m.text for m in chat.transcript_of(question.node_id)] == ["hello"]


def test_a_system_message_comes_first_in_the_next_prompt(chats):
    chat = chats(script={"hello": "yes"})
    chat.send("hello")
    chat.set_system("be brief")
    chat.send("again")
    text = chat.model.tokenizer.decode(tokens_here(chat))
    assert text.startswith("be brief" + "hello" + "yes" + "again")
    assert any("drops" in n.sentence for n in chat.heard.of(Notice))


def test_a_full_context_offers_a_branch_and_the_original_stays(chats):
    chat = chats(ChatOptions(limit=8, seed=1), context=70)
    for text in ("one one one", "two two two"):
        chat.send(text)
    before = chat.transcript()
    chat.send("three three three three three")
    offer = chat.heard.of(ContextFullOffer)[0]
    assert offer.drop_turns >= 1
    assert offer.limit == 70
    assert chat.transcript() == before, "nothing of a message that does not fit is committed"
    chat.drop_oldest_turns(offer.drop_turns, offer.draft)
    now = chat.transcript()
    assert now[-2].text == offer.draft
    assert before[0].node_id not in {m.node_id for m in now}
    assert [m.text for m in chat.transcript_of(before[-1].node_id)] == [m.text for m in before]


@pytest.mark.parametrize("watched", [False, True], ids=["opened later", "opened while it was written"])
def test_a_dead_reply_is_offered_and_goes_on_exactly(chats, monkeypatch, watched):
    whole = chats(ChatOptions(limit=30, seed=5))
    whole.send("hello")
    whole.new_conversation()
    dying = chats(ChatOptions(limit=30, seed=5))
    dying.new_conversation()
    journals = []
    real = type(dying._core.library).begin_journal

    def begin(self, start):
        journals.append(real(self, start))
        return journals[-1]

    monkeypatch.setattr(type(dying._core.library), "begin_journal", begin)

    class Killed(BaseException):
        pass

    def die():
        for journal in journals:
            journal.close()  # what the kernel does for a killed process
        monkeypatch.setattr(dying._core.place, "commit", broken)
        raise Killed

    dying.heard.on(Delta, 12, die)
    early = []
    if watched:
        dying.heard.on(Delta, 2, lambda: early.append(chats(ChatOptions())))
    with pytest.raises((Killed, OSError)):
        dying.send("hello")
    again = early[0] if watched else chats(ChatOptions())
    pending = again.pending_reply()
    assert 10 <= pending.tokens <= 13
    again.go_on()
    texts = [m.text for m in again.transcript()]
    assert texts == ["hello", whole.heard.text()]
    assert again.pending_reply() is None


def test_the_prompt_cache_works_across_conversations_and_restarts(chats):
    text = "a rather long beginning that two conversations share, long enough for whole blocks of it, surely, yes"
    chat = chats()
    chat.send(text)
    chat.flush()
    again = chats(ChatOptions(limit=3, seed=9))
    again.new_conversation()
    again._core.bench.session = None
    again.send(text)
    done = again.heard.of(ReplyDone)[0]
    assert done.stats.reused_tokens >= 64
    assert done.stats.prefilled_tokens <= 1 + len(tokens_here(again)) % 64


def test_incognito_writes_nothing(chats):
    chat = chats(ChatOptions(limit=5, seed=1, incognito=True))
    chat.send("secret")
    assert len(chat.transcript()) == 2
    chat.undo()
    assert own_library(must_exist=True) is None


def test_stop_strings_end_a_reply_and_are_not_shown(chats):
    chat = chats(ChatOptions(limit=50, forced={"stop": ["END"], "temperature": 0.0}), script={"go": "abc ENDxyz"})
    chat.send("go")
    done = chat.heard.of(ReplyDone)[0]
    assert (done.node.text, done.stop) == ("abc ", "stop")
    assert chat.heard.text() == "abc "


def test_a_character_is_never_split_over_a_save(chats):
    chat = chats(ChatOptions(limit=60, forced={"temperature": 0.0}), script={"go": "naïve 日本語 text"}, step_s=0.001)
    pressed = [0]

    def press():
        pressed[0] += 1
        threading.Thread(target=chat.quicksave).start()

    for n in range(1, 12):
        chat.heard.on(Delta, n, press)
    chat.send("go")
    assert chat.heard.text() == "naïve 日本語 text"
    assert "".join(m.text for m in chat.transcript()[1:]) == "naïve 日本語 text"


def test_saved_arrives_after_every_message(chats):
    chat = chats()
    chat.send("one")
    chat.flush()
    ids = {m.node_id for m in chat.transcript()}
    assert {e.node_id for e in chat.heard.of(Saved)} == ids


def test_a_whole_reply_leaves_nothing_pending(chats):
    chat = chats()
    chat.send("one")
    assert chat.heard.of(PendingFound) == []
    assert chat.pending_reply() is None


FOREIGN = 60_000  # added to the ids of another tokenizer, so that none of them is one of ours


@pytest.fixture
def between_tokenizers(chats):
    """A chat that went on with another tokenizer behind two turns whose replies hold ids that this one lacks."""
    first = chats(script={"hello": "x", "and": "z"})
    first.send("hello")
    first.send("and")
    first.continue_reply()  # a reply in two parts
    first.flush()
    other = chats(version="2", template="other", script={"more": "y"})
    other.send("more")
    place, ours = other._core.place, other.model.prompt_key
    place.path = tuple(
        n if n.prompt_key == ours else n._replace(tokens=tuple(t + FOREIGN for t in n.tokens)) for n in place.path
    )
    return other


def test_ids_of_another_tokenizer_are_never_taken_for_ours_when_the_history_is_rendered_anew(between_tokenizers):
    chat = between_tokenizers
    plan = next_turn(chat.model, chat._core.place, "again")
    assert max(plan.tokens) < FOREIGN
    chat.set_system("be brief")  # all is rendered anew
    plan = next_turn(chat.model, chat._core.place, "again")
    assert plan.dropped > 0
    assert max(plan.tokens) < FOREIGN
    said = chat.model.tokenizer.decode(plan.tokens)
    assert [text for text in ("hello", "x", "and", "z", "more", "y", "again") if text not in said] == []


def test_a_branch_without_the_oldest_turns_holds_no_ids_of_another_tokenizer(between_tokenizers):
    chat = between_tokenizers
    texts = [m.text for m in chat.transcript()]
    chat.drop_oldest_turns(1, None)
    assert "".join(m.text for m in chat.transcript()) == "".join(texts[2:])
    assert max(chat._core.place.tokens()) < FOREIGN
    assert chat._core.place.prompt_keys() == {chat.model.prompt_key}


def test_a_message_that_holds_ids_of_another_tokenizer_as_its_own_is_read_anew(chats):
    """As an earlier forkpoint wrote them into the tree."""
    chat = chats(script={"more": "y"})
    model = chat.model
    ids = (FOREIGN, FOREIGN + 1)
    chat._core.place.commit(Message("user", "hello", ids, prompt_key=model.prompt_key), state_key=model.state_key)
    chat._core.place.commit(
        Message("assistant", "x", (5,), stop="stop", prompt_key=model.prompt_key), state_key=model.state_key
    )
    again = chats(script={"more": "y"})
    assert "reads it anew" in again.heard.of(Restored)[0].sentence
    again.send("more")
    assert [m.text for m in again.transcript()] == ["hello", "x", "more", "y"]
    assert max(again._core.place.tokens()) < FOREIGN


def test_a_restore_that_was_stopped_at_the_start_leaves_a_chat_that_answers(chats, monkeypatch):
    chats(script={"hello": "x"}).send("hello")
    chat = chats(load=False, script={"more": "y"})
    with monkeypatch.context() as patch:
        patch.setattr(type(chat._core.bench), "reach", broken_by(Cancelled()))
        with pytest.raises(Cancelled):
            chat.load_model()
    chat.send("more")
    assert [m.text for m in chat.transcript()] == ["hello", "x", "more", "y"]


def broken_by(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_point_inside_a_message_of_another_tokenizer_is_refused_in_a_sentence(chats):
    chat = chats(script={"hello": "a long reply"})
    chat.send("hello")
    chat.save("here")
    other = chats(template="other")
    with pytest.raises(NothingToDo, match="Only the model that wrote a message"):
        other.restore("here@3")
    started = chats(template="other", at="here@3", script={"more": "y"})
    assert "Only the model that wrote a message" in started.heard.of(Notice)[0].sentence
    started.send("more")
    assert [m.text for m in started.transcript()] == ["hello", "a long reply", "more", "y"]
