"""How the arrays of a state file become bytes and come back. Lossless; FORMAT.md has the layout and what was measured.

The upper byte of a half (sign, exponent, two bits of the mantissa) is what compresses: of the channels of keys and
values each has a magnitude of its own, so the byte is kept as its distance from the channel's usual one, and Huffman
codes do the rest. The lower bytes are noise and stay as they are, which no compressor has to find out.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from snapshots.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

RAW, PLANES_ZSTD, PLANES_APART = 0, 1, 2
"""Codec ids: bytes as they are; all byte planes in one frame (format 1 wrote it); planes apart, with references."""
LEVEL = 1
ARRAYS_LIMIT = 64
"""Most arrays of a file: a list of them is checked before anything else is known of it."""
SIZE_LIMIT = 1 << 28
"""Most bytes of a file's arrays together."""
SMALL, GROWTH = 1 << 20, 64
"""A frame may open to `SMALL` bytes, or to `GROWTH` times its own size: no state is emptier, but a bomb is."""

_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8")
_SAMPLE = 4096
_WORTH = 0.97  # a plane that takes more than this share of its bytes is kept as it is
_SHORTEST, _LONGEST = 8, 1 << 16  # numbers along an axis for which a reference pays, and can be summed exactly
_REFERENCE_BITS = 4  # what a reference takes in its frame
_local = threading.local()


class CannotDecode(Exception):  # noqa: N818 - the name says what is the case
    """Bytes that no encoder made; `args[0]` says what is wrong, as the end of a sentence about the file."""


class Layout(NamedTuple):
    """One array of a body: `axis` (-1, -2, or 0 for none) has references, the planes in `packed` are in the frame."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int = 0
    packed: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return int(self.dtype[2:])

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def references(self) -> int:
        """How many references."""
        return self.size // self.shape[self.axis] if self.axis and self.size else 0


class Encoded(NamedTuple):
    """Arrays as a body: the header's `fields` that say how to read it, its `parts` in order, its `size` decoded."""

    codec: int
    fields: dict[str, Any]
    parts: list[bytes | memoryview]
    size: int


def encode(arrays: Mapping[str, np.ndarray], tokens: int = 0) -> Encoded:
    """Arrays as the body of a state file. Raises StoreError for an array that the format has no room for.

    `tokens` is how many tokens they are of, which tells the axis that counts them.
    """
    import numpy as np

    plain = _plain(arrays)
    size = sum(each.nbytes for each in plain.values())
    listed: list[dict[str, Any]] = []
    references: list[np.ndarray] = []
    frames: list[bytes] = []
    noise: list[bytes | memoryview] = []
    for name, array in plain.items():
        entry: dict[str, Any] = {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        listed.append(entry)
        packed: list[int] = []
        for at in range(array.dtype.itemsize):
            plane, own, frame = _plane(array, at), None, b""
            upper = at == array.dtype.itemsize - 1
            if upper or _bits(plane) < 8 * _WORTH:
                axis = _best_axis(plane, tokens) if upper and at else 0
                own = _references(plane, axis) if axis else None
                frame = compress(plane if own is None else plane - own)
            if 0 < len(frame) < _WORTH * plane.size and is_sound(len(frame), plane.size):
                packed.append(at)
                frames.append(frame)
                if own is not None:
                    entry["axis"] = axis
                    references.append(own.reshape(-1))
            else:
                noise.append(plane.reshape(-1).data)
        if packed:
            entry["packed"] = packed
    if references:
        together = np.concatenate(references)
        frames.insert(0, compress(together))
    parts: list[bytes | memoryview] = [*frames, *noise]
    if frames and sum(map(len, parts)) < size and (not references or is_sound(len(frames[0]), together.size)):
        return Encoded(PLANES_APART, {"arrays": listed, "frames": [len(frame) for frame in frames]}, parts, size)
    bare = [{key: entry[key] for key in ("name", "dtype", "shape")} for entry in listed]
    return Encoded(RAW, {"arrays": bare}, [each.reshape(-1).view(np.uint8).data for each in plain.values()], size)


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, contiguous and little-endian. Raises StoreError."""
    import numpy as np

    plain: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).reshape(array.shape)
        if little.dtype.str not in _DTYPES:
            raise StoreError(f"array {name!r} is of type {array.dtype}")
        plain[name] = little
    if sum(each.nbytes for each in plain.values()) > SIZE_LIMIT or len(plain) > ARRAYS_LIMIT:
        raise StoreError("a state is too large for one file")
    return plain


class Body(NamedTuple):
    """What a header says of its body: the arrays in order, and the bytes of each frame."""

    arrays: list[Layout]
    frames: list[int]


def layout(header: Mapping[str, Any], raw_size: int) -> Body:
    """Read a header's account of its body and check it before memory is taken for anything. Raises CannotDecode."""
    found: list[Layout] = []
    listed, frames = header.get("arrays"), header.get("frames", [])
    try:
        if not isinstance(listed, list) or len(listed) > ARRAYS_LIMIT:
            raise ValueError
        for entry in listed:
            shape, packed = tuple(entry["shape"]), tuple(entry.get("packed", ()))
            each = Layout(entry["name"], entry["dtype"], shape, entry.get("axis", 0), packed)
            _check(each)
            found.append(each)
        if not isinstance(frames, list) or not all(type(size) is int and 0 < size <= SIZE_LIMIT for size in frames):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CannotDecode("has an unreadable list of arrays") from error
    total = sum(each.size * each.width for each in found)
    if total != raw_size or len({each.name for each in found}) != len(found):
        raise CannotDecode("has arrays that do not fill its body")
    return Body(found, frames)


def _check(each: Layout) -> None:
    """Raises ValueError, TypeError."""
    if not isinstance(each.name, str) or each.dtype not in _DTYPES or len(each.shape) > 8:
        raise ValueError
    if not all(type(length) is int and 0 <= length <= SIZE_LIMIT for length in each.shape):
        raise ValueError
    if each.size > SIZE_LIMIT or not all(type(at) is int and 0 <= at < each.width for at in each.packed):
        raise ValueError
    if list(each.packed) != sorted(set(each.packed)) or type(each.axis) is not int or each.axis not in (0, -1, -2):
        raise ValueError
    if len(each.shape) < -each.axis:
        raise ValueError


def decode(codec: int, described: Body, body: memoryview, raw_size: int) -> dict[str, np.ndarray]:
    """The arrays of a body, read-only. Raises CannotDecode."""
    if codec == RAW:
        if len(body) != raw_size:
            raise CannotDecode("has the wrong length")
        return _split(described.arrays, body, planes=False)
    if codec == PLANES_ZSTD:
        return _split(described.arrays, decompress(body, raw_size), planes=True)
    if codec == PLANES_APART:
        return _join(described, body)
    raise CannotDecode(f"has the unknown codec {codec}")


# ------------------------------------------------------------------------------------------------------------- planes


def _best_axis(upper: np.ndarray, tokens: int) -> int:
    """Along which axis an upper plane's numbers resemble each other: that of the tokens, where only one is so long.

    Where that does not tell, a sample does: 0 if no references save anything.
    """
    able = [axis for axis in (-1, -2)[: upper.ndim] if _SHORTEST <= upper.shape[axis] <= _LONGEST]
    along = [axis for axis in able if upper.shape[axis] == tokens]
    if len(along) == 1 and upper.ndim > 1:
        return along[0]
    sample = upper
    if upper.ndim > 2 and upper.size:
        tables = upper.reshape(-1, *upper.shape[-2:])
        wanted = max(1, _SAMPLE // tables[0].size)
        sample = tables[:: max(1, len(tables) // wanted)]
    least, found = _bits(sample), 0
    for axis in able if upper.size else ():
        bits = _bits(sample - _references(sample, axis)) + _REFERENCE_BITS / sample.shape[axis]
        if bits < least:
            least, found = bits, axis
    return found


def _plane(array: np.ndarray, at: int) -> np.ndarray:
    """The bytes number `at` of an array's little-endian numbers, in the array's shape."""
    import numpy as np

    width = array.dtype.itemsize
    if width == 1:
        return array.view(np.uint8)
    if width == 2:  # the common case, in whole numbers: several times as fast as moving single bytes
        numbers = array.view("<u2")
        return (numbers >> 8 if at else numbers).astype(np.uint8)
    return np.ascontiguousarray(array.reshape(-1).view(np.uint8)[at::width]).reshape(array.shape)


def _references(upper: np.ndarray, axis: int) -> np.ndarray:
    """What is usual along an axis: the mean magnitude to a power of two, and the sign that most numbers have.

    Any choice can be decoded; a finer one takes more bits than it saves.
    """
    import numpy as np

    length = upper.shape[axis]
    ones = np.ones(length, np.float32)  # sums by matrix products: exact below 2^24, and the fastest way to many sums

    def total(plane: np.ndarray) -> np.ndarray:
        numbers = plane.astype(np.float32)
        return np.expand_dims(numbers @ ones if axis == -1 else np.matmul(ones, numbers), axis)

    magnitudes = total(upper & 0x7F)
    negative = (total(upper) - magnitudes) > 64 * length  # 128 for each sign: more than half of them are set
    usual: np.ndarray = ((magnitudes / length).astype(np.uint8) & 0x7C) | (negative * np.uint8(0x80))
    return usual


def _bits(plane: np.ndarray) -> float:
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


def _join(described: Body, body: memoryview) -> dict[str, np.ndarray]:
    """Codec 2: a frame with all references, a frame for each packed plane, then the other planes as they are."""
    import numpy as np

    arrays = described.arrays
    opened = [each.size for each in arrays for _ in each.packed]
    n_references = sum(each.references for each in arrays)
    opened = [n_references, *opened] if n_references else opened
    noise_size = sum(each.size * (each.width - len(each.packed)) for each in arrays)
    if len(opened) != len(described.frames) or sum(described.frames) + noise_size != len(body):
        raise CannotDecode("has the wrong length")
    place, planes_in = 0, list[np.ndarray]()
    for stored, size in zip(described.frames, opened, strict=True):
        planes_in.append(np.frombuffer(decompress(body[place : place + stored], size), np.uint8))
        place += stored
    noise = np.frombuffer(body[place:], np.uint8)
    references = planes_in.pop(0) if n_references else noise[:0]
    made: dict[str, np.ndarray] = {}
    for each in arrays:
        planes: list[np.ndarray] = []
        for at in range(each.width):
            if at in each.packed:
                planes.append(planes_in.pop(0))
            else:
                planes.append(noise[: each.size])
                noise = noise[each.size :]
        if each.references:
            shape = list(each.shape)
            shape[each.axis] = 1
            own, references = references[: each.references].reshape(shape), references[each.references :]
            planes[-1] = (planes[-1].reshape(each.shape) + own).reshape(-1)
        made[each.name] = _numbers(each, planes)
    return made


def _numbers(each: Layout, planes: list[np.ndarray]) -> np.ndarray:
    """Numbers of their byte planes."""
    import numpy as np

    if each.width == 1:
        array = planes[0]
    elif each.width == 2:
        array = planes[1].astype("<u2")
        np.left_shift(array, 8, out=array)
        np.bitwise_or(array, planes[0], out=array)
    else:
        array = np.stack(planes, axis=-1).reshape(-1)
    array = array.view(each.dtype).reshape(each.shape)
    array.flags.writeable = False
    return array


def _split(arrays: Sequence[Layout], body: bytes | memoryview, *, planes: bool) -> dict[str, np.ndarray]:
    """Codecs 0 and 1: arrays one behind the other, as they are or all planes of each."""
    import numpy as np

    flat, place, made = np.frombuffer(body, np.uint8), 0, dict[str, "np.ndarray"]()
    for each in arrays:
        part = flat[place : place + each.size * each.width]
        place += part.size
        if planes:
            made[each.name] = _numbers(each, list(part.reshape(each.width, -1)))
            continue
        if (place - part.size) % each.width:  # behind others of a smaller type: needs a place of its own
            part = part.copy()
        made[each.name] = part.view(each.dtype).reshape(each.shape)
        made[each.name].flags.writeable = False
    return made


# -------------------------------------------------------------------------------------------------------------- frames


def is_sound(frame_size: int, size: int) -> bool:
    """Whether a frame may open to so much; what it does not allow is kept unpacked."""
    return size <= max(SMALL, GROWTH * frame_size)


def compress(data: np.ndarray | bytes) -> bytes:
    """One zstandard frame that says how large its content is."""
    if not hasattr(_local, "compressor"):
        import zstandard

        _local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    packed: bytes = _local.compressor.compress(data)
    return packed


def decompress(frame: memoryview, size: int) -> bytes:
    """One shot, of exactly one frame that itself claims exactly `size` bytes and no larger window than it needs.

    Raises CannotDecode.
    """
    import zstandard

    if not is_sound(len(frame), size):
        raise CannotDecode("opens to far more than it is")
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        claims = zstandard.get_frame_parameters(frame)
        if claims.content_size != size or claims.window_size > max(size, 1 << 20) or claims.dict_id:
            raise CannotDecode("has a frame of another size")
        plain: bytes = _local.decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CannotDecode("cannot be decompressed") from error
    if len(plain) != size:
        raise CannotDecode("has a frame of another size")
    return plain
