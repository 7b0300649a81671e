"""The export file: text, tokens, dice and digests of messages, in a stream that checks itself. FORMAT.md has the table.

It can be written to and read from a pipe. Nothing of a stranger's file is believed: sizes are checked before memory is
taken, digests before a decoder sees a byte, and records before anybody gets them. What is wrong raises BadExport.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, NoReturn, Protocol

from snapshots import frames
from snapshots.errors import BadExport
from snapshots.ids import canonical

VERSION = 1
OPENING = b"forkpoint export %d\n" % VERSION
"""The first line: anybody can see what the file is."""
_ANY_VERSION = b"forkpoint export "

HEAD, MODEL, NODE, END = 1, 2, 3, 255
"""Kinds of records. Those of a kind that is not known are passed over."""
JSON_LIMIT = 1 << 16
TEXT_LIMIT = TOKENS_LIMIT = 1 << 23
"""Most bytes of the parts of a record."""
NODES_LIMIT = 200_000
MODELS_LIMIT = 1000

_RECORD = struct.Struct("<BIII")  # kind, bytes of JSON, of text, of tokens
_BLOCK = struct.Struct("<BII")  # 0 plain or 1 a zstandard frame, bytes stored, bytes when opened
_DIGEST = 16
_FULL = 1 << 17  # a block ends with the record that brings it to this many bytes
_BLOCK_LIMIT = _FULL + _RECORD.size + JSON_LIMIT + TEXT_LIMIT + TOKENS_LIMIT
_PIECE = 1 << 20


class Readable(Protocol):
    """What is read from: a file, a pipe, bytes in memory."""

    def read(self, count: int, /) -> bytes:
        """Up to `count` bytes; none at the end."""


class Record(NamedTuple):
    """One record: plain JSON values, a text, and a packed token list."""

    kind: int
    values: Mapping[str, Any]
    text: str = ""
    tokens: bytes = b""


def write(records: Iterable[Record]) -> Iterator[bytes]:
    """The bytes of an export file, in pieces; the end record is added."""
    yield OPENING
    last, waiting, count = blake2b(OPENING, digest_size=_DIGEST).digest(), bytearray(), 0
    for record in records:
        waiting += _packed(record)
        count += 1
        if len(waiting) >= _FULL:
            block, last = _block(bytes(waiting), last)
            yield block
            waiting.clear()
    waiting += _packed(Record(END, {"records": count}))
    yield _block(bytes(waiting), last)[0]


def _packed(record: Record) -> bytes:
    text, values = record.text.encode(), canonical(dict(record.values))
    if len(values) > JSON_LIMIT or len(text) > TEXT_LIMIT or len(record.tokens) > TOKENS_LIMIT:
        raise BadExport("a message is too large for an export")
    return _RECORD.pack(record.kind, len(values), len(text), len(record.tokens)) + values + text + record.tokens


def _block(content: bytes, last: bytes) -> tuple[bytes, bytes]:
    """A block, and its digest, which the next one's is keyed with: none can be dropped, doubled or moved."""
    frame = frames.compress(content)
    packed = len(frame) < len(content) and frames.is_sound(len(frame), len(content))
    body = frame if packed else content
    head = _BLOCK.pack(packed, len(body), len(content))
    digest = blake2b(head + body, digest_size=_DIGEST, key=last).digest()
    return head + body + digest, digest


def read(stream: Readable) -> Iterator[Record]:
    """The records of an export file, each checked, without the end record. Raises BadExport, OSError."""
    _check_opening(stream)
    last = blake2b(OPENING, digest_size=_DIGEST).digest()
    count = nodes = models = 0
    while True:
        content, last = _next_block(stream, last)
        place, ended = 0, False
        while place < len(content):
            if ended:
                raise BadExport("something follows its end")
            record, place = _unpacked(content, place)
            if record.kind == END:
                if record.values.get("records") != count:
                    raise BadExport("records are missing")
                ended = True
                continue
            count += 1
            nodes += record.kind == NODE
            models += record.kind == MODEL
            if nodes > NODES_LIMIT or models > MODELS_LIMIT or count > 2 * NODES_LIMIT:
                raise BadExport("it holds too many messages")
            if (record.kind == HEAD) != (count == 1):
                raise BadExport("it does not begin as it should")
            yield record
        if ended:
            if stream.read(1):
                raise BadExport("something follows its end")
            return
        if len(content) < _FULL:  # only the last block may be short: a crowd of tiny ones is nobody's export
            raise BadExport("it is cut into too many pieces")


def _check_opening(stream: Readable) -> None:
    opening = _exactly(stream, len(OPENING), short="it is no export of forkpoint")
    if opening == OPENING:
        return
    if opening.startswith(_ANY_VERSION):
        raise BadExport(f"it was made by a newer forkpoint: its version is not {VERSION}")
    raise BadExport("it is no export of forkpoint")


def _exactly(stream: Readable, count: int, short: str = "it is cut short") -> bytes:
    """So many bytes, asked for in pieces: a claim alone takes no memory. Raises BadExport."""
    parts: list[bytes] = []
    while count:
        part = stream.read(min(count, _PIECE))
        if not part:
            raise BadExport(short)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _next_block(stream: Readable, last: bytes) -> tuple[bytes, bytes]:
    head = _exactly(stream, _BLOCK.size)
    packed, stored, size = _BLOCK.unpack(head)
    if packed not in (0, 1) or stored > _BLOCK_LIMIT or size > _BLOCK_LIMIT or (not packed and stored != size):
        raise BadExport("it claims to be too large")
    if packed and not frames.is_sound(stored, size):
        raise BadExport("it opens to far more than it is")
    body = _exactly(stream, stored)
    digest = _exactly(stream, _DIGEST)
    if blake2b(head + body, digest_size=_DIGEST, key=last).digest() != digest:
        raise BadExport("it fails its digest")
    if not packed:
        return body, digest
    try:
        return frames.decompress(memoryview(body), size), digest
    except frames.CannotDecode as error:
        raise BadExport(f"it {error}") from error


def _unpacked(content: bytes, place: int) -> tuple[Record, int]:
    if len(content) - place < _RECORD.size:
        raise BadExport("it holds a record that is cut short")
    kind, n_json, n_text, n_tokens = _RECORD.unpack_from(content, place)
    place += _RECORD.size
    if n_json > JSON_LIMIT or n_text > TEXT_LIMIT or n_tokens > TOKENS_LIMIT:
        raise BadExport("it claims to be too large")
    if len(content) - place < n_json + n_text + n_tokens:
        raise BadExport("it holds a record that is cut short")
    try:
        values = json.loads(content[place : place + n_json].decode(), parse_constant=_refuse)
        text = content[place + n_json : place + n_json + n_text].decode()
    except (ValueError, RecursionError) as error:
        raise BadExport("it holds text that cannot be read") from error
    if not isinstance(values, dict):
        raise BadExport("it holds a record that is no object")
    end = place + n_json + n_text + n_tokens
    return Record(kind, values, text, content[end - n_tokens : end]), end


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
