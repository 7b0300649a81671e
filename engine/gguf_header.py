"""The header of a GGUF file, read with a check in front of every byte: metadata and tensor table.

Source of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import numpy as np

from engine.errors import BadGGUF, BadTensor, UnsupportedFeature, UnsupportedTensorType

# What real files need many times over; a hostile header cannot make the reader work or allocate beyond these.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1 << 10
MAX_STRING_BYTES = 16 << 20  # one string value
MAX_TEXT_BYTES = 32 << 20  # all string values together
MAX_STRINGS = 1 << 21  # all elements of string arrays together
MAX_STRING_ARRAY_BYTES = 64 << 20  # one string array
MAX_NUMBERS_BYTES = 256 << 20  # one array of numbers (a view; nothing is copied)
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32

# ggml type number -> name, weights per block, bytes per block. Every type with a defined layout is here, whether the
# engine computes it or not, so that an unsupported one is refused by its name.
TYPES: Mapping[int, tuple[str, int, int]] = MappingProxyType(
    {
        0: ("F32", 1, 4),
        1: ("F16", 1, 2),
        2: ("Q4_0", 32, 18),
        3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24),
        8: ("Q8_0", 32, 34),
        9: ("Q8_1", 32, 36),
        10: ("Q2_K", 256, 84),
        11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176),
        14: ("Q6_K", 256, 210),
        15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66),
        17: ("IQ2_XS", 256, 74),
        18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18),
        21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82),
        23: ("IQ4_XS", 256, 136),
        24: ("I8", 1, 1),
        25: ("I16", 1, 2),
        26: ("I32", 1, 4),
        27: ("I64", 1, 8),
        28: ("F64", 1, 8),
        29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2),
        34: ("TQ1_0", 256, 54),
        35: ("TQ2_0", 256, 66),
        39: ("MXFP4", 32, 17),
        40: ("NVFP4", 64, 36),
        41: ("Q1_0", 128, 18),
    }
)
# Types that ggml has withdrawn: their numbers still turn up in old files.
_WITHDRAWN = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"} | {
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: Mapping[int, str] = MappingProxyType(
    {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
)
_SCALARS = {kind: struct.Struct("<" + np.dtype(code).char) for kind, code in _NUMBERS.items() if kind != _BOOL}
_SCALARS |= {10: struct.Struct("<Q"), 11: struct.Struct("<q"), _BOOL: struct.Struct("<B")}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` has the fastest axis last; `offset` counts bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


class StringArray(Sequence[str]):
    """An array of strings in the file, decoded when first asked for and kept; bytes that are no UTF-8 become U+FFFD."""

    __slots__ = ("_buffer", "_count", "_decoded", "_start", "_stop")

    def __init__(self, buffer: mmap.mmap, start: int, stop: int, count: int):
        self._buffer = buffer
        self._start = start
        self._stop = stop
        self._count = count
        self._decoded: list[str] | None = None

    def raw(self) -> list[bytes]:
        """The elements as they lie in the file (a fresh list)."""
        region, position, unpack = self.region(), 0, _U64.unpack_from
        elements = []
        for _ in range(self._count):
            start = position + 8
            position = start + unpack(region, position)[0]
            elements.append(region[start:position])
        return elements

    def region(self) -> bytes:
        """All elements with their lengths, as they lie in the file (a copy)."""
        return self._buffer[self._start : self._stop]

    def strings(self) -> list[str]:
        """The elements as text (one kept list: do not write to it)."""
        if self._decoded is None:
            self._decoded = [element.decode("utf-8", "replace") for element in self.raw()]
        return self._decoded

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self.strings()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.strings())


class _Header:
    """A cursor over the header. Every read is checked against the end of the file and raises BadGGUF beyond it."""

    def __init__(self, path: str, buffer: mmap.mmap):
        self.path = path
        self.buffer = buffer
        self.size = len(buffer)
        self.position = 0
        self.text_left = MAX_TEXT_BYTES
        self.strings_left = MAX_STRINGS

    def bad(self, field: str, why: str) -> BadGGUF:
        return BadGGUF(self.path, field, why)

    def take(self, length: int, field: str) -> int:
        """The current position, after which the cursor stands `length` bytes on."""
        start = self.position
        if length > self.size - start:
            raise self.bad(field, f"needs {length} bytes at {start}, but the file has {self.size}")
        self.position = start + length
        return start

    def u32(self, field: str) -> int:
        return int(_U32.unpack_from(self.buffer, self.take(4, field))[0])

    def u64(self, field: str) -> int:
        return int(_U64.unpack_from(self.buffer, self.take(8, field))[0])

    def text(self, field: str, limit: int) -> bytes:
        length = self.u64(field)
        if length > limit:
            raise self.bad(field, f"a string of {length} bytes is longer than the {limit} allowed")
        self.text_left -= length
        if self.text_left < 0:
            raise self.bad(field, f"the strings of the header are longer than {MAX_TEXT_BYTES} bytes together")
        start = self.take(length, field)
        return self.buffer[start : start + length]

    def name(self, field: str) -> str:
        raw = self.text(field, MAX_KEY_BYTES)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(field, "a name is not UTF-8") from None

    def value(self, field: str) -> Any:
        kind = self.u32(field)
        if kind == _STRING:
            return self.text(field, MAX_STRING_BYTES).decode("utf-8", "replace")
        if kind == _ARRAY:
            return self.array(field)
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise self.bad(field, f"unknown value type {kind}")
        value = scalar.unpack_from(self.buffer, self.take(scalar.size, field))[0]
        return value != 0 if kind == _BOOL else value

    def array(self, field: str) -> StringArray | np.ndarray[Any, Any]:
        kind = self.u32(field)
        count = self.u64(field)
        if kind == _STRING:
            return self.string_array(field, count)
        if kind == _ARRAY:
            raise self.bad(field, "arrays of arrays are not supported")
        if kind not in _NUMBERS:
            raise self.bad(field, f"unknown array element type {kind}")
        dtype = np.dtype(np.uint8 if kind == _BOOL else _NUMBERS[kind])
        if count * dtype.itemsize > MAX_NUMBERS_BYTES:
            raise self.bad(field, f"an array of {count} numbers is longer than allowed")
        if kind == _BOOL:  # copied, so it counts like text
            self.text_left -= count
            if self.text_left < 0:
                raise self.bad(field, f"an array of {count} bools is longer than allowed")
        start = self.take(count * dtype.itemsize, field)
        view = np.frombuffer(self.buffer, dtype, count, start)
        return view != 0 if kind == _BOOL else view

    def string_array(self, field: str, count: int) -> StringArray:
        start = position = self.position
        if count > (self.size - start) // 8:
            raise self.bad(field, f"{count} strings do not fit in a file of {self.size} bytes")
        self.strings_left -= count
        if self.strings_left < 0:
            raise self.bad(field, f"more than {MAX_STRINGS} strings in the header")
        buffer, unpack = self.buffer, _U64.unpack_from
        try:
            # The one loop that must be fast. A length beyond the file makes the next unpack fail, or the test below.
            for _ in range(count):
                position += 8 + unpack(buffer, position)[0]
        except (struct.error, OverflowError, IndexError):
            position = self.size + 1
        if position > self.size:
            raise self.bad(field, "a string reaches beyond the end of the file")
        if position - start > MAX_STRING_ARRAY_BYTES + 8 * count:
            raise self.bad(field, f"an array of strings of {position - start} bytes is longer than allowed")
        self.position = position
        return StringArray(buffer, start, position, count)


def read_header(path: str, buffer: mmap.mmap) -> tuple[int, dict[str, Any], dict[str, TensorInfo]]:
    """Version, metadata and tensors. Raises BadGGUF, BadTensor, UnsupportedTensorType, UnsupportedFeature."""
    header = _Header(path, buffer)
    header.take(4, "magic")
    version = header.u32("version")
    if version in (0x01000000, 0x02000000, 0x03000000):
        raise header.bad("version", "the file is big-endian, and only little-endian files are supported")
    if version not in (2, 3):
        raise header.bad("version", f"version {version} is not supported, only 2 and 3 are")
    tensor_count = header.u64("tensor_count")
    key_count = header.u64("metadata_kv_count")
    if tensor_count > min(MAX_TENSORS, header.size // 32):
        raise header.bad("tensor_count", f"{tensor_count} tensors do not fit in this file")
    if key_count > min(MAX_KEYS, header.size // 13):
        raise header.bad("metadata_kv_count", f"{key_count} keys do not fit in this file")
    metadata: dict[str, Any] = {}
    for index in range(key_count):
        key = header.name(f"key {index}")
        if key in metadata:
            raise header.bad(key, "the key appears twice")
        metadata[key] = header.value(key)
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedFeature(f"a model that is split over {parts} files")
    return version, metadata, _read_tensors(header, tensor_count, _alignment(header, metadata))


def _alignment(header: _Header, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if isinstance(alignment, bool) or not isinstance(alignment, int):
        raise header.bad("general.alignment", "is not an integer")
    if not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise header.bad("general.alignment", f"is {alignment}, which is not a power of two in range")
    return alignment


def _read_tensors(header: _Header, count: int, alignment: int) -> dict[str, TensorInfo]:
    """The tensor table, with offsets made absolute and every range checked: in the file, aligned, without overlap."""
    rows: list[tuple[str, tuple[int, ...], str, int, int]] = []
    names = set()
    for index in range(count):
        name = header.name(f"tensor {index}")
        if name in names:
            raise header.bad(f"tensor {name}", "the tensor appears twice")
        names.add(name)
        rows.append((name, *_read_tensor(header, name)))
    data = -(-header.position // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset, nbytes in rows:
        if offset % alignment:
            raise BadTensor(name, f"its offset {offset} is not a multiple of {alignment}")
        if data + offset + nbytes > header.size:
            raise BadTensor(name, f"its {nbytes} bytes reach beyond the end of the file")
        tensors[name] = TensorInfo(name, shape, kind, data + offset, nbytes)
    end = 0
    for info in sorted(tensors.values(), key=lambda info: info.offset):
        if info.offset < end:
            raise BadTensor(info.name, "it overlaps another tensor")
        end = info.offset + info.nbytes
    return tensors


def _read_tensor(header: _Header, name: str) -> tuple[tuple[int, ...], str, int, int]:
    field = f"tensor {name}"
    axes = header.u32(field)
    if not 1 <= axes <= MAX_DIMENSIONS:
        raise BadTensor(name, f"it has {axes} dimensions, not 1 to {MAX_DIMENSIONS}")
    shape = tuple(header.u64(field) for _ in range(axes))[::-1]
    number = header.u32(field)
    offset = header.u64(field)
    if number not in TYPES:
        raise UnsupportedTensorType(name, _WITHDRAWN.get(number, f"number {number}"))
    kind, block, block_bytes = TYPES[number]
    elements = 1
    for extent in shape:
        elements *= extent
    if elements == 0:
        raise BadTensor(name, "one of its dimensions is 0")
    if shape[-1] % block:
        raise BadTensor(name, f"its rows of {shape[-1]} are not a multiple of {kind}'s {block}")
    return shape, kind, offset, elements // block * block_bytes
