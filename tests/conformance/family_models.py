"""One small random-weight model for each family and each way of scaling rotary positions, written at test time.

Float32 weights, a vocabulary of 512, at most 1 MB. The weights come from `make_models.Bits`, so they are the same under
every NumPy; `make_models.digest` names the content. Metadata keys are those that the families' converters write.
"""

from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

from conformance.make_models import Bits, add_vocabulary

VOCABULARY = 512
TRAINED_CONTEXT = 1024


@dataclass(frozen=True)
class FamilyModel:
    """One small model. `keys` are written behind the architecture's name and a dot.

    q_norm: norms over the queries and keys of a head. biases: of which matrices. post_norms: behind attention and
    feed-forward part. fused: queries, keys and values in one matrix, gate and up in one. factors: rotary factor tensors
    by name, each drawn between the two numbers.
    """

    architecture: str
    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    seed: int
    keys: dict[str, object] = field(default_factory=dict)
    tied: bool = True
    q_norm: bool = False
    biases: tuple[str, ...] = ()
    post_norms: bool = False
    fused: bool = False
    factors: dict[str, tuple[float, float]] = field(default_factory=dict)


_ATTENTION = ("attn_q", "attn_k", "attn_v")

FAMILIES: dict[str, FamilyModel] = {
    "llama3": FamilyModel(
        "llama", 3, 96, 128, 6, 2, 16, 41, {"rope.freq_base": 500000.0}, factors={"rope_freqs": (1.0, 32.0)}
    ),
    "llama-linear": FamilyModel(
        "llama", 2, 64, 128, 4, 4, 16, 42, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, tied=False
    ),
    "llama-yarn": FamilyModel(
        "llama",
        2,
        96,
        136,
        4,
        2,
        24,
        43,
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256},
    ),
    "llama-bias": FamilyModel(
        "llama",
        2,
        64,
        96,
        2,
        1,
        32,
        44,
        biases=(*_ATTENTION, "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
    ),
    "smollm3": FamilyModel("smollm3", 5, 64, 112, 4, 1, 16, 45, {"rope.freq_base": 2000000.0}),
    "mistral3": FamilyModel(
        "mistral3",
        3,
        80,
        100,
        4,
        2,
        32,
        46,
        {
            "rope.freq_base": 1000000.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 16.0,
            "rope.scaling.original_context_length": 128,
            "rope.scaling.yarn_beta_fast": 32.0,
            "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0,
            "attention.temperature_scale": 0.1,
            "attention.key_length": 32,
            "attention.value_length": 32,
        },
        tied=False,
    ),
    "qwen2": FamilyModel("qwen2", 3, 96, 144, 6, 1, 16, 47, {"rope.freq_base": 1000000.0}, biases=_ATTENTION),
    "qwen3": FamilyModel(
        "qwen3",
        3,
        64,
        112,
        4,
        2,
        32,
        48,
        {"rope.freq_base": 1000000.0, "attention.key_length": 32, "attention.value_length": 32},
        q_norm=True,
    ),
    "phi3": FamilyModel(
        "phi3",
        2,
        96,
        112,
        4,
        4,
        24,
        49,
        {
            "rope.scaling.original_context_length": 256,
            "rope.scaling.attn_factor": 1.1902380714238083,
            "attention.sliding_window": 2047,
        },
        tied=False,
        fused=True,
        factors={"rope_factors_short": (1.0, 2.0), "rope_factors_long": (1.0, 60.0)},
    ),
    "phi3-plain": FamilyModel(
        "phi3", 2, 64, 96, 2, 2, 32, 50, {"attention.sliding_window": 96}, tied=False, fused=True
    ),
    "granite": FamilyModel(
        "granite",
        3,
        64,
        128,
        4,
        2,
        16,
        51,
        {"logit_scale": 0.5, "residual_scale": 0.35, "embedding_scale": 1.5, "attention.scale": 0.375},
    ),
    "gemma3": FamilyModel(
        "gemma3",
        8,
        48,
        80,
        4,
        1,
        32,
        52,
        {
            "rope.freq_base": 1000000.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
            "attention.sliding_window": 96,
            "attention.key_length": 32,
            "attention.value_length": 32,
        },
        q_norm=True,
        post_norms=True,
    ),
    "gemma3-dense": FamilyModel("gemma3", 2, 64, 96, 2, 2, 32, 53, q_norm=True, post_norms=True),
}


def _matrices(model: FamilyModel) -> list[tuple[str, int, int]]:
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    out = [("token_embd", VOCABULARY, model.dim)]
    if not model.tied:
        out.append(("output", VOCABULARY, model.dim))
    for i in range(model.layers):
        b = f"blk.{i}."
        if model.fused:
            out += [(b + "attn_qkv", q + 2 * kv, model.dim), (b + "ffn_up", 2 * model.ffn, model.dim)]
        else:
            out += [(b + "attn_q", q, model.dim), (b + "attn_k", kv, model.dim), (b + "attn_v", kv, model.dim)]
            out += [(b + "ffn_gate", model.ffn, model.dim), (b + "ffn_up", model.ffn, model.dim)]
        out += [(b + "attn_output", model.dim, q), (b + "ffn_down", model.dim, model.ffn)]
    return out


def _vectors(model: FamilyModel) -> list[tuple[str, int]]:
    """Norms and biases: (name with ending, size)."""
    out = [("output_norm.weight", model.dim)]
    sizes = {name.split(".")[-1]: rows for name, rows, _ in _matrices(model)}
    for i in range(model.layers):
        names = ["attn_norm", "ffn_norm", *(["post_attention_norm", "post_ffw_norm"] if model.post_norms else [])]
        out += [(f"blk.{i}.{n}.weight", model.dim) for n in names]
        if model.q_norm:
            out += [(f"blk.{i}.{n}.weight", model.head_dim) for n in ("attn_q_norm", "attn_k_norm")]
        out += [(f"blk.{i}.{n}.bias", sizes[n]) for n in model.biases]
    return out


def _metadata(w: gguf.GGUFWriter, model: FamilyModel) -> None:
    w.add_context_length(TRAINED_CONTEXT)
    w.add_embedding_length(model.dim)
    w.add_block_count(model.layers)
    w.add_feed_forward_length(model.ffn)
    w.add_head_count(model.heads)
    w.add_head_count_kv(model.kv_heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_dimension_count(model.head_dim)
    for key, value in model.keys.items():
        name = f"{model.architecture}.{key}"
        if isinstance(value, str):
            w.add_string(name, value)
        elif isinstance(value, int):
            w.add_uint32(name, value)
        else:
            w.add_float32(name, value)
    add_vocabulary(w, VOCABULARY)


def write(path: Path, model: FamilyModel, change=lambda name, values: values) -> Path:
    """Write one model; `change(name, float32 values)` may replace a tensor's values."""
    w = gguf.GGUFWriter(path, model.architecture)
    w.add_name("small")  # llama.cpp wants certain tokens in a model that is called phi3
    _metadata(w, model)
    bits = Bits(model.seed)
    for name, rows, columns in _matrices(model):
        deviation = 0.5 if name == "token_embd" else columns**-0.5
        w.add_tensor(f"{name}.weight", change(f"{name}.weight", bits.normal(rows, columns) * np.float32(deviation)))
    for name, size in _vectors(model):
        mean = np.float32(1.0 if name.endswith("norm.weight") else 0.0)
        w.add_tensor(name, change(name, mean + np.float32(0.2) * bits.normal(size)))
    for name, (low, high) in model.factors.items():
        steps = np.array(bits.integers(0, 1 << 16, model.head_dim // 2)) / float(1 << 16)
        w.add_tensor(f"{name}.weight", change(f"{name}.weight", (low + (high - low) * steps).astype(np.float32)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path
