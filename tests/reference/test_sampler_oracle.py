"""engine.sampler and engine.dice against the plain Python chain, over all settings at once."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine import dice
from engine.sampler import SamplerSettings
from engine.sampler import sample as engine_sample
from reference import sampling

KEYS = st.binary(min_size=16, max_size=16)
# Quarters make equal logits frequent; the order among them must be that of the ids.
LOGITS = st.lists(st.one_of(st.integers(-60, 60).map(lambda q: q / 4), st.just(float("-inf"))), min_size=1, max_size=40)
SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 3, 10, 40]),
        "top_p": st.one_of(st.just(1.0), st.floats(0.02, 0.99)),
        "min_p": st.one_of(st.just(0.0), st.floats(0.001, 0.9)),
        "typical_p": st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
        "repeat_penalty": st.sampled_from([1.0, 1.1, 2.0]),
        "repeat_last_n": st.sampled_from([-1, 0, 1, 5, 64]),
        "presence_penalty": st.sampled_from([0.0, 0.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.25]),
        "dry_multiplier": st.sampled_from([0.0, 0.0, 0.8]),
        "dry_base": st.sampled_from([1.0, 1.75]),
        "dry_allowed_length": st.integers(1, 3),
        "dry_penalty_last_n": st.sampled_from([-1, 4, 12]),
        "xtc_probability": st.sampled_from([0.0, 0.0, 1.0]),
        "xtc_threshold": st.floats(0.01, 0.6),
    }
)


def nudged(chosen, factor):
    """The same settings a hair to one side: a choice that this changes hangs on the last bit of a sum."""
    return {
        name: value * factor if name in ("top_p", "min_p", "typical_p") else value for name, value in chosen.items()
    }


@settings(max_examples=600)
@given(
    logits=LOGITS,
    tokens=st.lists(st.integers(0, 39), max_size=30),
    chosen=SETTINGS,
    key=KEYS,
    position=st.integers(0, 2**40),
    breakers=st.sets(st.integers(0, 39), max_size=3),
)
def test_the_chain_chooses_what_the_reference_chooses(logits, tokens, chosen, key, position, breakers):
    assume(max(logits) > float("-inf"))
    tokens = [t % len(logits) for t in tokens]
    mine = {**chosen, "breakers": breakers}
    token, distance = sampling.sample(logits, tokens, mine, key, position)
    assume(distance > 1e-9)
    for factor in (1 - 1e-9, 1 + 1e-9):
        assume(
            sampling.sample(logits, tokens, {**nudged(chosen, factor), "breakers": breakers}, key, position)[0] == token
        )
    made = engine_sample(logits, tokens, SamplerSettings(**chosen), key, position, breakers=sorted(breakers))
    assert made == token


@settings(max_examples=200)
@given(key=KEYS, position=st.integers(0, 2**64 - 1), stream=st.integers(0, 2**64 - 1))
def test_the_dice_are_the_references(key, position, stream):
    assert dice.uniform(key, position, stream) == sampling.uniform(key, position, stream)


def test_a_large_vocabulary_without_top_k_is_sorted_by_logit_then_id():
    """More candidates than a heap is used for; most of them equal."""
    logits = [float((i * 7919) % 13) / 2 for i in range(5000)]
    chosen = {"temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0.0, "typical_p": 1.0}
    for position in range(40):
        expected, distance = sampling.sample(logits, [], chosen, b"0123456789abcdef", position)
        if distance > 1e-9:
            made = engine_sample(logits, [], SamplerSettings(**chosen), b"0123456789abcdef", position)
            assert made == expected
