"""Byte planes of numbers: which bytes lie apart, along which axis they resemble each other, and what is usual there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SHORTEST, LONGEST = 8, 1 << 16
"""Numbers along an axis for which a reference pays, and can be summed exactly."""
_SAMPLE = 4096
_REFERENCE_BITS = 4  # what a reference takes in its frame


def best_axis(upper: np.ndarray, tokens: int) -> int:
    """Along which axis an upper plane's numbers resemble each other: that of the tokens, where only one is so long.

    Where that does not tell, a sample does: 0 if no references save anything.
    """
    able = [axis for axis in (-1, -2)[: upper.ndim] if SHORTEST <= upper.shape[axis] <= LONGEST]
    along = [axis for axis in able if upper.shape[axis] == tokens]
    if len(along) == 1 and upper.ndim > 1:
        return along[0]
    sample = upper
    if upper.ndim > 2 and upper.size:
        tables = upper.reshape(-1, *upper.shape[-2:])
        wanted = max(1, _SAMPLE // tables[0].size)
        sample = tables[:: max(1, len(tables) // wanted)]
    least, found = bits(sample), 0
    for axis in able if upper.size else ():
        cost = bits(sample - references(sample, axis)) + _REFERENCE_BITS / sample.shape[axis]
        if cost < least:
            least, found = cost, axis
    return found


def plane(array: np.ndarray, at: int) -> np.ndarray:
    """The bytes number `at` of an array's little-endian numbers, in the array's shape."""
    import numpy as np

    width = array.dtype.itemsize
    if width == 1:
        return array.view(np.uint8)
    if width == 2:  # the common case, in whole numbers: several times as fast as moving single bytes
        numbers = array.view("<u2")
        return (numbers >> 8 if at else numbers).astype(np.uint8)
    return np.ascontiguousarray(array.reshape(-1).view(np.uint8)[at::width]).reshape(array.shape)


def references(upper: np.ndarray, axis: int) -> np.ndarray:
    """What is usual along an axis: the mean magnitude to a power of two, and the sign that most numbers have.

    Any choice can be decoded; a finer one takes more bits than it saves.
    """
    import numpy as np

    length = upper.shape[axis]
    ones = np.ones(length, np.float32)  # sums by matrix products: exact below 2^24, and the fastest way to many sums

    def total(plane: np.ndarray) -> np.ndarray:
        numbers = plane.astype(np.float32)
        if axis == -1:  # one product, where a stack of them would be one call each
            return (numbers.reshape(-1, length) @ ones).reshape(*plane.shape[:-1], 1)
        return np.expand_dims(np.matmul(ones, numbers), axis)

    magnitudes = total(upper & 0x7F)
    negative = (total(upper) - magnitudes) > 64 * length  # 128 for each sign: more than half of them are set
    usual: np.ndarray = ((magnitudes / length).astype(np.uint8) & 0x7C) | (negative * np.uint8(0x80))
    return usual


def bits(plane: np.ndarray) -> float:
    """Bits a byte by the entropy of a sample's single bytes, corrected for how few they are."""
    import numpy as np

    flat = plane.reshape(-1)
    if flat.size > _SAMPLE:  # runs of 64, spread over the whole
        step = flat.size // 64 // (_SAMPLE // 64)
        flat = flat[: flat.size // 64 * 64].reshape(-1, 64)[::step].reshape(-1)
    if flat.size == 0:
        return 0.0
    counts = np.bincount(flat)
    shares = counts[counts > 0] / flat.size
    return float(-(shares * np.log2(shares)).sum() + (len(shares) - 1) / (2 * flat.size * math.log(2)))


def spread(references: np.ndarray, axis: int, length: int) -> np.ndarray:
    """References as they are added to a plane: repeated where NumPy would go over short rows one by one."""
    return references.repeat(length, axis=axis) if axis == -2 and references.shape[-1] < 64 else references
