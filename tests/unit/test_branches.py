"""Several replies in one batch: each is, bit for bit, what it would have been alone, however the others end."""

import pytest

from app.generation import Decoding, Reply, Writing, generate, generate_together
from app.local_engine import LocalEngine
from engine import dice
from engine.sampler import SamplerSettings

KEY = dice.key_from_seed(11)
SAMPLED = SamplerSettings(temperature=0.8)
PROMPT = "Lily saw a big red ball. Lily saw a big red ball. Lily saw"
CONTEXT = 96


@pytest.fixture(scope="module")
def model(open_model, stories_path):
    return open_model(stories_path, context=CONTEXT, threads=2)


def begin(model, index, *, settings=SAMPLED, limit=30, stops=(), prompt=PROMPT):
    """The writing of branch `index`, with its dice, behind the prompt."""
    engine = LocalEngine()
    session = model.new_session(engine.branch_dice(KEY, index))
    model.prefill(session, model.tokenizer.encode(prompt, add_eos=False))
    return Writing(engine, model, session, settings, Reply(), Decoding.begin(engine, model, stops), limit)


def outcome(writing):
    reply, session = writing.reply, writing.session
    return reply.tokens, reply.text, reply.stop, list(session.tokens), session.logits_digest()


def alone(model, index, speculate, **options):
    writing = begin(model, index, **options)
    generate(writing, speculate=speculate)
    return outcome(writing)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_each_of_a_batch_is_what_it_is_alone_guessing_or_not(model, count):
    writings = [begin(model, index) for index in range(count)]
    generate_together(writings)
    found = [outcome(writing) for writing in writings]
    assert len({tuple(tokens) for tokens, *_ in found}) == count
    for speculate in (False, True):
        assert found == [alone(model, index, speculate) for index in range(count)]


@pytest.mark.parametrize("count", [2, 7, 16])
def test_branches_of_different_lengths_end_one_after_the_other(model, count):
    """By limit, by stop string, and by none of these at the end of the context."""
    how = [
        {"limit": 3 * index} if index % 3 else {"limit": None, "stops": [".", "ball"][: index % 2 + 1]}
        for index in range(count)
    ]
    writings = [begin(model, index, **options) for index, options in enumerate(how)]
    generate_together(writings)
    found = [outcome(writing) for writing in writings]
    assert found == [alone(model, index, index % 2 == 0, **options) for index, options in enumerate(how)]
    assert len({len(tokens) for tokens, *_ in found}) > 1


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("count", [1, 7])
def test_all_branches_stop_where_the_context_is_full(model, count, speculate):
    prompt = "Lily saw a big red ball. " * 6
    ids = model.tokenizer.encode(prompt, add_eos=False)[: CONTEXT - 5]
    text = model.tokenizer.decode(ids)
    writings = [begin(model, index, limit=None, prompt=text) for index in range(count)]
    generate_together(writings)
    for index, writing in enumerate(writings):
        assert writing.session.position == CONTEXT or writing.reply.stop == "stop"
        assert outcome(writing) == alone(model, index, speculate, limit=None, prompt=text)
    assert "length" in {writing.reply.stop for writing in writings}


@pytest.mark.parametrize("count", [1, 2, 16])
def test_a_cancel_stops_all_between_two_tokens_and_each_goes_on_as_if_nothing_had_been(model, count):
    asked = []

    def cancel():
        asked.append(True)
        return len(asked) > 9

    writings = [begin(model, index) for index in range(count)]
    generate_together(writings, cancel)
    for index, writing in enumerate(writings):
        tokens = writing.reply.tokens
        assert writing.reply.stop in {"cancelled", "stop"}
        assert len(tokens) == 9 or writing.reply.stop == "stop"
        whole = alone(model, index, False)
        assert whole[0][: len(tokens)] == tokens
        if writing.reply.stop == "cancelled":
            writing.reply.stop, writing.limit = "", 30
            generate(writing, speculate=True)
            assert outcome(writing)[0] == whole[0]
            assert outcome(writing)[4] == whole[4]


def test_greedy_branches_are_all_the_same_reply(model):
    writings = [begin(model, index, settings=SamplerSettings(temperature=0.0)) for index in range(3)]
    generate_together(writings)
    first, *others = (outcome(writing) for writing in writings)
    assert others == [first, first]
