"""What sampling is made of: exp and log within an ulp or two, and the ways of putting logits into order."""

import math

import numpy as np
import pytest
from chains import make
from hypothesis import given
from hypothesis import strategies as st
from reference import sampling as plain

from engine.errors import NonFiniteLogits
from engine.kernels import ordering
from engine.kernels.scalar_math import exp64, log64
from engine.sampler import likeliest


def test_exp_and_log_are_within_an_ulp_or_two():
    rng = np.random.default_rng(0)
    for x in np.concatenate([rng.uniform(-700, 700, 4000), rng.uniform(-1, 1, 2000), [0.0, 1.0, -1.0]]):
        assert abs(exp64(x) - math.exp(x)) <= 2 * math.ulp(math.exp(x))
    for x in np.concatenate([np.exp(rng.uniform(-700, 700, 4000)), rng.uniform(0.5, 2, 2000), [1.0, 2.0, 10.0]]):
        assert abs(log64(x) - math.log(x)) <= 2 * max(math.ulp(math.log(x)), 2**-1074)


def test_exp_and_log_at_the_edges():
    assert [exp64(x) for x in (-math.inf, -1e300, -709.0, 0.0, 710.0, math.inf)] == [0, 0, 0, 1, math.inf, math.inf]
    assert exp64(709.7) == pytest.approx(math.exp(709.7), rel=1e-15)
    assert math.isnan(exp64(math.nan))
    assert [log64(x) for x in (0.0, -0.0, 5e-324, 1.0, math.inf)] == [-math.inf, -math.inf, -math.inf, 0, math.inf]
    assert math.isnan(log64(-1.0))
    assert math.isnan(log64(math.nan))


logit = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, -math.inf, 3.0e38, -3.0e38, 1e-45]), st.floats(-30, 30, width=32)
)


@given(values=st.lists(logit, min_size=1, max_size=60), k=st.integers(1, 70))
def test_best_are_in_order_of_logit_then_id(values, k):
    logits = np.array(values, np.float32)
    expected = [i for _, i in plain.ordered([float(x) for x in logits])][:k]
    if not expected:
        with pytest.raises(NonFiniteLogits):
            likeliest(logits, [], make(), k)
    else:
        assert likeliest(logits, [], make(), k) == expected


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 3000])
def test_heap_and_radix_sort_agree(size):
    rng = np.random.default_rng(size)
    for logits in (rng.standard_normal(3000), rng.integers(-3, 3, 3000), np.zeros(3000), np.sort(rng.random(3000))):
        logits = np.ascontiguousarray(logits, np.float32)
        logits[::7] = -np.inf
        expected = [i for _, i in plain.ordered(logits.tolist())][:size]
        assert likeliest(logits, [], make(), size) == expected


def sorted_indices(values, falling):
    n = len(values)
    keys, other = np.arange(n + 2, dtype=np.uint64), np.empty(n + 2, np.uint64)
    values, counts = np.array(values, np.float64), np.empty((3, 2048), np.int64)
    addresses = [array.ctypes.data for array in (values, keys, other, counts)]
    ordering.sort_indices(n, addresses[0], falling, *addresses[1:])
    assert keys[n:].tolist() == [n, n + 1]
    return keys[:n].tolist()


@given(values=st.lists(st.one_of(st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, 1.0])), max_size=50))
def test_sort_is_stable_both_ways(values):
    for falling in (False, True):
        expected = sorted(range(len(values)), key=lambda i: -values[i] if falling else values[i])
        assert sorted_indices(values, falling) == expected


@pytest.mark.parametrize("size", [2, 63, 64, 65, 66, 300, 20_000])
def test_sort_of_values_that_differ_in_their_last_bits_only(size):
    """Equal in the high half of their bits: the slow way of the sort, which must be neither wrong nor quadratic."""
    rng = np.random.default_rng(size)
    for values in (
        1 + rng.integers(0, size, size) * 2.0**-52,
        1 + np.arange(size) * 2.0**-52,
        1 - np.arange(size) * 2.0**-53,
        np.where(rng.random(size) < 0.5, 1.0, rng.standard_normal(size)),
        np.concatenate([rng.standard_normal(size // 2), 1 - rng.integers(0, 99, size - size // 2) * 2.0**-53]),
    ):
        for falling in (False, True):
            expected = sorted(range(size), key=lambda i: -values[i] if falling else values[i])
            assert sorted_indices(values, falling) == expected
