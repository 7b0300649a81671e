"""What sets one model family apart from another: one description each, which hyperparameters and weights read.

All of them are decoders with RMSNorm, rotary positions, grouped-query attention and a gated feed-forward part; the
forward pass is one for all. Numbers come from a file's metadata, biases from its tensors; here stands what neither
says. A new family is one more entry, as long as the forward pass knows the parts. Source of which family has what: the
graphs in src/models of https://github.com/ggml-org/llama.cpp
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Family:
    """One architecture. The defaults are Llama's."""

    # Rotary positions turn the pairs (2i, 2i+1) of a head, or (i, i + half of the rotated dims).
    pairs: Literal["neighbours", "halves"] = "neighbours"
    # The file may scale each rotary frequency by a tensor (rope_freqs, rope_factors_long and _short).
    frequency_factors: bool = False
    # Every so many layers one does not rotate at all; 0: all rotate.
    still_layer_every: int = 0
    # rope.scaling.finetuned = false means that no layer rotates.
    finetuned_switch: bool = False
    # Each head's query and key are normed before they are rotated.
    head_norms: bool = False
    # What attention and feed-forward part give is normed before it is added to the stream.
    post_norms: bool = False
    # ffn_up holds the gate's rows, then its own.
    fused_gate: bool = False
    activation: Literal["silu", "gelu"] = "silu"
    # Embeddings are multiplied by the root of their width.
    root_embedding: bool = False
    # logit_scale, residual_scale, embedding_scale and attention.scale count.
    scales: bool = False
    # attention.temperature_scale counts: queries far behind the original context grow.
    temperature: bool = False
    # attention.sliding_window counts in all but the last of so many layers, unless the file has a pattern; 0: nowhere.
    window_period: int = 0
    # The attention scale is by dim / heads where there are so many layers, else by the head's width.
    wide_scale_layers: int = 0


FAMILIES: dict[str, Family] = {
    "llama": Family(frequency_factors=True),
    "smollm3": Family(still_layer_every=4),
    "mistral3": Family(frequency_factors=True, temperature=True),
    "qwen2": Family(pairs="halves"),
    "qwen3": Family(pairs="halves", head_norms=True),
    # Its files name a window, which llama.cpp does not apply, because files name it wrongly: nor does this.
    "phi3": Family(pairs="halves", frequency_factors=True, fused_gate=True),
    "granite": Family(frequency_factors=True, finetuned_switch=True, scales=True),
    "gemma3": Family(
        pairs="halves",
        head_norms=True,
        post_norms=True,
        activation="gelu",
        root_embedding=True,
        window_period=6,
        wide_scale_layers=62,
    ),
}
