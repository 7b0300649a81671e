"""Each quantized tensor type comes as near to float64 over its dequantized weights as llama.cpp does.

The first types are in test_logits.py. make_goldens.py --tensor-types made the file of llama.cpp's distances.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.llama import Llama as Reference

from conformance import make_models

GOLDENS = json.loads((Path(__file__).resolve().parent / "tensor_types.json").read_text())


@pytest.mark.parametrize("name", make_models.TENSOR_TYPES)
def test_a_type_is_as_near_to_float64_as_llama_cpp(model_file, open_model, name):
    golden = GOLDENS["models"][name]
    assert make_models.digest(model_file(name)) == golden["digest"], "run make_goldens.py --tensor-types again"
    tokens = make_models.token_list(make_models.TENSOR_TYPES[name], GOLDENS["list_tokens"])
    exact = Reference.read(model_file(name)).logits(tokens)
    assert float(np.abs(exact).max()) == pytest.approx(golden["largest_logit"], rel=1e-9)
    ours = open_model(model_file(name), threads=2).all_logits(tokens)
    distance = float(np.sqrt(np.mean(np.square(ours - exact, dtype=np.float64))))
    assert distance <= 1.05 * golden["peer_rms_distance"]
    assert distance <= 0.05 * golden["largest_logit"], "so far from float64 that the comparison says nothing"
