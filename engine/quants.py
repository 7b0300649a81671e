"""The tensor types of a GGUF: how a block of a row lies in the file, and what numbers it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PLAIN = {"F32": "<f4", "F16": "<u2", "BF16": "<u2"}
# One block of 32 codes of a row as GGUF stores it: a half scale, then the codes as 4-byte units.
BLOCKS = {
    "Q4_0": np.dtype([("scale", "<u2"), ("codes", "<u4", 4)]),
    "Q8_0": np.dtype([("scale", "<u2"), ("codes", "<u4", 8)]),
}
SUPPORTED = frozenset(PLAIN) | frozenset(BLOCKS)


@dataclass(frozen=True)
class Embedding:
    """The token embedding, read row by row from the file's map."""

    kind: str
    raw: Bytes  # (vocabulary, bytes a row)
    dim: int

    def rows(self, tokens: Sequence[int]) -> Floats:
        """float32 (n, dim) of the tokens; every value is exact, so how it is computed does not matter."""
        raw = np.ascontiguousarray(self.raw[np.asarray(tokens, np.int64)])
        n = len(tokens)
        if self.kind == "F32":
            return raw.view("<f4").astype(np.float32).reshape(n, self.dim)
        if self.kind == "F16":
            return raw.view("<f2").astype(np.float32).reshape(n, self.dim)
        if self.kind == "BF16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(n, self.dim)
        block = raw.reshape(-1).view(BLOCKS[self.kind]).reshape(n, -1)
        scale = block["scale"].copy().view("<f2").astype(np.float32)[..., None]
        codes = np.ascontiguousarray(block["codes"]).view(np.uint8)
        if self.kind == "Q8_0":
            return (codes.view(np.int8).astype(np.float32) * scale).reshape(n, self.dim)
        nibbles = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.int8) - np.int8(8)
        return (nibbles.astype(np.float32) * scale).reshape(n, self.dim)
