"""Readers of state files and export files, made from snapshots/FORMAT.md alone: no code is shared with the store."""

import io
import json
import struct
from hashlib import blake2b

import numpy as np
import zstandard


def chain(state_key, tokens):
    """The name of a token list: links over whole blocks of 64, extended by what stands behind the last link."""
    link = blake2b(b"forkpoint chain 1\0" + state_key.encode(), digest_size=32).digest()
    block = max(len(tokens) - 1, 0) // 64
    for k in range(block):
        link = blake2b(link + struct.pack("<64I", *tokens[64 * k : 64 * k + 64]), digest_size=32).digest()
    rest = tokens[64 * block :]
    return blake2b(link + struct.pack(f"<{len(rest)}I", *rest), digest_size=32).hexdigest()


def segment_path(state_key, tokens, start, stop):
    """Where the segment of tokens [start, stop) lies in the cache dir."""
    name = chain(state_key, tokens[:stop])
    key = blake2b(state_key.encode(), digest_size=16).hexdigest()
    return f"states-1/{key}/{name[:2]}/{name}-{start % 64:02x}.seg"


def final_path(state_key, tokens):
    """Where the logits behind all tokens lie."""
    name = chain(state_key, tokens)
    return f"states-1/{blake2b(state_key.encode(), digest_size=16).hexdigest()}/{name[:2]}/{name}.fin"


def state_file(data):
    """A state file's header and arrays; AssertionError where it is not as FORMAT.md says."""
    magic, version, codec, header_size, stored, decoded = struct.unpack("<8sHHIQQ", data[:32])
    assert (magic, version) == (b"FKPTSTAT", 1)
    assert header_size <= 1 << 20
    assert max(stored, decoded) <= 1 << 28
    assert len(data) == 64 + header_size + stored
    assert blake2b(data[:32] + data[64:], digest_size=32).digest() == data[32:64]
    header, body = json.loads(data[64 : 64 + header_size]), data[64 + header_size :]
    assert data[64 : 64 + header_size] == canonical(header)
    arrays = header["arrays"]
    assert sum(np.dtype(each["dtype"]).itemsize * numbers(each) for each in arrays) == decoded
    if codec == 0:
        return header, plain(arrays, body)
    if codec == 1:
        return header, of_planes(arrays, zstandard.decompress(body))
    assert codec == 2
    return header, apart(arrays, header["frames"], body)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def numbers(each):
    return int(np.prod(each["shape"], dtype=np.int64))


def plain(arrays, body):
    made, at = {}, 0
    for each in arrays:
        size = numbers(each) * np.dtype(each["dtype"]).itemsize
        made[each["name"]] = np.frombuffer(body[at : at + size], each["dtype"]).reshape(each["shape"])
        at += size
    return made


def of_planes(arrays, body):
    made, at = {}, 0
    for each in arrays:
        width, size = np.dtype(each["dtype"]).itemsize, numbers(each)
        planes = [body[at + k * size : at + (k + 1) * size] for k in range(width)]
        made[each["name"]] = woven(planes, each)
        at += width * size
    return made


def woven(planes, each):
    """Byte k of every number comes from plane k."""
    one_by_one = bytes(byte for number in zip(*planes, strict=True) for byte in number)
    return np.frombuffer(one_by_one, each["dtype"]).reshape(each["shape"])


def apart(arrays, frames, body):
    opened, at = [], 0
    for size in frames:
        opened.append(zstandard.decompress(body[at : at + size]))
        at += size
    references = opened.pop(0) if any(each.get("axis") for each in arrays) else b""
    made, rest = {}, body[at:]
    for each in arrays:
        width, size, planes = np.dtype(each["dtype"]).itemsize, numbers(each), []
        for k in range(width):
            if k in each.get("packed", ()):
                planes.append(opened.pop(0))
            else:
                planes.append(rest[:size])
                rest = rest[size:]
        if each.get("axis"):
            lines = list(each["shape"])
            lines[each["axis"]] = 1
            count = int(np.prod(lines))
            own = np.frombuffer(references[:count], "u1").reshape(lines).astype(int)
            references = references[count:]
            steps = np.frombuffer(planes[-1], "u1").reshape(each["shape"]).astype(int)
            planes[-1] = ((steps + own) % 256).astype("u1").tobytes()
        made[each["name"]] = woven(planes, each)
    assert not opened
    assert not rest
    assert not references
    return made


def export_file(data):
    """The records of an export file: (kind, JSON, text, tokens)."""
    stream = io.BytesIO(data)
    opening = stream.readline()
    assert opening == b"forkpoint export 1\n"
    key, content = blake2b(opening, digest_size=16).digest(), b""
    while head := stream.read(9):
        kind, stored, size = struct.unpack("<BII", head)
        body = stream.read(stored)
        digest = blake2b(head + body, digest_size=16, key=key).digest()
        assert stream.read(16) == digest
        key = digest
        piece = zstandard.decompress(body) if kind == 1 else body
        assert len(piece) == size
        content += piece
    found, at = [], 0
    while at < len(content):
        kind, *sizes = struct.unpack_from("<BIII", content, at)
        at += 13
        parts = []
        for size in sizes:
            parts.append(content[at : at + size])
            at += size
        found.append((kind, json.loads(parts[0]), parts[1].decode(), tokens(parts[2])))
    return found


def tokens(blob):
    """A token list as nodes and export files have it."""
    if not blob:
        return []
    return [int.from_bytes(blob[at : at + blob[0]], "little") for at in range(1, len(blob), blob[0])]


def node_id(parent, role, text, keep, ids, stop, sampler, dice_hex, prompt_key):
    """A message's own name."""
    content = {
        "parent": parent, "role": role, "text": text, "keep": keep, "tokens": ids, "stop": stop, "sampler": sampler,
        "dice_key": dice_hex, "prompt_key": prompt_key,
    }  # fmt: skip
    return blake2b(b"forkpoint node 1\0" + canonical(content), digest_size=32).hexdigest()
