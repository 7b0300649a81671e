"""Digests and encodings of the tree: node ids, token lists, canonical JSON."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from snapshots.errors import BadNode
from snapshots.records import Message

TOKEN_LIMIT = 1 << 32
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)  # json.dumps makes one a call


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only: one spelling for one value. Raises ValueError for NaN."""
    return _CANONICAL.encode(value).encode()


def node_id(parent: str, message: Message, keep: int) -> str:
    """blake2b-256 of a node's content. `parent` is the parent's id, at a root the conversation's random one."""
    content = {
        "parent": parent,
        "role": message.role,
        "text": message.text,
        "keep": keep,
        "tokens": list(message.tokens),
        "stop": message.stop,
        "sampler": dict(message.sampler),
        "dice_key": message.dice_key.hex(),
        "prompt_key": message.prompt_key,
    }
    return blake2b(b"forkpoint node 1\0" + canonical(content), digest_size=32).hexdigest()


def row_digest(node_id: str, beside: Sequence[object]) -> bytes:
    """What is in a node's row but not in its id: SQLite may return a flipped bit as a good row."""
    return blake2b(b"forkpoint row 1\0" + canonical([node_id, *beside]), digest_size=16).digest()


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """A token list as bytes: width (2 or 4), then little-endian integers of it; b"" for none. Raises BadNode."""
    if not tokens:
        return b""
    if min(tokens) < 0 or max(tokens) >= TOKEN_LIMIT:
        raise BadNode("tokens", "an id is negative or larger than 32 bits")
    wide = max(tokens) >= 1 << 16
    values = array("I" if wide else "H", tokens)
    if sys.byteorder == "big":
        values.byteswap()
    return bytes([4 if wide else 2]) + values.tobytes()


class Packed(NamedTuple):
    """A token list as little-endian integers of four bytes each: what chains hash, and what compares fastest."""

    raw: bytes


def packed(tokens: Sequence[int] | Packed) -> Packed:
    """A token list as bytes. One that gives itself to NumPy, as a session's does, is not looked at id by id.

    Raises OverflowError for an id that is negative or larger than 32 bits.
    """
    if isinstance(tokens, Packed):
        return tokens
    if hasattr(tokens, "__array__"):
        import numpy as np

        given = np.asarray(tokens)
        if given.size and not 0 <= np.bitwise_or.reduce(given) < TOKEN_LIMIT:  # has every bit that any id has
            raise OverflowError("a token id is negative or larger than 32 bits")
        return Packed(given.astype("<u4").tobytes())
    values = array("I", tokens)
    if sys.byteorder == "big":
        values.byteswap()
    return Packed(values.tobytes())


def unpack_tokens(blob: bytes) -> tuple[int, ...]:
    """The inverse of `pack_tokens`. Raises ValueError for bytes that it never makes."""
    if not blob:
        return ()
    if blob[0] not in (2, 4):
        raise ValueError("unknown width")
    values = array("I" if blob[0] == 4 else "H")
    values.frombytes(blob[1:])
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)


def clean_text(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no UTF-8 file can hold (a shell's stray bytes become such)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain_json(value: Mapping[str, Any], field: str) -> str:
    """Canonical JSON text of a mapping. Raises BadNode(field) where it is not plain JSON."""
    try:
        return canonical(dict(value)).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadNode(field, "not plain JSON") from error
