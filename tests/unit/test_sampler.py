"""The sampler against a plain-Python chain, and what it must not do: hang, raise in a kernel, depend on the CPU."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from chains import KEY, drawn_plainly, make
from hypothesis import given
from hypothesis import strategies as st

from engine import dice
from engine.errors import NonFiniteLogits
from engine.sampler import likeliest, sample

chains = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.7]),
        "top_k": st.sampled_from([1, 3, 10, 500]),
        "top_p": st.sampled_from([0.0, 0.31, 0.9]),
        "min_p": st.sampled_from([0.02, 0.11, 1.0]),
        "typical_p": st.sampled_from([0.0, 0.23, 0.71]),
        "repeat_penalty": st.sampled_from([1.3, 0.7]),
        "repeat_last_n": st.sampled_from([-1, 0, 1, 5]),
        "presence_penalty": st.sampled_from([0.4, -0.3]),
        "frequency_penalty": st.sampled_from([0.2, -0.1]),
        "dry_multiplier": st.sampled_from([0.8, 2.0]),
        "dry_base": st.sampled_from([1.0, 1.75]),
        "dry_allowed_length": st.sampled_from([1, 2, 3]),
        "dry_penalty_last_n": st.sampled_from([-1, 0, 6]),
        "xtc_probability": st.sampled_from([0.5, 1.0]),
        "xtc_threshold": st.sampled_from([0.05, 0.3, 0.6]),
    },
)


@given(
    values=st.lists(st.floats(-12, 12, width=32), min_size=2, max_size=40, unique=True),
    tokens=st.lists(st.integers(0, 5), max_size=30),
    breakers=st.sets(st.integers(0, 5), max_size=2),
    chain=chains,
)
def test_chain_equals_the_plain_one(values, tokens, breakers, chain):
    """Compared where neither a filter nor the draw hangs on the last bits of the logits."""
    logits = np.array(values, np.float32)
    tokens = [token % len(values) for token in tokens]
    settings = make(**chain)
    expected = drawn_plainly(logits, tokens, settings, breakers)
    if expected is not None:
        assert sample(logits, tokens, settings, KEY, len(tokens), sorted(breakers)) == expected


@pytest.mark.parametrize("chain", [{}, {"top_k": 40}, {"top_p": 0.9}, {"typical_p": 0.9}, {"min_p": 0.1}])
def test_large_vocabularies_equal_the_plain_chain(chain):
    rng = np.random.default_rng(2)
    checked = 0
    for position in range(12):
        logits = (rng.standard_normal(8000) * 3).astype(np.float32)
        expected = drawn_plainly(logits, [0] * position, make(**chain))
        if expected is not None:
            checked += 1
            assert sample(logits, [0] * position, make(**chain), KEY, position) == expected
    assert checked > 8


@given(
    size=st.sampled_from([126, 127, 128, 129, 300, 1025, 1300]),
    seed=st.integers(0, 1 << 32),
    steps=st.sampled_from([0.0, 2.0, 16.0]),
    touched=st.lists(st.integers(0, 1299), max_size=40),
    chain=chains,
)
def test_chunks_and_penalized_tokens_beside_them_equal_the_plain_chain(size, seed, steps, touched, chain):
    """Large enough for several of the stretches that are passed over as a whole, with many equal logits or none."""
    logits = np.random.default_rng(seed).standard_normal(size) * 4
    logits = (np.round(logits * steps) / steps if steps else logits).astype(np.float32)
    logits[:: 7 + seed % 50] = -np.inf
    tokens = [token % size for token in touched]
    settings = make(**{"repeat_penalty": 1.25, **chain})
    expected = drawn_plainly(logits, tokens, settings)
    if expected is not None:
        assert sample(logits, tokens, settings, KEY, len(tokens)) == expected


def test_equal_values_are_ordered_by_id_whether_penalized_or_not():
    logits = np.zeros(2000, np.float32)
    settings = make(presence_penalty=-1.0)
    for count in (3, 1500):  # the heap's way and the sort's
        assert likeliest(logits, [900, 30, 5], settings, count)[:5] == [5, 30, 900, 0, 1][:count]
    logits[[7, 40]] = 1.0
    for count in (4, 1500):
        assert likeliest(logits, [900, 30, 5], settings, count)[:4] == [5, 7, 30, 40]


def test_threads_have_workspaces_of_their_own():
    rng = np.random.default_rng(3)
    cases = [rng.standard_normal(size).astype(np.float32) for size in (50, 40_000, 700, 9000)]
    settings = make(repeat_penalty=1.3, repeat_last_n=-1, top_k=30)

    def chosen(logits):
        return [sample(logits, list(range(40)), settings, KEY, position) for position in range(60)]

    expected = [chosen(logits) for logits in cases]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(chosen, cases)) == expected


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    counts = np.bincount([sample(logits, [], make(), KEY, p) for p in range(4000)], minlength=4) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.15, 0.05]).max() < 0.03


def test_greedy_takes_the_lowest_id_of_equals_and_knows_the_runner_up():
    logits = np.array([1, 5, 2, 5, 4], np.float32)
    assert sample(logits, [], make(temperature=0.0), b"", 0) == 1
    assert likeliest(logits, [], make(), 3) == [1, 3, 4]
    assert likeliest(logits, [1], make(presence_penalty=2.0), 2) == [3, 4]


def test_position_decides_not_history():
    logits = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    first = [sample(logits, [], make(), KEY, p) for p in range(50)]
    assert [sample(logits, [1, 2, 3], make(), KEY, p) for p in reversed(range(50))] == first[::-1]
    assert [sample(logits, [], make(), dice.branch_key(KEY, 1), p) for p in range(50)] != first
    assert len(set(first)) > 10


def test_read_only_and_foreign_arrays_are_taken_as_they_are():
    logits = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    expected = sample(logits, [], make(), KEY, 5)
    frozen = logits.copy()
    frozen.flags.writeable = False
    assert sample(frozen, [], make(), KEY, 5) == expected
    assert sample(np.repeat(logits, 2)[::2], [], make(), KEY, 5) == expected
    assert sample(logits.tolist(), [], make(), KEY, 5) == expected
    assert frozen.tolist() == logits.tolist()


def test_penalties_do_not_touch_the_logits():
    logits = np.ones(10, np.float32)
    sample(logits, [1, 2, 1, 2], make(repeat_penalty=1.5, dry_multiplier=1.0), KEY, 4)
    assert logits.tolist() == [1.0] * 10


def test_tokens_outside_the_logits_are_passed_over():
    logits = np.zeros(4, np.float32)
    settings = make(repeat_penalty=1.5, repeat_last_n=-1, dry_multiplier=1.0, temperature=0.0)
    assert sample(logits, [9, -3, 9, -3, 1 << 40], settings, KEY, 5) == 0


# ---- what cannot be ----


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [1.0, math.nan], [math.inf, 0.0], [-math.inf, -math.inf], []])
@pytest.mark.parametrize("chain", [{}, {"temperature": 0.0}, {"top_k": 5}, {"repeat_penalty": 1.1}])
def test_logits_that_are_not_numbers(bad, chain):
    with pytest.raises(NonFiniteLogits) as error:
        sample(np.array(bad, np.float32), [0], make(**chain), KEY, 17)
    assert error.value.position == 17


@pytest.mark.parametrize("at", [0, 100, 127, 128, 300, 390])
def test_one_bad_logit_anywhere_is_found(at):
    for bad in (math.nan, -math.nan, math.inf):
        logits = np.zeros(391, np.float32)
        logits[at] = bad
        logits[[5, 200]] = -np.inf
        with pytest.raises(NonFiniteLogits):
            sample(logits, [], make(), KEY, 0)


@given(
    raw=st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=20),
    tokens=st.lists(st.integers(-2, 30), max_size=20),
    chain=chains,
)
def test_any_bits_end_in_a_token_or_the_typed_error(raw, tokens, chain):
    logits = np.array(raw, np.uint32).view(np.float32)
    try:
        token = sample(logits, tokens, make(**chain), KEY, len(tokens))
    except NonFiniteLogits:
        token = None
    finite = not np.isnan(logits).any() and not (logits == np.inf).any() and (logits > -np.inf).any()
    if not finite:
        assert token is None
    else:
        # Penalties can only take numbers away that were near the end of float64's range: float32 never is.
        assert token is not None
        assert logits[token] > -np.inf


def test_long_repetitions_do_not_overflow():
    logits = np.zeros(3, np.float32)
    settings = make(dry_multiplier=1000.0, dry_base=100.0, temperature=0.0)
    assert sample(logits, [0] * 5000, settings, KEY, 5000) == 1


# ---- the same everywhere ----

DIGEST = """
import hashlib
import numpy as np
from engine.sampler import SamplerSettings, sample
rng, out = np.random.Generator(np.random.Philox(5)), []
key = bytes(range(16))
for chain in ({}, {"top_k": 0, "min_p": 0.0}, {"typical_p": 0.8, "top_k": 0}, {"repeat_penalty": 1.2},
              {"dry_multiplier": 0.8, "xtc_probability": 0.5, "temperature": 1.9}):
    for position in range(40):
        logits = (rng.integers(-(1 << 20), 1 << 20, 3000) / (1 << 17)).astype(np.float32)
        out.append(sample(logits, out, SamplerSettings(**chain), key, position))
print(hashlib.blake2b(repr(out).encode(), digest_size=8).hexdigest())
"""


@pytest.mark.parametrize("cpu", ["", pytest.param("haswell", marks=pytest.mark.soak), "generic"])
def test_same_tokens_on_every_cpu(cpu):
    """Pinned: another digest means that people's savepoints go on with other tokens."""
    changed = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""} if cpu else {}
    code = [sys.executable, "-c", DIGEST]
    done = subprocess.run(code, env=os.environ | changed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "94dd6e1e3a19b1f5"
