"""The reference itself against published vectors and NumPy, so that an error in it cannot hide one in the engine."""

import numpy as np
import pytest

from reference import sampling


def test_philox_matches_the_known_answers_of_its_authors():
    assert sampling.philox4x64((0, 0), (0, 0, 0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


@pytest.mark.parametrize("position", [1, 2, 63, 2**32, 2**63])
@pytest.mark.parametrize("stream", [0, 1, 7])
def test_philox_is_numpys_one_counter_later(position, stream):
    """NumPy adds one to the counter before it makes a block: its counter p - 1 gives the block of counter p."""
    key = bytes(range(16))
    words = np.frombuffer(key, "<u8")
    other = np.random.Philox(key=words, counter=[position - 1, stream, 0, 0]).random_raw(4)
    mine = sampling.philox4x64(tuple(int(w) for w in words), (position, stream, 0, 0))
    assert mine == tuple(int(w) for w in other)
    assert sampling.uniform(key, position, stream) == (int(other[0]) >> 11) * 2.0**-53


def test_uniform_is_even_enough():
    draws = np.array([sampling.uniform(b"k" * 16, p) for p in range(4000)])
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert abs(draws.mean() - 0.5) < 0.02
    assert np.abs(np.histogram(draws, 8, (0, 1))[0] - 500).max() < 90


def test_truncations_keep_what_their_papers_say():
    c = sampling.ordered(np.log([0.1, 0.4, 0.3, 0.15, 0.05]))
    ids = lambda kept: [i for _, i in kept]
    assert ids(c) == [1, 2, 3, 0, 4]
    assert ids(sampling.top_k(c, 2)) == [1, 2]
    assert ids(sampling.top_p(c, 0.65)) == [1, 2]
    assert ids(sampling.top_p(c, 0.75)) == [1, 2, 3]
    assert ids(sampling.min_p(c, 0.3)) == [1, 2, 3]
    assert ids(sampling.typical(c, 0.2)) == [2]
    assert ids(sampling.xtc(c, 1.0, 0.12, 0.0)) == [3, 0, 4]


def test_penalties_count_only_the_window():
    out = sampling.penalized(
        [2.0, -2.0, 1.0],
        [2, 0, 1, 1],
        repeat_penalty=2.0,
        repeat_last_n=3,
        presence_penalty=0.5,
        frequency_penalty=0.25,
    )
    assert out == [2.0 / 2 - 0.75, -2.0 * 2 - 0.5 - 0.5, 1.0]


def test_dry_counts_the_longest_repetition():
    out = sampling.dry_penalized(
        [0.0] * 6, [1, 2, 3, 4, 5, 1, 2, 3], multiplier=1.0, base=2.0, allowed_length=2, last_n=-1
    )
    assert out == [0.0, 0.0, 0.0, 0.0, -2.0, 0.0]
