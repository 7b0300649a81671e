"""More threads than cores, several callers at once, long lists: still the same bytes."""

import threading

import pytest
from conformance.make_models import BITS, token_list
from conformance.walk import kv_digest


def whole(model, tokens, batch_size):
    """(logits digest, KV digest) behind tokens."""
    session = model.new_session()
    model.prefill(session, tokens, batch_size=batch_size)
    return session.logits_digest(), kv_digest(model.capture(session).chunks)


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("kind", ["Q4_0", "mixed"])
def test_any_number_of_threads_gives_the_same_bytes(model_file, open_model, kind, threads):
    tokens = token_list(BITS[kind], 90)
    expected = whole(open_model(model_file(kind), threads=2), tokens, 512)
    model = open_model(model_file(kind), threads=threads)
    assert whole(model, tokens, 512) == expected
    assert whole(model, tokens, 11) == expected


@pytest.mark.parametrize("alone", [False, True])
def test_a_small_pass_that_the_caller_makes_alone_gives_the_same_bytes(model_file, open_model, monkeypatch, alone):
    from engine import batch
    from engine.model import Model

    tokens = token_list(BITS["mixed"], 150)
    expected = whole(open_model(model_file("mixed"), threads=2), tokens, 512)
    monkeypatch.setattr(batch, "WORTH_WAKING", 1 << 60 if alone else 0)
    model = Model.open(model_file("mixed"), threads=3)
    woken = []
    monkeypatch.setattr(model._pool, "run", lambda job, run=model._pool.run: (woken.append(1), run(job)))
    session = model.new_session()
    model.prefill(session, tokens[:130])
    for token in tokens[130:]:
        model.step([session], [token])
    assert (session.logits_digest(), kv_digest(model.capture(session).chunks)) == expected
    assert bool(woken) is not alone
    model.close()


@pytest.mark.parametrize(("kind", "kv_type"), [("F32", "f16"), ("Q8_0", "q8_0")])
def test_long_lists_do_not_depend_on_the_chunks(model_file, open_model, kind, kv_type):
    tokens = token_list(BITS[kind], 1500)
    model = open_model(model_file(kind), threads=2, kv_type=kv_type)
    expected = whole(model, tokens, 512)
    assert whole(model, tokens, 1500) == expected
    assert whole(model, tokens, 61) == expected
    session = model.new_session()
    model.prefill(session, tokens[:-30], batch_size=700)
    for token in tokens[-30:]:
        model.step([session], [token])
    assert (session.logits_digest(), kv_digest(model.capture(session).chunks)) == expected


def test_callers_in_several_threads_do_not_disturb_each_other(model_file, open_model):
    """The writer of snapshots captures while the chat decodes; two chats decode at once."""
    model = open_model(model_file("Q4_0"), threads=2)
    lists = [token_list(BITS["Q4_0"], 120, seed) for seed in (1, 2, 3)]
    expected = [whole(model, tokens, 512) for tokens in lists]
    found: dict[int, tuple[str, str]] = {}
    kept = model.new_session()
    model.prefill(kept, lists[0])
    stop = threading.Event()
    captures: list[str] = []

    def chat(i):
        session = model.new_session()
        model.prefill(session, lists[i][:50], batch_size=9)
        for token in lists[i][50:]:
            model.step([session], [token])
        found[i] = session.logits_digest(), kv_digest(model.capture(session).chunks)

    def save():
        while not stop.is_set():
            captures.append(kv_digest(model.capture(kept).chunks))

    saver = threading.Thread(target=save)
    chats = [threading.Thread(target=chat, args=(i,)) for i in range(3)]
    for thread in (saver, *chats):
        thread.start()
    for thread in chats:
        thread.join(timeout=120)
    stop.set()
    saver.join(timeout=120)
    assert [found.get(i) for i in range(3)] == expected
    assert set(captures) == {expected[0][1]}
