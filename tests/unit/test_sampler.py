"""The sampler against a plain-Python chain, and what it must not do: hang, raise in a kernel, depend on the CPU."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import sampling as plain

from engine import dice
from engine.errors import NonFiniteLogits, SamplerError
from engine.gguf import GGUF
from engine.kernels import ordering
from engine.kernels.scalar_math import exp64, log64
from engine.sampler import SamplerSettings, dry_breakers, likeliest, sample

KEY = dice.key_from_seed(7)
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "temperature": 1.0}


def make(**changed):
    return SamplerSettings(**(OFF | changed)).validate()


# ---- arithmetic ----


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


# ---- order ----

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


# ---- the chain ----


def oracle(logits, tokens, settings, breakers=()):
    """(token, distance of u from the border of its interval) by the plain chain."""
    s = settings
    values = plain.penalized(
        logits.tolist(), tokens, repeat_penalty=s.repeat_penalty, repeat_last_n=s.repeat_last_n,
        presence_penalty=s.presence_penalty, frequency_penalty=s.frequency_penalty,
    )  # fmt: skip
    if s.dry_multiplier and s.dry_penalty_last_n:
        values = plain.dry_penalized(
            values, tokens, multiplier=s.dry_multiplier, base=s.dry_base, allowed_length=s.dry_allowed_length,
            last_n=s.dry_penalty_last_n, breakers=frozenset(breakers),
        )  # fmt: skip
    candidates = plain.top_k(plain.ordered(values), s.top_k)
    candidates = plain.typical(candidates, s.typical_p)
    candidates = plain.top_p(candidates, s.top_p)
    candidates = plain.min_p(candidates, s.min_p)
    u = plain.uniform(KEY, len(tokens), 1)
    candidates = plain.xtc(candidates, s.xtc_probability, s.xtc_threshold, u)
    return plain.drawn(candidates, s.temperature, plain.uniform(KEY, len(tokens)))


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
    """Compared where neither a filter nor the draw hangs on the last bits: changing them must not change the oracle."""
    logits = np.array(values, np.float32)
    tokens = [token % len(values) for token in tokens]
    settings = make(**chain)
    expected, margin = oracle(logits, tokens, settings, breakers)
    near = [oracle(logits.astype(np.float64) * (1 + e), tokens, settings, breakers)[0] for e in (1e-9, -1e-9)]
    if margin > 1e-9 and near == [expected, expected]:
        assert sample(logits, tokens, settings, KEY, len(tokens), sorted(breakers)) == expected


@pytest.mark.parametrize("chain", [{}, {"top_k": 40}, {"top_p": 0.9}, {"typical_p": 0.9}, {"min_p": 0.1}])
def test_large_vocabularies_equal_the_plain_chain(chain):
    rng = np.random.default_rng(2)
    checked = 0
    for position in range(12):
        logits = (rng.standard_normal(8000) * 3).astype(np.float32)
        expected, margin = oracle(logits, [0] * position, make(**chain))
        if margin > 1e-9:
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
    expected, margin = oracle(logits, tokens, settings)
    near = [oracle(logits.astype(np.float64) * (1 + e), tokens, settings)[0] for e in (1e-9, -1e-9)]
    if margin > 1e-9 and near == [expected, expected]:
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


# ---- settings ----


def test_settings_survive_json():
    settings = make(stop=("\nUser:",), top_k=7, temperature=0.25)
    assert SamplerSettings.from_json(settings.to_json()) == settings
    assert SamplerSettings.from_json({"temperature": 1}).temperature == 1.0
    assert isinstance(SamplerSettings.from_json({"temperature": 1}).temperature, float)
    assert SamplerSettings.from_json({}) == SamplerSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 10**400),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("typical_p", 2),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -2),
        ("presence_penalty", math.nan),
        ("dry_allowed_length", 0),
        ("dry_base", 0.5),
        ("xtc_probability", 1.5),
        ("stop", "x"),
        ("stop", [""]),
        ("stop", ["x"] * 65),
        ("stop", [1]),
        ("warmth", 3),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(SamplerError) as error:
        SamplerSettings.from_json({field: value})
    assert error.value.field == field
    assert field in str(error.value)


def test_the_files_own_defaults(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_float32("general.sampling.temp", 0.7)
    writer.add_int32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.top_p", 7.5)
    writer.add_float32("general.sampling.penalty_repeat", 1.05)
    writer.add_string("general.sampling.min_p", "a little")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GGUF.open(path) as opened:
        found = SamplerSettings.from_gguf(opened)
    assert found == SamplerSettings(temperature=0.7, top_k=20, repeat_penalty=1.05)


def test_breakers_are_the_tokens_that_hold_them():
    class Vocabulary:
        vocabulary_size = 5

        def token_bytes(self, token):
            return [b"", b" a", b":\n", b"*", b"b"][token]

        def is_special(self, token):
            return token == 0

    assert dry_breakers(Vocabulary(), ("\n", "*")) == (0, 2, 3)


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


# ---- top-p over everything ----

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
    expected, margin = oracle(logits, [3, 4], settings)
    near = [oracle(logits.astype(np.float64) * (1 + e), [3, 4], settings)[0] for e in (1e-9, -1e-9)]
    if margin > 1e-9 and near == [expected, expected]:
        assert sample(logits, [3, 4], settings, KEY, 2) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nucleus_of_what_is_no_number_is_refused(bad):
    logits = spread("wide", 3000, 1)
    logits[2999] = bad
    with pytest.raises(NonFiniteLogits):
        sample(logits, [], make(top_p=0.9), KEY, 0)
    with pytest.raises(NonFiniteLogits):
        sample(np.full(3000, -np.inf, np.float32), [], make(top_p=0.9), KEY, 0)
