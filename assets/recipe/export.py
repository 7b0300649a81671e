"""Write the trained network as a GGUF file that llama.cpp and forkpoint read.

    python -m assets.recipe.export WORK assets/guide.gguf

Matrices become Q8_0 (blocks of 32 weights with one half-precision scale), norms stay F32. The rotary pairs of the
network are neighbours, which is the order of llama.cpp's "norm" RoPE: query and key rows are written as they are. The
embedding is tied: there is no `output.weight`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch

from assets.recipe.network import Shape
from assets.recipe.prepare import END, ROLES, load_vocabulary

# No newline and no space between the parts: a role marker is one control token, and the text behind it starts without
# a dummy prefix.
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] in ['system', 'user', 'assistant'] %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SAMPLING = {"temp": 0.5, "top_p": 0.95, "min_p": 0.1, "penalty_repeat": 1.0}


def tensors(weights: dict[str, torch.Tensor], shape: Shape) -> dict[str, np.ndarray]:
    """The network's weights under GGUF's names, float32."""
    values = {name: weight.float().numpy() for name, weight in weights.items()}
    key_rows = shape.kv_heads * (shape.width // shape.heads)
    found = {"token_embd.weight": values["embed.weight"], "output_norm.weight": values["norm.weight"]}
    for layer in range(shape.layers):
        here, there = f"blocks.{layer}.", f"blk.{layer}."
        query, key, value = np.split(values[here + "qkv.weight"], [shape.width, shape.width + key_rows])
        gate, up = np.split(values[here + "gate_up.weight"], 2)
        found |= {
            there + "attn_norm.weight": values[here + "attn_norm.weight"],
            there + "attn_q.weight": query,
            there + "attn_k.weight": key,
            there + "attn_v.weight": value,
            there + "attn_output.weight": values[here + "out.weight"],
            there + "ffn_norm.weight": values[here + "ffn_norm.weight"],
            there + "ffn_gate.weight": gate,
            there + "ffn_up.weight": up,
            there + "ffn_down.weight": values[here + "down.weight"],
        }
    return found


def write(work: Path, target: Path) -> None:
    """Read WORK/guide.pt and WORK/guide.model, write the GGUF file."""
    saved = torch.load(work / "guide.pt", weights_only=True, map_location="cpu")
    shape, vocabulary = Shape(**saved["shape"]), load_vocabulary(work)
    out = gguf.GGUFWriter(target, "llama")
    out.add_name("guide")
    out.add_description("A very small model that comes with forkpoint: it knows the app a little and tells stories")
    out.add_license("mit")
    out.add_languages(["en"])
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for key, number in SAMPLING.items():
        out.add_float32(f"general.sampling.{key}", number)
    out.add_int32("general.sampling.top_k", 40)
    out.add_vocab_size(shape.vocabulary)
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.hidden)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_rope_dimension_count(shape.width // shape.heads)
    out.add_rope_freq_base(shape.rope_base)
    out.add_layer_norm_rms_eps(shape.epsilon)
    _write_vocabulary(out, vocabulary)
    for name, value in tensors(saved["weights"], shape).items():
        if value.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            out.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            out.add_tensor(name, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    print(f"{target}: {target.stat().st_size:,} bytes, {saved['log']}")


def _write_vocabulary(out: gguf.GGUFWriter, vocabulary: object) -> None:
    texts, scores, types = [], [], []
    for token in range(vocabulary.get_piece_size()):
        texts.append(vocabulary.id_to_piece(token).encode())
        scores.append(vocabulary.get_score(token))
        if vocabulary.is_unknown(token):
            types.append(gguf.TokenType.UNKNOWN)
        elif vocabulary.is_control(token):
            types.append(gguf.TokenType.CONTROL)
        elif vocabulary.is_byte(token):
            types.append(gguf.TokenType.BYTE)
        else:
            types.append(gguf.TokenType.NORMAL)
    assert all(vocabulary.is_control(vocabulary.piece_to_id(piece)) for piece in (*ROLES.values(), END))
    out.add_tokenizer_model("llama")
    out.add_token_list(texts)
    out.add_token_scores(scores)
    out.add_token_types(types)
    end = vocabulary.piece_to_id(END)
    out.add_bos_token_id(vocabulary.bos_id())
    out.add_eos_token_id(vocabulary.eos_id())
    out.add_eot_token_id(end)
    out.add_unk_token_id(vocabulary.unk_id())
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_add_space_prefix(False)
    out.add_chat_template(TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    write(arguments.work, arguments.target)
