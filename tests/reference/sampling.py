"""Dice and the sampler chain in plain Python, as llama.cpp's users know them, to be compared with the engine's.

Candidates are ordered by (logit descending, id ascending) and every sum runs in that order, in float64. The dice are
Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011), a pure function of
key and counter; nothing here keeps state.
"""

import math

MASK = (1 << 64) - 1
PHILOX_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
PHILOX_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The four 64-bit words of ten Philox rounds."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        first, second = PHILOX_MULTIPLIERS[0] * a, PHILOX_MULTIPLIERS[1] * c
        a, b, c, d = (second >> 64) ^ b ^ k0, second & MASK, (first >> 64) ^ d ^ k1, first & MASK
        k0, k1 = (k0 + PHILOX_KEY_STEPS[0]) & MASK, (k1 + PHILOX_KEY_STEPS[1]) & MASK
    return a, b, c, d


def uniform(key: bytes, position: int, stream: int = 0) -> float:
    """u in [0, 1): 53 bits of the block at counter (position, stream, 0, 0); the key is two little-endian words."""
    words = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    return (philox4x64(words, (position, stream, 0, 0))[0] >> 11) * 2.0**-53


def penalized(
    logits,
    tokens,
    *,
    repeat_penalty=1.0,
    repeat_last_n=64,
    presence_penalty=0.0,
    frequency_penalty=0.0,
) -> list[float]:
    """Logits after the repeat, frequency and presence penalties over the last n tokens (-1: all, 0: none)."""
    recent = list(tokens) if repeat_last_n < 0 else list(tokens)[len(tokens) - min(repeat_last_n, len(tokens)) :]
    out = [float(x) for x in logits]
    for token in set(recent):
        x = out[token]
        x = x * repeat_penalty if x <= 0 else x / repeat_penalty
        out[token] = x - recent.count(token) * frequency_penalty - presence_penalty
    return out


def dry_penalized(logits, tokens, *, multiplier, base, allowed_length, last_n, breakers=frozenset()) -> list[float]:
    """Logits after DRY ("don't repeat yourself"): a token that would prolong a repetition of n >= allowed_length
    tokens loses multiplier * base ** (n - allowed_length). A repetition never crosses a breaker token."""
    recent = list(tokens) if last_n < 0 else list(tokens)[len(tokens) - min(last_n, len(tokens)) :]
    longest: dict[int, int] = {}
    for end in range(1, len(recent)):
        n = 0
        while n < end and recent[end - 1 - n] == recent[-1 - n] and recent[-1 - n] not in breakers:
            n += 1
        longest[recent[end]] = max(n, longest.get(recent[end], 0))
    out = [float(x) for x in logits]
    for token, n in longest.items():
        if n >= allowed_length and token not in breakers:
            out[token] -= multiplier * base ** (n - allowed_length)
    return out


def ordered(logits) -> list[tuple[float, int]]:
    """(logit, id) by logit descending, then id ascending; tokens of logit -inf can never be drawn and are left out."""
    return sorted(((x, i) for i, x in enumerate(logits) if x != -math.inf), key=lambda c: (-c[0], c[1]))


def softmax(candidates) -> list[float]:
    """Probabilities of (logit, id) candidates, in their order."""
    top = max(x for x, _ in candidates)
    weights = [math.exp(x - top) for x, _ in candidates]
    total = 0.0
    for w in weights:
        total += w
    return [w / total for w in weights]


def top_k(candidates, k):
    return candidates if k <= 0 else candidates[:k]


def typical(candidates, p):
    """Locally typical sampling (Meister et al. 2022): tokens whose surprise is nearest to the entropy, to mass p."""
    if p >= 1.0:
        return candidates
    probability = softmax(candidates)
    entropy = -sum(q * math.log(q) for q in probability if q > 0)
    surprise = [abs(-math.log(q) - entropy) if q > 0 else math.inf for q in probability]
    kept, mass = set(), 0.0
    for i in sorted(range(len(candidates)), key=lambda i: (surprise[i], i)):
        kept.add(i)
        mass += probability[i]
        if mass > p:
            break
    return [c for i, c in enumerate(candidates) if i in kept]


def top_p(candidates, p):
    """Nucleus sampling (Holtzman et al. 2020): the shortest run of best tokens whose mass reaches p."""
    if p >= 1.0:
        return candidates
    mass = 0.0
    for i, q in enumerate(softmax(candidates)):
        mass += q
        if mass >= p:
            return candidates[: i + 1]
    return candidates


def min_p(candidates, p):
    """Tokens of at least p times the best one's probability (Nguyen et al. 2024)."""
    if p <= 0.0:
        return candidates
    floor = candidates[0][0] + math.log(p)
    return [c for c in candidates if c[0] >= floor]


def xtc(candidates, probability, threshold, u):
    """Exclude top choices: with that probability drop every token above the threshold but the least likely of them."""
    if probability <= 0.0 or threshold > 0.5 or u > probability:
        return candidates
    above = sum(1 for q in softmax(candidates) if q >= threshold)
    return candidates[above - 1 :] if above >= 2 else candidates


def drawn(candidates, temperature, u) -> tuple[int, float]:
    """(token, distance of u from the nearest border of its interval). The best one where temperature is 0."""
    if temperature <= 0.0:
        return candidates[0][1], math.inf
    mass = 0.0
    for (_, token), q in zip(candidates, softmax([(x / temperature, i) for x, i in candidates]), strict=True):
        if u < mass + q:
            return token, min(u - mass, mass + q - u)
        mass += q
    return candidates[-1][1], 0.0


def sample(logits, tokens, settings, key: bytes, position: int) -> tuple[int, float]:
    """(token, distance of u from a border): the whole chain, settings a dict of the names llama.cpp uses.

    Of DRY: dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n and breakers, a set of ids. XTC throws a
    die of its own, at stream 1.
    """
    names = ("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty")
    logits = penalized(logits, tokens, **{n: settings[n] for n in names if n in settings})
    if settings.get("dry_multiplier", 0.0) > 0.0:
        logits = dry_penalized(
            logits,
            tokens,
            multiplier=settings["dry_multiplier"],
            base=settings["dry_base"],
            allowed_length=settings["dry_allowed_length"],
            last_n=settings["dry_penalty_last_n"],
            breakers=settings["breakers"],
        )
    candidates = ordered(logits)
    candidates = top_k(candidates, settings.get("top_k", 0))
    candidates = typical(candidates, settings.get("typical_p", 1.0))
    candidates = top_p(candidates, settings.get("top_p", 1.0))
    candidates = min_p(candidates, settings.get("min_p", 0.0))
    candidates = xtc(
        candidates, settings.get("xtc_probability", 0.0), settings.get("xtc_threshold", 0.1), uniform(key, position, 1)
    )
    return drawn(candidates, settings.get("temperature", 1.0), uniform(key, position))
