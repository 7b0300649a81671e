"""Top-p over a whole vocabulary: the nucleus is found without sorting, and is the one that sorting gives."""

import numpy as np
import pytest
from chains import KEY, drawn_plainly, make
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import NonFiniteLogits
from engine.sampler import sample

wide = st.fixed_dictionaries(
    {"top_p": st.sampled_from([0.0, 1e-6, 0.31, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9])},
    optional={
        "min_p": st.sampled_from([1e-9, 0.001, 0.05, 0.4, 1.0]),
        "temperature": st.sampled_from([1e-5, 0.0, 0.8, 100.0]),
        "repeat_penalty": st.sampled_from([1.3, 0.2, 50.0]),
        "presence_penalty": st.sampled_from([-30.0, 2.0]),
        "xtc_probability": st.sampled_from([1.0]),
    },
)
spreads = st.sampled_from(["flat", "wide", "steep", "rounded", "equal", "one", "ruled out", "far"])


def spread(kind, size, seed):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(size) * {"flat": 0.01, "wide": 3, "steep": 30, "far": 1e4}.get(kind, 2)
    if kind == "rounded":
        logits = np.round(logits)
    elif kind == "equal":
        logits[:] = seed % 7 - 3.0
    elif kind == "one":
        logits[seed % size] = 60
    elif kind == "ruled out":
        logits[rng.random(size) < 0.9] = -np.inf
        logits[seed % size] = 0.0
    return logits.astype(np.float32)


@given(
    kind=spreads,
    size=st.sampled_from([1025, 1040, 1300, 2049]),
    seed=st.integers(0, 1 << 32),
    touched=st.lists(st.integers(0, 2048), max_size=20),
    settings=wide,
)
def test_the_nucleus_found_without_sorting_is_the_sorted_one(kind, size, seed, touched, settings):
    """Equal to the way that sorts everything, which top-k of all but nothing takes: the same sums, to the last bit."""
    logits = spread(kind, size, seed)
    tokens = [token % size for token in touched]
    for position in range(3):
        found = sample(logits, tokens, make(**settings), KEY, position)
        # An unlikely token more keeps the whole vocabulary from being asked for, and changes no sum: its weight is 0.
        padded = np.concatenate([logits, np.array([-np.inf], np.float32)])
        assert found == sample(padded, tokens, make(top_k=size, **settings), KEY, position)


@given(kind=spreads, seed=st.integers(0, 1 << 32), settings=wide)
def test_the_nucleus_equals_the_plain_chain(kind, seed, settings):
    logits = spread(kind, 1100, seed)
    settings = make(**settings)
    expected = drawn_plainly(logits, [3, 4], settings)
    if expected is not None:
        assert sample(logits, [3, 4], settings, KEY, 2) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nucleus_of_what_is_no_number_is_refused(bad):
    logits = spread("wide", 3000, 1)
    logits[2999] = bad
    with pytest.raises(NonFiniteLogits):
        sample(logits, [], make(top_p=0.9), KEY, 0)
    with pytest.raises(NonFiniteLogits):
        sample(np.full(3000, -np.inf, np.float32), [], make(top_p=0.9), KEY, 0)
