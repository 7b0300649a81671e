"""The dice against NumPy's own Philox, and what the app relies on: no state, no two alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import sampling

from engine import dice

words = st.integers(0, (1 << 64) - 1)


@given(key=st.tuples(words, words), counter=st.tuples(words, words, words, words))
def test_rounds_equal_numpy(key, counter):
    theirs = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    # NumPy advances the counter before it makes a block.
    number = sum(word << (64 * i) for i, word in enumerate(counter)) + 1
    ahead = tuple(number >> (64 * i) & ((1 << 64) - 1) for i in range(4))
    assert dice.philox4x64(key, ahead) == tuple(theirs.random_raw(4).tolist())


@given(key=st.binary(min_size=16, max_size=16), position=st.integers(0, 1 << 40), stream=st.integers(0, 1000))
def test_uniform_is_the_first_53_bits(key, position, stream):
    u = dice.uniform(key, position, stream)
    assert u == sampling.uniform(key, position, stream)
    assert 0 <= u < 1
    assert u * 2**53 == int(u * 2**53)


def test_pinned():
    """These numbers are in people's savepoints: another value here would change their replies."""
    key = dice.key_from_seed(42)
    assert key.hex() == "30501a93b4e7655e93a39c50ff9218da"
    assert [dice.uniform(key, p) for p in (0, 1, 4096)] == [0.7397723448959949, 0.9286040498971362, 0.439930876591345]
    assert dice.uniform(key, 1, 1) == 0.07497966235535225
    assert dice.branch_key(key, 1).hex() == "5934135d5b6420c16fba4a3056772363"


def test_known_answer_of_the_paper():
    """The authors' own vectors: all-zero and all-one key and counter."""
    zeros = dice.philox4x64((0, 0), (0, 0, 0, 0))
    assert zeros[0] == 0x16554D9ECA36314C
    ones = (1 << 64) - 1
    assert dice.philox4x64((ones, ones), (ones,) * 4)[0] == 0x87B092C3013FE90B


def test_positions_streams_branches_and_seeds_differ():
    key = dice.new_key()
    draws = [dice.uniform(key, p, s) for p in range(500) for s in range(4)]
    assert len(set(draws)) == len(draws)
    assert 0.45 < sum(draws) / len(draws) < 0.55
    keys = [dice.branch_key(key, i) for i in range(100)] + [dice.key_from_seed(s) for s in range(-50, 50)]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 16 for k in keys)
    assert dice.branch_key(key, 0) == key
    assert dice.new_key() != key


def test_other_keys_are_refused():
    for key in (b"", b"short", bytes(17)):
        with pytest.raises(ValueError, match="16 bytes"):
            dice.uniform(key, 0)
