"""Weights that are no numbers, nothing, or far too large: never a hang or an exception in a kernel (NUMERICS rule 7).

Calls that make no sense are refused, and what was refused leaves no trace.
"""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conformance import make_models, trouble
from conformance.trouble import BAD_TOKEN
from conformance.walk import kv_digest


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """case -> what came of it, from one process with a deadline; a hang or a crash leaves the rest out."""
    command = [sys.executable, "-W", "ignore", trouble.__file__, str(tmp_path_factory.mktemp("trouble"))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as e:
        output, errors = (e.stdout or b"").decode(), "it did not end within 300 seconds"
    found = {tuple(case): report for case, report in map(json.loads, output.splitlines())}
    missing = [case for case in trouble.CASES if case not in found]
    assert not missing, f"stopped at {missing[0]}: {errors[-2000:]}"
    return found


@pytest.mark.parametrize("case", trouble.BAD_TOKEN_CASES)
def test_a_bad_embedding_spoils_only_its_own_steps(reports, case):
    """Token 7's embedding is NaN: each step with it is a typed error that saves nothing; the rest goes on unharmed."""
    assert reports[case] == {"errors": 2, "finite": 3, "positions_kept": True, "equal": True, "last": 5}


@pytest.mark.parametrize("case", trouble.NO_NUMBER_CASES)
def test_weights_that_are_no_numbers_give_a_typed_error(reports, case):
    report = reports[case]
    assert report["errors"] == 2
    assert report["finite"] == 0
    assert report["positions_kept"]


@pytest.mark.parametrize("case", trouble.EXTREME_CASES)
def test_extreme_weights_end_in_numbers_or_in_a_typed_error(reports, case):
    report = reports[case]
    assert report["errors"] + report["finite"] >= 2
    assert report["positions_kept"]
    assert report["equal"]


@pytest.mark.parametrize("case", trouble.ZERO_CASES)
def test_zero_weights_give_numbers(reports, case):
    assert reports[case] == {"errors": 0, "finite": 4, "positions_kept": True, "equal": True, "last": 5}


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("position", [1, 60, 64, 127, 128])
def test_a_refused_chunk_leaves_no_trace(tmp_path, position, kv_type):
    """Forks, steps and captures behind a refused prefill are those of a session that never saw it."""
    from engine.errors import NonFiniteLogits
    from engine.model import Model

    def spoil(name, values):
        if name == "token_embd.weight":
            values = values.copy()
            values[BAD_TOKEN] = np.nan
        return values

    path = make_models.write(tmp_path / "m.gguf", make_models.BITS["F32"], spoil)
    model = Model.open(path, kv_type=kv_type, threads=2)
    try:
        start = [t if t != BAD_TOKEN else 8 for t in make_models.token_list(500, position)]
        roads = [[20, 21, 22], [30, 31, 32]]
        expected = []
        for road in roads:
            fresh = model.new_session()
            model.prefill(fresh, start + road)
            expected.append((fresh.logits_digest(), kv_digest(model.capture(fresh).chunks)))
        one = model.new_session()
        model.prefill(one, start)
        before = one.logits_digest()
        with pytest.raises(NonFiniteLogits):
            model.prefill(one, [*range(40, 110), BAD_TOKEN])
        assert one.position == position
        assert one.logits_digest() == before
        two = one.fork()
        for a, b in zip(*roads, strict=True):
            model.step([one, two], [a, b])
        assert [(s.logits_digest(), kv_digest(model.capture(s).chunks)) for s in (one, two)] == expected
    finally:
        model.close()


def test_senseless_calls_are_refused_and_do_not_hang(model_file, open_model):
    model, other = open_model(model_file("F32"), threads=2), open_model(model_file("f32-head64"), threads=2)
    session = model.new_session()
    for call in (
        lambda: model.prefill(session, [1, 2], batch_size=0),
        lambda: model.prefill(session, [1, model.vocabulary_size]),
        lambda: model.prefill(session, [-1]),
        lambda: model.step([session, session], [1, 2]),
        lambda: model.step([session], [1, 2]),
        lambda: other.step([session], [1]),
        lambda: session.truncate(1),
        lambda: session.truncate(-1),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            call()
        assert session.position == 0
    model.step([], [])
    assert model.prefill(session, []) == 0


def test_a_full_context_is_refused_before_anything_is_fed(model_file):
    from engine.errors import ContextFull
    from engine.model import Model

    model = Model.open(model_file("F32"), context=70, threads=1)
    try:
        one, two = model.new_session(), model.new_session()
        with pytest.raises(ContextFull):
            model.prefill(one, [5] * 71, batch_size=16)
        assert one.position == 0
        assert model.prefill(one, [5] * 70, batch_size=16) == 70
        with pytest.raises(ContextFull):
            model.step([two, one], [5, 5])
        assert (two.position, one.position) == (0, 70)
        with pytest.raises(ContextFull):
            model.prefill(one.fork(), [5])
        one.truncate(69)
        model.step([one], [5])
        fresh = model.new_session()
        model.prefill(fresh, [5] * 70)
        assert fresh.logits_digest() == one.logits_digest()
    finally:
        model.close()


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(model_file, threads):
    from engine.model import Model

    with pytest.raises(ValueError, match="thread"):
        Model.open(model_file("F32"), threads=threads)


def test_states_that_do_not_fit_are_refused(model_file, open_model):
    from engine.errors import StateMismatch

    model, other = open_model(model_file("F32"), threads=2), open_model(model_file("F32"), threads=2, kv_type="q8_0")
    session = model.new_session()
    model.prefill(session, make_models.token_list(500, 100))
    state = model.capture(session)
    first, second = state.chunks
    with pytest.raises(StateMismatch):
        other.restore(state)
    for arrays in (
        {**first.arrays, "k": first.arrays["k"].astype(np.uint32)},
        {**first.arrays, "k": first.arrays["k"][:1]},
        {"k": first.arrays["k"]},
        {**first.arrays, "more": first.arrays["k"]},
    ):
        with pytest.raises(StateMismatch):
            model.restore(replace(state, chunks=(replace(first, arrays=arrays), second)))
    for chunks in ((first,), (second,), (second, first), (first, first, second), ()):
        with pytest.raises(ValueError, match=r"\w"):
            model.restore(replace(state, chunks=chunks))
    with pytest.raises(ValueError, match=r"\w"):
        model.restore(replace(state, tokens=(*state.tokens[:-1], 500)))
    assert model.restore(state).logits_digest() == session.logits_digest()
