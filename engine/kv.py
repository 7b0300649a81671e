"""Paged keys and values: blocks of 64 tokens at absolute positions, each one array with all layers in it.

A full block is never written again, so any number of sessions may hold it. The tail block is shared after a fork; the
first to write copies it. Memory is given back when no session holds a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.errors import StateMismatch
from engine.hyperparameters import Hyperparameters

Bytes = npt.NDArray[np.uint8]
KVType = Literal["f16", "q8_0"]
BLOCK = 64


@dataclass(frozen=True)
class KVChunk:
    """KV of the tokens [start, stop), all inside one absolute block; C-contiguous copies.

    f16: "k" uint16 (layer, kv_head, dim, token), "v" uint16 (layer, kv_head, token, dim), the bits of halves.
    q8_0: the same as int8 codes, and "k_scale" uint16 (layer, kv_head, dim/32, token), "v_scale" (layer, kv_head,
    token, dim/32).
    """

    start: int
    stop: int
    arrays: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Part:
    """One kind of array in a layer: where it begins, its dtype, its shape and which axis counts tokens."""

    name: str
    offset: int
    dtype: str
    shape: tuple[int, int, int]
    token_axis: int
    width: int  # how much of the last axis is stored; the rest is padding to whole vectors


class KVLayout:
    """Where keys and values lie in a block, for one model and KV type."""

    def __init__(self, shape: Hyperparameters, kv_type: KVType) -> None:
        self.kv_type = kv_type
        self.layers = shape.layers
        self.channels = -(-shape.head_dim // 16) * 16
        self.scale_blocks = -(-shape.head_dim // 32) if kv_type == "q8_0" else 0
        item = 2 if kv_type == "f16" else 1
        heads, dims = shape.kv_heads, shape.head_dim
        self.key_bytes = dims * BLOCK * item
        self.value_bytes = BLOCK * self.channels * item
        self.scale_bytes = self.scale_blocks * BLOCK * 2
        keys_end = heads * self.key_bytes
        values = keys_end + heads * self.scale_bytes
        values_end = values + heads * self.value_bytes
        self.layer_bytes = values_end + heads * self.scale_bytes
        self.block_bytes = self.layers * self.layer_bytes
        code = "<u2" if kv_type == "f16" else "i1"
        self._parts = [
            _Part("k", 0, code, (heads, dims, BLOCK), 3, BLOCK),
            _Part("v", values, code, (heads, BLOCK, self.channels), 2, dims),
        ]
        if kv_type == "q8_0":
            n = self.scale_blocks
            self._parts += [
                _Part("k_scale", keys_end, "<u2", (heads, n, BLOCK), 3, BLOCK),
                _Part("v_scale", values_end, "<u2", (heads, BLOCK, n), 2, n),
            ]

    def new_block(self) -> Bytes:
        """A block of zeros, uint8 (block_bytes,)."""
        return np.zeros(self.block_bytes, np.uint8)

    def _views(self, block: Bytes) -> Iterator[tuple[_Part, npt.NDArray[Any]]]:
        layers = block.reshape(self.layers, self.layer_bytes)
        for part in self._parts:
            size = int(np.prod(part.shape)) * np.dtype(part.dtype).itemsize
            flat = layers[:, part.offset : part.offset + size].view(part.dtype)
            yield part, flat.reshape(self.layers, *part.shape)[..., : part.width]

    @staticmethod
    def _tokens(part: _Part, view: npt.NDArray[Any], first: int, last: int) -> npt.NDArray[Any]:
        return view[..., first:last] if part.token_axis == 3 else view[:, :, first:last]

    def read(self, block: Bytes, start: int, stop: int) -> KVChunk:
        """Copy the tokens [start, stop) (absolute positions inside this block) out of a block."""
        first, last = start % BLOCK, start % BLOCK + stop - start
        arrays = {
            part.name: np.ascontiguousarray(self._tokens(part, view, first, last)) for part, view in self._views(block)
        }
        return KVChunk(start, stop, arrays)

    def write(self, block: Bytes, start: int, stop: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Copy a chunk into a block; mutates `block`. Raises StateMismatch where a name, dtype or shape is wrong."""
        first, last = start % BLOCK, start % BLOCK + stop - start
        if set(arrays) != {part.name for part in self._parts}:
            raise StateMismatch("KV arrays", sorted(arrays), sorted(part.name for part in self._parts))
        for part, view in self._views(block):
            target, source = self._tokens(part, view, first, last), arrays[part.name]
            if source.shape != target.shape or source.dtype != target.dtype:
                have, want = (source.dtype.str, source.shape), (target.dtype.str, target.shape)
                raise StateMismatch(f"KV array {part.name}", have, want)
            target[...] = source
