"""How the arrays of a state file become bytes and come back. Lossless; FORMAT.md has the layout and what was measured.

The upper byte of a half (sign, exponent, two bits of the mantissa) is what compresses: of the channels of keys and
values each has a magnitude of its own, so the byte is kept as its distance from the channel's usual one, and Huffman
codes do the rest. The lower bytes are noise and stay as they are, which no compressor has to find out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from snapshots import planes
from snapshots.errors import StoreError
from snapshots.frames import CannotDecode, compress, compressor, decompress, is_sound

if TYPE_CHECKING:
    import numpy as np

RAW, PLANES_ZSTD, PLANES_APART = 0, 1, 2
"""Codec ids: bytes as they are; all byte planes in one frame (format 1 wrote it); planes apart, with references."""
ARRAYS_LIMIT = 64
"""Most arrays of a file: a list of them is checked before anything else is known of it."""
SIZE_LIMIT = 1 << 28
"""Most bytes of a file's arrays together."""

_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8")
_WORTH = 0.97  # a plane that takes more than this share of its bytes is kept as it is


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
    return encode_alike([arrays], tokens)[0]


def encode_alike(several: Sequence[Mapping[str, np.ndarray]], tokens: int = 0) -> list[Encoded]:
    """The bodies of several files whose arrays have the same names, types and shapes, as `encode` makes them.

    What takes calls rather than bytes is done once for all of them, which is most of the work on small ones.
    """
    import numpy as np

    plain = [_plain(arrays) for arrays in several]
    made: list[_Plane] = []
    for name, first in plain[0].items():
        stacked = first[None] if len(plain) == 1 else np.stack([arrays[name] for arrays in plain])
        made += (_plane(name, stacked, at, tokens) for at in range(first.dtype.itemsize))
    size = sum(each.nbytes for each in plain[0].values())
    common: dict[tuple[bool, ...], _Common] = {}  # nearly always one: what packs well in one file does in the others
    found: list[Encoded] = []
    for number, arrays in enumerate(plain):
        own = [each.parts[number] for each in made]
        which = tuple(isinstance(part, bytes) for part in own)
        if which not in common:
            common[which] = _common(arrays, made, which)
        found.append(_body(number, own, common[which], size) or _bare(arrays, size))
    return found


class _Plane(NamedTuple):
    """Plane `at` of the array `name` in several files: of each its frame (bytes), or a view where that is not worth it.

    `references` is (files, references), uint8. A plane whose frames are taken is let go: the next one has its memory.
    """

    name: str
    at: int
    parts: list[bytes | memoryview]
    axis: int = 0
    references: np.ndarray | None = None


def _plane(name: str, stacked: np.ndarray, at: int, tokens: int) -> _Plane:
    """Plane `at` of arrays that lie one upon the other, packed where that is worth it."""
    plane = planes.plane(stacked, at)
    files, upper = len(plane), at == stacked.itemsize - 1
    own = plane.reshape(files, -1)
    if not upper and planes.bits(plane) >= 8 * _WORTH:
        return _Plane(name, at, [row.data for row in own])
    axis = planes.best_axis(plane, tokens) if upper and at and stacked.ndim > 1 else 0
    if not axis:
        return _Plane(name, at, _packed(own, own))
    references = planes.references(plane, axis)
    steps = plane - planes.spread(references, axis, plane.shape[axis])
    return _Plane(name, at, _packed(steps.reshape(files, -1), own), axis, references.reshape(files, -1))


def _packed(rows: np.ndarray, own: np.ndarray) -> list[bytes | memoryview]:
    """A frame of each row, or the plane's own bytes where a frame is not worth it."""
    size, found = rows.shape[1], list[bytes | memoryview]()
    pack, worth, flat = compressor(), _WORTH * size, rows.reshape(-1).data
    for number in range(len(rows)):
        frame = pack(flat[number * size : (number + 1) * size])
        found.append(frame if 0 < len(frame) < worth and is_sound(len(frame), size) else own[number].data)
    return found


class _Common(NamedTuple):
    """What files have in common in which the same planes are packed: the list of arrays, and (files, references)."""

    listed: list[dict[str, Any]]
    references: np.ndarray | None


def _common(arrays: Mapping[str, np.ndarray], made: Sequence[_Plane], which: Sequence[bool]) -> _Common:
    import numpy as np

    listed = {name: _entry(name, array) for name, array in arrays.items()}
    references: list[np.ndarray] = []
    for each in itertools.compress(made, which):
        listed[each.name].setdefault("packed", []).append(each.at)
        if each.references is not None:
            listed[each.name]["axis"] = each.axis
            references.append(each.references)
    return _Common(list(listed.values()), np.concatenate(references, axis=1) if references else None)


def _entry(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}


def _body(number: int, own: Sequence[bytes | memoryview], common: _Common, size: int) -> Encoded | None:
    """One file's body of its `own` frames and planes; None where it would not be smaller than the bare arrays."""
    frames: list[bytes] = []
    if common.references is not None:
        frames.append(compress(common.references[number]))
        if not is_sound(len(frames[0]), common.references.shape[1]):
            return None
    frames += [part for part in own if isinstance(part, bytes)]
    noise = [part for part in own if isinstance(part, memoryview)]
    parts: list[bytes | memoryview] = [*frames, *noise]
    sizes = [len(frame) for frame in frames]
    if not frames or sum(map(len, parts)) >= size:
        return None
    return Encoded(PLANES_APART, {"arrays": common.listed, "frames": sizes}, parts, size)


def _bare(arrays: Mapping[str, np.ndarray], size: int) -> Encoded:
    """The arrays as they are."""
    import numpy as np

    parts: list[bytes | memoryview] = [each.reshape(-1).view(np.uint8).data for each in arrays.values()]
    return Encoded(RAW, {"arrays": [_entry(*each) for each in arrays.items()]}, parts, size)


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, contiguous and little-endian. Raises StoreError."""
    import numpy as np

    plain: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        little = array
        if not (array.flags.c_contiguous and array.dtype.str in _DTYPES):
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).reshape(array.shape)
        if little.dtype.str not in _DTYPES:
            raise StoreError(f"array {name!r} is of type {array.dtype}")
        plain[name] = little
    if sum(each.nbytes for each in plain.values()) > SIZE_LIMIT or len(plain) > ARRAYS_LIMIT:
        raise StoreError("a state is too large for one file")
    return plain


class Body(NamedTuple):
    """What a header says of its body: the list of arrays and what it means, in order, and the bytes of each frame.

    Of codec 2 also how many references there are, the bytes of each frame when open, and those that are in none.
    """

    listed: list[Any]
    arrays: list[Layout]
    frames: list[int]
    references: int
    opened: list[int]
    noise: int


def layout(header: Mapping[str, Any], raw_size: int, like: Body | None = None) -> Body:
    """Read a header's account of its body and check it before memory is taken for anything. Raises CannotDecode.

    `like` is that of a file of as many raw bytes: an equal list of arrays means the same.
    """
    found: list[Layout] = []
    listed, frames = header.get("arrays"), header.get("frames", [])
    if like is not None and listed == like.listed and _are_sizes(frames):
        return Body(like.listed, like.arrays, frames, like.references, like.opened, like.noise)
    try:
        if not isinstance(listed, list) or len(listed) > ARRAYS_LIMIT:
            raise ValueError
        for entry in listed:
            shape, packed = tuple(entry["shape"]), tuple(entry.get("packed", ()))
            each = Layout(entry["name"], entry["dtype"], shape, entry.get("axis", 0), packed)
            _check(each)
            found.append(each)
        if not _are_sizes(frames):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CannotDecode("has an unreadable list of arrays") from error
    total = sum(each.size * each.width for each in found)
    if total != raw_size or len({each.name for each in found}) != len(found):
        raise CannotDecode("has arrays that do not fill its body")
    references = sum(each.references for each in found)
    opened = [each.size for each in found for _ in each.packed]
    noise = sum(each.size * (each.width - len(each.packed)) for each in found)
    return Body(listed, found, frames, references, [references, *opened] if references else opened, noise)


def _are_sizes(frames: object) -> bool:
    return isinstance(frames, list) and all(type(size) is int and 0 < size <= SIZE_LIMIT for size in frames)


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
        return join_alike([open_frames(described, body)])[0]
    raise CannotDecode(f"has the unknown codec {codec}")


# ---------------------------------------------------------------------------------------------------- putting together


class Opened(NamedTuple):
    """A body of codec 2 whose frames are open: its arrays, references, packed planes and planes that were not."""

    arrays: list[Layout]
    references: bytes
    planes: list[bytes]
    noise: memoryview


def open_frames(described: Body, body: memoryview) -> Opened:
    """Codec 2: a frame with all references, one for each packed plane, the other planes. Raises CannotDecode."""
    frames, opened = described.frames, described.opened
    if len(opened) != len(frames) or sum(frames) + described.noise != len(body):
        raise CannotDecode("has the wrong length")
    place, found = 0, list[bytes]()
    for stored, size in zip(frames, opened, strict=True):
        found.append(decompress(body[place : place + stored], size))
        place += stored
    references = found.pop(0) if described.references else b""
    return Opened(described.arrays, references, found, body[place:])


def join_alike(several: Sequence[Opened]) -> list[dict[str, np.ndarray]]:
    """The arrays of bodies that have equal layouts, read-only; those of one name lie in one piece of memory.

    Takes the planes out of what is given: memory that is let go early is at hand for the next array.
    """
    import numpy as np

    def together(parts: Sequence[bytes | memoryview]) -> np.ndarray:
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8).reshape(len(parts), -1)

    made: list[dict[str, np.ndarray]] = [{} for _ in several]
    references = together([each.references for each in several])
    noise_at = 0
    for each in several[0].arrays:
        apart: list[np.ndarray] = []
        for at in range(each.width):
            if at in each.packed:
                apart.append(together([opened.planes.pop(0) for opened in several]))
            else:
                apart.append(together([opened.noise[noise_at : noise_at + each.size] for opened in several]))
                noise_at += each.size
        if each.references:
            shape = list(each.shape)
            shape[each.axis] = 1
            own, references = references[:, : each.references], references[:, each.references :]
            upper = apart[-1].reshape(-1, *each.shape) + planes.spread(
                own.reshape(-1, *shape), each.axis, each.shape[each.axis]
            )
            apart[-1] = upper.reshape(len(several), -1)
        stacked = _numbers(each, apart, (len(several), *each.shape))
        for arrays, array in zip(made, stacked, strict=True):
            arrays[each.name] = array
    return made


def _numbers(each: Layout, planes: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of their byte planes, in a shape, read-only."""
    import numpy as np

    if each.width == 1:
        array = planes[0]
    elif each.width == 2:
        array = planes[1].astype("<u2")
        np.left_shift(array, 8, out=array)
        np.bitwise_or(array, planes[0], out=array)
    else:
        array = np.stack(planes, axis=-1)
    array = np.ascontiguousarray(array).reshape(-1).view(each.dtype).reshape(shape)
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
            made[each.name] = _numbers(each, list(part.reshape(each.width, -1)), each.shape)
            continue
        if (place - part.size) % each.width:  # behind others of a smaller type: needs a place of its own
            part = part.copy()
        made[each.name] = part.view(each.dtype).reshape(each.shape)
        made[each.name].flags.writeable = False
    return made
