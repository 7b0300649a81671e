"""Every typed error says one plain sentence and keeps its facts, whatever a stranger's file put into them."""

import pytest

from engine import errors

HOSTILE = "\x1b[31mred\x07\n\r\u202e" + "x" * 400
MADE = [
    (errors.FileNotReadable, {"path": "a.gguf", "why": "no such file"}),
    (errors.NotGGUF, {"path": "a.gguf"}),
    (errors.BadGGUF, {"path": "a.gguf", "field": "version", "why": "it is 9"}),
    (errors.UnsupportedArchitecture, {"name": "mamba"}),
    (errors.UnsupportedTensorType, {"tensor": "blk.0.attn_q.weight", "type": "IQ2_XS"}),
    (errors.UnsupportedTokenizer, {"name": "gpt2"}),
    (errors.UnsupportedFeature, {"what": "a model that is split over 2 files"}),
    (errors.MissingTensor, {"tensor": "output_norm.weight"}),
    (errors.BadTensor, {"tensor": "output.weight", "why": "it overlaps another tensor"}),
    (errors.ContextFull, {"position": 500, "wanted": 20, "context": 512}),
    (errors.NonFiniteLogits, {"position": 7}),
    (errors.DamagedWeights, {"path": "a.packed"}),
    (errors.StateMismatch, {"field": "tensors", "have": "aa", "want": "bb"}),
    (errors.SamplerError, {"field": "top_p", "value": 3, "why": "it must be between 0 and 1"}),
    (errors.TemplateError, {"why": "roles must alternate"}),
]


@pytest.mark.parametrize(("kind", "fields"), MADE, ids=[kind.__name__ for kind, _ in MADE])
def test_facts_are_kept_and_said(kind, fields):
    error = kind(**fields)
    assert isinstance(error, errors.EngineError)
    for name, value in fields.items():
        assert getattr(error, name) == value
        assert str(value) in str(error)
    assert str(error).endswith(".")
    assert not str(error).endswith("..")


@pytest.mark.parametrize(("kind", "fields"), MADE, ids=[kind.__name__ for kind, _ in MADE])
def test_strangers_text_cannot_steer_a_terminal(kind, fields):
    changed = {name: HOSTILE if isinstance(value, str) and name != "why" else value for name, value in fields.items()}
    if kind is errors.TemplateError:
        changed["why"] = HOSTILE
    said = str(kind(**changed))
    assert said.isprintable()
    assert len(said) < 400
