"""A Llama forward pass in float64 NumPy over the dequantized weights of a GGUF file, read by the `gguf` package.

Every formula is written out whole for the whole token list at once: no cache, no blocks, no batching. The layout is
llama.cpp's: RMSNorm before attention and before the feed-forward part (Zhang and Sennrich 2019), rotary positions on
the pairs (2i, 2i+1) of a head (Su et al. 2021), grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020).
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class Llama:
    """Hyperparameters and float64 weights of one model."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_base: float
    rope_scale: float
    weights: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> "Llama":
        reader = gguf.GGUFReader(path)

        def field(name, default=None):
            found = reader.fields.get(f"llama.{name}")
            if found is None:
                if default is None:
                    raise KeyError(f"llama.{name}")
                return default
            return found.contents()

        weights = {}
        for tensor in reader.tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            weights[tensor.name] = values.reshape(shape).astype(np.float64)
        heads = field("attention.head_count")
        return cls(
            layers=field("block_count"),
            heads=heads,
            kv_heads=field("attention.head_count_kv", heads),
            head_dim=field("attention.key_length", field("embedding_length") // heads),
            eps=float(np.float32(field("attention.layer_norm_rms_epsilon"))),
            rope_base=float(np.float32(field("rope.freq_base", 10000.0))),
            rope_scale=1.0 / field("rope.scaling.factor", 1.0),
            weights=weights,
        )

    def logits(self, tokens, round_kv=lambda values: values, windows=None) -> np.ndarray:
        """float64 (n, vocabulary): row i is the prediction after tokens[: i + 1]. `round_kv` is applied to the
        rotated keys and to the values, as a cache of fewer bits would. `windows`: how many of the newest keys a row
        sees in each layer, its own included; all without it."""
        w = self.weights
        x = w["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.layers):
            window = windows[layer] if windows else len(x)
            x = x + self._attention(_norm(x, w[f"blk.{layer}.attn_norm.weight"], self.eps), layer, round_kv, window)
            h = _norm(x, w[f"blk.{layer}.ffn_norm.weight"], self.eps)
            gate = h @ w[f"blk.{layer}.ffn_gate.weight"].T
            up = h @ w[f"blk.{layer}.ffn_up.weight"].T
            x = x + (gate / (1.0 + np.exp(-gate)) * up) @ w[f"blk.{layer}.ffn_down.weight"].T
        x = _norm(x, w["output_norm.weight"], self.eps)
        return x @ w.get("output.weight", w["token_embd.weight"]).T

    def _attention(self, h, layer, round_kv, window):
        """float64 (n, dim): causal self-attention of the normalized states h (n, dim)."""
        n, w = len(h), self.weights
        q = (h @ w[f"blk.{layer}.attn_q.weight"].T).reshape(n, self.heads, self.head_dim)
        k = (h @ w[f"blk.{layer}.attn_k.weight"].T).reshape(n, self.kv_heads, self.head_dim)
        v = (h @ w[f"blk.{layer}.attn_v.weight"].T).reshape(n, self.kv_heads, self.head_dim)
        q, k, v = self._rotate(q), round_kv(self._rotate(k)), round_kv(v)
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.head_dim)
        behind = np.arange(n)[:, None] - np.arange(n)[None]
        scores = np.where((behind >= 0) & (behind < window), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        out = np.einsum("hij,jhd->ihd", p, v).reshape(n, self.heads * self.head_dim)
        return out @ w[f"blk.{layer}.attn_output.weight"].T

    def _rotate(self, x):
        """x (n, heads, head_dim) turned by the angles of positions 0..n-1."""
        half = self.head_dim // 2
        frequency = self.rope_base ** (-np.arange(half) * 2.0 / self.head_dim)
        frequency = frequency / self.weights.get("rope_freqs.weight", np.ones(half))
        angle = (np.arange(len(x))[:, None] * self.rope_scale * frequency)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * np.cos(angle) - odd * np.sin(angle)
        out[..., 1::2] = even * np.sin(angle) + odd * np.cos(angle)
        return out


def round_f16(values):
    """Rounded to float16, in float64."""
    return values.astype(np.float16).astype(np.float64)


def _norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight
