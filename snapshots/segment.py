"""One state file: a fixed head, a JSON header, a body of arrays, and a digest over all of it. FORMAT.md has the table.

The digest is checked before the header is parsed and before the decoder sees a byte, and every size is checked before
memory is taken for it. Whatever is wrong with a file, `decode` raises DamagedFile and nothing else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snapshots import codec as codecs
from snapshots.errors import DamagedFile, StoreError
from snapshots.frames import CannotDecode
from snapshots.ids import canonical

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"FKPTSTAT"
VERSION = 1
HEADER_LIMIT = 1 << 20
BODY_LIMIT = codecs.SIZE_LIMIT
FILE_LIMIT = 64 + HEADER_LIMIT + BODY_LIMIT

_HEAD = struct.Struct("<8sHHIQQ")  # magic, version, codec, header bytes, stored bytes, raw bytes
_DIGEST = 32


class Contents(NamedTuple):
    """A state file, decoded: its header's own fields and its arrays, which are read-only."""

    header: Mapping[str, Any]
    arrays: dict[str, np.ndarray]


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a state file. Raises StoreError for an array that the format has no room for."""
    return encode_alike([header], [arrays])[0]


def encode_alike(headers: Sequence[Mapping[str, Any]], several: Sequence[Mapping[str, np.ndarray]]) -> list[bytes]:
    """The bytes of several state files of equally many tokens, whose arrays are of the same names, types and shapes."""
    encoded = codecs.encode_alike(several, len(headers[0].get("tokens", ())))
    return [_file(header, body) for header, body in zip(headers, encoded, strict=True)]


def _file(header: Mapping[str, Any], body: codecs.Encoded) -> bytes:
    head_json = canonical({**header, **body.fields})
    if len(head_json) > HEADER_LIMIT:
        raise StoreError("a state is too large for one file")
    head = _HEAD.pack(MAGIC, VERSION, body.codec, len(head_json), sum(map(len, body.parts)), body.size)
    return b"".join((head, _digest(head, head_json, *body.parts), head_json, *body.parts))


def check(path: Path, data: bytes) -> tuple[dict[str, Any], int, int, memoryview]:
    """Header, codec, raw size and body of a state file whose digest holds. Raises DamagedFile."""
    view = memoryview(data)
    if len(data) < _HEAD.size + _DIGEST:
        raise DamagedFile(path, "is cut short")
    magic, version, codec, header_size, body_size, raw_size = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise DamagedFile(path, "is no state file")
    if version != VERSION:
        raise DamagedFile(path, f"has version {version}, this program reads {VERSION}")
    start = _HEAD.size + _DIGEST
    if header_size > HEADER_LIMIT or max(body_size, raw_size) > BODY_LIMIT:
        raise DamagedFile(path, "claims to be too large")
    if len(data) != start + header_size + body_size:
        raise DamagedFile(path, "has the wrong length")
    header_view, body = view[start : start + header_size], view[start + header_size :]
    if _digest(view[: _HEAD.size], header_view, body) != view[_HEAD.size : start]:
        raise DamagedFile(path, "fails its digest")
    try:
        header = json.loads(bytes(header_view))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, "has an unreadable header") from error
    if not isinstance(header, dict):
        raise DamagedFile(path, "has an unreadable header")
    return header, codec, raw_size, body


def decode(path: Path, data: bytes) -> Contents:
    """A state file's header and arrays. Raises DamagedFile."""
    (found,) = decode_alike([(path, data)])
    if isinstance(found, DamagedFile):
        raise found
    return found


def decode_alike(several: Sequence[tuple[Path, bytes]]) -> list[Contents | DamagedFile]:
    """Several state files; those of one layout are put together at once, and their arrays share a piece of memory."""
    found: list[Contents | DamagedFile] = []
    opened: list[tuple[int, Mapping[str, Any], codecs.Opened]] = []
    likes: dict[int, codecs.Body] = {}
    for number, (path, data) in enumerate(several):
        header: Mapping[str, Any]
        try:
            header, codec, raw_size, body = check(path, data)
            described = likes[raw_size] = codecs.layout(header, raw_size, likes.get(raw_size))
            if codec == codecs.PLANES_APART:
                opened.append((number, header, codecs.open_frames(described, body)))
                found.append(Contents(header, {}))
            else:
                found.append(Contents(header, codecs.decode(codec, described, body, raw_size)))
        except DamagedFile as error:
            found.append(error)
        except CannotDecode as error:
            found.append(DamagedFile(path, str(error)))
    while opened:
        alike = [each for each in opened if each[2].arrays == opened[0][2].arrays]
        for (number, header, _), arrays in zip(alike, codecs.join_alike([each[2] for each in alike]), strict=True):
            found[number] = Contents(header, arrays)
        opened = [each for each in opened if each[2].arrays != opened[0][2].arrays]
    return found


def _digest(head: bytes | memoryview, *parts: bytes | memoryview) -> bytes:
    digest = blake2b(head, digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return digest.digest()
