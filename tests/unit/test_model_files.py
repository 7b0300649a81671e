"""A file that the engine would compute wrongly is refused, by a typed error that names what is in the way."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from engine.errors import (
    BadGGUF,
    BadTensor,
    EngineError,
    MissingTensor,
    UnsupportedArchitecture,
    UnsupportedFeature,
    UnsupportedTensorType,
    UnsupportedTokenizer,
)
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.repack import repack
from engine.weights import load_weights
from tests.conformance.make_models import vocabulary

DIM, FFN, VOCABULARY = 64, 96, 400


def tensors() -> dict[str, np.ndarray]:
    """Every tensor of a one-layer model, by name."""
    sizes = {
        "token_embd.weight": (VOCABULARY, DIM),
        "output_norm.weight": (DIM,),
        "blk.0.attn_norm.weight": (DIM,),
        "blk.0.ffn_norm.weight": (DIM,),
        "blk.0.attn_q.weight": (DIM, DIM),
        "blk.0.attn_k.weight": (DIM // 2, DIM),
        "blk.0.attn_v.weight": (DIM // 2, DIM),
        "blk.0.attn_output.weight": (DIM, DIM),
        "blk.0.ffn_gate.weight": (FFN, DIM),
        "blk.0.ffn_up.weight": (FFN, DIM),
        "blk.0.ffn_down.weight": (DIM, FFN),
    }
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}


def write(
    path: Path,
    *,
    architecture: str = "llama",
    numbers: dict[str, Any] | None = None,
    change: dict[str, np.ndarray | None] | None = None,
    raw: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] | None = None,
    tokenizer: str = "llama",
) -> Path:
    """The model, with metadata overridden, tensors replaced, added, dropped (None) or given as raw bytes of a type."""
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, Any] = {
        "context_length": 256,
        "embedding_length": DIM,
        "block_count": 1,
        "feed_forward_length": FFN,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 16,
    } | (numbers or {})
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for name, value in values.items():
        if isinstance(value, list):
            writer.add_array(f"llama.{name}", value)
        elif isinstance(value, str):
            writer.add_string(f"llama.{name}", value)
        else:
            writer.add_uint32(f"llama.{name}", value)
    tokens, scores, types = vocabulary(VOCABULARY)
    writer.add_tokenizer_model(tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, array in (tensors() | (change or {})).items():
        if array is not None and name not in (raw or {}):
            writer.add_tensor(name, array)
    for name, (data, kind) in (raw or {}).items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path) -> Any:
    with GGUF.open(path) as opened:
        return load_weights(opened, Hyperparameters.from_gguf(opened), 1)


def test_the_plain_file_loads(tmp_path: Path) -> None:
    assert load(write(tmp_path / "m.gguf")).kinds == {"F32"}


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"expert_count": 8}, "expert_count"),
        ({"rope.scaling.type": "su"}, "rope.scaling.type su"),
        ({"final_logit_softcapping": 30}, "final_logit_softcapping"),
        ({"attention.head_count_kv": [2, 1]}, "head_count_kv"),
        ({"attention.value_length": 8}, "value_length"),
    ],
)
def test_what_would_be_computed_wrongly_is_named(tmp_path: Path, numbers: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedFeature, match=named):
        load(write(tmp_path / "m.gguf", numbers=numbers))


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        ({"attention.head_count": 0}, "head_count"),
        ({"attention.head_count": 5}, "head_count"),
        ({"attention.head_count_kv": 3}, "head_count_kv"),
        ({"rope.dimension_count": 15}, "dimension_count"),
        ({"rope.dimension_count": 32}, "dimension_count"),
        ({"block_count": 0}, "block_count"),
    ],
)
def test_numbers_that_cannot_be_are_named(tmp_path: Path, numbers: dict[str, Any], field: str) -> None:
    with pytest.raises(BadGGUF) as caught:
        load(write(tmp_path / "m.gguf", numbers=numbers))
    assert field in caught.value.field


def test_another_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitecture) as caught:
        load(write(tmp_path / "m.gguf", architecture="mamba"))
    assert caught.value.name == "mamba"


@pytest.mark.parametrize("name", sorted(tensors()))
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingTensor) as caught:
        load(write(tmp_path / "m.gguf", change={name: None}))
    assert caught.value.tensor == name


@pytest.mark.parametrize("name", sorted(set(tensors()) - {"token_embd.weight"}))
def test_a_tensor_of_another_shape_is_named(tmp_path: Path, name: str) -> None:
    shape = (*tensors()[name].shape[:-1], 32)
    with pytest.raises(BadTensor) as caught:
        load(write(tmp_path / "m.gguf", change={name: np.zeros(shape, np.float32)}))
    assert caught.value.tensor == name


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q_norm.weight", "blk.1.attn_q.weight", "blk.0.attn_norm.bias", "rope_factors.weight"]
)
def test_a_tensor_that_would_be_ignored_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedFeature):
        load(write(tmp_path / "m.gguf", change={name: np.zeros((DIM,), np.float32)}))


def test_a_tensor_type_without_a_kernel_is_named(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_1  # of ggml's own intermediate results; no file has it
    data = np.zeros((FFN, DIM // 32 * 40), np.uint8)
    with pytest.raises(UnsupportedTensorType) as caught:
        load(write(tmp_path / "m.gguf", raw={"blk.0.ffn_up.weight": (data, kind)}))
    assert (caught.value.tensor, caught.value.type) == ("blk.0.ffn_up.weight", "Q8_1")


def test_norms_and_biases_may_be_half_as_wide(tmp_path: Path) -> None:
    """llama.cpp does not multiply by such rows; widened they are exact."""
    kinds = {"output_norm.weight": "F16", "blk.0.attn_norm.weight": "BF16", "blk.0.attn_q.bias": "F16"}
    values = tensors() | {"blk.0.attn_q.bias": np.linspace(-2, 2, DIM).astype(np.float32)}
    types = {name: gguf.GGMLQuantizationType[kind] for name, kind in kinds.items()}
    raw = {name: (gguf.quants.quantize(values[name], kind), kind) for name, kind in types.items()}
    rows = {name: gguf.quants.dequantize(data, kind) for name, (data, kind) in raw.items()}
    with GGUF.open(write(tmp_path / "narrow.gguf", raw=raw)) as narrow:
        found = load_weights(narrow, Hyperparameters.from_gguf(narrow), 1)
    assert np.array_equal(found.norms[2, :DIM], rows["output_norm.weight"])
    assert np.array_equal(found.norms[0, :DIM], rows["blk.0.attn_norm.weight"])
    assert np.array_equal(found.biases[0][:DIM], rows["blk.0.attn_q.bias"])


@pytest.mark.parametrize(("kind", "weights", "size"), [("Q4_K", 256, 144), ("IQ4_XS", 256, 136), ("Q5_1", 32, 24)])
def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path, kind: str, weights: int, size: int) -> None:
    """gguf's writer refuses them too, so a good file is written and the row's length changed in its header."""
    data = np.zeros((FFN, size), np.uint8)
    raw = {"blk.0.ffn_up.weight": (data, gguf.GGMLQuantizationType[kind])}
    path = write(tmp_path / "m.gguf", raw=raw)
    name = b"blk.0.ffn_up.weight"
    header = bytearray(path.read_bytes())
    at = header.index(name) + len(name) + 4
    assert int.from_bytes(header[at : at + 8], "little") == weights
    header[at : at + 8] = (weights - 16).to_bytes(8, "little")
    path.write_bytes(header)
    with pytest.raises(BadTensor, match="not a multiple") as caught:
        load(path)
    assert caught.value.tensor == "blk.0.ffn_up.weight"


def test_a_tokenizer_of_another_kind_or_size_is_named(tmp_path: Path) -> None:
    from engine.model import Model

    with pytest.raises(UnsupportedTokenizer):
        Model.open(write(tmp_path / "m.gguf", tokenizer="t5"))
    fewer = np.zeros((VOCABULARY - 16, DIM), np.float32)  # more tokens than rows: some would have no embedding
    with pytest.raises(EngineError, match=str(VOCABULARY)):
        Model.open(write(tmp_path / "n.gguf", change={"token_embd.weight": fewer}))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("rows", [16, 21])
def test_repacking_moves_every_value_to_its_lane(kind: str, rows: int) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(3).standard_normal((rows, 96)).astype(np.float32)
    raw = np.ascontiguousarray(gguf.quants.quantize(values, quantization)).view(np.uint8).reshape(rows, -1)
    wanted = gguf.quants.dequantize(raw, quantization).reshape(rows, 96)
    packed = repack(kind, raw, rows, 96)
    assert packed.groups == -(-rows // 16)
    out = np.zeros((packed.groups * 16, 96), np.float32)
    for g in range(packed.groups):
        data = packed.data[g * packed.group_bytes : (g + 1) * packed.group_bytes]
        lanes = slice(16 * g, 16 * g + 16)
        if kind in ("F32", "F16", "BF16"):
            plain = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[kind]
            column = data.view(plain).reshape(96, 16)
            if kind == "BF16":
                column = (column.astype(np.uint32) << 16).view(np.float32)
            out[lanes] = column.astype(np.float32).T
            continue
        units = 8 if kind == "Q8_0" else 4
        for k, block in enumerate(data.reshape(3, 32 + 64 * units)):
            scale = block[:32].view("<f2").astype(np.float32)[:, None]
            codes = block[32:].reshape(units, 16, 4).transpose(1, 0, 2).reshape(16, -1)
            if kind == "Q8_0":
                numbers = codes.view(np.int8).astype(np.float32)
            else:
                numbers = np.concatenate([codes & 15, codes >> 4], 1).astype(np.float32) - 8
            out[lanes, 32 * k : 32 * k + 32] = numbers * scale
    assert np.array_equal(out[:rows], wanted)
    assert not out[rows:].any()


@pytest.mark.parametrize(
    ("name", "values", "named"),
    [
        ("blk.0.attn_q.bias", np.zeros(DIM - 1, np.float32), "attn_q.bias"),
        ("blk.0.ffn_down.bias", np.zeros((DIM, 1), np.float32), "ffn_down.bias"),
        ("rope_freqs.weight", np.ones(7, np.float32), "rope_freqs"),
        ("rope_freqs.weight", np.zeros(8, np.float32), "rope_freqs"),
        ("rope_factors_long.weight", np.full(8, np.nan, np.float32), "rope_factors_long"),
        ("blk.0.attn_qkv.weight", np.zeros((DIM, DIM), np.float32), "attn_qkv"),
    ],
)
def test_an_optional_tensor_that_cannot_be_is_named(tmp_path: Path, name: str, values: Any, named: str) -> None:
    with pytest.raises(BadTensor, match=named):
        load(write(tmp_path / "m.gguf", change={name: values}))


def test_a_list_of_equal_sizes_is_one_size(tmp_path: Path) -> None:
    with GGUF.open(write(tmp_path / "m.gguf", numbers={"attention.head_count_kv": [2]})) as opened:
        assert Hyperparameters.from_gguf(opened).kv_heads == 2


def test_rows_of_embedding_without_a_token_have_logits_and_no_text(tmp_path: Path) -> None:
    from engine.model import Model

    rows = np.concatenate([tensors()["token_embd.weight"], np.full((3, DIM), 0.5, np.float32)])
    model = Model.open(write(tmp_path / "m.gguf", change={"token_embd.weight": rows}), threads=1)
    try:
        session = model.new_session()
        model.prefill(session, [1, VOCABULARY + 2])
        assert session.logits is not None
        assert session.logits.shape == (model.vocabulary_size,) == (VOCABULARY + 3,)
        assert model.tokenizer.decode([VOCABULARY, VOCABULARY + 2]) == ""
    finally:
        model.close()


def test_what_a_family_lacks_is_left_out_of_the_state_key(tmp_path: Path) -> None:
    """So that savepoints of models from before there were families still fit."""
    with GGUF.open(write(tmp_path / "m.gguf")) as opened:
        fields = Hyperparameters.from_gguf(opened).for_context(opened, 100_000).as_fields()
    assert sorted(fields) == [
        "dim", "ffn", "head_dim", "heads", "kv_heads", "layers", "norm_eps", "rope_base", "rope_dims"
    ]  # fmt: skip
