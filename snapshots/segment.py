"""One state file: a fixed head, a JSON header, a body of arrays, and a digest over all of it. FORMAT.md has the table.

The digest is checked before the header is parsed and before the decoder sees a byte, and every size is checked before
memory is taken for it. Whatever is wrong with a file, `decode` raises DamagedFile and nothing else.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snapshots.errors import DamagedFile, StoreError
from snapshots.ids import canonical

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"FKPTSTAT"
VERSION = 1
RAW, PLANES_ZSTD = 0, 1
"""Codecs: bytes as they are; byte planes, then one zstandard frame."""
LEVEL = 1
HEADER_LIMIT = 1 << 20
BODY_LIMIT = 1 << 28
FILE_LIMIT = 64 + HEADER_LIMIT + BODY_LIMIT

_HEAD = struct.Struct("<8sHHIQQ")  # magic, version, codec, header bytes, stored bytes, raw bytes
_DIGEST = 32
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8")
_local = threading.local()


class Contents(NamedTuple):
    """A state file, decoded: its header's own fields and its arrays, which are read-only."""

    header: Mapping[str, Any]
    arrays: dict[str, np.ndarray]


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a state file. Raises StoreError for an array that the format has no room for."""
    import numpy as np

    listed: list[dict[str, Any]] = []
    plain: list[np.ndarray] = []
    for name, array in arrays.items():
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            raise StoreError(f"array {name!r} is of type {array.dtype}")
        listed.append({"name": name, "dtype": little.dtype.str, "shape": list(array.shape)})
        plain.append(little)
    raw_size = sum(each.nbytes for each in plain)
    head_json = canonical({**header, "arrays": listed})
    if raw_size > BODY_LIMIT or len(head_json) > HEADER_LIMIT:
        raise StoreError("a state is too large for one file")
    codec, body = PLANES_ZSTD, _compress(_to_planes(plain, raw_size))
    if len(body) >= raw_size:
        codec, body = RAW, b"".join(each.tobytes() for each in plain)
    head = _HEAD.pack(MAGIC, VERSION, codec, len(head_json), len(body), raw_size)
    return b"".join((head, _digest(head, head_json, body), head_json, body))


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
    header, codec, raw_size, body = check(path, data)
    layout = _layout(path, header, raw_size)
    if codec == RAW:
        if len(body) != raw_size:
            raise DamagedFile(path, "has the wrong length")
        arrays = _split(layout, body, planes=False)
    elif codec == PLANES_ZSTD:
        arrays = _split(layout, _decompress(path, body, raw_size), planes=True)
    else:
        raise DamagedFile(path, f"has the unknown codec {codec}")
    return Contents(header, arrays)


def _digest(head: bytes | memoryview, header: bytes | memoryview, body: bytes | memoryview) -> bytes:
    digest = blake2b(head, digest_size=_DIGEST)
    digest.update(header)
    digest.update(body)
    return digest.digest()


def _layout(path: Path, header: Mapping[str, Any], raw_size: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of each array, checked against the size of the body before any memory is taken."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    total = 0
    try:
        for entry in header["arrays"]:
            name, dtype, shape = entry["name"], entry["dtype"], tuple(entry["shape"])
            if not isinstance(name, str) or dtype not in _DTYPES or len(shape) > 8:
                raise ValueError
            if not all(type(length) is int and 0 <= length <= BODY_LIMIT for length in shape):
                raise ValueError
            total += math.prod(shape) * int(dtype[2:])
            found.append((name, dtype, shape))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(path, "has an unreadable list of arrays") from error
    if total != raw_size or len({name for name, _, _ in found}) != len(found):
        raise DamagedFile(path, "has arrays that do not fill its body")
    return found


def _to_planes(arrays: list[np.ndarray], raw_size: int) -> np.ndarray:
    """All first bytes of an array's numbers, then all second bytes …: exponents compress, mantissas do not."""
    import numpy as np

    out, place = np.empty(raw_size, np.uint8), 0
    for array in arrays:
        width = array.dtype.itemsize
        part = out[place : place + array.nbytes].reshape(width, -1)
        if width == 2:  # the common case, in whole numbers: three times as fast as moving single bytes
            numbers = array.reshape(-1).view("<u2")
            np.bitwise_and(numbers, 255, out=part[0], casting="unsafe")
            np.right_shift(numbers, 8, out=part[1], casting="unsafe")
        else:
            part[...] = array.reshape(-1).view(np.uint8).reshape(-1, width).T
        place += array.nbytes
    return out


def _split(
    layout: list[tuple[str, str, tuple[int, ...]]], body: bytes | memoryview, *, planes: bool
) -> dict[str, np.ndarray]:
    import numpy as np

    flat, place, arrays = np.frombuffer(body, np.uint8), 0, dict[str, "np.ndarray"]()
    for name, dtype, shape in layout:
        width = int(dtype[2:])
        size = math.prod(shape) * width
        part = flat[place : place + size]
        if planes and width == 2:
            low, high = part.reshape(2, -1)
            numbers = np.left_shift(high, 8, dtype="<u2", casting="unsafe")
            part = np.bitwise_or(numbers, low, out=numbers)
        elif planes and width > 1:
            part = np.ascontiguousarray(part.reshape(width, -1).T).reshape(-1)
        elif place % width:  # raw arrays behind others of a smaller type need a place of their own
            part = part.copy()
        array = part.view(dtype).reshape(shape)
        array.flags.writeable = False
        arrays[name] = array
        place += size
    return arrays


def _compress(data: np.ndarray) -> bytes:
    if not hasattr(_local, "compressor"):
        import zstandard

        _local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    packed: bytes = _local.compressor.compress(data)
    return packed


def _decompress(path: Path, body: memoryview, raw_size: int) -> bytes:
    """One shot, of exactly one frame that itself claims exactly `raw_size` bytes."""
    import zstandard

    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        if zstandard.frame_content_size(body) != raw_size:
            raise DamagedFile(path, "has a frame of another size")
        plain: bytes = _local.decompressor.decompress(body, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedFile(path, "cannot be decompressed") from error
    if len(plain) != raw_size:
        raise DamagedFile(path, "has a frame of another size")
    return plain
