"""Guessed tokens ride along in a pass and change no bit: whatever is guessed, and whatever happens in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContextFull

NAMES = ["F32", "Q8_0", "mixed"]
STORY = [3, 9, 4, 9, 4, 9, 4, 11, 12, 3, 9, 4, 9, 5, 6, 7, 8, 20, 21, 22] * 8
PROMPT = 57  # so that guesses lie across the border of a block


def same(a, b):
    return (
        list(a.tokens) == list(b.tokens)
        and a.logits.tobytes() == b.logits.tobytes()
        and a.hidden.tobytes() == b.hidden.tobytes()
    )


def same_state(model, a, b):
    one, two = model.capture(a), model.capture(b)
    return same(a, b) and all(
        x.arrays[name].tobytes() == y.arrays[name].tobytes()
        for x, y in zip(one.chunks, two.chunks, strict=True)
        for name in x.arrays
    )


@pytest.fixture(scope="module")
def truth(open_model, model_file):
    """(name, KV type) -> the sessions behind each prefix of STORY from PROMPT on, fed token by token."""
    made = {}

    def find(name, kv_type="f16"):
        if (name, kv_type) not in made:
            model = open_model(model_file(name), threads=2, kv_type=kv_type)
            session = model.new_session()
            model.prefill(session, STORY[:PROMPT])
            behind = [session.fork()]
            for token in STORY[PROMPT:100]:
                model.step([session], [token])
                behind.append(session.fork())
            made[name, kv_type] = model, behind
        return made[name, kv_type]

    return find


# How many of the next tokens a draft has right, and how many wrong ones follow; then what is done with the session.
drafts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.sampled_from(["", "", "", "fork", "swap", "back", "restore"])),
    max_size=14,
)


@pytest.mark.parametrize(("name", "kv_type"), [*((n, "f16") for n in NAMES), ("Q8_0", "q8_0")])
@given(drafts=drafts, seed=st.integers(0, 1 << 20))
def test_guesses_right_or_wrong_change_no_bit(truth, name, kv_type, drafts, seed):
    model, behind = truth(name, kv_type)
    rng = np.random.default_rng(seed)
    session, n, others = behind[0].fork(), PROMPT, []
    for right, wrong, then in drafts:
        draft = STORY[n + 1 : n + 1 + right] + rng.integers(0, model.vocabulary_size, wrong).tolist()
        model.step([session], [STORY[n]], [draft])
        n += 1
        assert same(session, behind[n - PROMPT])
        if then in {"fork", "swap"}:
            others.append((session.fork(), n))
        if then == "swap":
            session, others[-1] = others[-1][0], (session, n)
        elif then == "back":
            n = int(rng.integers(PROMPT, n + 1))
            session.truncate(n)
        elif then == "restore":
            session = model.restore(model.capture(session))
    for other, at in [(session, n), *others]:
        # What is there ahead of a fork is taken by either or dropped: both come to the same.
        for token in STORY[at : at + 2]:
            model.step([other], [token], [[]])
        assert same_state(model, other, behind[at + 2 - PROMPT])


def test_a_right_guess_costs_no_pass_and_a_wrong_one_is_dropped(truth):
    model, behind = truth("Q8_0")
    session = behind[0].fork()
    assert model.step([session], [STORY[PROMPT]], [[*STORY[PROMPT + 1 : PROMPT + 4], 1]]) == 5
    assert [model.step([session], [token]) for token in STORY[PROMPT + 1 : PROMPT + 4]] == [0, 0, 0]
    assert model.step([session], [STORY[PROMPT + 4]]) == 1
    assert same(session, behind[5])
    model.step([session], [STORY[PROMPT + 5]], [STORY[PROMPT + 6 : PROMPT + 9]])
    model.prefill(session, STORY[PROMPT + 6 : PROMPT + 8])
    assert same(session, behind[8])


def test_sessions_with_and_without_results_ahead_share_a_step(truth):
    model, behind = truth("mixed")
    sessions = [behind[i].fork() for i in (0, 3, 9)]
    for step in range(12):
        at = [s.position for s in sessions]
        guesses = [STORY[at[0] + 1 : at[0] + 3], [], [5, 6] if step % 2 else STORY[at[2] + 1 : at[2] + 8]]
        model.step(sessions, [STORY[i] for i in at], guesses)
        assert all(same(s, behind[s.position - PROMPT]) for s in sessions)


def test_a_guess_never_reaches_behind_the_context(open_model, model_file):
    model = open_model(model_file("F32"), threads=1, context=64)
    session, plain = model.new_session(), model.new_session()
    for each in (session, plain):
        model.prefill(each, STORY[:61])
    for token, guess in zip(STORY[61:64], ([1, 2, 3, 4], STORY[63:70], [1]), strict=True):
        model.step([session], [token], [guess])
        model.step([plain], [token])
        assert same(session, plain)
    with pytest.raises(ContextFull):
        model.step([session], [1], [[2]])


def test_a_guess_outside_the_vocabulary_is_refused(truth):
    model, behind = truth("F32")
    session = behind[0].fork()
    with pytest.raises(ValueError, match="token ids"):
        model.step([session], [3], [[model.vocabulary_size]])
    assert same(session, behind[0])
