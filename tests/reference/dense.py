"""The dense families in float64 NumPy over the dequantized weights of a GGUF file, read by the `gguf` package.

Every formula is written out whole for the whole token list at once: no cache, no blocks, no batching. What a family
does is read off its metadata and tensors where these tell, else off its architecture's name. Sources: Touvron et al.
2023 (Llama), Peng et al. 2023 (YaRN), Ding et al. 2024 (LongRoPE), the Qwen 2 and 3, Phi-3, Granite, Gemma 3 and
SmolLM3 reports, and for the files' conventions llama.cpp.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HALVES = {"qwen2", "qwen3", "phi3", "gemma3"}  # rotate the pairs (i, i + half); the others (2i, 2i + 1)


@dataclass(frozen=True)
class Dense:
    """Metadata and float64 weights of one model; `context` is the declared one, which LongRoPE looks at."""

    architecture: str
    keys: dict[str, Any]
    weights: dict[str, np.ndarray]
    context: int

    @classmethod
    def read(cls, path: Path, context: int = 1024) -> "Dense":
        reader = gguf.GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        prefix = architecture + "."
        keys = {k[len(prefix) :]: f.contents() for k, f in reader.fields.items() if k.startswith(prefix)}
        weights = {}
        for tensor in reader.tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            weights[tensor.name] = (
                gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float64)
            )
        return cls(architecture, keys, weights, context)

    def key(self, name: str, default: Any = None) -> Any:
        """A number as a float32 holds it, or whatever else the file says."""
        value = self.keys.get(name, default)
        return float(np.float32(value)) if isinstance(value, float) else value

    @property
    def head_dim(self) -> int:
        return self.key("attention.key_length", self.key("embedding_length") // self.key("attention.head_count"))

    def logits(self, tokens, round_kv=lambda values: values) -> np.ndarray:
        """float64 (n, vocabulary): row i is the prediction after tokens[: i + 1]. `round_kv` is applied to the
        rotated keys and to the values, as a cache of fewer bits would."""
        x = self.weights["token_embd.weight"][np.asarray(tokens)]
        if self.architecture == "gemma3":
            x = x * np.sqrt(self.key("embedding_length"))
        x = x * (self.key("embedding_scale", 0.0) or 1.0)
        residual = self.key("residual_scale", 0.0) or 1.0
        for layer in range(self.key("block_count")):
            b = f"blk.{layer}."
            out = self._attention(self._norm(x, b + "attn_norm.weight"), layer, round_kv)
            x = x + residual * self._norm(out, b + "post_attention_norm.weight")
            out = self._feed_forward(self._norm(x, b + "ffn_norm.weight"), b)
            x = x + residual * self._norm(out, b + "post_ffw_norm.weight")
        x = self._norm(x, "output_norm.weight")
        head = self.weights.get("output.weight", self.weights["token_embd.weight"])
        return x @ head.T / (self.key("logit_scale", 0.0) or 1.0)

    def _norm(self, x, name):
        """RMS norm over the last axis (Zhang and Sennrich 2019); x itself where the model has no such norm."""
        if name not in self.weights:
            return x
        eps = self.key("attention.layer_norm_rms_epsilon")
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self.weights[name]

    def _linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights.get(name + ".bias", 0.0)

    def _feed_forward(self, h, b):
        if b + "ffn_gate.weight" in self.weights:
            gate, up = self._linear(h, b + "ffn_gate"), self._linear(h, b + "ffn_up")
        else:
            gate, up = np.split(self._linear(h, b + "ffn_up"), 2, axis=-1)
        if self.architecture == "gemma3":  # GELU by tanh, Hendrycks and Gimpel 2016
            act = 0.5 * gate * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            act = gate / (1.0 + np.exp(-gate))
        return self._linear(act * up, b + "ffn_down")

    def _attention(self, h, layer, round_kv):
        """float64 (n, dim): causal self-attention of the normalized states h (n, dim)."""
        n, b, dim = len(h), f"blk.{layer}.", self.head_dim
        heads = self.key("attention.head_count")
        kv_heads = self.key("attention.head_count_kv", heads)
        if b + "attn_qkv.weight" in self.weights:
            cuts = [heads * dim, (heads + kv_heads) * dim]
            q, k, v = np.split(self._linear(h, b + "attn_qkv"), cuts, axis=-1)
        else:
            q, k, v = (self._linear(h, b + f"attn_{name}") for name in "qkv")
        q, k, v = q.reshape(n, heads, dim), k.reshape(n, kv_heads, dim), v.reshape(n, kv_heads, dim)
        q, k = self._norm(q, b + "attn_q_norm.weight"), self._norm(k, b + "attn_k_norm.weight")
        q, k = self._rotate(q, layer), self._rotate(k, layer)
        q = q * self._temperature(n)[:, None, None] * self._attention_scale()
        k, v = round_kv(k), round_kv(v)
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        behind = np.arange(n)[:, None] - np.arange(n)[None]
        scores = np.einsum("ihd,jhd->hij", q, k)
        scores = np.where((behind >= 0) & (behind < self._window(layer, n)), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return self._linear(np.einsum("hij,jhd->ihd", p, v).reshape(n, heads * dim), b + "attn_output")

    def _attention_scale(self):
        return self.key("attention.scale", 0.0) or self.head_dim**-0.5

    def _temperature(self, n):
        """Queries of far positions are sharpened: 1 + scale * ln(1 + floor(position / original context))."""
        scale = self.key("attention.temperature_scale", 0.0)
        step = self.key("rope.scaling.original_context_length", self.key("context_length"))
        return 1.0 + scale * np.log(np.floor(np.arange(n) / step) + 1.0)

    def _is_local(self, layer):
        return self.architecture == "gemma3" and self.key("attention.sliding_window", 0) and layer % 6 < 5

    def _window(self, layer, n):
        """How many of the newest keys a row sees. Phi-3's key is not heeded: converters do not fill it in rightly."""
        return self.key("attention.sliding_window") if self._is_local(layer) else n

    def _rotate(self, x, layer):
        """x (n, heads, head_dim) turned by the angles of positions 0 … n - 1."""
        if self.architecture == "smollm3" and (layer + 1) % 4 == 0:
            return x
        half = self.head_dim // 2
        angle, size = self._angles(layer, np.arange(len(x))[:, None], half)
        c, s = size * np.cos(angle)[:, None, :], size * np.sin(angle)[:, None, :]
        out = np.empty_like(x)
        if self.architecture in HALVES:
            first, second = x[..., :half], x[..., half:]
            out[..., :half], out[..., half:] = first * c - second * s, first * s + second * c
        else:
            first, second = x[..., 0::2], x[..., 1::2]
            out[..., 0::2], out[..., 1::2] = first * c - second * s, first * s + second * c
        return out

    def _angles(self, layer, position, half):
        """(angles (n, half), what cosine and sine are multiplied by)."""
        base = self.key("rope.freq_base", 10000.0)
        scaling, factor = self.key("rope.scaling.type", "linear"), self.key("rope.scaling.factor", 0.0) or 1.0
        if self._is_local(layer):
            base, scaling = self.key("rope.freq_base_swa", 10000.0), "none"
        frequency = base ** (-np.arange(half) / half)
        size = self.key("rope.scaling.attn_factor", 1.0)
        original = self.key("rope.scaling.original_context_length", self.key("context_length"))
        long = "rope_factors_long" if self.context > original else "rope_factors_short"
        for name in ("rope_freqs", long):
            frequency = frequency / self.weights.get(name + ".weight", 1.0)
        if scaling == "linear":
            frequency = frequency / factor
        if scaling == "yarn":
            fast, slow = self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0)
            place = lambda turns: half * np.log(original / (turns * 2 * np.pi)) / np.log(base)
            low, high = max(0.0, np.floor(place(fast))), min(2 * half - 1.0, np.ceil(place(slow)))
            keep = 1.0 - np.clip((np.arange(half) - low) / max(0.001, high - low), 0.0, 1.0)
            frequency = frequency / factor * (1.0 - keep) + frequency * keep
            multiplier = self.key("rope.scaling.yarn_log_multiplier", 0.0)
            size *= 1.0 + 0.1 * np.log(factor)
            size /= 1.0 + 0.1 * multiplier * np.log(factor)
        return position * frequency, size


def round_f16(values):
    """Rounded to float16, in float64."""
    return values.astype(np.float16).astype(np.float64)
