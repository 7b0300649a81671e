"""The ladder of a restore: live tokens, the bundle, a part of it, all computed again; every rung gives the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Cancelled
from app.savepoints import Reacher, StateWriter, common_length
from tests.fake_engine import FakeEngine, FakeModel


def save(library, model, session):
    heard = []
    writer = StateWriter(library, heard.append)
    node = library.add_node(library.new_conversation().id, None, _message(session.tokens))
    writer.save(node.id, model, session)
    writer.close()
    return node, heard


def _message(tokens):
    from snapshots import Message

    return Message("user", "x", tuple(tokens))


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_length(a, b):
    n = common_length(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 127, 128, 129, 200])
def test_every_rung_gives_the_same_state(library, n):
    model, engine = FakeModel("m"), FakeEngine()
    tokens = list(np.random.default_rng(n).integers(0, 256, n))
    tokens = [int(t) for t in tokens]
    session = model.new_session(b"d" * 16)
    model.prefill(session, tokens)
    reacher = Reacher(engine, model, library)
    fresh = reacher.reach(tokens, None, b"")
    assert fresh.rung == ("recomputed" if n else "bundle")
    if not n:
        return
    save(library, model, session)
    digest = session.logits_digest()
    whole = reacher.reach(tokens, None, b"", expected_digest=digest)
    assert (whole.rung, whole.prefilled, whole.bit_exact) == ("bundle", 0, True)
    longer = reacher.reach([*tokens, 5], None, b"")
    assert longer.session.tokens == [*tokens, 5]
    assert longer.reused in {0, n}  # a few tokens are not worth reading files for
    for path in (library.cache_dir).rglob("*.fin"):
        path.unlink()
    partial = reacher.reach(tokens, None, b"", expected_digest=digest)
    assert partial.bit_exact is True
    assert partial.prefilled == 1
    assert partial.session.logits_digest() == digest


def test_live_tokens_are_not_computed_again_and_stay_untouched(library):
    model, engine = FakeModel("m"), FakeEngine()
    live = model.new_session()
    model.prefill(live, list(range(100)))
    reached = Reacher(engine, model, library).reach([*range(90), 200], live, b"k")
    assert (reached.reused, reached.prefilled) == (90, 1)
    assert live.tokens == list(range(100))
    assert reached.session.dice_key == b"k"


def test_a_state_that_lies_is_computed_again(library):
    model, engine = FakeModel("m"), FakeEngine()
    session = model.new_session()
    model.prefill(session, list(range(80)))
    right = session.logits_digest()
    session.logits = session.logits + 1  # what a bug in a store could hand back
    save(library, model, session)
    reached = Reacher(engine, model, library).reach(list(range(80)), None, b"", expected_digest=right)
    assert (reached.rung, reached.bit_exact) == ("recomputed", True)
    assert reached.session.logits_digest() == right


def test_a_cancelled_prefill_hands_over_what_it_has(library):
    model, engine = FakeModel("m"), FakeEngine()
    kept, calls = [], []
    with pytest.raises(Cancelled):
        Reacher(engine, model, library, batch_size=10).reach(
            list(range(50)), None, b"", cancel=lambda: calls.append(1) or len(calls) > 3, keep_partial=kept.append
        )
    assert kept[0].position == 30
