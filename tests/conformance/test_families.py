"""Every dense family against llama.cpp's goldens and the float64 reference. make_family_goldens.py made the goldens."""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.dense import Dense, round_f16

from conformance import family_models
from conformance.make_models import digest, token_list

HERE = Path(__file__).resolve().parent
GOLDENS = json.loads((HERE / "families.json").read_text())
TOKENS = token_list(family_models.VOCABULARY, GOLDENS["list_tokens"])
CONTEXT = GOLDENS["settings"]["context"]
NAMES = tuple(family_models.FAMILIES)


@pytest.fixture(scope="module")
def goldens():
    with np.load(HERE / "families.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def family_logits(model_file, open_model):
    """A function: the name -> the engine's float32 logits behind every token of the list, computed once."""
    known = {}

    def find(name):
        if name not in known:
            known[name] = open_model(model_file(name), threads=2, context=CONTEXT).all_logits(TOKENS)
        return known[name]

    return find


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@pytest.mark.parametrize("name", NAMES)
def test_the_models_are_those_of_the_goldens(model_file, name):
    path = model_file(name)
    assert digest(path) == GOLDENS["models"][name]["digest"], "run make_family_goldens.py again"
    assert path.stat().st_size <= 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_logits_agree_with_llama_cpp(family_logits, goldens, name):
    ours, theirs = family_logits(name), goldens[f"{name}/logits"]
    assert np.abs(ours[list(GOLDENS["positions"])] - theirs).max() <= 5e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", NAMES)
def test_the_best_token_is_llama_cpps_wherever_it_is_clearly_ahead(family_logits, goldens, name):
    clear = goldens[f"{name}/gap"] > 1e-3 * GOLDENS["models"][name]["largest_logit"]
    assert clear.sum() > 400
    assert (family_logits(name).argmax(axis=1) == goldens[f"{name}/top"])[clear].all()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_as_near_to_float64_as_llama_cpps(model_file, family_logits, name):
    exact = Dense.read(model_file(name), CONTEXT).logits(TOKENS)
    assert rms(family_logits(name) - exact) <= 1.05 * GOLDENS["models"][name]["peer_rms_distance"]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_rounding_of_keys_and_values_is_left(model_file, family_logits, name):
    rounded = Dense.read(model_file(name), CONTEXT).logits(TOKENS, round_f16)
    assert np.abs(family_logits(name) - rounded).max() <= 3e-4 * np.abs(rounded).max()


@pytest.mark.parametrize(("context", "name"), [(256, "phi3"), (257, "phi3")])
def test_the_declared_context_chooses_the_factors_of_longrope(model_file, open_model, context, name):
    """Short factors up to the context that the model was first trained on, long ones above, whatever is fed."""
    tokens = TOKENS[:40]
    ours = open_model(model_file(name), threads=2, context=context).all_logits(tokens)
    rounded = Dense.read(model_file(name), context).logits(tokens, round_f16)
    assert np.abs(ours - rounded).max() <= 3e-4 * np.abs(rounded).max()


def test_contexts_with_other_factors_have_other_state_keys(model_file, open_model):
    keys = [open_model(model_file("phi3"), threads=2, context=n).state_key for n in (128, 256, 257, 1024)]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[0] != keys[2]
