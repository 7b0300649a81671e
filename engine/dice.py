"""Dice that depend on position, not on history (NUMERICS rule 9).

u(p, stream) is the first 53 bits of Philox4x64-10 at counter (p, stream, 0, 0), where p is the index that the sampled
token will have in the token list. So truncation, speculation and batching replay no generator, and the saved state of
the dice is their key. Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import hashlib
import secrets

KEY_BYTES = 16

_MASK = (1 << 64) - 1
_MULTIPLY_0, _MULTIPLY_1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_WEYL_0, _WEYL_1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox4x64: 256 random bits, a pure function of key and counter (all words below 2^64)."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        even, odd = _MULTIPLY_0 * c0, _MULTIPLY_1 * c2
        c0, c1, c2, c3 = (odd >> 64) ^ c1 ^ k0, odd & _MASK, (even >> 64) ^ c3 ^ k1, even & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def uniform(key: bytes, position: int, stream: int = 0) -> float:
    """u in [0, 1), a multiple of 2^-53. `key` is two little-endian words, 16 bytes; ValueError where it is not."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a dice key has {KEY_BYTES} bytes, not {len(key)}")
    words = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    first = philox4x64(words, (position & _MASK, stream & _MASK, 0, 0))[0]
    return float(first >> 11) * 2.0**-53


def new_key() -> bytes:
    """Fresh dice: 16 bytes from the system."""
    return secrets.token_bytes(KEY_BYTES)


def key_from_seed(seed: int) -> bytes:
    """The dice of a seed: any integer, its decimal digits hashed."""
    return hashlib.blake2b(b"forkpoint seed " + str(int(seed)).encode(), digest_size=KEY_BYTES).digest()


def branch_key(key: bytes, index: int) -> bytes:
    """The dice of a batch's branch: 0 keeps the key, others hash key and index (8 bytes, little-endian)."""
    if index == 0:
        return key
    return hashlib.blake2b(key + index.to_bytes(8, "little"), digest_size=KEY_BYTES).digest()
