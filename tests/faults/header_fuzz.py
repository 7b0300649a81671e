"""Damages headers of model files at random and opens them: `python header_fuzz.py COUNT SEED FOLDER FILE…`.

Half of the headers have damaged bytes, half are well formed and say what is wrong (header_parts.py). Runs with 256 MiB
of address space more than it has when all is imported. Each damaged file must give a typed error or be sound, within a
second of CPU time. Prints how many were refused and sound, as JSON; an error of any other kind, with the number of the
file that made it, goes to stderr and ends the process.
"""

import json
import math
import random
import resource
import struct
import sys
import time
import traceback
from pathlib import Path

from header_parts import Parts, rewritten

from engine.chat_template import ChatTemplate
from engine.errors import BadTensor, EngineError
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.sampler import SamplerSettings
from engine.tokenizer import Tokenizer
from engine.weights import load_weights

ROOM = 256 << 20
EXTREME = (0, 1, 2, 3, 7, 8, 9, 12, 13, 255, 1 << 10, 1 << 16, 1 << 24, 1 << 31, (1 << 31) - 1, (1 << 32) - 1)
EXTREME_64 = (*EXTREME, 1 << 32, 1 << 40, 1 << 61, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 64) - 32)
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Header:
    """Where the fields of a sound file lie: keys and tensors as byte ranges, numbers by their width."""

    def __init__(self, path):
        self.whole = path.stat().st_size
        raw = path.read_bytes()
        self.at, self.raw = 8, raw
        self.numbers = [(4, 4), (8, 8), (16, 8)]  # (offset, width)
        self.texts, self.keys, self.tensors, self.floats, self.dimensions, self.offsets = [], [], [], [], [], []
        tensor_count, key_count = self._u64(), self._u64()
        for _ in range(key_count):
            start = self.at
            self._text()
            self._value(self._u32())
            self.keys.append((start, self.at))
        for _ in range(tensor_count):
            start = self.at
            self._text()
            for _ in range(self._u32()):
                self.dimensions.append(self.at)
                self._u64()
            self._u32()
            self.offsets.append(self.at)
            self._u64()
            self.tensors.append((start, self.at))
        self.raw = raw[: self.at]

    def _u32(self):
        self.numbers.append((self.at, 4))
        self.at += 4
        return struct.unpack_from("<I", self.raw, self.at - 4)[0]

    def _u64(self):
        self.numbers.append((self.at, 8))
        self.at += 8
        return struct.unpack_from("<Q", self.raw, self.at - 8)[0]

    def _text(self):
        length = self._u64()
        self.texts.append((self.at, length))
        self.at += length

    def _value(self, kind):
        if kind == 8:
            self._text()
        elif kind == 9:
            kind, count = self._u32(), self._u64()
            if kind == 8:
                for _ in range(count):
                    self._text()
            else:
                self.numbers += [(self.at + i * SIZES[kind], SIZES[kind]) for i in range(min(count, 50))]
                self.at += count * SIZES[kind]
        else:
            (self.floats if kind in (6, 12) else self.numbers).append((self.at, SIZES[kind]))
            self.at += SIZES[kind]


def damaged(header, rng):
    """A copy of the header with one to four things wrong."""
    out = bytearray(header.raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.randrange(12)
        if kind == 0:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[rng.randrange(4, len(out)) :]
            break
        elif kind <= 4:
            at, width = rng.choice(header.numbers)
            out[at : at + width] = (rng.choice(EXTREME_64) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif kind == 5 and header.floats:
            at, width = rng.choice(header.floats)
            value = rng.choice((math.nan, math.inf, -math.inf, -1.0, 0.0, 1e38, 1e-45))
            out[at : at + width] = struct.pack("<f" if width == 4 else "<d", value)
        elif kind == 6:
            at, length = rng.choice(header.texts)
            if length:
                out[at + rng.randrange(length)] = rng.choice((0, 0x20, 0x80, 0xC3, 0xED, 0xFF, 0x0A, 0x1B))
        elif kind == 7:
            out[rng.randrange(len(out))] = rng.randrange(256)
        elif kind == 8 and header.offsets:
            at, other = rng.choice(header.offsets), rng.choice(header.offsets)
            offset = struct.unpack_from("<Q", header.raw, other)[0] + rng.choice((0, 0, 1, 32, -32, 1 << 20))
            out[at : at + 8] = struct.pack("<Q", offset % (1 << 64))
        elif kind == 9 and header.dimensions:
            at = rng.choice(header.dimensions)
            size = struct.unpack_from("<Q", header.raw, at)[0]
            out[at : at + 8] = struct.pack(
                "<Q", rng.choice((size * 2, size // 2, size + 1, size + 32, max(0, size - 32)))
            )
        elif kind == 10:
            start, stop = rng.choice(header.keys)  # a key twice, or once less
            count = struct.unpack_from("<Q", out, 16)[0]
            again = rng.random() < 0.5
            out[start:stop] = (out[start:stop] * 2) if again else b""
            out[16:24] = struct.pack("<Q", max(0, count + (1 if again else -1)))
            break
        elif kind == 11 and header.tensors:
            start, stop = rng.choice(header.tensors)
            first = rng.choice(header.tensors)
            out[start:stop] = out[slice(*first)]  # one tensor's row in place of another's
            break
    return bytes(out)


def open_all(path):
    """Everything that opening a model reads, up to where computing would begin."""
    with GGUF.open(path) as gguf:
        if gguf.tensors:
            shape = Hyperparameters.from_gguf(gguf)
            load_weights(gguf, shape, 1)
        tokenizer = Tokenizer.from_gguf(gguf)
        ids = tokenizer.encode("The dice <|end|> é\0 12345", parse_special=True)
        assert all(0 <= token < tokenizer.vocabulary_size for token in ids)
        tokenizer.decode(range(tokenizer.vocabulary_size), skip_special=False)
        template = ChatTemplate.from_gguf(gguf, tokenizer)
        template.render([{"role": "user", "content": "hi"}]).encode(tokenizer)
        SamplerSettings.from_gguf(gguf)


def limit_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))


def main(count, seed, folder, *files):
    rng = random.Random(int(seed))
    headers = [Header(Path(file)) for file in files]
    parts = [Parts(header.raw) for header in headers]
    for file in files:
        open_all(file)  # sound as they are; also imports what is imported on first use
    limit_memory()
    path = Path(folder) / "damaged.gguf"
    refused, sound, named, slowest = 0, 0, 0, 0.0
    for number in range(int(count)):
        which = number // 2 % len(headers)
        if number % 2:
            raw, length = rewritten(parts[which], rng)
        else:
            raw, header = damaged(headers[which], rng), headers[which]
            length = header.whole if len(raw) >= len(header.raw) - 64 else len(raw)
        with path.open("wb") as file:
            file.write(raw)
            file.truncate(length)
        begin = time.process_time()
        try:
            open_all(path)
            sound += 1
        except EngineError as error:
            refused += 1
            named += isinstance(error, BadTensor)
            if not str(error).isprintable():
                print(f"number {number} says {error!r}", file=sys.stderr)
                return 1
        except BaseException:
            traceback.print_exc()
            print(f"number {number}", file=sys.stderr)
            return 1
        slowest = max(slowest, time.process_time() - begin)
        if time.process_time() - begin > 1:
            print(f"number {number} took {time.process_time() - begin:.1f} s", file=sys.stderr)
            return 1
    print(json.dumps({"refused": refused, "sound": sound, "tensors_named": named, "slowest_s": round(slowest, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
