"""The numbers that make a Llama-family model, read from a GGUF's metadata and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BadGGUF, UnsupportedArchitecture, UnsupportedFeature
from engine.gguf import GGUF


@dataclass(frozen=True)
class Hyperparameters:
    """Shapes and constants of a model; lengths in elements, context in tokens."""

    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_dims: int
    rope_base: float
    norm_eps: float
    trained_context: int

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Hyperparameters:
        """Read and check; raises UnsupportedArchitecture, UnsupportedFeature, BadGGUF with the key that is wrong."""
        if gguf.architecture != "llama":
            raise UnsupportedArchitecture(gguf.architecture)
        if gguf.integer("llama.expert_count", 0):
            raise UnsupportedFeature("a mixture of experts (llama.expert_count)")
        scaling = gguf.text("llama.rope.scaling.type", "none")
        if scaling != "none" or "rope_freqs.weight" in gguf.tensors:
            raise UnsupportedFeature(f"scaled rotary positions (llama.rope.scaling.type {scaling})")
        heads = gguf.integer("llama.attention.head_count", low=1, high=1024)
        dim = gguf.integer("llama.embedding_length", low=16, high=1 << 16)
        if dim % heads and "llama.attention.key_length" not in gguf.metadata:
            raise BadGGUF(gguf.path, "llama.attention.head_count", f"{heads} does not divide the width {dim}")
        head_dim = gguf.integer("llama.attention.key_length", dim // heads, low=2, high=1024)
        if gguf.integer("llama.attention.value_length", head_dim) != head_dim:
            raise UnsupportedFeature("values of another length than keys (llama.attention.value_length)")
        kv_heads = gguf.integer("llama.attention.head_count_kv", heads, low=1, high=heads)
        if heads % kv_heads:
            raise BadGGUF(gguf.path, "llama.attention.head_count_kv", f"{kv_heads} does not divide {heads} heads")
        rope_dims = gguf.integer("llama.rope.dimension_count", head_dim, low=2, high=head_dim)
        if rope_dims % 2:
            raise BadGGUF(gguf.path, "llama.rope.dimension_count", f"{rope_dims} is odd")
        base = gguf.number("llama.rope.freq_base", 10000.0)
        if not 1.0 <= base <= 1e12:
            raise BadGGUF(gguf.path, "llama.rope.freq_base", f"{base} is no base of rotary positions")
        eps = gguf.number("llama.attention.layer_norm_rms_epsilon")
        if not 0.0 <= eps <= 1.0:
            raise BadGGUF(gguf.path, "llama.attention.layer_norm_rms_epsilon", f"{eps} is not in 0 to 1")
        return cls(
            layers=gguf.integer("llama.block_count", low=1, high=1024),
            dim=dim,
            ffn=gguf.integer("llama.feed_forward_length", low=1, high=1 << 18),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rope_dims=rope_dims,
            rope_base=base,
            norm_eps=eps,
            trained_context=gguf.integer("llama.context_length", 2048, low=1, high=1 << 24),
        )

    def rope_frequencies(self) -> npt.NDArray[np.float64]:
        """base ** (-2i / rope_dims) for each pair, (rope_dims / 2,) float64, rounded from 40 decimal digits.

        In decimal arithmetic because a library's pow gives other bits on other machines (NUMERICS rule 5).
        """
        with localcontext() as context:
            context.prec = 40
            log_base = Decimal(self.rope_base).ln()
            exponents = [Decimal(-2 * i) / Decimal(self.rope_dims) for i in range(self.rope_dims // 2)]
            return np.array([float((log_base * e).exp()) for e in exponents], np.float64)

    def as_fields(self) -> dict[str, Any]:
        """What decides about the state, for the state key; the trained context does not."""
        fields = asdict(self)
        del fields["trained_context"]
        return fields
