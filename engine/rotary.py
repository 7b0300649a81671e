"""Rotary frequencies and how a file stretches them: linear, YaRN, and factors for each frequency.

In decimal arithmetic, rounded once: a library's pow and log give other bits on other machines (NUMERICS rule 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
_DIGITS = 40
_PI = Decimal("3.14159265358979323846264338327950288419716939937511")


@dataclass(frozen=True)
class Yarn:
    """Peng et al. 2023: fast frequencies stay, slow ones are interpolated, those between are mixed."""

    original_context: int
    beta_fast: float
    beta_slow: float
    log_multiplier: float


@dataclass(frozen=True)
class Rotary:
    """Rotary positions of some layers: `dims` of each head are turned, positions are divided by `scale`."""

    dims: int
    base: float
    scale: float = 1.0
    yarn: Yarn | None = None
    attention_factor: float = 1.0

    def frequencies(self, factors: npt.NDArray[np.float32] | None = None) -> Doubles:
        """base ** (-2i / dims), scaled, for each pair: (dims / 2,) float64. Each is divided by its factor."""
        pairs = self.dims // 2
        with localcontext() as context:
            context.prec = _DIGITS
            log_base = Decimal(self.base).ln()
            out = [(log_base * (Decimal(-2 * i) / Decimal(self.dims))).exp() for i in range(pairs)]
            if factors is not None:
                out = [f / Decimal(float(factor)) for f, factor in zip(out, factors, strict=True)]
            if self.scale != 1.0 or self.yarn is not None:
                slow = 1 / Decimal(self.scale)
                kept = self._kept(log_base) if self.yarn is not None else [Decimal(0)] * pairs
                out = [f * (slow * (1 - k) + k) for f, k in zip(out, kept, strict=True)]
            return np.array([float(f) for f in out], np.float64)

    def _kept(self, log_base: Decimal) -> list[Decimal]:
        """How much of each frequency YaRN leaves as it is, 0 to 1."""
        assert self.yarn is not None

        def pair_of(turns: float) -> Decimal:
            """The index of the pair that turns so often within the original context."""
            context = Decimal(self.yarn.original_context) if self.yarn else Decimal(1)
            return self.dims * (context / (Decimal(turns) * 2 * _PI)).ln() / (2 * log_base)

        low = max(Decimal(0), pair_of(self.yarn.beta_fast).to_integral_value(ROUND_FLOOR))
        high = min(Decimal(self.dims - 1), pair_of(self.yarn.beta_slow).to_integral_value(ROUND_CEILING))
        width = max(Decimal("0.001"), high - low)
        return [1 - min(Decimal(1), max(Decimal(0), (i - low) / width)) for i in range(self.dims // 2)]

    def magnitude(self) -> float:
        """What sine and cosine are multiplied by: attention's temperature under YaRN, and the file's own factor."""
        with localcontext() as context:
            context.prec = _DIGITS
            out = Decimal(self.attention_factor)
            if self.yarn is not None and self.scale > 1.0:
                growth = Decimal(self.scale).ln() / 10
                out *= 1 + growth
                if self.yarn.log_multiplier:
                    out /= 1 + Decimal(self.yarn.log_multiplier) * growth
            return float(out)


def temperatures(scale: float, length: int, context: int) -> npt.NDArray[np.float32]:
    """1 + scale * ln(1 + position // length) for each position of a context, float32 (context,). Llama 4, Mistral 3."""
    length = min(length, context)
    with localcontext() as decimals:
        decimals.prec = _DIGITS
        steps = [float(1 + Decimal(scale) * Decimal(1 + i).ln()) for i in range(-(-context // length))]
    return np.repeat(np.array(steps, np.float32), length)[:context]
