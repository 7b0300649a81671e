"""The numbers that make a model, read from a GGUF's metadata and checked, as its family wants them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from engine.errors import BadGGUF, UnsupportedArchitecture, UnsupportedFeature
from engine.families import FAMILIES, Family
from engine.gguf import GGUF
from engine.rotary import Rotary, Yarn

_MOST_LAYERS = 1024
_SCALINGS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class Hyperparameters:
    """Shapes and constants of a model; lengths in elements, context in tokens.

    Numbers with a default are left out of the state key where they have it, for models are named by those without.
    windows: for each layer how many of the newest keys it sees, 0 for all; empty where all layers see all. factors: the
    tensor that the rotary frequencies are divided by, or none (`for_context`).
    """

    family: Family
    trained_context: int
    original_context: int
    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_dims: int
    rope_base: float
    norm_eps: float
    rope_scale: float = 1.0
    rope_attention_factor: float = 1.0
    yarn: Yarn | None = None
    factors: str = ""
    rotates: bool = True
    windows: tuple[int, ...] = ()
    window_rope_base: float = 10000.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    attention_scale: float = 0.0  # 0: one by the root of head_dim
    temperature_scale: float = 0.0
    temperature_length: int = 0

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Hyperparameters:
        """Read and check; raises UnsupportedArchitecture, UnsupportedFeature, BadGGUF with the key that is wrong."""
        family = FAMILIES.get(gguf.architecture)
        if family is None:
            raise UnsupportedArchitecture(gguf.architecture)
        keys = _Keys(gguf)
        if keys.integer("expert_count", 0):
            raise UnsupportedFeature(f"a mixture of experts ({keys.name('expert_count')})")
        for cap in ("final_logit_softcapping", "attn_logit_softcapping"):
            if keys.number(cap, 0.0, low=-1e9):
                raise UnsupportedFeature(f"capped logits ({keys.name(cap)})")
        shape = cls(family=family, **_sizes(keys), **_rotation(keys))
        shape = replace(shape, **_windows(keys, family, shape.layers), **_scales(keys, shape))
        if family.finetuned_switch:
            shape = replace(shape, rotates=gguf.flag(keys.name("rope.scaling.finetuned"), True))
        return shape

    def for_context(self, gguf: GGUF, context: int) -> Hyperparameters:
        """The same, opened with a context of so many tokens, which decides about long or short frequency factors."""
        if not self.family.frequency_factors:
            return self
        name = "rope_freqs.weight"
        if name not in gguf.tensors:
            name = f"rope_factors_{'long' if context > self.original_context else 'short'}.weight"
        return replace(self, factors=name if name in gguf.tensors else "")

    def rotary(self, layer: int) -> Rotary | None:
        """How a layer rotates queries and keys; none where it does not."""
        every = self.family.still_layer_every
        if not self.rotates or (every and (layer + 1) % every == 0):
            return None
        if self.windows and self.windows[layer]:
            return Rotary(self.rope_dims, self.window_rope_base, 1.0, self.yarn, self.rope_attention_factor)
        return Rotary(self.rope_dims, self.rope_base, self.rope_scale, self.yarn, self.rope_attention_factor)

    def rotaries(self) -> list[Rotary | None]:
        """`rotary` of every layer."""
        return [self.rotary(layer) for layer in range(self.layers)]

    def as_fields(self) -> dict[str, Any]:
        """What decides about the state, for the state key; a context only where something depends on it."""
        values = asdict(self)
        del values["family"], values["trained_context"], values["original_context"]
        for field in fields(self):
            if field.name in values and values[field.name] == field.default:
                del values[field.name]
        return values


class _Keys:
    """A family's metadata, by the keys behind the architecture's name."""

    def __init__(self, gguf: GGUF) -> None:
        self._gguf = gguf

    def name(self, key: str) -> str:
        return f"{self._gguf.architecture}.{key}"

    def has(self, key: str) -> bool:
        return self.name(key) in self._gguf.metadata

    def bad(self, key: str, why: str) -> BadGGUF:
        return BadGGUF(self._gguf.path, self.name(key), why)

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = (1 << 31) - 1) -> int:
        """One number for all layers; a list of them is taken where all are the same."""
        value = self._gguf.metadata.get(self.name(key))
        if not isinstance(value, np.ndarray):
            return self._gguf.integer(self.name(key), default, low=low, high=high)
        if value.size == 0 or value.dtype.kind not in "iu":
            raise self.bad(key, "is a list without whole numbers")
        if (value != value[0]).any():
            raise UnsupportedFeature(f"layers of different sizes ({self.name(key)})")
        if not low <= int(value[0]) <= high:
            raise self.bad(key, f"is {value[0]}, which is not in {low} to {high}")
        return int(value[0])

    def number(self, key: str, default: float | None = None, *, low: float = 0.0, high: float = 1e9) -> float:
        value = self._gguf.number(self.name(key), default)
        if not low <= value <= high:
            raise self.bad(key, f"{value} is not in {low:g} to {high:g}")
        return value

    def text(self, key: str, default: str) -> str:
        return self._gguf.text(self.name(key), default)

    def flags(self, key: str, count: int) -> list[bool] | None:
        """A list of `count` or more bools; none where the key is no list."""
        value = self._gguf.metadata.get(self.name(key))
        if not isinstance(value, np.ndarray):
            return None
        if value.size < count or value.dtype.kind not in "biu":
            raise self.bad(key, f"is no list of {count} bools")
        return [bool(v) for v in value[:count]]


def _sizes(keys: _Keys) -> dict[str, Any]:
    heads = keys.integer("attention.head_count", low=1, high=1024)
    dim = keys.integer("embedding_length", low=16, high=1 << 16)
    if dim % heads and not keys.has("attention.key_length"):
        raise keys.bad("attention.head_count", f"{heads} does not divide the width {dim}")
    head_dim = keys.integer("attention.key_length", dim // heads, low=2, high=1024)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedFeature(f"values of another length than keys ({keys.name('attention.value_length')})")
    kv_heads = keys.integer("attention.head_count_kv", heads, low=1, high=heads)
    if heads % kv_heads:
        raise keys.bad("attention.head_count_kv", f"{kv_heads} does not divide {heads} heads")
    trained = keys.integer("context_length", 2048, low=1, high=1 << 24)
    return {
        "layers": keys.integer("block_count", low=1, high=_MOST_LAYERS),
        "dim": dim,
        "ffn": keys.integer("feed_forward_length", low=1, high=1 << 18),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "rope_dims": _rope_dims(keys, head_dim),
        "norm_eps": keys.number("attention.layer_norm_rms_epsilon", high=1.0),
        "trained_context": trained,
        "original_context": keys.integer("rope.scaling.original_context_length", trained, low=1, high=1 << 24),
    }


def _rope_dims(keys: _Keys, head_dim: int) -> int:
    rope_dims = keys.integer("rope.dimension_count", head_dim, low=2, high=head_dim)
    if rope_dims % 2:
        raise keys.bad("rope.dimension_count", f"{rope_dims} is odd")
    return rope_dims


def _rotation(keys: _Keys) -> dict[str, Any]:
    """Base and scaling of rotary positions. A factor of 0 or 1 scales nothing."""
    scaling = keys.text("rope.scaling.type", "linear")
    if scaling not in _SCALINGS:
        raise UnsupportedFeature(f"scaled rotary positions ({keys.name('rope.scaling.type')} {scaling})")
    old = keys.number("rope.scale_linear", 0.0)
    scale = keys.number("rope.scaling.factor", old)
    out: dict[str, Any] = {
        "rope_base": keys.number("rope.freq_base", 10000.0, low=1.0, high=1e12),
        "rope_scale": scale if scale and scaling != "none" else 1.0,
        "rope_attention_factor": keys.number("rope.scaling.attn_factor", 1.0),
    }
    if scaling == "yarn":
        if out["rope_base"] == 1.0:
            raise keys.bad("rope.freq_base", "1 is no base for YaRN")
        trained = keys.integer("context_length", 2048, low=1)
        out["yarn"] = Yarn(
            keys.integer("rope.scaling.original_context_length", trained, low=1),
            keys.number("rope.scaling.yarn_beta_fast", 32.0, low=1e-3),
            keys.number("rope.scaling.yarn_beta_slow", 1.0, low=1e-3),
            keys.number("rope.scaling.yarn_log_multiplier", 0.0),
        )
    return out


def _windows(keys: _Keys, family: Family, layers: int) -> dict[str, Any]:
    """What each layer sees, and the base of the rotary positions of layers that do not see all."""
    window = keys.integer("attention.sliding_window", 0) if family.window_period else 0
    if window == 0:
        return {}
    pattern = keys.flags("attention.sliding_window_pattern", layers)
    if pattern is None:
        period = keys.integer("attention.sliding_window_pattern", family.window_period)
        pattern = [period == 0 or layer % period < period - 1 for layer in range(layers)]
    base = keys.number("rope.freq_base_swa", 10000.0, low=1.0, high=1e12)
    return {"windows": tuple(window if narrow else 0 for narrow in pattern), "window_rope_base": base}


def _scales(keys: _Keys, shape: Hyperparameters) -> dict[str, Any]:
    """Multipliers that a family has; those of 0 are off."""
    family, out = shape.family, {}
    if family.scales:
        out["logit_scale"] = keys.number("logit_scale", low=1e-9)
        out["residual_scale"] = keys.number("residual_scale", 0.0) or 1.0
        out["embedding_scale"] = keys.number("embedding_scale", 0.0) or 1.0
        out["attention_scale"] = keys.number("attention.scale", 0.0)
    if family.root_embedding:
        out["embedding_scale"] = math.sqrt(shape.dim)
    if family.wide_scale_layers and shape.layers == family.wide_scale_layers:
        out["attention_scale"] = 1.0 / math.sqrt(shape.dim // shape.heads)
    if family.temperature and keys.number("attention.temperature_scale", 0.0):
        out["temperature_scale"] = keys.number("attention.temperature_scale")
        out["temperature_length"] = shape.original_context
    return out
