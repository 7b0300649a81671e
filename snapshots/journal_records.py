"""The bytes of a journal: a head, then records, each sealed with the one before it. FORMAT.md has the tables."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from hashlib import blake2b

from snapshots.records import DeadReply, ReplyStart

MAGIC = b"FKPTJRNL"
VERSION = 1
START, TOKENS = 1, 2
"""Kinds of records."""
_HEAD = struct.Struct("<8sHH16s")  # magic, version, 0, journal id
_RECORD = struct.Struct("<IB")  # payload bytes, kind
_DIGEST = 16


def head(journal_id: bytes) -> tuple[bytes, bytes]:
    """The first bytes of a journal, and their digest."""
    data = _HEAD.pack(MAGIC, VERSION, 0, journal_id)
    return data, blake2b(data, digest_size=_DIGEST).digest()


def record(kind: int, payload: bytes, before: bytes) -> tuple[bytes, bytes]:
    """A record and its digest, which covers the one `before`, so records cannot be swapped, dropped or repeated."""
    data = _RECORD.pack(len(payload), kind) + payload
    return data, _digest(before, data)


def _digest(before: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST, key=before).digest()


def tokens_payload(tokens: Sequence[int], text: str) -> bytes:
    """What a record of kind TOKENS holds: ids, and the text that they streamed."""
    return struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens) + text.encode("utf-8", "replace")


def start_payload(start: ReplyStart) -> bytes:
    """What a record of kind START holds."""
    values = {**start.__dict__, "tokens": list(start.tokens), "dice_key": start.dice_key.hex()}
    values["sampler"], values["extra"] = dict(start.sampler), dict(start.extra)
    return json.dumps(values, sort_keys=True).encode()


def _start_from_json(payload: bytes) -> ReplyStart | None:
    try:
        values = json.loads(payload)
        values["tokens"] = tuple(values["tokens"])
        values["dice_key"] = bytes.fromhex(values["dice_key"])
        return ReplyStart(**values)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def is_foreign(data: bytes) -> bool:
    """Whether bytes are of another version of the format."""
    return len(data) >= _HEAD.size and _HEAD.unpack_from(data)[:2] != (MAGIC, VERSION)


def readable(journal_id: str, data: bytes) -> bool:
    """Whether a journal's bytes hold a whole start, or are of another version, which is not for us to judge."""
    if parse(journal_id, data)[0] is not None:
        return True
    try:
        ours = _HEAD.pack(MAGIC, VERSION, 0, bytes.fromhex(journal_id)) + data[_HEAD.size :]
    except (ValueError, struct.error):  # nobody's name for a journal
        return False
    is_ours = parse(journal_id, ours)[0] is not None  # its records go on from our head: that one is damaged
    return data[: len(MAGIC)] == MAGIC and is_foreign(data) and not is_ours


def parse(journal_id: str, data: bytes) -> tuple[DeadReply | None, int, bytes]:
    """What a journal's bytes hold: the reply (None without a whole start), the size of its whole part, its digest."""
    head = data[: _HEAD.size]
    if len(head) < _HEAD.size or _HEAD.unpack(head)[:2] != (MAGIC, VERSION):
        return None, 0, b""
    if head[-16:].hex() != journal_id:  # another one's file under this name
        return None, 0, b""
    last = blake2b(head, digest_size=_DIGEST).digest()
    place, start, tokens, text = _HEAD.size, None, list[int](), list[str]()
    while place + _RECORD.size + _DIGEST <= len(data):
        length, kind = _RECORD.unpack_from(data, place)
        end = place + _RECORD.size + length
        digest = _digest(last, data[place:end])
        if end + _DIGEST > len(data) or digest != data[end : end + _DIGEST]:
            break
        payload = data[place + _RECORD.size : end]
        if kind == START:
            start = _start_from_json(payload)
        elif kind == TOKENS:
            (count,) = struct.unpack_from("<I", payload.ljust(4, b"\0"))
            if 4 + 4 * count > len(payload):
                break
            tokens.extend(struct.unpack_from(f"<{count}I", payload, 4))
            text.append(payload[4 + 4 * count :].decode("utf-8", "replace"))
        place, last = end + _DIGEST, digest
    if start is None:
        return None, place, last
    reply = DeadReply(journal_id, start, tuple(tokens), "".join(text), torn=place < len(data))
    return reply, place, last
