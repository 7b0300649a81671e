"""Feeds mutated files to the readers of the store, in a process of its own with little memory.

    python fuzz_child.py KIND COUNT SEED MEGABYTES        KIND: export | segment | bombs | pipe

Mutations are made behind the digests: records and headers are changed and then sealed again, else fuzzing would stop at
the hash. Prints one JSON line; anything but a typed refusal or a good read ends the process with a traceback.
"""

import contextlib
import io
import json
import os
import random
import resource
import struct
import sys
import tempfile
import threading
import time
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import zstandard

from faults.kit import chunk, open_library, talk
from snapshots import BadExport, DamagedFile, codec, exchange, segment
from snapshots.frames import compress

HERE = Path("fuzzed.seg")
ODD = [
    None, True, -1, 0, 1, 2**31, 2**40, 2**63, 10**40, 1.5, float("inf"), "", "x", "../../etc/passwd", "\x00",
    "\x1b[2J",
    "9" * 5000, "a" * 64, [], [[]], [0] * 1000, {}, {"a": {"b": []}}, [None], ["<u2"], "<u2", "<O8", [2**31, 2**31],
]  # fmt: skip


def deep(depth, kind):
    return b"[" * depth if kind else b'{"a":' * depth


def changed(value, dice):
    """A JSON value with one part of it changed, dropped or doubled."""
    value = json.loads(json.dumps(value))
    here = value
    while isinstance(here, (dict, list)) and here:
        key = dice.choice(list(here)) if isinstance(here, dict) else dice.randrange(len(here))
        if dice.random() < 0.4 or not isinstance(here[key], (dict, list)) or not here[key]:
            what = dice.random()
            if what < 0.15:
                del here[key]
            elif what < 0.3 and isinstance(here[key], int):
                here[key] += dice.choice([-1, 1, 64, -(2**20), 2**32])
            elif what < 0.4 and isinstance(here[key], str):
                at = dice.randrange(len(here[key]) + 1)
                here[key] = here[key][:at] + dice.choice("0f\x00é\u202e") + here[key][at + 1 :]
            else:
                here[key] = dice.choice(ODD)
            break
        here = here[key]
    return value


def flipped(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    if dice.random() < 0.2:
        data = data[: dice.randrange(len(data) + 1)]
    return bytes(data)


def seal_segment(header, body, codec_id, size):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    head = struct.pack("<8sHHIQQ", b"FKPTSTAT", 1, codec_id, len(text), len(body), size)
    return head + blake2b(head + text + body, digest_size=32).digest() + text + body


def seal_block(content, last, packed=0, stored=None, size=None):
    head = struct.pack(
        "<BII", packed, len(content) if stored is None else stored, len(content) if size is None else size
    )
    return head + content + blake2b(head + content, digest_size=16, key=last).digest()


def exports(dice):
    """An endless stream of mutated export files."""
    with tempfile.TemporaryDirectory() as folder, open_library(Path(folder)) as library:
        chat = library.new_conversation("tides")
        first = talk(library, chat.id, None, "why tides?", sampler={"temperature": 0.5, "stop": ["x"]})[1]
        last = talk(library, chat.id, first.id, "and the sun?")[1]
        library.set_name("here", last.id)
        data = b"".join(library.export(last.id, "conversation"))
    records = list(exchange.read(io.BytesIO(data)))
    first_key = blake2b(exchange.OPENING, digest_size=16).digest()
    while True:
        way = dice.random()
        if way < 0.6:
            mutated = list(records)
            for _ in range(dice.choice([1, 1, 2])):
                at = dice.randrange(len(mutated))
                record = mutated[at]
                what = dice.random()
                if what < 0.7:
                    record = record._replace(values=changed(dict(record.values), dice))
                elif what < 0.8:
                    record = record._replace(tokens=flipped(record.tokens or b"\2\0\0", dice))
                elif what < 0.9:
                    record = record._replace(kind=dice.choice([0, 1, 2, 3, 9, 255]))
                mutated[at] = record
                if what > 0.9:
                    dice.shuffle(mutated)
            if any(not isinstance(r.values, dict) for r in mutated):
                continue
            try:
                yield b"".join(exchange.write(mutated))
            except (ValueError, BadExport, UnicodeEncodeError):  # what cannot even be written
                continue
        else:
            plain = b"".join(exchange._packed(record) for record in records)
            yield exchange.OPENING + seal_block(flipped(plain, dice), first_key)


def segments(dice):
    """An endless stream of mutated state files."""
    wide = {n: np.arange(64 * 16, dtype="u2").reshape(16, 64) // 7 for n in "kv"}
    good = [segment.encode({"kind": "blocks", "tokens": [1] * 64}, wide)]
    good.append(segment.encode({"kind": "blocks", "tokens": [1, 2]}, dict(chunk([1, 2], 0, 2).arrays)))
    while True:
        header, codec_id, size, body = segment.check(HERE, dice.choice(good))
        way = dice.random()
        if way < 0.5:
            yield seal_segment(changed(header, dice), bytes(body), codec_id, size)
        elif way < 0.8:
            yield seal_segment(header, flipped(bytes(body), dice), codec_id, size)
        else:
            yield seal_segment(header, bytes(body), dice.choice([0, 1, 2, 3, 65535]), size + dice.choice([0, 0, 1, -1]))


def bombs():
    """(name, kind, file) of every bomb."""
    key = blake2b(exchange.OPENING, digest_size=16).digest()
    zeros = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    crowd = b"".join(zstandard.compress(b"") for _ in range(100_000))
    windowed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(19, window_log=27, write_content_size=False)
    ).compress(b"x" * 1000)
    huge = b"\x28\xb5\x2f\xfd\xc0" + b"\xa8" + (2**63).to_bytes(8, "little") + b"\1\0\0"
    window = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\1\0\0"  # a window of 2^31 bytes
    array = {"name": "k", "dtype": "|u1", "shape": [64 << 20]}
    frames = {"opens to 64 MiB": zeros, "10^5 frames": crowd, "claims 2^63": huge, "window 2^31": window}
    for name, frame in {**frames, "no size": windowed}.items():
        for codec_id in (codec.PLANES_ZSTD, codec.PLANES_APART):
            header = {"arrays": [{**array, "packed": [0]}], "frames": [len(frame)]}
            yield f"segment: {name}, codec {codec_id}", "segment", seal_segment(header, frame, codec_id, 64 << 20)
        for size in (64 << 20, 1 << 24, 1000):
            yield f"export: {name}, {size}", "export", exchange.OPENING + seal_block(frame, key, 1, size=size)
    for claim in (2**40, 2**63):
        for shape in ([claim], [claim, 0], [2**20] * 5):
            header = {"arrays": [{"name": "k", "dtype": "<f8", "shape": shape}]}
            yield f"segment: claims {claim} as {shape}", "segment", seal_segment(header, b"x", 0, min(claim, 2**64 - 1))
            yield f"segment: claims {shape} of nothing", "segment", seal_segment(header, b"", 0, 0)
    for depth in (1000, 30_000):
        for kind in (0, 1):
            text = deep(depth, kind)
            yield f"segment: JSON {depth} deep", "segment", seal_segment(text, b"", 0, 0)
            record = struct.pack("<BIII", 1, len(text[:60_000]), 0, 0) + text[:60_000]
            yield f"export: JSON {depth} deep", "export", exchange.OPENING + seal_block(record, key)
    last, many = key, [exchange.OPENING]
    for _ in range(100_000):
        many.append(seal_block(b"", last))
        last = many[-1][-16:]
    yield "export: 10^5 blocks", "export", b"".join(many)
    for claim in (2**24, 2**32 - 1):
        yield f"export: claims {claim}", "export", exchange.OPENING + struct.pack("<BII", 0, claim, claim) + b"x" * 100
    crowded = ("[" + "{}," * 20_000 + "{}]").encode()
    record = struct.pack("<BIII", 1, len(crowded), 0, 0) + crowded
    yield "export: a crowd of objects", "export", exchange.OPENING + seal_block(record, key)


def replays():
    """Replay exports with right digests whose claims are not: tokens by the 2^63, crowds, text that has no end."""
    head = {"what": "replay", "conversation": "a" * 64, "title": "", "template_date": "", "created": 0.0}
    reply = {
        "id": "b" * 64, "parent": None, "role": "assistant", "keep": 0, "stop": "stop", "sampler": {}, "created": 0.0,
        "dice": "00" * 16, "prompt_key": "", "state_key": "", "names": [], "states": [], "count": 1, "first": 1,
    }  # fmt: skip
    wrong = [{"count": 2**40}, {"count": 2**63}, {"keep": 2**40}, {"first": 2**63}, {"created": 1e400}]
    wrong += [{"names": ["x"] * 5000}, {"states": [["k", "d"]] * 5000 + [[]]}, {"dice": "0" * 60_001}]
    wrong += [{"stop": "s" * 60_000}, {"parent": "c" * 64}, {"role": "system"}]
    key = blake2b(exchange.OPENING, digest_size=16).digest()
    for values in wrong:
        parts = (1, {**head, "at": "b" * 64}), (3, {**reply, **values}), (255, {"records": 2})
        packed = [(kind, json.dumps(part).encode()) for kind, part in parts]
        records = b"".join(struct.pack("<BIII", kind, len(text), 0, 0) + text for kind, text in packed)
        yield f"replay: {str(values)[:40]}", "export", exchange.OPENING + seal_block(records, key)


def through_a_pipe(library, data):
    """Import from a pipe that somebody writes to; nothing comes into the library."""
    reader, writer = os.pipe()

    def pour():
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as there:
            there.write(data)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        with os.fdopen(reader, "rb") as stream:
            library.import_stream(stream)
    finally:
        thread.join()
        assert library.conversations() == []


def try_one(kind, data, library=None):
    """Read a file; True where it was good."""
    try:
        if kind == "segment":
            segment.decode(HERE, data)
        elif library is not None:
            through_a_pipe(library, data)
        else:
            from snapshots.carrying import parse

            for _ in parse(io.BytesIO(data)):
                pass
    except (BadExport, DamagedFile):
        return False
    return True


def limit(megabytes):
    """Let the address space grow by so much from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main():
    kind, count, seed, megabytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for warm in ("segment", "export"):
        try_one(warm, b"")
    compress(np.zeros(2_000_000, "u1"))
    worst, good, slowest = 0.0, 0, ""
    library = None
    threading.stack_size(256 << 10)
    if kind == "bombs":
        tries = [*bombs(), *replays()]
    elif kind == "pipe":
        library = open_library(Path(tempfile.mkdtemp()))
        tries = [each for each in (*bombs(), *replays()) if each[1] == "export"]
        with contextlib.suppress(BadExport):
            through_a_pipe(library, b"")
    else:
        source = exports(random.Random(seed)) if kind == "export" else segments(random.Random(seed))
        tries = ((f"{kind} {n}", kind, next(source)) for n in range(count))
    limit(megabytes)
    tried = 0
    for name, which, data in tries:
        begin = time.perf_counter()
        good += try_one(which, data, library)
        took = time.perf_counter() - begin
        tried += 1
        if took > worst:
            worst, slowest = took, name
    print(json.dumps({"tried": tried, "good": good, "worst_s": round(worst, 4), "slowest": slowest}))


if __name__ == "__main__":
    main()
