"""Sampler settings with every filter off but those named, and what the plain chain draws with them."""

import dataclasses

from reference import sampling as plain

from engine import dice
from engine.sampler import SamplerSettings

KEY = dice.key_from_seed(7)
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "temperature": 1.0}


def make(**changed):
    return SamplerSettings(**(OFF | changed)).validate()


def drawn_plainly(logits, tokens, settings, breakers=()):
    """The plain chain's token behind `tokens`; None where it, or a filter before it, hangs on the last bits."""
    chosen = dataclasses.asdict(settings) | {"breakers": frozenset(breakers)}
    nudged = [[float(x) * (1 + e) for x in logits] for e in (0.0, 1e-9, -1e-9)]
    (token, margin), *near = [plain.sample(values, tokens, chosen, KEY, len(tokens)) for values in nudged]
    return token if margin > 1e-9 and {other for other, _ in near} == {token} else None
