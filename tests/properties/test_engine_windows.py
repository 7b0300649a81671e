"""Sliding windows: a row sees its newest keys only, and its bits depend on nothing but position, window and keys."""

import numpy as np
import pytest
from conformance import make_models
from reference.llama import Llama, round_f16

WINDOWS = (1, 2, 63, 64, 65, 100, 128)
ALL = 1 << 40


def set_windows(model, windows):
    """Let the layers of an open model see so many keys."""
    from engine.kernels import plan

    model._runner._model.layers[:, plan.L_WINDOW] = windows


@pytest.fixture
def windowed(model_file, monkeypatch):
    """(name, windows of the layers, options) -> an open model whose layers see that many keys; all threads share."""
    from engine import batch
    from engine.model import Model

    monkeypatch.setattr(batch, "WORTH_WAKING", 0)

    opened = []

    def find(name, windows, **options):
        model = Model.open(model_file(name), **options)
        opened.append(model)
        set_windows(model, windows)
        return model

    yield find
    for model in opened:
        model.close()


def tokens(model, count, seed=70):
    return make_models.token_list(model.vocabulary_size, count, seed=seed)


@pytest.mark.parametrize("window", [*WINDOWS, ALL])
def test_a_window_is_the_references(windowed, model_file, window):
    model = windowed("f32-head64", [window, ALL], threads=2)
    ids = tokens(model, 150)
    expected = Llama.read(model_file("f32-head64")).logits(ids, round_f16, [window, ALL])
    assert np.abs(model.all_logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()


def digests(model, ids, chunks, windows):
    """The logits' digest behind every chunk."""
    session, out, at = model.new_session(), {}, 0
    set_windows(model, windows)
    for chunk in chunks:
        model.prefill(session, ids[at : at + chunk])
        at += chunk
        out[at] = session.logits_digest()
    return out


@pytest.mark.parametrize("name", ["f32-head64", "f32-head8", "q4_0"])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_any_split_gives_the_same_bytes(windowed, name, kv_type):
    models = [windowed(name, ALL, threads=threads, kv_type=kv_type) for threads in (1, 2, 3)]
    layers = len(models[0]._runner._model.layers)
    ids = tokens(models[0], 260)
    for window in (*WINDOWS, ALL):
        windows = [window, *[ALL, 64][: layers - 1]]
        found = [
            digests(models[0], ids, [1] * 260, windows),
            digests(models[1], ids, [130, *[1] * 130], windows),
            digests(models[2], ids, [63, 1, 1, 66, 129], windows),
        ]
        for at in found[1]:
            assert found[1][at] == found[0][at], f"window {window}, {at} tokens"
        for at in found[2]:
            assert found[2][at] == found[0][at], f"window {window}, {at} tokens"


def test_what_lies_before_the_window_is_never_multiplied(windowed):
    """NaN in a key or value that no row sees must not reach the logits."""
    model = windowed("f32-head64", 70, threads=2)
    ids = tokens(model, 140)
    session = model.new_session()
    model.prefill(session, ids)
    expected = session.logits_digest()
    session.truncate(139)
    for block, unseen in zip(session._blocks, (64, 6), strict=False):
        for part, view in session.layout._views(block):
            session.layout._tokens(part, view, 0, unseen)[...] = 0x7E00  # halves of NaN
    model.step([session], [ids[139]])
    assert session.logits_digest() == expected


@pytest.mark.parametrize(("name", "kv_type"), [("f32-head64", "f16"), ("f32-group8", "q8_0"), ("f32-head32", "f16")])
def test_blocks_shared_out_among_threads_give_the_same_bytes(windowed, name, kv_type):
    """With few KV heads one token's blocks are split among the threads; the merge goes left to right all the same."""
    models = [windowed(name, ALL, threads=threads, kv_type=kv_type) for threads in (1, 2, 3)]
    ids = tokens(models[0], 1100)
    for window in (ALL, 600):
        found = []
        for model in models:
            set_windows(model, window)
            session = model.new_session()
            model.prefill(session, ids[:1091])
            other = session.fork()
            for token in ids[1091:]:
                model.step([session, other], [token, token])
            found.append((session.logits_digest(), other.logits_digest()))
        assert len(set(found)) == 1
        assert found[0][0] == found[0][1]


# (heads, KV heads, dims of a head): groups that fill no tile of rows, dims that fill no pair of vectors
ODD_SHAPES = [(6, 2, 24), (5, 1, 80), (7, 1, 96), (6, 1, 256), (9, 1, 16), (2, 2, 40), (10, 1, 8)]


@pytest.mark.parametrize(("heads", "kv_heads", "dims"), ODD_SHAPES)
def test_odd_heads_are_the_references_and_the_same_however_fed(tmp_path, heads, kv_heads, dims):
    from engine.model import Model

    shape = make_models.Shape(2, 96, 64, heads, kv_heads, dims, ("F32",), vocabulary=500, key_length=True, seed=31)
    path = make_models.write(tmp_path / "odd.gguf", shape)
    ids = make_models.token_list(500, 300, seed=32)
    expected = Llama.read(path).logits(ids, round_f16)
    for kv_type, error in (("f16", 1e-4), ("q8_0", 5e-2)):
        found = []
        for threads, chunks in ((1, [150, *[1] * 20, 130]), (3, [7, 64, 229])):
            model = Model.open(path, kv_type=kv_type, threads=threads)
            try:
                session, at = model.new_session(), 0
                for chunk in chunks:
                    model.prefill(session, ids[at : at + chunk])
                    at += chunk
                found.append(session.logits)
            finally:
                model.close()
        assert found[0].tobytes() == found[1].tobytes()
        assert np.abs(found[0] - expected[-1]).max() < error * np.abs(expected).max()
