"""What a family's file says, and what comes of it where the goldens' models have no case."""

import math
from dataclasses import replace
from decimal import Decimal

import gguf
import numpy as np
import pytest
from conformance.family_models import FAMILIES as MODELS
from conformance.family_models import FamilyModel, write
from conformance.make_models import token_list
from reference.dense import Dense, round_f16

from engine.errors import BadGGUF, MissingTensor, UnsupportedFeature
from engine.families import FAMILIES
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.rotary import Rotary, Yarn, temperatures

TOKENS = token_list(512, 150)
F32 = gguf.GGMLQuantizationType.F32


def read(path, model):
    with GGUF.open(write(path, model)) as opened:
        return Hyperparameters.from_gguf(opened)


def near_the_reference(path, model, **options):
    from engine.model import Model

    write(path, model)
    opened = Model.open(path, threads=2, **options)
    try:
        ours = opened.all_logits(TOKENS)
    finally:
        opened.close()
    exact = Dense.read(path, 1024).logits(TOKENS, round_f16)
    assert np.abs(ours - exact).max() <= 3e-4 * np.abs(exact).max()
    return ours


def test_every_family_has_a_model_in_the_goldens():
    assert {model.architecture for model in MODELS.values()} == set(FAMILIES)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(8, 1, 20), (3, 3, 18), (4, 2, 72), (1, 1, 256)])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_heads_that_fill_no_vector_are_normed_alone(tmp_path, architecture, heads, kv_heads, head_dim):
    keys = {"attention.key_length": head_dim, "attention.value_length": head_dim}
    model = FamilyModel(architecture, 2, 48, 80, heads, kv_heads, head_dim, 61, keys, q_norm=True,
                        post_norms=architecture == "gemma3")  # fmt: skip
    near_the_reference(tmp_path / "m.gguf", model)


def rewritten(source, path, change):
    """The model file again with other tensors: change(name -> float32 array) gives name -> (array, type)."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for name, (values, kind) in change({t.name: t.data.copy() for t in reader.tensors}).items():
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["llama-bias", "qwen2", "qwen3", "gemma3"])
def test_one_tensor_for_queries_keys_and_values_gives_the_same_bits(tmp_path, open_model, model_file, name):
    """As some converters write them; biases too."""

    def fuse(tensors):
        for i in range(MODELS[name].layers):
            for ending in ("weight", "bias"):
                parts = [tensors.pop(f"blk.{i}.attn_{n}.{ending}", None) for n in "qkv"]
                if parts[0] is not None:
                    tensors[f"blk.{i}.attn_qkv.{ending}"] = np.concatenate(parts)
        return {key: (values, F32) for key, values in tensors.items()}

    fused = rewritten(model_file(name), tmp_path / "fused.gguf", fuse)
    found = [open_model(path, threads=2).all_logits(TOKENS[:70]).tobytes() for path in (model_file(name), fused)]
    assert found[0] == found[1]


@pytest.mark.parametrize("kinds", [("Q8_0",), ("Q4_0", "Q8_0", "BF16", "Q5_1")])
@pytest.mark.parametrize("name", ["phi3-plain", "gemma3-dense", "qwen3", "granite", "llama-bias"])
def test_quantized_matrices_serve_every_family(tmp_path, open_model, model_file, name, kinds):
    """Also those that are cut out of a larger tensor: as near to the float64 reference as their activations allow."""

    def quantize(tensors):
        out, count = {}, 0
        for key, values in tensors.items():
            kind = F32
            if values.ndim == 2 and values.shape[1] % 32 == 0:
                kind, count = gguf.GGMLQuantizationType[kinds[count % len(kinds)]], count + 1
            out[key] = (values, kind)
        assert count >= 7
        return out

    path = rewritten(model_file(name), tmp_path / "small.gguf", quantize)
    ours = open_model(path, threads=2, context=1024).all_logits(TOKENS)
    exact = Dense.read(path, 1024).logits(TOKENS)
    assert np.sqrt(np.mean((ours - exact) ** 2)) <= 0.02 * np.sqrt(np.mean(exact**2))


def test_a_bias_of_the_head_is_added(tmp_path):
    from engine.model import Model

    def logits(name, bias):
        def and_head(writer):
            if bias is not None:
                writer.add_tensor("output.bias", bias)

        model = Model.open(write_with(tmp_path / name, MODELS["qwen2"], and_head), threads=1)
        try:
            return model.all_logits(TOKENS[:20])
        finally:
            model.close()

    bias = np.linspace(-3, 3, 512, dtype=np.float32)
    assert np.array_equal(logits("with.gguf", bias), logits("without.gguf", None) + bias)


def write_with(path, model, more):
    """The model, with `more(writer)` called before it is written out."""

    class Writer(gguf.GGUFWriter):
        def write_header_to_file(self, path=None):
            more(self)
            super().write_header_to_file(path)

    plain, gguf.GGUFWriter = gguf.GGUFWriter, Writer
    try:
        return write(path, model)
    finally:
        gguf.GGUFWriter = plain


GEMMA = FamilyModel("gemma3", 8, 48, 80, 2, 1, 24, 62, {"attention.sliding_window": 40}, q_norm=True, post_norms=True)


@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({}, (40, 40, 40, 40, 40, 0, 40, 40)),
        ({"attention.sliding_window_pattern": 2}, (40, 0) * 4),
        ({"attention.sliding_window_pattern": 1}, (0,) * 8),
        ({"attention.sliding_window_pattern": 0}, (40,) * 8),
        ({"attention.sliding_window": 0}, ()),
    ],
)
def test_which_layers_see_a_window_only(tmp_path, keys, windows):
    assert read(tmp_path / "m.gguf", replace(GEMMA, keys=GEMMA.keys | keys)).windows == windows


def test_a_pattern_may_be_a_list_of_layers(tmp_path):
    pattern = [True, False, True, True, False, True, True, False]

    def more(writer):
        writer.add_array("gemma3.attention.sliding_window_pattern", pattern)

    with GGUF.open(write_with(tmp_path / "m.gguf", GEMMA, more)) as opened:
        assert Hyperparameters.from_gguf(opened).windows == tuple(40 if narrow else 0 for narrow in pattern)


def test_the_windows_layers_have_a_rotary_base_of_their_own(tmp_path):
    keys = GEMMA.keys | {"rope.freq_base": 1e6, "rope.freq_base_swa": 5000.0, "rope.scaling.factor": 8.0}
    rotaries = read(tmp_path / "m.gguf", replace(GEMMA, keys=keys)).rotaries()
    assert (rotaries[0].base, rotaries[0].scale) == (5000.0, 1.0)
    assert (rotaries[5].base, rotaries[5].scale) == (1e6, 8.0)


def test_gemmas_largest_scales_queries_by_its_width(tmp_path):
    wide = {"attention.key_length": 24, "attention.value_length": 24}
    shape = read(tmp_path / "m.gguf", replace(GEMMA, layers=62, dim=32, keys=wide))
    assert shape.attention_scale == 1.0 / math.sqrt(32 // 2)
    assert read(tmp_path / "n.gguf", replace(GEMMA, keys={})).attention_scale == 0.0


def test_smollm3_rotates_in_three_layers_of_four(tmp_path):
    model = replace(MODELS["smollm3"], layers=9)
    assert [r is None for r in read(tmp_path / "m.gguf", model).rotaries()] == [
        False, False, False, True, False, False, False, True, False
    ]  # fmt: skip


def test_granite_may_not_rotate_at_all(tmp_path):
    model = MODELS["granite"]

    def more(writer):
        writer.add_bool("granite.rope.scaling.finetuned", False)

    with GGUF.open(write_with(tmp_path / "m.gguf", model, more)) as opened:
        assert Hyperparameters.from_gguf(opened).rotaries() == [None] * model.layers


@pytest.mark.parametrize(
    ("name", "keys", "error"),
    [
        ("gemma3", {"final_logit_softcapping": 30.0}, UnsupportedFeature),
        ("gemma3", {"attn_logit_softcapping": 50.0}, UnsupportedFeature),
        ("qwen2", {"expert_count": 4}, UnsupportedFeature),
        ("granite", {"logit_scale": 0.0}, BadGGUF),
        ("llama-yarn", {"rope.freq_base": 1.0}, BadGGUF),
        ("llama-yarn", {"rope.scaling.yarn_beta_fast": 0.0}, BadGGUF),
        ("llama-linear", {"rope.scaling.factor": -2.0}, BadGGUF),
        ("mistral3", {"rope.scaling.original_context_length": 0}, BadGGUF),
        ("gemma3", {"rope.freq_base_swa": 0.0}, BadGGUF),
    ],
)
def test_what_cannot_be_is_named(tmp_path, name, keys, error):
    with pytest.raises(error) as caught:
        read(tmp_path / "m.gguf", replace(MODELS[name], keys=MODELS[name].keys | keys))
    assert next(iter(keys)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("qwen3", "blk.0.attn_q_norm.weight"), ("gemma3-dense", "blk.0.post_ffw_norm.weight")],
)
def test_a_familys_own_tensors_must_be_there(tmp_path, name, missing):
    from engine.weights import load_weights

    lacking = replace(MODELS[name], q_norm=name != "qwen3", post_norms=False)
    with GGUF.open(write(tmp_path / "m.gguf", lacking)) as opened, pytest.raises(MissingTensor) as caught:
        load_weights(opened, Hyperparameters.from_gguf(opened), 1)
    assert caught.value.tensor.split(".")[2:] == missing.replace("post_ffw", "post_attention").split(".")[2:]


def test_yarn_keeps_fast_frequencies_and_stretches_slow_ones():
    rotary = Rotary(64, 10000.0, 4.0, Yarn(4096, 32.0, 1.0, 0.0))
    plain, found = Rotary(64, 10000.0).frequencies(), rotary.frequencies()
    assert np.array_equal(found[:8], plain[:8])
    assert np.allclose(found[-8:] * 4, plain[-8:], rtol=1e-15)
    assert (np.diff(found) < 0).all()
    assert rotary.magnitude() == pytest.approx(1 + 0.1 * math.log(4.0), rel=1e-15)
    even = replace(rotary, yarn=Yarn(4096, 32.0, 1.0, 1.0))
    assert even.magnitude() == 1.0


def test_frequencies_are_divided_by_their_factors():
    factors = np.array([1.0, 2.5, 8.0, 3.0], np.float32)
    assert np.allclose(
        Rotary(8, 500000.0).frequencies(factors), 500000.0 ** (-np.arange(4) / 4.0) / factors, rtol=1e-15
    )


def test_temperatures_step_at_multiples_of_the_length():
    found = temperatures(0.1, 16, 40)
    assert found.dtype == np.float32
    assert found[:16].tolist() == [1.0] * 16
    assert found[16:32].tolist() == [float(np.float32(1 + Decimal("0.1") * Decimal(2).ln()))] * 16
    assert len(found) == 40


def test_gelu_is_the_one_by_tanh():
    from numba import njit

    from engine.kernels.options import OPTIONS
    from engine.kernels.simd import load_f32x16, store_f32x16
    from engine.kernels.vector_math import gelu

    @njit(**OPTIONS)
    def run(x, y, n):
        for i in range(0, 4 * n, 64):
            store_f32x16(y + i, gelu(load_f32x16(x + i)))

    x = np.concatenate([np.linspace(-12, 12, 4000), [-0.0, 1e-30, -1e-30, 60.0, -60.0, 1e30, -1e30, 0.0] * 2])
    x = x.astype(np.float32)
    y = np.zeros_like(x)
    run(x.ctypes.data, y.ctypes.data, len(x))
    wide = x.astype(np.float64)
    exact = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    assert (np.abs(y - exact) <= 2e-7 * np.maximum(1.0, np.abs(wide))).all()
    assert set(y[x == np.float32(1e30)].tolist()) == {float(np.float32(1e30))}
    assert not y[x == np.float32(-1e30)].any()
